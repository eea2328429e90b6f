"""Rules of the semantic conventions that concern an application as a whole."""

import asyncio
import random

import pytest
from asgi import call, http_scope
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import PlainTextResponse
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Sampler
from opentelemetry.trace import StatusCode

from sightline import SightlineInstrumentor

DURATION = "http.server.request.duration"


def make_app():
    app = FastAPI()

    @app.get("/items/{item_id}")
    async def read_item(item_id: int):
        return {}

    @app.get("/unavailable")
    async def unavailable():
        raise HTTPException(503)

    @app.get("/broken")
    async def broken():
        raise LookupError("nothing there")

    @app.post("/echo")
    async def echo(request: Request):
        body = await request.body()
        await asyncio.sleep(random.random() / 100)
        return PlainTextResponse(body * 2)

    @app.get("/sync/{size}")
    def sync(size: int):
        return PlainTextResponse("x" * size)

    return app


class Recording(Sampler):
    """Keeps what a sampler is told when a span starts."""

    def __init__(self):
        self.seen = []

    def should_sample(
        self, parent_context, trace_id, name, kind=None, attributes=None, links=None, trace_state=None
    ):
        self.seen.append((name, dict(attributes)))
        return ALWAYS_ON.should_sample(parent_context, trace_id, name, kind, attributes, links)

    def get_description(self):
        return "Recording"


def test_a_sampler_sees_the_early_name_and_every_attribute_that_is_known_at_the_start():
    sampler, app = Recording(), make_app()
    SightlineInstrumentor.instrument_app(
        app,
        tracer_provider=TracerProvider(sampler=sampler, shutdown_on_exit=False),
        http_capture_headers_server_request=["x-tenant"],
    )
    headers = [(b"user-agent", b"u"), (b"x-tenant", b"t")]
    asyncio.run(call(app, http_scope("/items/1", headers=headers, query_string=b"a=1")))
    ((name, attributes),) = sampler.seen
    assert name == "GET"
    assert set(attributes) == {
        "client.address",
        "http.request.header.x-tenant",
        "http.request.method",
        "network.peer.address",
        "network.peer.port",
        "network.protocol.version",
        "server.address",
        "server.port",
        "url.path",
        "url.query",
        "url.scheme",
        "user_agent.original",
    }


def test_an_unknown_method_is_named_http(telemetry):
    app = make_app()
    telemetry.instrument(app)
    asyncio.run(call(app, http_scope("/nowhere", "BREW")))
    asyncio.run(call(app, http_scope("/items/1", "get")))
    assert [span.name for span in telemetry.spans] == ["HTTP", "HTTP /items/{item_id}"]


@pytest.mark.parametrize("path", ["/items/1", "/items/x", "/unavailable", "/broken", "/nowhere"])
def test_the_error_type_is_the_same_on_span_and_metric_and_the_status_is_never_ok(telemetry, path):
    app = make_app()
    telemetry.instrument(app)
    asyncio.run(call(app, http_scope(path)))
    (span,), (point,) = telemetry.spans, telemetry.points(DURATION)
    assert span.attributes.get("error.type") == point.attributes.get("error.type")
    assert span.status.status_code is not StatusCode.OK
    assert (span.status.status_code is StatusCode.ERROR) == ("error.type" in span.attributes)


def test_the_buckets_are_the_advised_ones_and_durations_are_float_seconds(telemetry):
    app = make_app()
    telemetry.instrument(app)
    asyncio.run(call(app, http_scope("/items/1")))
    (point,) = telemetry.points(DURATION)
    assert list(point.explicit_bounds) == [
        0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10,
    ]  # fmt: skip
    assert isinstance(point.sum, float)
    assert 0 < point.sum < 1


def test_a_view_of_the_user_wins_over_the_advised_buckets():
    reader = InMemoryMetricReader()
    view = View(instrument_name=DURATION, aggregation=ExplicitBucketHistogramAggregation((0.3, 0.6)))
    provider = MeterProvider([reader], views=[view], shutdown_on_exit=False)
    app = make_app()
    SightlineInstrumentor.instrument_app(app, meter_provider=provider)
    asyncio.run(call(app, http_scope("/items/1")))
    (scope,) = reader.get_metrics_data().resource_metrics[0].scope_metrics
    (duration,) = [metric for metric in scope.metrics if metric.name == DURATION]
    assert list(duration.data.data_points[0].explicit_bounds) == [0.3, 0.6]


def test_span_metrics_and_logs_name_the_version_of_the_conventions(telemetry):
    app = make_app()
    telemetry.instrument(app)
    asyncio.run(call(app, http_scope("/items/1")))
    schema = "https://opentelemetry.io/schemas/1.44.0"
    scope = telemetry.spans[0].instrumentation_scope
    assert (scope.name, scope.schema_url) == ("sightline", schema)


def test_ten_thousand_hostile_requests_add_a_constant_number_of_series(telemetry):
    app = make_app()
    telemetry.instrument(app)
    chooser = random.Random(7)

    def noise(length=12):
        return "".join(chooser.choices("abcdefghijklmnopqrstuvwxyz", k=length))

    async def attack():
        for number in range(10_000):
            scope = http_scope(
                f"/{noise()}",
                noise().upper() if number % 3 else "GET",
                [(b"user-agent", noise().encode()), (b"x-correlation-id", noise().encode())],
                http_version=noise() if number % 5 == 0 else "1.1",
                scheme=noise() if number % 7 == 0 else "http",
                query_string=noise().encode(),
            )
            scope["headers"][0] = (b"host", noise().encode())
            await call(app, scope)

    asyncio.run(attack())
    points = telemetry.points(DURATION)
    assert sum(point.count for point in points) == 10_000
    # 2 methods (GET, _OTHER) x 2 schemes (http, _OTHER) x with and without a protocol version
    assert len(points) == 8
    assert len(telemetry.points("http.server.active_requests")) == 4


def test_two_thousand_requests_in_flight_never_mix_their_sizes(telemetry):
    app = make_app()
    sizes = {}
    telemetry.instrument(
        app,
        server_request_hook=lambda span, scope: sizes.setdefault(
            span.get_span_context().span_id, scope["path"]
        ),
    )

    async def one(number):
        if number % 2:
            return len((await call(app, http_scope(f"/sync/{number}"))).body), number
        body = [{"type": "http.request", "body": b"x" * number}]
        return len((await call(app, http_scope("/echo", "POST"), body)).body), 2 * number

    async def everything():
        return await asyncio.gather(*map(one, range(2000)))

    assert all(received == expected for received, expected in asyncio.run(everything()))
    (echo,) = telemetry.points("http.server.response.body.size", http_route="/echo")
    (sync,) = telemetry.points("http.server.response.body.size", http_route="/sync/{size}")
    (sent,) = telemetry.points("http.server.request.body.size", http_route="/echo")
    assert (echo.count, echo.sum) == (1000, sum(2 * n for n in range(0, 2000, 2)))
    assert (sync.count, sync.sum) == (1000, sum(range(1, 2000, 2)))
    assert (sent.count, sent.sum) == (1000, sum(range(0, 2000, 2)))
    assert len(sizes) == 2000
