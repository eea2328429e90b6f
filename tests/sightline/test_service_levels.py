"""Service levels of captured requests: the verdict, wherever it is told, and what is counted by it.

The clock is the test's: durations are exact to the nanosecond.
"""

import asyncio
import gc
import logging
import threading
import time
from collections import Counter
from types import SimpleNamespace
from weakref import WeakSet

import pytest
from asgi import EMPTY_BODY, call, http_scope
from fastapi import APIRouter, FastAPI, Request, Response, WebSocket
from opentelemetry.metrics._internal import _ProxyMeterProvider
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans
from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.metrics.view import (
    ExplicitBucketHistogramAggregation,
    ExponentialBucketHistogramAggregation,
    View,
)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON
from otlp_receiver import attributes
from starlette.responses import StreamingResponse

from sightline import (
    SightlineInstrumentor,
    exchange,
    http_exchange,
    request_facts,
    sla,
    websocket_exchange,
)
from sightline.boundaries import DURATION_BOUNDARIES_SECONDS
from sightline.instrumentor import _middleware_of
from sightline.service_levels import ServiceLevels, process_objectives
from sightline_processors.otlp.spans import encode_span
from sightline_processors.sla.objectives import MAX_BOUNDARIES
from sightline_processors.tracing.delivery import EncodedSpanProcessor

DURATION = "http.server.request.duration"
REQUESTS = "sightline.sla.requests"
OUTCOME, OBJECTIVE = "sightline.sla.outcome", "sightline.sla.objective"
MS = 1_000_000
LIMIT_NS = 500 * MS
"""Threshold of the default objective."""


class Clock:
    """Counts nanoseconds that only the test lets pass."""

    def __init__(self):
        self.ns = 1_000_000_000

    def __call__(self):
        return self.ns


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    for module in (exchange, http_exchange, request_facts):
        monkeypatch.setattr(module, "perf_counter_ns", made)
    monkeypatch.setattr(websocket_exchange, "time", SimpleNamespace(perf_counter_ns=made))
    monkeypatch.setattr(sla, "trackers", WeakSet())  # those of other tests may live on
    return made


class FastPath(EncodedSpanProcessor):
    """Takes spans as our exporter does: encoded, by the hundred."""

    def __init__(self):
        self.items, self.sources = [], []

    def put_encoded(self, resource, scope, item):
        self.items.append(item)

    def on_end(self, span):
        self.items.append(encode_span(span))

    def draw_from(self, source):
        self.sources.append(source)
        return lambda: None

    def attributes(self):
        for source in self.sources:
            source()
        return [
            attributes(span.attributes) for item in self.items for span in ScopeSpans.FromString(item).spans
        ]


class OwnProcessor(SimpleSpanProcessor):
    """Is a processor of the user's own, which takes spans off the fast path."""

    def __init__(self):
        self.exporter = InMemorySpanExporter()
        super().__init__(self.exporter)

    def attributes(self):
        return [dict(span.attributes or {}) for span in self.exporter.get_finished_spans()]


class Shop:
    """An application that is captured into memory."""

    def __init__(self, clock, *, processor=None, sampler=ALWAYS_ON, views=(), reader=None, app=None):
        self.clock = clock
        self.spans = processor or FastPath()
        tracer_provider = TracerProvider(sampler, shutdown_on_exit=False)
        tracer_provider.add_span_processor(self.spans)
        self.reader = reader or InMemoryMetricReader()
        self.meter_provider = MeterProvider([self.reader], views=views, shutdown_on_exit=False)
        self.app = app or make_app(clock)
        SightlineInstrumentor.instrument_app(
            self.app, tracer_provider=tracer_provider, meter_provider=self.meter_provider
        )
        assert _middleware_of(self.app) is not None  # made when a server starts the lifespan

    def serve(self, path, *, incoming=EMPTY_BODY, leave_after=None, send=None, **changes):
        return asyncio.run(call(self.app, http_scope(path, **changes), incoming, send, leave_after))

    def verdicts(self):
        """Returns verdict and objective of each span so far."""
        return [(span[OUTCOME], span[OBJECTIVE]) for span in self.spans.attributes()]

    def metrics(self):
        data = self.reader.get_metrics_data()
        return {
            metric.name: metric.data.data_points
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def counts(self):
        """Returns what the counter says, without the zeros: route, verdict, and "ineligible" where it is."""
        counts = Counter()
        for point in self.metrics()[REQUESTS]:
            route, verdict = point.attributes.get("http.route"), point.attributes[OUTCOME]
            is_ineligible = "sightline.sla.latency_eligible" in point.attributes
            counts[route, verdict, *["ineligible"] * is_ineligible] += point.value
        return {key: count for key, count in counts.items() if count}


def make_app(clock):
    app = FastAPI()

    @app.get("/takes/{ns}")
    async def takes(ns: int):
        clock.ns += ns
        return {}

    @app.get("/status/{status}/{ns}")
    async def answers(status: int, ns: int):
        clock.ns += ns
        return Response(status_code=status, content=b"x")

    @app.get("/broken/{ns}")
    async def broken(ns: int):
        clock.ns += ns
        raise LookupError("nothing there")

    @app.get("/stream")
    async def stream():
        return StreamingResponse(parts(clock))

    @app.get("/events")
    async def events():
        return StreamingResponse(parts(clock), media_type="text/event-stream")

    @app.get("/late-stream")
    async def late_stream():
        clock.ns += 2 * LIMIT_NS
        return StreamingResponse(parts(clock))

    @app.get("/failing-stream")
    async def failing_stream():
        return StreamingResponse(parts(clock, fails=True))

    @app.get("/download")
    async def download():
        return StreamingResponse(parts(clock), headers={"content-length": "2"})

    @app.get("/waits")
    async def waits(request: Request):
        clock.ns += 2 * LIMIT_NS
        while (await request.receive())["type"] != "http.disconnect":
            pass
        return {}

    @app.websocket("/room")
    async def room(websocket: WebSocket):
        await websocket.accept()
        clock.ns += 2 * LIMIT_NS
        await websocket.receive_text()
        await websocket.close()

    return app


async def parts(clock, *, fails=False):
    yield b"a"
    clock.ns += 2 * LIMIT_NS
    if fails:
        raise LookupError("in the middle")
    yield b"b"


ENDINGS = [
    ("/takes/0", "ok"),
    (f"/takes/{LIMIT_NS - 1}", "ok"),
    (f"/takes/{LIMIT_NS}", "ok"),
    (f"/takes/{LIMIT_NS + 1}", "slow"),
    (f"/status/404/{LIMIT_NS}", "ok"),
    (f"/status/404/{LIMIT_NS + 1}", "slow"),
    ("/status/503/0", "failed"),
    (f"/status/503/{LIMIT_NS + 1}", "failed"),
    (f"/broken/{LIMIT_NS + 1}", "failed"),
    (f"/nowhere/{LIMIT_NS + 1}", "ok"),
]


@pytest.mark.parametrize("processor", [FastPath, OwnProcessor], ids=["fast path", "own processor"])
def test_the_first_that_applies_of_failed_slow_and_ok_is_on_span_and_counter(clock, processor):
    shop = Shop(clock, processor=processor())
    for path, verdict in ENDINGS:
        before = shop.counts()
        shop.serve(path)
        changed = {key for key, count in shop.counts().items() if count != before.get(key)}
        assert {key[1] for key in changed} == {verdict}, path
    assert shop.verdicts() == [(verdict, "default") for _, verdict in ENDINGS]


def test_an_unsampled_request_is_judged_and_counted_all_the_same(clock):
    shop = Shop(clock, sampler=ALWAYS_OFF)
    for path, _ in ENDINGS:
        shop.serve(path)
    counts: dict[str, int] = {}
    for (_, verdict), count in shop.counts().items():
        counts[verdict] = counts.get(verdict, 0) + count
    assert (shop.verdicts(), counts) == ([], {"ok": 5, "slow": 2, "failed": 3})


@pytest.mark.parametrize("processor", [FastPath, OwnProcessor], ids=["fast path", "own processor"])
def test_exemplars_carry_the_verdict(clock, processor):
    shop = Shop(clock, processor=processor())
    for ns in (MS, LIMIT_NS + 1):
        shop.serve(f"/takes/{ns}")
    shop.serve(f"/status/503/{LIMIT_NS + 1}")
    found = [
        (exemplar.value, exemplar.filtered_attributes[OUTCOME], exemplar.span_id != 0)
        for point in shop.metrics()[DURATION]
        for exemplar in point.exemplars
    ]
    slow = (LIMIT_NS + 1) / 1e9
    assert sorted(found) == [(0.001, "ok", True), (slow, "failed", True), (slow, "slow", True)]


@pytest.mark.parametrize(
    ("variable", "value", "path", "headers"),
    [
        ("SIGHTLINE_SLA_EXCLUDE", "/status/*,/healthz", "/status/503/0", []),
        ("SIGHTLINE_SLA_EXCLUDE", "/takes/*", f"/takes/{2 * LIMIT_NS}", []),
        ("SIGHTLINE_PROBE_TOKEN", "s3cret", "/status/503/0", [(b"x-sightline-probe", b"s3cret")]),
        ("OTEL_PYTHON_FASTAPI_EXCLUDED_URLS", "status", "/status/503/0", []),
    ],
)
def test_a_probe_is_excluded_even_when_it_fails(clock, monkeypatch, variable, value, path, headers):
    monkeypatch.setenv(variable, value)
    shop = Shop(clock)
    shop.serve(path, headers=headers)
    ((_, verdict),) = shop.counts()
    assert verdict == "excluded"
    is_traced = not variable.startswith("OTEL_")
    assert shop.verdicts() == [("excluded", "default")] * is_traced


@pytest.mark.parametrize(
    "headers",
    [
        [(b"user-agent", b"kube-probe/1.31")],
        [(b"x-sightline-probe", b"guessed")],
        [(b"x-sightline-probe", b"")],
        [(b"x-sightline-probe", b"\xff\x00")],
    ],
)
def test_neither_user_agent_nor_a_wrong_token_makes_a_probe(clock, monkeypatch, headers):
    monkeypatch.setenv("SIGHTLINE_PROBE_TOKEN", "s3cret")
    shop = Shop(clock)
    shop.serve("/status/503/0", headers=headers)
    assert shop.verdicts() == [("failed", "default")]


def test_no_token_is_no_way_to_be_a_probe(clock):
    shop = Shop(clock)
    shop.serve("/takes/0", headers=[(b"x-sightline-probe", b"")])
    assert shop.verdicts() == [("ok", "default")]


def test_a_client_that_went_away_is_excluded(clock):
    shop = Shop(clock)
    shop.serve("/waits", leave_after=0)
    assert shop.verdicts() == [("excluded", "default")]
    assert shop.counts() == {("/waits", "excluded"): 1}


@pytest.mark.parametrize(
    ("path", "verdict"),
    [("/stream", "ok"), ("/events", "ok"), ("/late-stream", "ok"), ("/failing-stream", "failed")],
)
def test_a_stream_is_never_slow_but_may_fail(clock, path, verdict):
    shop = Shop(clock)
    shop.serve(path)
    assert shop.verdicts() == [(verdict, "default")]
    assert shop.counts() == {(path, verdict, "ineligible"): 1}


def test_a_response_of_known_length_that_is_sent_in_pieces_may_be_slow(clock):
    shop = Shop(clock)
    shop.serve("/download")
    assert shop.counts() == {("/download", "slow"): 1}


@pytest.mark.parametrize(("code", "verdict"), [(1000, "ok"), (1006, "excluded"), (None, "ok")])
def test_a_connection_is_never_slow_and_is_excluded_when_its_client_vanishes(clock, code, verdict):
    shop = Shop(clock)
    messages = [{"type": "websocket.connect"}, {"type": "websocket.receive", "text": "close"}]
    if code is not None:
        messages[1:] = [{"type": "websocket.disconnect", "code": code}]
    shop.serve("/room", incoming=messages, type="websocket", scheme="ws", subprotocols=[])
    assert shop.verdicts() == [(verdict, "default")]
    assert shop.counts() == {("/room", verdict, "ineligible"): 1}


def test_quantiles_and_latency_leave_streams_out(clock):
    shop = Shop(clock)
    shop.serve("/stream")
    shop.serve(f"/takes/{10 * MS}")
    metrics = shop.metrics()
    assert {point.attributes["http.route"] for point in metrics["sightline.sla.latency"]} == {"/takes/{ns}"}
    (objective,) = sla.status().objectives
    assert {kind.kind: kind.windows[0].total for kind in objective.kinds} == {"latency": 1, "availability": 2}


class AccessLog(logging.Handler):
    """Keeps what access records carry."""

    def __init__(self):
        super().__init__()
        self.verdicts = []

    def emit(self, record):
        self.verdicts.append(getattr(record, OUTCOME))


@pytest.fixture
def access_log():
    handler, logger = AccessLog(), logging.getLogger("uvicorn.access")
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    yield handler
    logger.setLevel(level)
    logger.removeHandler(handler)


@pytest.mark.parametrize(
    ("path", "verdict"), [*ENDINGS[2:8], ("/stream", "ok"), ("/late-stream", "ok"), ("/download", "ok")]
)
def test_the_servers_access_record_carries_the_verdict_of_its_time(clock, access_log, path, verdict):
    shop = Shop(clock)

    async def send(message):
        if message["type"] == "http.response.start":  # when uvicorn writes it
            logging.getLogger("uvicorn.access").info("GET")

    shop.serve(path, send=send)
    assert access_log.verdicts == [verdict]


def test_the_access_record_of_a_slow_answer_without_a_body_says_slow(clock, access_log):
    app = FastAPI()

    @app.delete("/items", status_code=204)
    async def remove():
        clock.ns += 2 * LIMIT_NS

    shop = Shop(clock, app=app)

    async def send(message):
        if message["type"] == "http.response.start":
            logging.getLogger("uvicorn.access").info("DELETE")

    shop.serve("/items", method="DELETE", send=send)
    assert access_log.verdicts == ["slow"]


FILE = """
default: 300ms@99%, 99.9%
failed_statuses: [429]
exclude: {paths: ["/live*"]}
objectives:
  - name: first
    match: {route: "/orders/*", methods: [POST]}
    objective: 1s@99.5%, 99.95%
  - name: second
    match: {route: "/orders/*"}
    objective: 100ms@90%
  - name: tagged
    match: {tags: [slow]}
    objective: 99%
"""


def orders(clock):
    """Makes an application whose routes have objectives of every origin."""
    app = FastAPI()
    router = APIRouter(prefix="/orders", tags=["orders"])

    @router.api_route("/{order}", methods=["GET", "POST"])
    async def order(order: int):
        clock.ns += order * MS
        return {}

    @router.get("/{order}/invoice")
    @sla("2s@99%", name="invoice")
    async def invoice(order: int):
        clock.ns += order * MS
        return {}

    @app.get("/report", tags=["slow", "other"])
    async def report():
        clock.ns += 3_600_000 * MS
        return {}

    @app.get("/limited/{status}")
    async def limited(status: int):
        return Response(status_code=status)

    app.include_router(router)

    @app.get("/{path:path}")
    async def other(path: str):
        clock.ns += 301 * MS
        return {}

    return app


@pytest.fixture
def objectives(tmp_path, monkeypatch):
    """Returns the file of objectives, followed as soon as there is an application."""
    path = tmp_path / "objectives.yaml"
    path.write_text(FILE)
    monkeypatch.setenv("SIGHTLINE_SLA_FILE", str(path))
    return path


def follow(path, text):
    """Changes the file, or deletes it, and has its follower look until it takes that for done."""
    if text is None:
        path.unlink(missing_ok=True)
    else:
        path.write_text(text)
    for _ in range(2):
        process_objectives()._file._look()


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", "/orders/1000", ("ok", "first")),
        ("POST", "/orders/1001", ("slow", "first")),
        ("GET", "/orders/100", ("ok", "second")),
        ("GET", "/orders/101", ("slow", "second")),
        ("GET", "/orders/2000/invoice", ("ok", "invoice")),
        ("GET", "/orders/2001/invoice", ("slow", "invoice")),
        ("GET", "/report", ("ok", "tagged")),
        ("GET", "/limited/429", ("failed", "default")),
        ("GET", "/limited/404", ("ok", "default")),
        ("GET", "/live", ("excluded", "default")),
        ("GET", "/elsewhere", ("slow", "default")),
    ],
)
def test_decorator_file_and_default_each_judge_what_is_theirs(clock, objectives, method, path, expected):
    shop = Shop(clock, app=orders(clock))
    shop.serve(path, method=method)
    assert shop.verdicts() == [expected]


def test_a_threshold_that_comes_by_reload_counts_exactly_and_costs_one_line(clock, objectives, caplog):
    shop = Shop(clock, app=orders(clock))
    shop.serve("/orders/77")
    (before,) = {tuple(point.explicit_bounds) for point in shop.metrics()[DURATION]}
    follow(objectives, FILE.replace("100ms@90%", "77ms@90%").replace("1s@99.5%", "78ms@99.5%"))
    for milliseconds in (77, 78):
        shop.serve(f"/orders/{milliseconds}")
    assert shop.verdicts() == [("ok", "second"), ("ok", "second"), ("slow", "second")]
    assert shop.counts() == {("/orders/{order}", "ok"): 2, ("/orders/{order}", "slow"): 1}
    (after,) = {tuple(point.explicit_bounds) for point in shop.metrics()[DURATION]}
    assert before == after
    (line,) = [record.getMessage() for record in caplog.records if "boundary" in record.getMessage()]
    assert "77ms" in line
    assert "78ms" in line
    thresholds = {
        point.attributes[OBJECTIVE]: point.value for point in shop.metrics()["sightline.sla.threshold"]
    }
    assert thresholds == {"default": 0.3, "first": 0.078, "second": 0.077, "invoice": 2.0}


@pytest.mark.parametrize("bad", ["objectives: [", "default: 500ms", "unknown: 1", "", "\0", None])
def test_a_bad_file_keeps_the_objectives_that_hold_and_costs_one_line(clock, objectives, caplog, bad):
    shop = Shop(clock, app=orders(clock))
    caplog.clear()
    for _ in range(2):
        follow(objectives, bad)
        shop.serve("/orders/101")
    assert shop.verdicts() == [("slow", "second")] * 2
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1


def test_a_reload_while_requests_run_never_mixes_two_files(clock, objectives):
    entry = "objectives: [{{name: {}, match: {{route: '*'}}, objective: {}@99%}}]\n"
    files = (entry.format("strict", "1ms"), "failed_statuses: [404]\n" + entry.format("loose", "24h"))
    shop = Shop(clock, app=orders(clock))
    stop = threading.Event()
    reloads, rounds = [], []

    def reload():
        while not stop.is_set():
            follow(objectives, files[len(reloads) % 2] + f"# {len(reloads)}\n")
            reloads.append(True)

    async def load():
        # At 2 ms a request is slow by the first file; its 404 is a failure by the second.
        scopes = [http_scope("/orders/2"), http_scope("/limited/404")]
        while len(rounds) < 300 or (len(reloads) < 8 and len(rounds) < 50_000):
            await asyncio.gather(*(call(shop.app, {**scope}) for scope in scopes))
            rounds.append(True)

    reloader = threading.Thread(target=reload)
    reloader.start()
    try:
        asyncio.run(load())
    finally:
        stop.set()
        reloader.join()
    metrics = shop.metrics()
    assert sum(shop.counts().values()) == sum(point.count for point in metrics[DURATION])
    assert sum(shop.counts().values()) == 2 * len(rounds)
    by_route = {}
    for span in shop.spans.attributes():
        by_route.setdefault(span["http.route"], set()).add((span[OUTCOME], span[OBJECTIVE]))
    first = {("ok", "second"), ("ok", "default")}  # of the file that was there before
    assert by_route["/orders/{order}"] - first == {("slow", "strict"), ("ok", "loose")}
    assert by_route["/limited/{status}"] - first == {("ok", "strict"), ("failed", "loose")}


def test_a_connection_that_a_reload_overtakes_keeps_no_judgement_of_the_old_file(clock, objectives):
    shop = Shop(clock, app=orders(clock))
    shop.serve("/orders/90")
    recorder = _middleware_of(shop.app)._recorder
    facts = {**recorder.facts}
    follow(objectives, FILE.replace("100ms@90%", "80ms@90%"))
    recorder.facts.update(facts)  # as a request does that has just found them
    shop.serve("/orders/90")
    assert shop.verdicts() == [("ok", "second"), ("slow", "second")]


def test_a_file_that_names_no_path_leaves_requests_on_the_fast_path(clock, objectives):
    objectives.write_text("default: 300ms@99%\n")
    shop = Shop(clock, app=orders(clock))
    recorder = _middleware_of(shop.app)._recorder
    assert recorder.is_plain
    follow(objectives, FILE)
    assert not recorder.is_plain
    shop.serve("/live")
    follow(objectives, "default: 301ms@99%\n")
    assert recorder.is_plain
    shop.serve("/live")
    assert shop.verdicts() == [("excluded", "default"), ("ok", "default")]


def bounds_of(shop):
    shop.serve("/takes/0")
    (bounds,) = {tuple(point.explicit_bounds) for point in shop.metrics()[DURATION]}
    return bounds


def test_every_threshold_is_a_bucket_boundary(clock, monkeypatch):
    monkeypatch.setenv("SIGHTLINE_SLA", "123ms@99%")
    assert bounds_of(Shop(clock)) == tuple(sorted({*DURATION_BOUNDARIES_SECONDS, 0.123}))


def test_the_bucket_of_a_threshold_counts_equality_as_the_verdict_does(clock, monkeypatch):
    monkeypatch.setenv("SIGHTLINE_SLA", "123ms@99%")
    shop = Shop(clock)
    for ns in (123 * MS, 123 * MS + 1):
        shop.serve(f"/takes/{ns}")
    (point,) = shop.metrics()[DURATION]
    within = point.explicit_bounds.index(0.123) + 1
    assert (sum(point.bucket_counts[:within]), sum(point.bucket_counts[within:])) == (1, 1)


def test_boundaries_are_32_at_most_and_what_does_not_fit_costs_one_line(clock, tmp_path, monkeypatch, caplog):
    entry = "  - {{name: o{0}, match: {{route: '/o{0}'}}, objective: {0}ms@99%}}\n"
    path = tmp_path / "objectives.yaml"
    path.write_text("objectives:\n" + "".join(entry.format(100 + number) for number in range(40)))
    monkeypatch.setenv("SIGHTLINE_SLA_FILE", str(path))
    bounds = bounds_of(Shop(clock))
    assert len(bounds) == MAX_BOUNDARIES
    assert {0.5, 0.1, 0.13} <= set(bounds)
    assert len([record for record in caplog.records if "boundar" in record.getMessage()]) == 1


@pytest.mark.parametrize(
    ("aggregation", "expected"),
    [
        (ExplicitBucketHistogramAggregation([1.0, 2.0]), (1.0, 2.0)),
        (ExponentialBucketHistogramAggregation(), None),
    ],
    ids=["explicit", "exponential"],
)
def test_a_view_wins_over_the_thresholds(clock, monkeypatch, aggregation, expected):
    monkeypatch.setenv("SIGHTLINE_SLA", "123ms@99%")
    shop = Shop(clock, views=[View(instrument_name=DURATION, aggregation=aggregation)])
    for ns in (123 * MS, 123 * MS + 1):
        shop.serve(f"/takes/{ns}")
    (point,) = shop.metrics()[DURATION]
    assert getattr(point, "explicit_bounds", None) == expected
    assert point.count == 2
    verdicts = {exemplar.filtered_attributes.get(OUTCOME) for exemplar in point.exemplars}
    assert verdicts == ({"slow"} if expected else {None})  # of one bucket, the last
    assert shop.counts() == {("/takes/{ns}", "ok"): 1, ("/takes/{ns}", "slow"): 1}


def zeros(shop):
    """Returns the series of the counter that are 0: method, route, verdict."""
    return {
        (
            point.attributes["http.request.method"],
            point.attributes.get("http.route"),
            point.attributes[OUTCOME],
        )
        for point in shop.metrics()[REQUESTS]
        if point.value == 0
    }


def test_the_counters_of_known_routes_are_0_from_the_start(clock):
    def answer():
        return {}

    app = FastAPI(openapi_url=None)
    app.add_api_route("/items", answer, methods=["GET", "POST"])

    @app.websocket("/room")
    async def room(websocket: WebSocket): ...

    shop = Shop(clock, app=app)
    judged = {
        (method, "/items", verdict) for method in ("GET", "POST") for verdict in ("ok", "slow", "failed")
    }
    assert zeros(shop) == {*judged, ("GET", "/room", "ok"), ("GET", "/room", "failed")}
    app.add_api_route("/later", answer)
    shop.metrics()  # looks at the routes
    assert {("GET", "/later", "ok"), ("GET", "/later", "slow"), ("GET", "/later", "failed")} <= zeros(shop)
    shop.serve("/items")
    assert shop.counts() == {("/items", "ok"): 1}


def test_the_counter_equals_the_requests_of_2000_at_once_and_the_durations(clock):
    app = FastAPI()

    @app.get("/held/{status}")
    async def held(status: int):
        await gate.wait()
        return Response(status_code=status)

    shop = Shop(clock, app=app, reader=InMemoryMetricReader({Histogram: AggregationTemporality.CUMULATIVE}))
    gate = asyncio.Event()

    async def load():
        scopes = [http_scope(f"/held/{200 if number % 4 else 503}") for number in range(2_000)]
        tasks = [asyncio.create_task(call(app, scope)) for scope in scopes]
        await asyncio.sleep(0.05)
        gate.set()
        await asyncio.gather(*tasks)

    asyncio.run(load())
    assert shop.counts() == {("/held/{status}", "ok"): 1_500, ("/held/{status}", "failed"): 500}
    assert sum(point.count for point in shop.metrics()[DURATION]) == 2_000
    assert len(shop.verdicts()) == 2_000
    (objective,) = sla.status().objectives
    assert objective.requests == {"ok": 1_500, "slow": 0, "failed": 500, "excluded": 0}


def gauges(shop, name):
    return {
        (point.attributes["sightline.sla.kind"], point.attributes.get("window")): point.value
        for point in shop.metrics().get(name, ())
    }


def test_without_traffic_there_are_targets_and_no_other_gauge(clock):
    shop = Shop(clock)
    metrics = shop.metrics()
    assert gauges(shop, "sightline.sla.target") == {("latency", None): 0.99, ("availability", None): 0.999}
    assert [point.value for point in metrics["sightline.sla.threshold"]] == [0.5]
    for name in ("latency", "budget_remaining", "burn_rate"):
        assert not metrics.get(f"sightline.sla.{name}")
    (objective,) = sla.status().objectives
    rates = {window.burn_rate for kind in objective.kinds for window in kind.windows}
    assert rates == {None}


def test_status_and_gauges_say_how_fast_the_budget_is_spent(clock):
    shop = Shop(clock)
    for ns in (MS,) * 19 + (LIMIT_NS + 1,):
        shop.serve(f"/takes/{ns}")
    shop.serve("/status/503/0")
    shop.serve("/waits", leave_after=0)  # is in no window
    rates = gauges(shop, "sightline.sla.burn_rate")
    assert rates["latency", "5m"] == rates["latency", "3d"] == pytest.approx(1 / 20 / 0.01)
    assert rates["availability", "1h"] == pytest.approx(1 / 21 / 0.001)
    left = gauges(shop, "sightline.sla.budget_remaining")
    assert left == {key: pytest.approx(1 - rate) for key, rate in rates.items()}
    status = sla.status()
    assert status.objectives[0].requests == {"ok": 19, "slow": 1, "failed": 1, "excluded": 1}
    (route,) = [each for each in status.routes if each.route == "/takes/{ns}"]
    assert route.measured == 20
    assert route.p50_seconds == pytest.approx(0.001, rel=0.01)
    assert route.p99_seconds == pytest.approx(0.5, rel=0.01)


def test_pending_requests_are_in_the_status_without_a_collection(clock):
    shop = Shop(clock)
    shop.serve("/takes/1")
    assert sla.status().objectives[0].requests["ok"] == 1


def test_what_a_provider_has_counted_goes_with_it(clock):
    for _ in range(3):
        shop = Shop(clock)
        shop.serve("/takes/1")
        shop.metrics()
    for _ in range(3):  # cycles that hold weak references take more than one
        gc.collect()
    assert len(sla.trackers) == 1
    assert sla.status().objectives[0].requests["ok"] == 1


def test_a_wrong_objective_is_one_line_and_the_default_holds(clock, monkeypatch, caplog):
    monkeypatch.setenv("SIGHTLINE_SLA", "-1s@99%")
    shop = Shop(clock)
    for ns in (LIMIT_NS, LIMIT_NS + 1):
        shop.serve(f"/takes/{ns}")
    assert shop.verdicts() == [("ok", "default"), ("slow", "default")]
    (line,) = [record.getMessage() for record in caplog.records if "sla" in record.getMessage()]
    assert line == (
        "sla latency must be > 0, got -1s (from SIGHTLINE_SLA); for 500 ms write 500ms@99%; "
        "using the default 500ms@99%,99.9%"
    )


def test_a_clock_that_steps_back_makes_no_request_slow(clock):
    shop = Shop(clock)
    shop.serve("/takes/-900000000")
    assert shop.verdicts() == [("ok", "default")]


def test_providers_of_their_own_count_apart_and_the_status_adds_them_up(clock):
    shops = [Shop(clock), Shop(clock)]
    for shop in shops:
        shop.serve("/takes/1")
        assert shop.counts() == {("/takes/{ns}", "ok"): 1}
    assert sla.status().objectives[0].requests["ok"] == 2


def test_windows_outlive_the_process_that_counted_them(clock, monkeypatch, tmp_path):
    monkeypatch.setenv("SIGHTLINE_STATE_DIR", str(tmp_path / "state"))
    shop = Shop(clock)
    shop.serve("/status/503/0")
    (tracker,) = sla.trackers
    tracker.save()
    tracker.forget()  # lets the slot go, as the end of the process does
    monkeypatch.setattr(sla, "trackers", WeakSet())
    started = time.monotonic()
    after = Shop(clock)
    assert gauges(after, "sightline.sla.burn_rate")["availability", "5m"] == pytest.approx(1000)
    assert after.counts() == {}  # counters begin anew, as `increase()` expects
    assert time.monotonic() - started < 2


def test_the_meter_of_the_api_leaves_the_state_to_that_of_the_sdk(clock, monkeypatch, tmp_path):
    monkeypatch.setenv("SIGHTLINE_STATE_DIR", str(tmp_path / "state"))
    ServiceLevels(_ProxyMeterProvider().get_meter("sightline"))
    assert not (tmp_path / "state").exists()
    Shop(clock)
    assert (tmp_path / "state").exists()
