"""Instrumenting: every application or one, and leaving no trace."""

import asyncio
import copy
import gc
import logging
import weakref
from contextlib import asynccontextmanager

import pytest
from asgi import call, http_scope
from fastapi import BackgroundTasks, FastAPI

from sightline import InstrumentationError, SightlineInstrumentor
from sightline.testing import capture


@pytest.fixture
def instrumentor(telemetry):
    instrumentor = SightlineInstrumentor()
    instrumentor.instrument(
        tracer_provider=telemetry.tracer_provider,
        meter_provider=telemetry.meter_provider,
        logger_provider=telemetry.logger_provider,
    )
    yield instrumentor
    instrumentor.uninstrument()


class OwnFastAPI(FastAPI):
    """A subclass, as applications write them."""

    async def __call__(self, scope, receive, send):
        await super().__call__(scope, receive, send)


@pytest.mark.parametrize("cls", [FastAPI, OwnFastAPI])
def test_an_application_created_earlier_is_captured(telemetry, request, cls):
    app = cls()
    request.getfixturevalue("instrumentor")
    asyncio.run(call(app, http_scope()))
    assert [span.name for span in telemetry.spans] == ["GET"]


def test_a_second_instrument_app_replaces_the_options_and_doubles_nothing(telemetry):
    app = FastAPI()
    hooks = []
    telemetry.instrument(app, server_request_hook=lambda span, scope: hooks.append("first"))
    telemetry.instrument(app, server_request_hook=lambda span, scope: hooks.append("second"))
    asyncio.run(call(app, http_scope()))
    assert hooks == ["second"]
    assert len(telemetry.spans) == 1


def test_an_uninstrumented_application_is_left_alone_while_others_are_captured(telemetry, instrumentor):
    app, other = FastAPI(), FastAPI()
    SightlineInstrumentor.uninstrument_app(app)
    assert asyncio.run(call(app, http_scope())).header("x-correlation-id") == []
    assert asyncio.run(call(other, http_scope())).header("x-correlation-id") != []
    assert len(telemetry.spans) == 1


def test_after_uninstrument_nothing_is_captured(telemetry):
    instrumentor = SightlineInstrumentor()
    instrumentor.instrument(tracer_provider=telemetry.tracer_provider)
    app = FastAPI()
    asyncio.run(call(app, http_scope()))
    instrumentor.uninstrument()
    asyncio.run(call(app, http_scope()))
    assert len(telemetry.spans) == 1


def test_something_that_is_not_fastapi_is_refused_with_the_cure():
    with pytest.raises(InstrumentationError, match="wrap any other ASGI application in SightlineMiddleware"):
        SightlineInstrumentor.instrument_app(object())


def test_a_disabled_sdk_leaves_the_application_untouched(monkeypatch):
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    app = FastAPI()
    SightlineInstrumentor.instrument_app(app)
    assert asyncio.run(call(app, http_scope())).header("x-correlation-id") == []
    assert not hasattr(app, "_sightline")


def test_an_application_that_is_no_longer_used_is_freed(telemetry):
    app = FastAPI()
    SightlineInstrumentor.instrument_app(app, tracer_provider=telemetry.tracer_provider)
    reference = weakref.ref(app)
    del app
    gc.collect()
    assert reference() is None


def test_the_lifespan_runs_as_before(telemetry):
    events = []

    @asynccontextmanager
    async def lifespan(app):
        events.append("up")
        yield {"pool": 1}
        events.append("down")

    async def run(app):
        state = {}
        messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

        async def receive():
            return next(messages)

        async def send(message):
            events.append(message["type"])

        await app({"type": "lifespan", "state": state, "asgi": {"version": "3.0"}}, receive, send)
        return state

    app = FastAPI(lifespan=lifespan)
    telemetry.instrument(app)
    assert asyncio.run(run(app)) == {"pool": 1}
    assert events == ["up", "lifespan.startup.complete", "down", "lifespan.shutdown.complete"]


def test_a_copy_of_an_application_is_not_served_by_the_original(telemetry):
    app = FastAPI(title="one")
    telemetry.instrument(app)
    other = copy.copy(app)
    asyncio.run(call(app, http_scope()))
    assert asyncio.run(call(other, http_scope())).header("x-correlation-id") == []
    assert len(telemetry.spans) == 1


def test_a_capture_in_an_instrumented_process_gives_everything_back(instrumentor, telemetry):
    app = FastAPI()
    asyncio.run(call(app, http_scope()))
    with capture() as inner:
        inner.instrument(app)
        asyncio.run(call(app, http_scope()))
        logging.getLogger("shop").warning("inside")
    asyncio.run(call(app, http_scope()))
    logging.getLogger("shop").warning("outside")
    assert (len(telemetry.spans), len(inner.spans)) == (2, 1)
    assert [data.log_record.body for data in inner.logs] == ["inside"]
    assert [data.log_record.body for data in telemetry.logs] == ["outside"]


def test_background_tasks_go_where_the_spans_of_their_application_go(telemetry):
    app, other = FastAPI(), FastAPI()

    @app.get("/")
    async def late(tasks: BackgroundTasks):
        tasks.add_task(asyncio.sleep, 0)

    with capture() as elsewhere:
        telemetry.instrument(app)
        elsewhere.instrument(other)
        asyncio.run(call(app, http_scope()))
        assert elsewhere.spans == []
    assert [span.name for span in telemetry.spans] == ["GET /", "background sleep"]
