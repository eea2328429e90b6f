"""Captured requests go straight to the application's middlewares, where that is all that FastAPI would do."""

import asyncio
import json
import traceback
from typing import Any

import pytest
from asgi import call, http_scope
from fastapi import FastAPI, Request, WebSocket
from starlette.applications import Starlette

from sightline.middleware_stack import serve_captured

OUTER = {"FastAPI.__call__", "Starlette.__call__"}


def application(cls=FastAPI):
    """Returns an application that answers with its scope, and which of the outer calls were on the way."""
    app: FastAPI = cls()

    def seen(scope):
        calls = {frame.f_code.co_qualname for frame, _ in traceback.walk_stack(None)}
        return {"is_app": scope["app"] is app, "root": scope["root_path"], "outer": sorted(calls & OUTER)}

    @app.get("/http")
    async def http(request: Request):
        return seen(request.scope)

    @app.websocket("/ws")
    async def ws(websocket: WebSocket):
        await websocket.accept()
        await websocket.send_json(seen(websocket.scope))

    return app


def answer(app):
    response = asyncio.run(call(app, http_scope("/http")))
    assert response.header("x-correlation-id")  # it is captured
    return json.loads(response.body)


def twice(app):
    """Returns the answer to the second request: the first one finds no middlewares yet."""
    answer(app)
    return answer(app)


def test_neither_outer_call_is_on_the_way_and_the_scope_says_what_it_did(telemetry):
    app = application()
    telemetry.instrument(app)
    assert twice(app) == {"is_app": True, "root": "", "outer": []}
    connection = asyncio.run(call(app, http_scope("/ws", type="websocket"), [{"type": "websocket.connect"}]))
    (sent,) = [message["text"] for message in connection.messages if message["type"] == "websocket.send"]
    assert json.loads(sent) == {"is_app": True, "root": "", "outer": []}


def test_the_first_request_builds_the_middlewares_those_of_the_application_included(telemetry):
    app = application()
    order = []

    @app.middleware("http")
    async def note(request, call_next):
        order.append(request.url.path)
        return await call_next(request)

    telemetry.instrument(app)
    twice(app)
    assert order == ["/http", "/http"]
    with pytest.raises(RuntimeError, match="after an application has started"):
        app.add_middleware(type("Late", (), {}))


def test_a_root_path_is_set_as_ever(telemetry):
    app = application()
    app.root_path = "/api"
    telemetry.instrument(app)
    assert twice(app) == {"is_app": True, "root": "/api", "outer": sorted(OUTER)}


def test_a_mixin_between_the_two_classes_is_called(telemetry):
    calls = []

    class Mixin(Starlette):
        async def __call__(self, scope, receive, send):
            calls.append(scope["type"])
            await super().__call__(scope, receive, send)

    class Own(FastAPI, Mixin):
        pass

    app = application(Own)
    telemetry.instrument(app)
    assert twice(app)["outer"] == sorted(OUTER)
    assert calls == ["http", "http"]


@pytest.mark.parametrize("is_early", [True, False])
def test_what_somebody_puts_around_starlette_is_called_before_the_first_request_or_after(
    telemetry, monkeypatch, is_early
):
    app, calls, inner = application(), [], Starlette.__call__
    telemetry.instrument(app)

    async def around(self, scope, receive, send):
        calls.append(scope["path"])
        await inner(self, scope, receive, send)

    if not is_early:
        twice(app)
    monkeypatch.setattr(Starlette, "__call__", around)
    assert twice(app)["is_app"]
    assert calls == ["/http", "/http"]
    monkeypatch.undo()
    assert twice(app)["is_app"]
    assert len(calls) == 2


NEXT_FASTAPI = {
    "reads more of the application": "if self.debug: raise ValueError",
    "adds to the scope": "scope['fastapi.started'] = 1",
    "changes the application": "self.requests = 1",
    "hands on another send": "send = lambda message: None",
    "waits": "import asyncio; await asyncio.sleep(0)",
    "calls nothing": "return",
}


@pytest.mark.parametrize("more", NEXT_FASTAPI.values(), ids=NEXT_FASTAPI)
def test_a_fastapi_that_does_more_is_called(more):
    """A function of FastAPI's module, as a later version may have it."""
    names: dict[str, Any] = {"__name__": "fastapi.applications", "Starlette": Starlette}
    lines = (
        "async def call(self, scope, receive, send):",
        f" {more}",
        " await Starlette.__call__(self, scope, receive, send)",
    )
    exec("\n".join(lines), names)
    assert serve_captured(names["call"], FastAPI) is names["call"]
    exec("\n".join((lines[0], lines[2])), names)  # and one that does no more
    assert serve_captured(names["call"], FastAPI) is not names["call"]


def test_applications_of_a_module_that_was_loaded_anew_are_served_as_ever():
    former = type("FastAPI", (Starlette,), {"__module__": "fastapi.applications"})
    assert serve_captured(former.__call__, former) is former.__call__


def test_an_application_whose_middlewares_raise_raises(telemetry):
    app = application()

    @app.get("/fail")
    async def fail():
        raise LookupError("no luck")

    telemetry.instrument(app)
    twice(app)
    assert str(asyncio.run(call(app, http_scope("/fail"))).error) == "no luck"
