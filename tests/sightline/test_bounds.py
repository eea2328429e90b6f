"""What clients and applications make up is bounded: labels are from closed sets, routes keep their series."""

import asyncio
from http import HTTPStatus
from typing import Any

import pytest
from asgi import call, http_scope
from fastapi import FastAPI, WebSocket
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.metrics import Counter, Histogram, UpDownCounter
from starlette.responses import Response, StreamingResponse

from sightline.attributes import KNOWN_METHODS
from sightline.bounded_statuses import MAX_STATUSES
from sightline.recorder import SCHEMA_URL
from sightline.testing import CapturedTelemetry, capture
from sightline_processors.cardinality.limiter import OVERFLOW
from sightline_processors.performance_alerts import ALERTS_PER_MINUTE

LIMIT = 20
DURATION = "http.server.request.duration"


@pytest.fixture(autouse=True)
def small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_CARDINALITY_LIMIT", str(LIMIT))


def application() -> FastAPI:
    """Returns an application with routes of every kind."""
    app, tenants = FastAPI(openapi_url=None), FastAPI(openapi_url=None)

    @app.get("/items/{item_id}")
    async def item(item_id: str) -> str:
        return item_id

    @app.get("/status/{code}")
    async def status(code: int) -> Response:
        return Response(status_code=code)

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(iter((b"a", b"b")))

    @app.websocket("/room/{name}")
    async def room(websocket: WebSocket, name: str) -> None:
        await websocket.accept()
        await websocket.close()

    @tenants.get("/orders")
    async def orders() -> None:
        return None

    app.mount("/tenants/{tenant}", tenants)
    return app


def request(app: FastAPI, *scopes: dict[str, Any]) -> None:
    """Sends requests one after the other."""

    async def run() -> None:
        for scope in scopes:
            is_socket = scope["type"] == "websocket"
            await call(app, scope, [{"type": "websocket.connect"}] if is_socket else http_body())

    asyncio.run(run())


def http_body() -> list[dict[str, Any]]:
    return [{"type": "http.request", "body": b"", "more_body": False}]


def points(telemetry: CapturedTelemetry, metric: str) -> list[tuple[dict[str, Any], Any]]:
    found = telemetry.metrics.get(metric)
    return [(dict(point.attributes or {}), point) for point in (found.data.data_points if found else ())]


def instruments(telemetry: CapturedTelemetry) -> list[Any]:
    """Returns the synchronous instruments of ours; the first request makes them."""
    (meter,) = [
        each
        for scope, each in telemetry.meter_provider._meters.items()
        if (scope.name, scope.schema_url) == ("sightline", SCHEMA_URL)
    ]
    made: Any = meter
    return [
        each
        for each in made._instrument_id_instrument.values()
        if isinstance(each, Counter | UpDownCounter | Histogram)
    ]


def exhaust(telemetry: CapturedTelemetry, app: FastAPI) -> list[str]:
    """Takes every place beside the routes', of every instrument of ours; returns their names."""
    request(app, http_scope("/nothing"))
    for instrument in instruments(telemetry):
        measure = instrument.record if isinstance(instrument, Histogram) else instrument.add
        for number in range(3 * LIMIT):
            measure(1, {"made.up": number})
    return [instrument.name for instrument in instruments(telemetry)]


def test_every_instrument_of_ours_is_limited(telemetry: CapturedTelemetry) -> None:
    app = application()
    telemetry.instrument(app)
    names = exhaust(telemetry, app)
    assert len(names) >= 12, names
    for name in names:
        found = points(telemetry, name)
        assert len(found) == LIMIT, name
        assert [point for attributes, point in found if attributes == {OVERFLOW: True}] != [], name


def test_the_instruments_of_others_are_left_alone_by_default(telemetry: CapturedTelemetry) -> None:
    telemetry.instrument(application())
    counter = telemetry.meter_provider.get_meter("shop").create_counter("shop.users")
    for number in range(3 * LIMIT):
        counter.add(1, {"user": number})
    assert len(points(telemetry, "shop.users")) == 3 * LIMIT


def test_routes_of_every_kind_have_their_series_when_all_other_places_are_taken(
    telemetry: CapturedTelemetry,
) -> None:
    app = application()
    telemetry.instrument(app)
    exhaust(telemetry, app)

    @app.get("/later")
    async def later() -> None:
        return None

    request(
        app,
        http_scope("/items/1"),
        http_scope("/tenants/acme/orders"),
        http_scope("/stream"),
        http_scope("/later"),
        http_scope("/room/a", type="websocket", scheme="ws", subprotocols=[]),
    )
    counted = {
        (attributes["http.route"], point.count)
        for attributes, point in points(telemetry, DURATION)
        if "http.route" in attributes
    }
    http = {"/items/{item_id}", "/tenants/{tenant}/orders", "/stream", "/later"}
    assert counted == {(route, 1) for route in http}
    judged = [
        attributes["http.route"]
        for attributes, point in points(telemetry, "sightline.sla.requests")
        if point.value and "http.route" in attributes
    ]
    assert sorted(judged) == sorted({*http, "/room/{name}"})
    for metric, route in (
        ("sightline.stream.first_byte", "/stream"),
        ("sightline.websocket.duration", "/room/{name}"),
    ):
        assert [a["http.route"] for a, _ in points(telemetry, metric) if "http.route" in a] == [route], metric


def test_a_place_in_the_path_makes_one_series_whatever_stands_there(telemetry: CapturedTelemetry) -> None:
    app = application()
    telemetry.instrument(app)
    request(app, *(http_scope(f"/tenants/tenant{number}/orders") for number in range(50)))
    ((attributes, point),) = points(telemetry, DURATION)
    assert (attributes["http.route"], point.count) == ("/tenants/{tenant}/orders", 50)


def test_statuses_beyond_the_registered_ones_become_the_first_of_their_class(
    telemetry: CapturedTelemetry,
) -> None:
    app = application()
    telemetry.instrument(app)
    odd = [code for code in range(200, 600) if code not in set(map(int, HTTPStatus))]
    request(app, *(http_scope(f"/status/{code}") for code in (*odd, 700)))
    counts: dict[int | None, int] = {}
    for attributes, point in points(telemetry, DURATION):
        status = attributes.get("http.response.status_code")
        counts[status] = counts.get(status, 0) + point.count
    assert {status for status, count in counts.items() if count == 1} == {*odd[:MAX_STATUSES], None}
    assert {status for status, count in counts.items() if count > 1} == {200, 300, 400, 500}
    assert sum(counts.values()) == len(odd) + 1


def test_a_status_that_is_an_enumeration_is_the_number_everywhere(
    telemetry: CapturedTelemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGHTLINE_SLOW_REQUEST", "1ms")
    app = FastAPI()

    @app.get("/made")
    async def made() -> Response:
        return Response(status_code=HTTPStatus.CREATED)

    @app.get("/slow")
    async def slow() -> Response:
        await asyncio.sleep(0.0015)
        return Response(status_code=HTTPStatus.CREATED)

    telemetry.instrument(app)
    request(app, http_scope("/made"), http_scope("/slow"))
    (alert,) = [
        each.log_record for each in telemetry.logs if each.log_record.event_name == "performance_alert"
    ]
    seen = [
        alert.attributes and alert.attributes["http.response.status_code"],
        *(attributes["http.response.status_code"] for attributes, _ in points(telemetry, DURATION)),
        *(span.attributes and span.attributes["http.response.status_code"] for span in telemetry.spans),
    ]
    assert [(type(status), status) for status in seen] == [(int, 201)] * 5


def test_the_records_of_slow_requests_are_few_and_the_metric_counts_all(
    telemetry: CapturedTelemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGHTLINE_SLOW_REQUEST", "1ms")
    app = FastAPI()

    @app.get("/slow")
    async def slow() -> None:
        await asyncio.sleep(0.0015)

    telemetry.instrument(app)
    request(app, *[http_scope("/slow")] * (3 * ALERTS_PER_MINUTE))
    alerts = [each for each in telemetry.logs if each.log_record.event_name == "performance_alert"]
    assert ALERTS_PER_MINUTE <= len(alerts) <= ALERTS_PER_MINUTE + 1
    ((attributes, point),) = points(telemetry, "sightline.slow_operations")
    assert (attributes, point.value) == ({"sightline.operation": "request"}, 3 * ALERTS_PER_MINUTE)


TEXT = st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=40)


@settings(max_examples=40, deadline=None)
@given(
    method=st.one_of(st.sampled_from(sorted(KNOWN_METHODS)), TEXT),
    scheme=st.one_of(st.sampled_from(["http", "https", "ws"]), TEXT),
    http_version=st.one_of(st.sampled_from(["1.0", "1.1", "2", "3"]), TEXT),
    path=st.one_of(st.just("/items/1"), TEXT.map("/{}".format), TEXT.map("/items/{}".format)),
    header=TEXT,
)
def test_whatever_a_client_sends_each_label_is_from_a_closed_set(
    method: str, scheme: str, http_version: str, path: str, header: str
) -> None:
    sent = header.encode("latin-1")
    headers = [
        (name, sent) for name in (b"user-agent", b"x-request-id", b"x-forwarded-proto", b"traceparent")
    ]
    with capture() as telemetry:
        app = application()
        telemetry.instrument(app)
        request(app, http_scope(path, method, headers, scheme=scheme, http_version=http_version))
        found = [
            attributes
            for metric in (DURATION, "sightline.sla.requests", "http.server.active_requests")
            for attributes, _ in points(telemetry, metric)
        ]
    closed: dict[str, set[Any]] = {
        "http.request.method": {*KNOWN_METHODS, "_OTHER"},
        "url.scheme": {"http", "https", "ws", "wss", "_OTHER"},
        "network.protocol.version": {"1.0", "1.1", "2", "3"},
        "http.response.status_code": {200, 307, 404, 405},
        "http.route": {
            "/items/{item_id}",
            "/status/{code}",
            "/stream",
            "/room/{name}",
            "/tenants/{tenant}/orders",
        },
        "error.type": set(),
        "sightline.sla.objective": {"default"},
        "sightline.sla.outcome": {"ok", "slow", "failed"},
        "sightline.sla.latency_eligible": {False},
    }
    for attributes in found:
        assert all(value in closed[name] for name, value in attributes.items()), attributes
