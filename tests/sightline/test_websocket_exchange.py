"""WebSocket connections: one span from handshake to close, and their metrics."""

import asyncio
import contextlib

import pytest
from asgi import http_scope
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from opentelemetry.trace import SpanKind, StatusCode

from sightline import correlation_id


def make_app():
    app = FastAPI()

    @app.websocket("/rooms/{room}")
    async def room(websocket: WebSocket, room: str):
        await websocket.accept()
        try:
            while True:
                text = await websocket.receive_text()
                if text == "fail":
                    raise ValueError("bang")
                if text.startswith("close"):
                    await websocket.close(int(text.removeprefix("close")))
                    return
                await websocket.send_text(text * 2)
        except WebSocketDisconnect:
            return

    @app.websocket("/refused")
    async def refused(websocket: WebSocket):
        await websocket.close(1008)

    @app.websocket("/who")
    async def who(websocket: WebSocket):
        await websocket.accept()
        await websocket.send_text(correlation_id() or "")

    return app


def websocket_scope(path, headers=()):
    scope = http_scope(path, headers=headers, type="websocket", scheme="ws", subprotocols=[])
    del scope["method"]
    return scope


def connect(app, path, texts=(), code=1000, headers=()):
    """Connects, sends texts, leaves with a code; returns what the application sent."""
    incoming = iter(
        [
            {"type": "websocket.connect"},
            *({"type": "websocket.receive", "text": text} for text in texts),
            {"type": "websocket.disconnect", "code": code},
        ]
    )
    sent = []

    async def receive():
        return next(incoming)

    async def send(message):
        sent.append(message)

    async def run():
        await app(websocket_scope(path, headers), receive, send)

    try:
        asyncio.run(run())
    except Exception as error:
        sent.append(error)
    return sent


@pytest.fixture
def app(telemetry):
    app = make_app()
    telemetry.instrument(app)
    return app


def test_a_connection_is_one_server_span_from_handshake_to_close(app, telemetry):
    connect(app, "/rooms/7", ["a", "b"])
    (span,) = telemetry.spans
    assert (span.name, span.kind) == ("GET /rooms/{room}", SpanKind.SERVER)
    attributes = dict(span.attributes)
    assert attributes["http.response.status_code"] == 101
    assert attributes["http.route"] == "/rooms/{room}"
    assert attributes["network.protocol.name"] == "websocket"
    assert attributes["url.scheme"] == "ws"
    assert attributes["sightline.websocket.close_code"] == 1000
    assert attributes["sightline.end_reason"] == "completed"
    assert span.status.status_code is StatusCode.UNSET


def test_the_handshake_returns_the_id_that_it_was_sent(app, telemetry):
    accept, text = connect(app, "/who", headers=[(b"x-correlation-id", b"abc")])[:2]
    assert (b"x-correlation-id", b"abc") in accept["headers"]
    assert text["text"] == "abc"


def test_a_refused_handshake_is_a_403_and_not_an_error(app, telemetry):
    connect(app, "/refused")
    (span,) = telemetry.spans
    assert span.attributes["http.response.status_code"] == 403
    assert "sightline.websocket.close_code" not in span.attributes
    assert span.status.status_code is StatusCode.UNSET
    (point,) = telemetry.points("sightline.websocket.duration")
    assert point.attributes["sightline.websocket.close_class"] == "refused"
    assert telemetry.points("sightline.websocket.active") == []


def test_an_unknown_path_is_refused_without_a_route(app, telemetry):
    connect(app, "/nowhere")
    (span,) = telemetry.spans
    assert (span.name, span.attributes["http.response.status_code"]) == ("GET", 403)
    assert "http.route" not in span.attributes


@pytest.mark.parametrize(
    ("code", "close_class", "status"),
    [
        (1000, "normal", StatusCode.UNSET),
        (1001, "normal", StatusCode.UNSET),
        (1005, "normal", StatusCode.UNSET),
        (1006, "abnormal", StatusCode.ERROR),
        (1011, "abnormal", StatusCode.ERROR),
        (4001, "application", StatusCode.UNSET),
    ],
)
def test_the_close_code_decides_whether_a_connection_failed(app, telemetry, code, close_class, status):
    connect(app, "/rooms/7", code=code)
    (span,) = telemetry.spans
    assert span.attributes["sightline.websocket.close_code"] == code
    assert span.status.status_code is status
    assert ("error.type" in span.attributes) == (status is StatusCode.ERROR)
    (point,) = telemetry.points("sightline.websocket.duration")
    assert dict(point.attributes) == {
        "http.route": "/rooms/{room}",
        "sightline.websocket.close_class": close_class,
    }


def test_a_client_that_vanishes_is_a_disconnect(app, telemetry):
    connect(app, "/rooms/7", code=1006)
    assert telemetry.spans[0].attributes["sightline.end_reason"] == "client_disconnect"


def test_a_close_by_the_application_has_its_code(app, telemetry):
    connect(app, "/rooms/7", ["close4004"])
    assert telemetry.spans[0].attributes["sightline.websocket.close_code"] == 4004


def test_an_unhandled_error_ends_the_connection_and_is_recorded_once(app, telemetry):
    assert isinstance(connect(app, "/rooms/7", ["fail"])[-1], ValueError)
    (span,) = telemetry.spans
    assert span.attributes["error.type"] == "ValueError"
    assert span.attributes["sightline.end_reason"] == "error"
    assert [event.name for event in span.events] == ["exception"]


@pytest.mark.parametrize(("path", "texts"), [("/rooms/7", []), ("/rooms/7", ["fail"]), ("/refused", [])])
def test_active_connections_return_to_zero(app, telemetry, path, texts):
    connect(app, path, texts)
    assert sum(point.value for point in telemetry.points("sightline.websocket.active")) == 0


def test_messages_and_bytes_are_counted_by_direction(app, telemetry):
    connect(app, "/rooms/7", ["abc", "é"])
    received = {"http_route": "/rooms/{room}", "network_io_direction": "receive"}
    sent = received | {"network_io_direction": "transmit"}
    assert [p.value for p in telemetry.points("sightline.websocket.messages", **received)] == [2]
    assert [p.value for p in telemetry.points("sightline.websocket.messages", **sent)] == [2]
    assert [p.value for p in telemetry.points("sightline.websocket.io", **received)] == [5]
    assert [p.value for p in telemetry.points("sightline.websocket.io", **sent)] == [10]


def test_a_connection_adds_nothing_to_the_http_metrics(app, telemetry):
    connect(app, "/rooms/7", ["abc"])
    assert not [name for name in telemetry.metrics if name.startswith("http.server.")]


def test_messages_have_no_spans_by_default_and_a_bounded_number_when_on(monkeypatch, telemetry):
    monkeypatch.setenv("SIGHTLINE_WEBSOCKET_MESSAGE_SPANS", "on")
    app = make_app()
    telemetry.instrument(app)
    connect(app, "/rooms/7", ["x"] * 300)
    messages = [span for span in telemetry.spans if span.name.startswith("websocket ")]
    (connection,) = [span for span in telemetry.spans if span.kind is SpanKind.SERVER]
    assert len(messages) == 100
    assert {span.parent.span_id for span in messages} == {connection.context.span_id}
    assert {span.name for span in messages} == {"websocket receive", "websocket transmit"}


def test_the_duration_is_the_spans(app, telemetry):
    connect(app, "/rooms/7", ["abc"])
    (span,) = telemetry.spans
    (point,) = telemetry.points("sightline.websocket.duration")
    assert point.sum == (span.end_time - span.start_time) / 1e9


def test_a_client_that_leaves_while_it_is_sent_to_is_a_disconnect_and_no_exception(app, telemetry):
    async def run():
        messages = iter([{"type": "websocket.connect"}, {"type": "websocket.receive", "text": "abc"}])

        async def receive():
            return next(messages)

        async def send(message):
            if message["type"] == "websocket.send":
                raise OSError("connection reset")

        with contextlib.suppress(WebSocketDisconnect, OSError):
            await app(websocket_scope("/rooms/7"), receive, send)

    asyncio.run(run())
    (span,) = telemetry.spans
    assert span.attributes["sightline.end_reason"] == "client_disconnect"
    assert span.events == ()
    assert [point.value for point in telemetry.points("sightline.websocket.active")] == [0]


@pytest.mark.parametrize("code", ["1000", 2**70, 12, None])
def test_a_close_code_that_cannot_be_on_the_wire_ends_the_connection_all_the_same(app, telemetry, code):
    connect(app, "/rooms/7", code=code)
    assert telemetry.spans[0].attributes["sightline.websocket.close_code"] == 1006
    assert [point.value for point in telemetry.points("sightline.websocket.active")] == [0]
