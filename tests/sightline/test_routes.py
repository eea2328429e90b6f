"""The route template, for every way in which FastAPI and Starlette lead to a handler."""

import asyncio

import pytest
from asgi import call, http_scope
from fastapi import APIRouter, FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.routing import APIRoute
from fastapi.staticfiles import StaticFiles
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Route, Router

from sightline import SightlineMiddleware
from sightline.options import capture_options


async def plain(request):
    return PlainTextResponse("ok")


class OwnRoute(APIRoute):
    """A custom route class, as applications write them."""


def make_app(tmp_path):
    app = FastAPI()

    @app.get("/items/{item_id}")
    async def read_item(item_id: int):
        return {}

    inner = APIRouter(prefix="/inner/{inner_id}", route_class=OwnRoute)
    inner.add_api_route("/leaf/{leaf_id}", read_leaf)
    inner.routes.append(Route("/plain/{word}", plain))
    outer = APIRouter(prefix="/outer")
    outer.include_router(inner)
    app.include_router(outer, prefix="/api")
    app.add_route("/starlette/{word}", plain)
    sub = FastAPI()
    sub.add_api_route("/deep/{leaf_id}", read_leaf)
    subsub = FastAPI()
    subsub.add_api_route("/{leaf_id}", read_leaf)
    sub.mount("/deeper", subsub)
    app.mount("/tenants/{tenant}", sub)
    app.mount("/star", Starlette(routes=[Route("/x/{word}", plain)]))
    app.router.routes.append(Host("admin.example", app=Router([Route("/panel/{word}", plain)])))
    (tmp_path / "logo.txt").write_text("logo")
    app.mount("/static", StaticFiles(directory=tmp_path))
    return app


async def read_leaf(leaf_id: str):
    return {}


def spans_of(telemetry, app, path, **changes):
    asyncio.run(call(app, http_scope(path, **changes)))
    return telemetry.spans


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/items/1", "/items/{item_id}"),
        ("/api/outer/inner/7/leaf/8", "/api/outer/inner/{inner_id}/leaf/{leaf_id}"),
        ("/api/outer/plain/w", "/api/outer/plain/{word}"),
        ("/starlette/w", "/starlette/{word}"),
        ("/tenants/acme/deep/1", "/tenants/{tenant}/deep/{leaf_id}"),
        ("/tenants/acme/deeper/1", "/tenants/{tenant}/deeper/{leaf_id}"),
        ("/star/x/w", "/star/x/{word}"),
        ("/docs", "/docs"),
        ("/nowhere", None),
        ("/tenants/acme/nowhere", None),
        ("/static/logo.txt", None),
        ("/static/secret-4711.txt", None),
    ],
)
def test_the_route_is_the_full_template_or_absent(telemetry, tmp_path, path, route):
    app = make_app(tmp_path)
    telemetry.instrument(app)
    (span,) = spans_of(telemetry, app, path)
    assert span.attributes.get("http.route") == route
    assert span.name == ("GET" if route is None else f"GET {route}")


def test_a_host_route_has_the_template_of_its_path(telemetry, tmp_path):
    app = make_app(tmp_path)
    telemetry.instrument(app)
    (span,) = spans_of(telemetry, app, "/panel/x")
    assert span.name == "GET"
    scope = http_scope("/panel/x")
    scope["headers"] = [(b"host", b"admin.example")]
    asyncio.run(call(app, scope))
    assert telemetry.spans[-1].attributes["http.route"] == "/panel/{word}"


def test_a_method_that_the_route_does_not_have_keeps_the_route(telemetry, tmp_path):
    app = make_app(tmp_path)
    telemetry.instrument(app)
    (span,) = spans_of(telemetry, app, "/items/1", method="DELETE")
    assert (span.name, span.attributes["http.response.status_code"]) == ("DELETE /items/{item_id}", 405)


def test_a_preflight_that_cors_answers_has_no_route(telemetry, tmp_path):
    app = make_app(tmp_path)
    app.add_middleware(CORSMiddleware, allow_origins=["https://a.example"])
    telemetry.instrument(app)
    headers = [(b"origin", b"https://a.example"), (b"access-control-request-method", b"GET")]
    (span,) = spans_of(telemetry, app, "/items/1", method="OPTIONS", headers=headers)
    assert (span.name, span.attributes["http.response.status_code"]) == ("OPTIONS", 200)


def test_the_application_root_is_part_of_the_route(telemetry):
    app = FastAPI()
    app.add_api_route("/items/{leaf_id}", read_leaf)
    telemetry.instrument(app)
    (span,) = spans_of(telemetry, app, "/shop/items/1", root_path="/shop")
    assert span.attributes["http.route"] == "/shop/items/{leaf_id}"


@pytest.mark.parametrize("copies", [True, False])
def test_a_path_rewritten_by_a_middleware_has_the_route_that_handled_it(telemetry, copies):
    app = FastAPI()
    app.add_api_route("/new/{leaf_id}", read_leaf)

    class Rewrite:
        def __init__(self, app):
            self.app = app

        async def __call__(self, scope, receive, send):
            scope = dict(scope) if copies else scope
            scope["path"] = scope["path"].replace("/old/", "/new/")
            await self.app(scope, receive, send)

    app.add_middleware(Rewrite)
    telemetry.instrument(app)
    (span,) = spans_of(telemetry, app, "/old/1")
    assert span.attributes["http.route"] == "/new/{leaf_id}"
    assert span.attributes["url.path"] == "/old/1"


def test_a_base_http_middleware_does_not_hide_the_route(telemetry, tmp_path):
    app = make_app(tmp_path)
    app.add_middleware(BaseHTTPMiddleware, dispatch=lambda request, call_next: call_next(request))
    telemetry.instrument(app)
    (span,) = spans_of(telemetry, app, "/api/outer/inner/7/leaf/8")
    assert span.attributes["http.route"] == "/api/outer/inner/{inner_id}/leaf/{leaf_id}"


def test_any_asgi_application_can_be_wrapped(telemetry):
    options = capture_options(tracer_provider=telemetry.tracer_provider)
    app = SightlineMiddleware(Starlette(routes=[Mount("/m", routes=[Route("/x/{word}", plain)])]), options)
    (span,) = spans_of(telemetry, app, "/m/x/1")
    assert span.name == "GET /m/x/{word}"


def test_an_application_called_by_another_one_is_captured_on_its_own(telemetry):
    inner = FastAPI()
    inner.add_api_route("/leaf/{leaf_id}", read_leaf)
    outer = FastAPI()

    @outer.get("/outer")
    async def ask():
        return (await call(inner, http_scope("/leaf/1"))).status

    telemetry.instrument(outer)
    telemetry.instrument(inner)
    spans = spans_of(telemetry, outer, "/outer")
    assert [span.name for span in spans] == ["GET /leaf/{leaf_id}", "GET /outer"]


def test_an_application_that_another_one_mounts_has_the_mount_in_its_route(telemetry):
    inner = FastAPI()
    inner.add_api_route("/items/{leaf_id}", read_leaf)
    telemetry.instrument(inner)
    outer = Starlette(routes=[Mount("/api", app=inner)])
    (span,) = spans_of(telemetry, outer, "/api/items/1")
    assert span.attributes["http.route"] == "/api/items/{leaf_id}"
