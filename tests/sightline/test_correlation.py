"""Correlation IDs: taken when valid, generated otherwise, on every answer and all over the request."""

import asyncio
import random
import re
import threading

import pytest
from asgi import call, http_scope
from fastapi import BackgroundTasks, FastAPI, HTTPException
from fastapi.concurrency import run_in_threadpool
from hypothesis import given
from hypothesis import strategies as st

from sightline import correlation, correlation_id

NAMES = (b"x-correlation-id", b"x-request-id")
VALID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")


@given(st.text("abcXYZ019._:/+=@-", min_size=1, max_size=128))
def test_a_valid_id_is_taken_as_it_is(value):
    assert correlation.choose([(b"x-correlation-id", value.encode())], NAMES) == (value.encode(), False)


@given(st.binary(max_size=200))
def test_what_is_taken_is_always_valid_and_anything_else_is_rejected(value):
    chosen, rejected = correlation.choose([(b"x-correlation-id", value)], NAMES)
    stripped = value.strip(b" \t")  # optional white space is not part of a value
    valid = VALID.fullmatch(stripped.decode("latin-1")) is not None
    assert (chosen, rejected) == ((stripped, False) if valid else (None, True))


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], (None, False)),
        ([(b"x-request-id", b"b")], (b"b", False)),
        ([(b"x-request-id", b"b"), (b"x-correlation-id", b"a")], (b"a", False)),
        ([(b"x-correlation-id", b"a"), (b"x-correlation-id", b"a")], (b"a", False)),
        ([(b"x-correlation-id", b"a"), (b"x-correlation-id", b"b")], (None, True)),
        ([(b"x-correlation-id", b"a b"), (b"x-request-id", b"c")], (b"c", True)),
        ([(b"x-correlation-id", b"")], (None, True)),
        ([(b"x-correlation-id", b"a" * 129)], (None, True)),
        ([(b"x-correlation-id", b"a\r\nset-cookie: x=1")], (None, True)),
        ([(b"x-correlation-id", "é".encode())], (None, True)),
    ],
)
def test_the_first_valid_header_wins_and_a_contradiction_is_not_valid(headers, expected):
    assert correlation.choose(headers, NAMES) == expected


def test_an_applications_seed_does_not_make_ids_repeat(app, telemetry):
    random.seed(1)
    serve(app, "/")
    random.seed(1)
    serve(app, "/")
    first, second = telemetry.spans
    assert first.context.trace_id != second.context.trace_id
    assert first.context.span_id != second.context.span_id


def test_there_is_no_id_outside_a_request():
    assert correlation_id() is None


@pytest.fixture
def app(telemetry):
    app = FastAPI()

    @app.get("/items/{item_id}")
    async def read_item(item_id: int):
        return {}

    @app.get("/refused")
    async def refused():
        raise HTTPException(418)

    @app.get("/broken")
    async def broken():
        raise ValueError

    telemetry.instrument(app)
    return app


def serve(app, path, *headers, **changes):
    return asyncio.run(call(app, http_scope(path, headers=headers, **changes)))


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/items/1", "GET", 200),
        ("/items/x", "GET", 422),
        ("/nowhere", "GET", 404),
        ("/items/1", "DELETE", 405),
        ("/refused", "GET", 418),
        ("/broken", "GET", 500),
    ],
)
def test_every_answer_carries_the_id_once(app, path, method, status):
    answer = serve(app, path, (b"x-request-id", b"order-1"), method=method)
    assert answer.status == status
    assert answer.header("x-correlation-id") == "order-1"


def test_a_generated_id_is_the_trace_id(app, telemetry):
    answer = serve(app, "/items/1")
    assert answer.header("x-correlation-id") == f"{telemetry.spans[0].context.trace_id:032x}"


def test_an_invalid_id_is_replaced_counted_and_never_shown(app, telemetry, caplog):
    for _ in range(3):
        answer = serve(app, "/items/1", (b"x-correlation-id", b"<script>"))
        assert re.fullmatch("[0-9a-f]{32}", answer.header("x-correlation-id"))
    (point,) = telemetry.points("sightline.correlation.rejected")
    assert point.value == 3
    assert len([r for r in caplog.records if r.name == "sightline"]) == 1
    assert "script" not in caplog.text


def test_the_headers_and_their_order_are_configurable(monkeypatch, telemetry):
    monkeypatch.setenv("SIGHTLINE_CORRELATION_HEADERS", "X-Trace-Token, x-correlation-id")
    app = FastAPI()
    telemetry.instrument(app)
    assert serve(app, "/", (b"x-correlation-id", b"one")).header("x-trace-token") == "one"


def test_a_header_that_the_application_set_itself_is_not_added_twice(telemetry):
    app = FastAPI()

    @app.middleware("http")
    async def own(request, call_next):
        response = await call_next(request)
        response.headers["X-Correlation-ID"] = "mine"
        return response

    telemetry.instrument(app)
    assert serve(app, "/").header("x-correlation-id") == "mine"


def test_the_id_is_readable_everywhere_in_the_request(telemetry):
    app = FastAPI()
    seen = {}

    def note(where):
        seen[where] = correlation_id()

    @app.get("/async")
    async def in_async(background: BackgroundTasks):
        note("async")
        background.add_task(note, "sync background task")
        await asyncio.create_task(asyncio.to_thread(note, "to_thread"))
        await run_in_threadpool(note, "run_in_threadpool")

    @app.get("/sync")
    def in_sync():
        note("sync handler")
        assert threading.current_thread() is not threading.main_thread()

    telemetry.instrument(app)
    for path in ("/async", "/sync"):
        serve(app, path, (b"x-correlation-id", b"abc"))
    assert seen == dict.fromkeys(
        ["async", "sync background task", "to_thread", "run_in_threadpool", "sync handler"], "abc"
    )


def test_the_callers_context_is_as_it_was_after_the_request(app):
    async def request_then_look():
        await call(app, http_scope("/items/1"))
        return correlation_id()

    assert asyncio.run(request_then_look()) is None
