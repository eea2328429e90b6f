"""One request: its span, its duration point, its end."""

import asyncio
import logging

import pytest
from asgi import call, http_scope
from fastapi import BackgroundTasks, FastAPI, HTTPException
from fastapi.responses import StreamingResponse
from opentelemetry.trace import SpanKind, StatusCode
from starlette.middleware.base import BaseHTTPMiddleware

from sightline import SightlineMiddleware, correlation_id
from sightline.options import capture_options

DURATION = "http.server.request.duration"


class ShopError(Exception):
    """An application's own error."""


def make_app():
    app = FastAPI()

    @app.get("/items/{item_id}")
    async def read_item(item_id: int):
        return {"item_id": item_id}

    @app.post("/items", status_code=201)
    async def create_item(item: dict):
        return item

    @app.get("/refused")
    async def refused():
        raise HTTPException(403)

    @app.get("/unavailable")
    async def unavailable():
        raise HTTPException(503)

    @app.get("/broken")
    async def broken():
        raise ShopError("the till is jammed")

    @app.get("/late")
    async def late(background: BackgroundTasks):
        background.add_task(asyncio.sleep, 0.2)
        return {}

    @app.get("/stream")
    async def stream():
        async def body():
            for _ in range(3):
                yield b"12345"
                await asyncio.sleep(0.01)

        return StreamingResponse(body())

    @app.get("/cut")
    async def cut():
        async def body():
            yield b"12345"
            raise ShopError("half way")

        return StreamingResponse(body())

    return app


@pytest.fixture
def app(telemetry):
    app = make_app()
    telemetry.instrument(app)
    return app


def serve(app, *args, **kwargs):
    return asyncio.run(call(app, http_scope(*args, **kwargs)))


def only_point(telemetry, metric=DURATION):
    (point,) = telemetry.points(metric)
    return point


def test_a_request_is_one_server_span_named_by_method_and_route(app, telemetry):
    assert serve(app, "/items/7").status == 200
    (span,) = telemetry.spans
    assert (span.name, span.kind) == ("GET /items/{item_id}", SpanKind.SERVER)
    assert span.status.status_code is StatusCode.UNSET
    assert dict(span.attributes) == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "http.route": "/items/{item_id}",
        "url.scheme": "http",
        "url.path": "/items/7",
        "network.protocol.version": "1.1",
        "network.peer.address": "192.0.2.7",
        "network.peer.port": 40123,
        "client.address": "192.0.2.7",
        "server.address": "shop.example",
        "server.port": 8000,
        "sightline.correlation_id": f"{span.context.trace_id:032x}",
        "sightline.end_reason": "completed",
        "sightline.sla.outcome": "ok",
        "sightline.sla.objective": "default",
    }


def test_the_duration_point_has_no_attribute_that_a_client_chooses_freely(app, telemetry):
    serve(app, "/items/7", headers=[(b"user-agent", b"curl"), (b"x-correlation-id", b"a")])
    assert dict(only_point(telemetry).attributes) == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "http.route": "/items/{item_id}",
        "url.scheme": "http",
        "network.protocol.version": "1.1",
    }
    assert telemetry.metrics[DURATION].unit == "s"


@pytest.mark.parametrize("path", ["/items/7", "/late", "/stream", "/broken", "/cut", "/refused", "/nowhere"])
def test_the_span_lasts_exactly_as_long_as_the_histogram_says(app, telemetry, path):
    serve(app, path)
    (span,) = [span for span in telemetry.spans if span.kind is SpanKind.SERVER]
    assert only_point(telemetry).sum == (span.end_time - span.start_time) / 1e9


@pytest.mark.parametrize("ending", ["leaves", "vanishes", "cancelled"])
def test_the_span_lasts_as_long_as_the_histogram_says_when_it_is_cut_off(app, telemetry, ending):
    async def gone(message):
        raise OSError("connection reset")

    async def run():
        if ending == "vanishes":
            await call(app, http_scope("/stream"), send=gone)
        elif ending == "leaves":
            await call(app, http_scope("/stream"), leave_after=0.015)
        else:
            task = asyncio.create_task(call(app, http_scope("/stream")))
            await asyncio.sleep(0.015)
            task.cancel()
            await task

    asyncio.run(run())
    (span,) = telemetry.spans
    assert span.attributes["sightline.end_reason"] != "completed"
    assert only_point(telemetry).sum == (span.end_time - span.start_time) / 1e9


def test_a_background_task_is_not_part_of_the_duration(app, telemetry):
    serve(app, "/late")
    assert only_point(telemetry).sum < 0.15


def test_the_first_byte_of_a_stream_is_timed_apart_from_its_end(app, telemetry):
    serve(app, "/stream")
    (point,) = telemetry.points("sightline.stream.first_byte")
    assert dict(point.attributes) == {"http.route": "/stream", "sightline.end_reason": "completed"}
    assert point.sum < only_point(telemetry).sum - 0.015


def test_an_answer_of_a_known_length_is_not_a_stream(app, telemetry):
    serve(app, "/items/7")
    assert telemetry.points("sightline.stream.first_byte") == []


def test_a_stream_lasts_until_its_last_byte_and_counts_the_bytes_sent(app, telemetry):
    serve(app, "/stream")
    assert only_point(telemetry).sum >= 0.02
    assert only_point(telemetry, "http.server.response.body.size").sum == 15


def test_a_request_body_is_counted(app, telemetry):
    body = [
        {"type": "http.request", "body": b'{"a": ', "more_body": True},
        {"type": "http.request", "body": b"1}"},
    ]
    scope = http_scope("/items", "POST", [(b"content-type", b"application/json")])
    assert asyncio.run(call(app, scope, body)).status == 201
    assert only_point(telemetry, "http.server.request.body.size").sum == 8


def test_the_size_of_an_unread_body_without_a_length_is_absent(app, telemetry):
    serve(app, "/items/7")
    assert telemetry.points("http.server.request.body.size") == []


def test_an_unhandled_error_is_a_500_with_its_class_recorded_once(app, telemetry):
    answer = serve(app, "/broken")
    assert (answer.status, type(answer.error)) == (500, ShopError)
    (span,) = telemetry.spans
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == "the till is jammed"
    name = f"{ShopError.__module__}.ShopError"
    assert span.attributes["error.type"] == name
    assert span.attributes["http.response.status_code"] == 500
    (event,) = span.events
    assert event.name == "exception"
    assert event.attributes["exception.type"] == name
    assert event.attributes["exception.message"] == "the till is jammed"
    assert "in broken" in event.attributes["exception.stacktrace"]
    assert only_point(telemetry).attributes["error.type"] == name


def test_a_5xx_that_the_application_chose_has_its_status_as_error_type(app, telemetry):
    serve(app, "/unavailable")
    (span,) = telemetry.spans
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description is None
    assert span.attributes["error.type"] == "503"
    assert span.events == ()


@pytest.mark.parametrize(("path", "status"), [("/refused", 403), ("/nowhere", 404), ("/items/x", 422)])
def test_a_4xx_is_not_an_error_and_no_exception_is_recorded(app, telemetry, path, status):
    assert serve(app, path).status == status
    (span,) = telemetry.spans
    assert span.status.status_code is StatusCode.UNSET
    assert "error.type" not in span.attributes
    assert span.events == ()


def test_an_unknown_path_is_named_by_its_method_alone(app, telemetry):
    serve(app, "/wp-login.php")
    (span,) = telemetry.spans
    assert span.name == "GET"
    assert "http.route" not in span.attributes


def test_a_stream_that_fails_half_way_keeps_its_status_and_is_an_error(app, telemetry):
    assert serve(app, "/cut").status == 200
    (span,) = telemetry.spans
    assert span.attributes["http.response.status_code"] == 200
    assert span.attributes["sightline.end_reason"] == "error"
    assert span.status.status_code is StatusCode.ERROR
    assert only_point(telemetry).attributes["error.type"] == f"{ShopError.__module__}.ShopError"


def test_a_client_that_goes_away_is_told_apart_from_an_error_of_the_application(app, telemetry):
    async def gone(message):
        raise OSError("connection reset")

    answer = asyncio.run(call(app, http_scope("/stream"), send=gone))
    assert answer.error is not None
    (span,) = telemetry.spans
    assert span.attributes["error.type"] == "client_disconnect"
    assert span.attributes["sightline.end_reason"] == "client_disconnect"
    assert span.events == ()


def test_a_client_that_leaves_during_a_stream_is_told_apart_too(app, telemetry):
    asyncio.run(call(app, http_scope("/stream"), leave_after=0.015))
    (span,) = telemetry.spans
    assert span.attributes["sightline.end_reason"] == "client_disconnect"
    assert span.attributes["http.response.status_code"] == 200
    assert span.status.status_code is StatusCode.ERROR


def test_a_cancelled_request_ends_as_cancelled(app, telemetry):
    async def cancel_half_way():
        task = asyncio.create_task(call(app, http_scope("/stream")))
        await asyncio.sleep(0.015)
        task.cancel()
        return await task

    assert isinstance(asyncio.run(cancel_half_way()).error, asyncio.CancelledError)
    (span,) = telemetry.spans
    assert span.attributes["sightline.end_reason"] == "cancelled"
    assert span.status.status_code is StatusCode.ERROR


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_a_base_exception_passes_through_untouched(telemetry, error):
    raised = error("stop")

    async def application(scope, receive, send):
        raise raised

    app = SightlineMiddleware(application, capture_options(tracer_provider=telemetry.tracer_provider))

    async def never(*message):
        raise AssertionError("the application neither receives nor sends")

    with pytest.raises(error) as caught:
        # Driven by hand: an event loop would not let a KeyboardInterrupt pass.
        app(http_scope(), never, never).send(None)
    assert caught.value is raised
    assert telemetry.spans[0].attributes["error.type"] == error.__name__


@pytest.mark.parametrize("path", ["/items/7", "/items/x", "/nowhere", "/broken", "/cut", "/stream"])
def test_active_requests_return_to_zero(app, telemetry, path):
    serve(app, path)
    assert only_point(telemetry, "http.server.active_requests").value == 0


def test_a_request_in_flight_is_active(telemetry):
    app = FastAPI()
    seen = []

    @app.get("/")
    async def look():
        seen.extend(point.value for point in telemetry.points("http.server.active_requests"))

    telemetry.instrument(app)
    serve(app, "/")
    assert seen == [1]


def test_the_exemplar_of_the_duration_point_names_the_span(app, telemetry):
    serve(app, "/items/7")
    (span,) = telemetry.spans
    (exemplar,) = only_point(telemetry).exemplars
    assert (exemplar.trace_id, exemplar.span_id) == (span.context.trace_id, span.context.span_id)
    assert exemplar.value == only_point(telemetry).sum


def test_a_valid_traceparent_is_continued(app, telemetry):
    serve(app, "/items/7", headers=[(b"traceparent", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01")])
    (span,) = telemetry.spans
    assert f"{span.context.trace_id:032x}" == "a" * 32
    assert f"{span.parent.span_id:016x}" == "b" * 16


@pytest.mark.parametrize(
    "headers",
    [
        [b"nonsense"],
        [b"00-" + b"0" * 32 + b"-" + b"b" * 16 + b"-01"],
        [b"ff-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"],
        [b"\xff\xfe"],
        [b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"] * 2,
    ],
    ids=["nonsense", "zero", "version-ff", "not-ascii", "duplicated"],
)
def test_a_malformed_or_duplicated_traceparent_starts_a_new_trace(app, telemetry, headers):
    assert serve(app, "/items/7", headers=[(b"traceparent", value) for value in headers]).status == 200
    (span,) = telemetry.spans
    assert span.parent is None
    assert f"{span.context.trace_id:032x}" != "a" * 32


def test_an_application_that_sends_nothing_is_an_error_without_an_invented_status(telemetry):
    async def application(scope, receive, send):
        pass

    app = SightlineMiddleware(application, capture_options(tracer_provider=telemetry.tracer_provider))
    asyncio.run(call(app, http_scope()))
    (span,) = telemetry.spans
    assert span.attributes["error.type"] == "incomplete_response"
    assert "http.response.status_code" not in span.attributes


def test_a_name_that_the_application_gave_its_span_stays(telemetry):
    app = FastAPI()
    telemetry.instrument(app, server_request_hook=lambda span, scope: span.update_name("mine"))
    serve(app, "/")
    assert [span.name for span in telemetry.spans] == ["mine"]


def test_hooks_get_the_server_span_the_scope_and_each_message(telemetry):
    app = make_app()
    calls = []
    telemetry.instrument(
        app,
        server_request_hook=lambda span, scope: calls.append(("server", scope["path"])),
        client_request_hook=lambda span, scope, message: calls.append(("receive", message["type"])),
        client_response_hook=lambda span, scope, message: calls.append(("send", message["type"])),
    )
    asyncio.run(
        call(
            app,
            http_scope("/items", "POST", [(b"content-type", b"application/json")]),
            [{"type": "http.request", "body": b"{}"}],
        )
    )
    assert calls[:4] == [
        ("server", "/items"),
        ("receive", "http.request"),
        ("send", "http.response.start"),
        ("send", "http.response.body"),
    ]


def test_a_hook_that_raises_leaves_the_request_alone_and_is_reported(telemetry, caplog):
    app = make_app()
    telemetry.instrument(app, server_request_hook=lambda span, scope: 1 // 0)
    assert serve(app, "/items/7").status == 200
    assert [span.name for span in telemetry.spans] == ["GET /items/{item_id}"]
    assert "hook raised" in caplog.text


def test_an_excluded_url_is_counted_but_not_traced(telemetry):
    app = make_app()
    telemetry.instrument(app, excluded_urls="items/7$,health")
    assert serve(app, "/items/7").header("x-correlation-id")
    serve(app, "/items/8")
    assert [span.attributes["url.path"] for span in telemetry.spans] == ["/items/8"]
    assert only_point(telemetry).count == 2


def test_captured_headers_are_on_the_span_and_credentials_are_always_masked(telemetry):
    app = make_app()
    telemetry.instrument(
        app,
        http_capture_headers_server_request=["x-tenant", "authorization"],
        http_capture_headers_server_response=["content-.*"],
        http_capture_headers_sanitize_fields=["content-length"],
    )
    serve(
        app,
        "/items/7",
        headers=[(b"x-tenant", b"a"), (b"x-tenant", b"b"), (b"authorization", b"Bearer s3cret")],
    )
    attributes = telemetry.spans[0].attributes
    assert attributes["http.request.header.x-tenant"] == ("a", "b")
    assert attributes["http.request.header.authorization"] == ("[REDACTED]",)
    assert attributes["http.response.header.content-type"] == ("application/json",)
    assert attributes["http.response.header.content-length"] == ("[REDACTED]",)


def test_a_failure_of_our_own_leaves_the_request_untouched(telemetry, monkeypatch, caplog):
    app = make_app()
    telemetry.instrument(app)
    monkeypatch.setattr("sightline.exchange.facts_of", lambda *a, **k: 1 // 0)
    answer = serve(app, "/items/7")
    assert (answer.status, answer.body) == (200, b'{"item_id":7}')
    assert "served without telemetry" in caplog.text


def test_a_failure_at_the_end_leaves_the_response_untouched(telemetry, monkeypatch, caplog):
    app = make_app()
    telemetry.instrument(app)
    monkeypatch.setattr("sightline.request_facts.route_template", lambda scope: 1 // 0)
    assert serve(app, "/items/7").body == b'{"item_id":7}'
    assert "could not finish the telemetry" in caplog.text


def test_two_thousand_requests_in_flight_never_mix(telemetry):
    app = FastAPI()

    def answer(number):
        logging.getLogger("flight").warning("%d", number)
        return {"id": correlation_id(), "padding": "x" * number}

    @app.get("/async/{number}")
    async def answer_async(number: int):
        await asyncio.sleep(0.001 * (number % 7))
        return answer(number)

    @app.get("/sync/{number}")
    def answer_sync(number: int):
        return answer(number)

    telemetry.instrument(app)

    def path(number):
        return f"/sync/{number}" if number % 2 else f"/async/{number}"

    async def all_of_them():
        return await asyncio.gather(
            *(
                call(app, http_scope(path(n), headers=[(b"x-correlation-id", f"id-{n}".encode())]))
                for n in range(2000)
            )
        )

    for number, result in enumerate(asyncio.run(all_of_them())):
        assert result.header("x-correlation-id") == f"id-{number}"
        assert f'"id-{number}"'.encode() in result.body
    by_id = {span.attributes["sightline.correlation_id"]: span for span in telemetry.spans}
    assert len(by_id) == 2000
    assert all(span.attributes["url.path"] == path(int(key[3:])) for key, span in by_id.items())
    records = [data.log_record for data in telemetry.logs if data.instrumentation_scope.name == "flight"]
    assert {(r.attributes["correlation_id"], r.trace_id) for r in records} == {
        (key, span.context.trace_id) for key, span in by_id.items()
    }
    assert all(r.attributes["correlation_id"] == f"id-{r.body}" for r in records)
    assert [point.count for point in telemetry.points(DURATION)] == [1000, 1000]


def test_a_stream_that_a_middleware_completes_after_the_client_left_is_a_disconnect(telemetry):
    app = make_app()
    app.add_middleware(BaseHTTPMiddleware, dispatch=lambda request, call_next: call_next(request))
    telemetry.instrument(app)
    asyncio.run(call(app, http_scope("/stream"), leave_after=0.015))
    (span,) = telemetry.spans
    assert span.attributes["sightline.end_reason"] == "client_disconnect"


def test_a_length_that_a_client_only_announces_is_not_recorded(app, telemetry):
    serve(app, "/items/7", headers=[(b"content-length", b"999999999999999")])
    assert telemetry.points("http.server.request.body.size") == []


def test_headers_that_can_be_read_once_reach_the_application(telemetry):
    seen = []

    async def application(scope, receive, send):
        seen.extend(scope["headers"])

    app = SightlineMiddleware(application, capture_options(tracer_provider=telemetry.tracer_provider))
    scope = http_scope()
    scope["headers"] = iter([(b"host", b"a"), (b"x-tenant", b"t")])
    asyncio.run(call(app, scope))
    assert seen == [(b"host", b"a"), (b"x-tenant", b"t")]
