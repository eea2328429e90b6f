"""Exceptions: once each, in the signal that was chosen, redacted and bounded."""

import asyncio
import logging

import pytest
from asgi import call, http_scope
from fastapi import FastAPI, HTTPException
from opentelemetry._logs import SeverityNumber
from starlette.middleware.base import BaseHTTPMiddleware

from sightline import exceptions

SHARED = ValueError("one object, raised by every request")


def make_app():
    app = FastAPI()

    @app.get("/broken")
    async def broken():
        raise ValueError("connect to postgres://shop:hunter2@db failed")

    @app.get("/shared")
    async def shared():
        raise SHARED

    @app.get("/group")
    async def group():
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(fail())

    @app.get("/refused")
    async def refused():
        raise HTTPException(404)

    return app


async def fail():
    raise KeyError("inside")


def serve(app, path):
    return asyncio.run(call(app, http_scope(path, headers=[(b"x-correlation-id", b"abc")])))


def events(telemetry):
    return [event for span in telemetry.spans for event in span.events]


def records(telemetry):
    return [data.log_record for data in telemetry.logs if data.log_record.event_name]


@pytest.mark.parametrize(
    ("signal", "in_spans", "in_logs"),
    [("", 1, 0), ("logs", 0, 1), ("logs/dup", 1, 1), ("logs,logs/dup", 1, 1), ("other", 1, 0)],
)
def test_the_variable_chooses_the_signal(telemetry, monkeypatch, signal, in_spans, in_logs):
    monkeypatch.setenv("OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN", signal)
    app = make_app()
    telemetry.instrument(app)
    serve(app, "/broken")
    assert (len(events(telemetry)), len(records(telemetry))) == (in_spans, in_logs)


def test_the_log_record_is_the_event_of_the_conventions(telemetry, monkeypatch):
    monkeypatch.setenv("OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN", "logs")
    app = make_app()
    telemetry.instrument(app)
    serve(app, "/broken")
    (record,), (span,) = records(telemetry), telemetry.spans
    assert record.event_name == "http.server.request.exception"
    assert record.severity_number is SeverityNumber.ERROR
    assert (record.trace_id, record.span_id) == (span.context.trace_id, span.context.span_id)
    assert record.attributes["exception.type"] == "ValueError"
    assert record.attributes["correlation_id"] == "abc"
    assert "in broken" in record.attributes["exception.stacktrace"]
    assert "exception.escaped" not in record.attributes


def test_the_servers_own_record_is_not_a_second_copy(telemetry, monkeypatch):
    monkeypatch.setenv("OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN", "logs")
    app = make_app()
    telemetry.instrument(app)
    error = serve(app, "/broken").error
    logging.getLogger("uvicorn.error").error("Exception in ASGI application\n", exc_info=error)
    assert len([data for data in telemetry.logs if data.log_record.attributes.get("exception.type")]) == 1


def test_by_default_the_servers_record_is_the_one_in_logs(telemetry):
    app = make_app()
    telemetry.instrument(app)
    error = serve(app, "/broken").error
    logging.getLogger("uvicorn.error").error("Exception in ASGI application\n", exc_info=error)
    (record,) = [data.log_record for data in telemetry.logs]
    assert record.attributes["correlation_id"] == "abc"


def test_secrets_in_message_stack_trace_and_status_are_redacted(telemetry):
    app = make_app()
    telemetry.instrument(app)
    serve(app, "/broken")
    (span,) = telemetry.spans
    attributes = span.events[0].attributes
    assert attributes["exception.message"] == "connect to postgres://REDACTED:REDACTED@db failed"
    assert "hunter2" not in attributes["exception.stacktrace"].splitlines()[-1]
    assert "hunter2" not in span.status.description


def test_an_exception_in_a_group_of_one_is_recorded_as_itself(telemetry):
    app = make_app()
    telemetry.instrument(app)
    serve(app, "/group")
    (event,) = events(telemetry)
    assert event.attributes["exception.type"] == "KeyError"
    assert telemetry.spans[0].attributes["error.type"] == "KeyError"


@pytest.mark.parametrize("layers", [1, 3])
def test_middlewares_that_wrap_and_raise_again_add_no_copy(telemetry, layers):
    app = make_app()
    for _ in range(layers):
        app.add_middleware(BaseHTTPMiddleware, dispatch=lambda request, call_next: call_next(request))
    telemetry.instrument(app)
    serve(app, "/broken")
    assert [event.attributes["exception.type"] for event in events(telemetry)] == ["ValueError"]


def test_one_object_raised_in_two_requests_is_recorded_in_both(telemetry):
    app = make_app()
    telemetry.instrument(app)
    serve(app, "/shared")
    serve(app, "/shared")
    assert [len(span.events) for span in telemetry.spans] == [1, 1]


def test_an_http_exception_is_control_flow(telemetry):
    app = make_app()
    telemetry.instrument(app)
    assert serve(app, "/refused").status == 404
    assert events(telemetry) == []


def test_message_and_stack_trace_are_bounded(telemetry):
    app = FastAPI()

    @app.get("/")
    async def long():
        raise ValueError("x" * 1_000_000)

    telemetry.instrument(app)
    serve(app, "/")
    attributes = events(telemetry)[0].attributes
    assert len(attributes["exception.message"]) == 2048
    assert len(attributes["exception.stacktrace"]) <= exceptions.MAX_STACKTRACE_CHARACTERS


class UnsettableError(Exception):
    """Refuses attributes, and a message."""

    def __setattr__(self, name, value):
        raise RuntimeError("no attributes")

    def __str__(self):
        raise RuntimeError("no message")


class AccommodatingError(Exception):
    """Has every attribute that is asked for."""

    def __getattr__(self, name):
        return None


@pytest.mark.parametrize("cls", [UnsettableError, AccommodatingError])
def test_an_exception_of_an_unusual_class_passes_through_and_is_measured(telemetry, cls):
    app = FastAPI()
    raised = cls()

    @app.get("/")
    async def unusual():
        raise raised

    telemetry.instrument(app)
    assert serve(app, "/").error is raised
    (span,) = telemetry.spans
    assert span.attributes["error.type"].endswith(cls.__name__)
    (point,) = telemetry.points("http.server.request.duration")
    assert point.attributes["error.type"] == span.attributes["error.type"]
    assert [p.value for p in telemetry.points("http.server.active_requests")] == [0]


def test_an_http_exception_that_nobody_handles_is_recorded(telemetry):
    app = FastAPI()

    class Raising:
        def __init__(self, app):
            self.app = app

        async def __call__(self, scope, receive, send):
            raise HTTPException(403)

    app.add_middleware(Raising)
    telemetry.instrument(app)
    assert serve(app, "/").status == 500
    assert [event.attributes["exception.type"] for event in events(telemetry)] == [
        "fastapi.exceptions.HTTPException"
    ]


def test_the_log_copy_of_an_exception_is_redacted_and_bounded_too(telemetry):
    telemetry.instrument(FastAPI())
    try:
        raise ValueError("password=hunter2 " + "z" * 100_000)
    except ValueError:
        logging.getLogger("shop").exception("failed")
    (record,) = [data.log_record for data in telemetry.logs]
    assert record.attributes["exception.message"].startswith("password=REDACTED zzz")
    assert len(record.attributes["exception.message"]) == 2048
    assert len(record.attributes["exception.stacktrace"]) <= exceptions.MAX_STACKTRACE_CHARACTERS
    assert "hunter2" not in str(dict(record.attributes))[:3000]
