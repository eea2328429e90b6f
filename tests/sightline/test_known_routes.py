"""What an application can be asked for is known beforehand, by the very templates that requests get."""

import asyncio
import re
from enum import Enum

import fastapi.routing
import pytest
from asgi import call, http_scope
from fastapi import APIRouter, FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.staticfiles import StaticFiles
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Host, Mount, Route, Router, WebSocketRoute

from sightline import SightlineMiddleware, known_routes
from sightline.known_routes import KnownRoute
from sightline.options import capture_options
from sightline_processors.report import totals

HOST = "admin.example"
OTHER_HOST = "other.example"
HOSTS = ("shop.example", HOST, OTHER_HOST)


class Tag(str, Enum):  # noqa: UP042  tags of this kind are what FastAPI's documentation shows
    ORDERS = "orders"


class Page(HTTPEndpoint):
    async def get(self, request):
        return PlainTextResponse("page")


async def plain(request):
    return PlainTextResponse("ok")


async def asgi(scope, receive, send):
    await PlainTextResponse("asgi")(scope, receive, send)


async def read():
    return {}


async def chat(websocket):
    await websocket.accept()
    await websocket.close()


def including(router, prefix=""):
    outer = APIRouter(prefix=prefix, tags=["outer"])
    outer.include_router(router, prefix="/v{version:int}", tags=["included"])
    return outer


def leaves():
    """A router with every kind of leaf, and with what leads on."""
    router = APIRouter(prefix="/inner/{inner_id}", tags=[Tag.ORDERS])
    router.add_api_route("/leaf/{leaf_id:int}", read, tags=["leaf", "outer"], methods=["PUT", "POST"])
    router.add_api_websocket_route("/chat/{room}", chat)
    router.routes.append(Route("/plain/{word}", plain))
    router.routes.append(WebSocketRoute("/raw/{word}", chat))
    return router


def make_app(folder, root_path=""):
    app = FastAPI()
    app.root_path = root_path  # as an argument it is deprecated
    app.include_router(including(leaves(), "/outer"), prefix="/api", tags=["api"])
    app.include_router(leaves(), prefix="/again")
    app.add_api_route("/items/{item_id}", read, tags=["items", "items"])
    app.add_api_route("/files/{path:path}", read, methods=["GET", "HEAD"])
    app.add_route("/starlette/{word}", plain, methods=["GET", "post"])
    app.router.routes.append(Route("/class/{word}", Page))
    sub = FastAPI()
    sub.include_router(including(leaves()))
    deeper = FastAPI(openapi_url=None)
    deeper.add_api_route("/{leaf_id}", read)
    sub.mount("/deeper", deeper)
    app.mount("/tenants/{tenant}", CORSMiddleware(sub, allow_origins=["*"]))
    wrapped = [Middleware(CORSMiddleware, allow_origins=["*"])]
    app.router.routes.append(Mount("/star", routes=[Route("/x/{word}", plain)], middleware=wrapped))
    app.mount(
        "/sub-application", Starlette(routes=[Route("/", plain), Mount("/m", Router([Route("/y", plain)]))])
    )
    app.router.routes.append(Host(HOST, app=Router([Route("/panel/{word}", plain)])))
    app.router.routes.append(Host(OTHER_HOST, app=including_app("/hosted")))
    (folder / "logo.txt").write_text("logo")
    app.mount("/static", StaticFiles(directory=folder))
    app.mount("/other", asgi)
    return app


def including_app(root_path):
    app = FastAPI(openapi_url=None)
    app.root_path = root_path
    app.include_router(leaves(), prefix="/of-host")
    return app


def mounts_included():
    """FastAPI before 0.137 leaves out what leads on from an included router; later ones keep it."""
    app = FastAPI(openapi_url=None)
    router = APIRouter()
    router.routes.append(Mount("/m/{word}", Starlette(routes=[Route("/x", plain)])))
    router.routes.append(Host(HOST, Router([Route("/y", plain)])))
    app.include_router(router, prefix="/p/{part}")
    return app


def request_for(route, host):
    path = re.sub(r"\{(\w+)(:\w+)?\}", "1", route.template)
    method = min(route.methods, default="GET")
    scope = http_scope(path, method=method)
    if route.is_websocket:
        scope = {**scope, "type": "websocket", "scheme": "ws", "subprotocols": []}
        del scope["method"]
    scope["headers"] = [(b"host", host.encode())]
    return scope


def template_of(telemetry, app, scope):
    incoming = [{"type": "websocket.connect"}] if scope["type"] == "websocket" else None
    asyncio.run(call(app, scope, incoming) if incoming else call(app, scope))
    return telemetry.spans[-1].attributes.get("http.route")


@pytest.fixture(autouse=True)
def nothing_reported():
    yield
    assert "routes" not in totals()


def by_template(app, **options):
    return {route.template: route for route in known_routes.known_routes(app, **options)}


@pytest.mark.parametrize("root_path", ["", "/shop"])
def test_each_known_template_is_the_route_of_a_request_for_it(telemetry, tmp_path, root_path):
    app = make_app(tmp_path, root_path=root_path)
    telemetry.instrument(app)
    routes = known_routes.known_routes(app)
    assert len(routes) > 30
    for route in routes:
        seen = {template_of(telemetry, app, request_for(route, host)) for host in HOSTS}
        assert route.template in seen, route


REQUESTS = {
    "/api/outer/v1/inner/7/leaf/8": "/api/outer/v{version}/inner/{inner_id}/leaf/{leaf_id}",
    "/again/plain/w": "/again/plain/{word}",
    "/again/inner/7/leaf/8": "/again/inner/{inner_id}/leaf/{leaf_id}",
    "/items/1": "/items/{item_id}",
    "/files/a/b": "/files/{path}",
    "/starlette/w": "/starlette/{word}",
    "/class/w": "/class/{word}",
    "/tenants/acme/v1/inner/7/leaf/8": "/tenants/{tenant}/v{version}/inner/{inner_id}/leaf/{leaf_id}",
    "/tenants/acme/deeper/1": "/tenants/{tenant}/deeper/{leaf_id}",
    "/tenants/acme/docs": "/tenants/{tenant}/docs",
    "/star/x/w": "/star/x/{word}",
    "/sub-application/": "/sub-application/",
    "/sub-application/m/y": "/sub-application/m/y",
    "/docs": "/docs",
    "/docs/oauth2-redirect": "/docs/oauth2-redirect",
    "/redoc": "/redoc",
    "/openapi.json": "/openapi.json",
    "/static/logo.txt": None,
    "/other/thing": None,
    "/nowhere": None,
    "/items/1/": None,
    "/tenants/acme/nowhere": None,
}


def test_the_route_of_each_request_is_known(telemetry, tmp_path):
    app = make_app(tmp_path)
    telemetry.instrument(app)
    known = by_template(app)
    for path, route in REQUESTS.items():
        assert template_of(telemetry, app, http_scope(path)) == route, path
        assert route is None or route in known


def test_what_an_included_router_leads_on_to_is_known_where_fastapi_serves_it(telemetry):
    app = mounts_included()
    telemetry.instrument(app)
    requests = [http_scope("/p/1/m/2/x"), http_scope("/p/1/y")]
    requests[1]["headers"] = [(b"host", HOST.encode())]
    seen = {template_of(telemetry, app, scope) for scope in requests} - {None}
    assert by_template(app).keys() == seen
    is_lazy = hasattr(fastapi.routing, "_IncludedRouter")
    assert seen == ({"/p/{part}/m/{word}/x", "/p/{part}/y"} if is_lazy else set())


def test_routes_say_what_objectives_match_on(tmp_path):
    known = by_template(make_app(tmp_path))
    leaf = known["/api/outer/v{version}/inner/{inner_id}/leaf/{leaf_id}"]
    assert leaf == KnownRoute(
        leaf.template, frozenset({"PUT", "POST"}), ("api", "outer", "included", "orders", "leaf"), read, False
    )
    chat_room = known["/api/outer/v{version}/inner/{inner_id}/chat/{room}"]
    assert chat_room == KnownRoute(chat_room.template, frozenset(), (), chat, True)
    assert known["/items/{item_id}"].tags == ("items",)
    assert known["/items/{item_id}"].methods == {"GET"}
    assert known["/starlette/{word}"].methods == {"GET", "HEAD", "POST"}
    assert (known["/class/{word}"].methods, known["/class/{word}"].endpoint) == (frozenset(), Page)


def test_a_route_that_is_added_later_is_known_later():
    app = FastAPI(openapi_url=None)
    router = APIRouter()
    router.add_api_route("/early", read)
    app.include_router(router, prefix="/api")
    assert by_template(app).keys() == {"/api/early"}
    app.add_api_route("/late", read)
    assert by_template(app).keys() == {"/api/early", "/late"}


def test_included_routers_are_not_worked_out_before_their_first_request():
    """That takes a lock and a hundred times as long."""
    app = FastAPI(openapi_url=None)
    app.include_router(leaves(), prefix="/api")
    included = app.router.routes[-1]
    assert len(known_routes.known_routes(app)) == 4
    assert not getattr(included, "_effective_candidates", [])


def test_the_root_path_of_the_server_counts_where_the_application_has_none():
    app = Starlette(routes=[Mount("/m", routes=[Route("/x", plain)])])
    assert by_template(app, root_path="/shop/").keys() == {"/shop/m/x"}
    assert by_template(including_app("/own"), root_path="/shop").keys() == {
        route.template for route in known_routes.known_routes(including_app("/own"))
    }


def test_wrappers_around_an_application_are_looked_through(telemetry):
    app = Starlette(routes=[Route("/x/{word}", plain)])
    options = capture_options(tracer_provider=telemetry.tracer_provider)
    assert by_template(SightlineMiddleware(CORSMiddleware(app), options)).keys() == {"/x/{word}"}
    assert by_template(app.__call__).keys() == {"/x/{word}"}


def test_the_root_path_of_a_mounted_application_is_not_added_to_its_mount(telemetry):
    app = Starlette(routes=[Mount("/own", including_app("/own"))])
    options = capture_options(tracer_provider=telemetry.tracer_provider)
    scope = http_scope("/own/of-host/plain/w")
    template = template_of(telemetry, SightlineMiddleware(app, options), scope)
    assert template == "/own/of-host/plain/{word}"
    assert template in by_template(app)


class Opaque:
    """A middleware that keeps its application under a name of its own."""

    def __init__(self, app):
        self.next_one = app

    async def __call__(self, scope, receive, send):
        await self.next_one(scope, receive, send)


def test_the_middleware_of_a_mount_does_not_hide_its_routes():
    mount = Mount("/m", routes=[Route("/x", plain)], middleware=[Middleware(Opaque)])
    assert by_template(Starlette(routes=[mount])).keys() == {"/m/x"}


def test_what_a_router_falls_back_to_is_known(telemetry):
    fallback = Starlette(routes=[Route("/back/{word}", plain)])
    app = Starlette(routes=[Route("/x", plain)])
    app.router.default = fallback
    options = capture_options(tracer_provider=telemetry.tracer_provider)
    assert by_template(app).keys() == {"/x", "/back/{word}"}
    assert template_of(telemetry, SightlineMiddleware(app, options), http_scope("/back/1")) == "/back/{word}"


def test_an_application_that_contains_itself_is_entered_once():
    app = FastAPI(openapi_url=None)
    app.add_api_route("/x", read)
    other = Starlette(routes=[Mount("/back", app)])
    for path in ("/a", "/b", "/c"):
        app.mount(path, app)
        app.mount(path + "/other", other)
    app.router.default = app
    assert by_template(app).keys() == {"/x"}


class OwnRoute(BaseRoute):
    """A kind of route that the application has made."""

    path = "/own"


@pytest.mark.parametrize("app", [None, asgi, object(), Page, Mount("/x", asgi), FastAPI, 7, read])
def test_what_has_no_routes_has_none_known(app):
    assert known_routes.known_routes(app) == []


def test_own_kinds_of_routes_are_left_out():
    app = Starlette(routes=[OwnRoute(), Route("/x", plain)])
    assert by_template(app).keys() == {"/x"}


class BrokenRoute(Route):
    """Cannot be asked for its path."""

    @property
    def path_format(self):
        raise RuntimeError

    @path_format.setter
    def path_format(self, value):
        pass


class Bounds:
    """Tests in which something is left out and reported."""

    @pytest.fixture(autouse=True)
    def nothing_reported(self):
        yield
        assert totals()["routes"] >= 1

    def test_a_route_that_cannot_be_read_costs_no_other(self):
        app = Starlette(routes=[Route("/x", plain), BrokenRoute("/y", plain), Route("/z", plain)])
        assert by_template(app).keys() == {"/x", "/z"}

    def test_routes_are_bounded(self, monkeypatch):
        monkeypatch.setattr(known_routes, "MAX_ROUTES", 10)
        app = Starlette(routes=[Mount("/m", routes=[Route(f"/{number}", plain) for number in range(20)])] * 3)
        assert len(known_routes.known_routes(app)) == 10

    def test_mounts_that_multiply_are_bounded(self, monkeypatch):
        monkeypatch.setattr(known_routes, "MAX_LOOKS", 1_000)
        app = Starlette()
        for _ in range(15):
            app = Starlette(routes=[Mount("/a", app), Mount("/b", app), Mount("/c", app)])
        assert known_routes.known_routes(app) == []

    def test_depth_is_bounded(self):
        app = Starlette(routes=[Route("/x", plain)])
        for _ in range(known_routes.MAX_DEPTH + 5):
            app = Starlette(routes=[Route("/above", plain), Mount("/m", app)])
        found = by_template(app)
        assert len(found) == known_routes.MAX_DEPTH
        assert not any(template.endswith("/x") for template in found)


class TestBounds(Bounds):
    """Runs them."""
