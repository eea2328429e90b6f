"""The routes that an application has, known before their first request.

The same routes are walked that Starlette and FastAPI dispatch along, without asking them for anything that
takes their locks or that they would work out: since FastAPI 0.137 an included router is kept as it is, and
what its routes are under its prefix is made at the first request.
"""

import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from types import MethodType
from typing import Any, Final

from sightline_processors.report import report

MAX_ROUTES: Final = 10_000
"""Routes that are found, at most; about 3 MB."""

MAX_LOOKS: Final = 50_000
"""Entries of routers that are looked at, at most: one that is mounted in several places counts each time."""

MAX_DEPTH: Final = 20
"""Mounts, hosts and included routers on the way to a route, at most; wrappers around an application too."""


@dataclass(frozen=True, slots=True)
class KnownRoute:
    """Is a route that a request can be dispatched to.

    Args:
        template: What `sightline.routes.route_template` returns for its requests.
        methods: In capitals, `HEAD` included where it is answered; empty for WebSockets, and for a route that
            leaves every method to its endpoint.
        tags: Of the routers on the way and of the route, each once; WebSocket routes have none.
        endpoint: The function, class or ASGI application that answers.
        is_websocket: Whether it takes WebSocket connections instead of requests.
    """

    template: str
    methods: frozenset[str]
    tags: tuple[str, ...]
    endpoint: Any
    is_websocket: bool


def known_routes(app: Any, root_path: str = "") -> list[KnownRoute]:
    """Returns the routes of a FastAPI or Starlette application, in the order in which they are tried.

    Those of mounted applications, hosts and included routers are among them, documentation pages too. Static
    files, frontends, other ASGI applications and own kinds of route have no template: they are left out.
    Whether an earlier route hides a later one is not looked at.

    Never raises: what cannot be read is left out and reported, as is what is beyond `MAX_ROUTES`, `MAX_LOOKS`
    or `MAX_DEPTH`. An application that contains itself is not entered a second time. Takes no lock: safe in
    any thread, also while routes are being added. Costs about 3 µs for each route.

    Args:
        app: The application, or what is wrapped around it and keeps it as its attribute `app`.
        root_path: What the server puts in front of paths; an application's own, where it has one, is taken
            instead.
    """
    walk = _Walk()
    try:
        walk.enter(app, _Way(root=root_path))
    except Exception as error:  # noqa: BLE001  fail open: unknown routes are known from their first request
        report("routes", "the routes of an application are not known in advance", error=error)
    return walk.found


@dataclass(frozen=True, slots=True)
class _Way:
    """Is what a request has passed on its way to a router.

    Args:
        root: `root_path` that the templates begin with.
        mounts: Templates of the mounts, joined; None where there was none.
        prefix: Of the included routers since the last mount or host.
        tags: Of the included routers, likewise.
        entered: Identities of the routers, outermost first.
    """

    root: str = ""
    mounts: str | None = None
    prefix: str = ""
    tags: tuple[str, ...] = ()
    entered: tuple[int, ...] = ()


class _Walk:
    """Collects the routes of one application."""

    def __init__(self) -> None:
        self.found: list[KnownRoute] = []
        self._looks = 0
        self._starlette: Any = sys.modules.get("starlette.routing")  # without it, there are no routes of its

    def enter(self, app: Any, way: _Way) -> None:
        """Goes through an application; anything but one of Starlette's or FastAPI's has no routes."""
        app = self._unwrapped(app)
        if app is None:
            return
        router = _router_of(app)
        if way.mounts is None and router is not app:
            # FastAPI puts its own in the scope, but once a mount has been passed the outermost one stays.
            way = replace(way, root=_root_path_of(app) or way.root)
        if not self._may_enter(router, way):
            return
        self._go_through(router, way)
        default = getattr(router, "default", None)
        if getattr(default, "__self__", None) is not router:
            self.enter(default, replace(way, entered=(*way.entered, id(router))))

    def _may_enter(self, router: Any, way: _Way) -> bool:
        if len(way.entered) >= MAX_DEPTH:
            report("routes", f"routes that are nested more than {MAX_DEPTH} deep are not known in advance")
            return False
        return id(router) not in way.entered

    def _go_through(self, router: Any, way: _Way) -> None:
        way = replace(way, entered=(*way.entered, id(router)))
        # The prefix of an included router still has the convertors in it: {path:path}.
        prefix = self._starlette.PARAM_REGEX.sub(r"{\1}", way.prefix)
        head = way.root.rstrip("/") + (way.mounts or "") + prefix
        for route in list(router.routes):
            if self._is_full():
                return
            try:
                self._look_at(route, head, way)
            except Exception as error:  # noqa: BLE001  fail open: the others are read all the same
                report("routes", "a route that cannot be read is not known in advance", error=error)

    def _look_at(self, route: Any, head: str, way: _Way) -> None:
        if isinstance(route, self._starlette.Route):
            tags = _texts((*way.tags, *route.tags)) if hasattr(route, "tags") else ()
            methods = frozenset(route.methods or ())
            self.found.append(KnownRoute(head + _path_of(route), methods, tags, route.endpoint, False))  # noqa: FBT003  a keyword would cost a tenth
        elif isinstance(route, self._starlette.WebSocketRoute):
            self.found.append(KnownRoute(head + _path_of(route), frozenset(), (), route.endpoint, True))  # noqa: FBT003  likewise
        elif isinstance(route, self._starlette.Mount):
            mounts = (way.mounts or "") + (way.prefix + route.path).rstrip("/")
            self._enter_mounted(route, _Way(way.root, mounts, entered=way.entered))
        elif isinstance(route, self._starlette.Host):
            # FastAPI mounts under the prefix what an included router has for a host.
            mounts = (way.mounts or "") + way.prefix if way.prefix else way.mounts
            self.enter(route.app, _Way(way.root, mounts, entered=way.entered))
        else:
            self._enter_included(route, way)

    def _enter_mounted(self, mount: Any, way: _Way) -> None:
        app = mount.app
        if self._unwrapped(app) is None:  # its own middleware may keep it under another name
            app = getattr(mount, "_base_app", None)
        self.enter(app, way)

    def _enter_included(self, route: Any, way: _Way) -> None:
        """Goes through a router that FastAPI 0.137 and later keeps as it was included."""
        context = getattr(route, "include_context", None)
        router = getattr(route, "original_router", None)
        if context is not None and isinstance(router, self._starlette.Router):
            tags = (*way.tags, *context.tags)
            if self._may_enter(router, way):
                self._go_through(router, replace(way, prefix=way.prefix + context.prefix, tags=tags))

    def _unwrapped(self, app: Any) -> Any | None:
        """Returns the application inside wrappers and bound methods; None where it has no routes."""
        if self._starlette is None:
            return None
        for _ in range(MAX_DEPTH):
            if isinstance(_router_of(app), self._starlette.Router):
                return app
            if isinstance(app, MethodType):
                app = app.__self__
            else:
                app = getattr(app, "func" if isinstance(app, partial) else "app", None)
        return None

    def _is_full(self) -> bool:
        self._looks += 1
        is_full = len(self.found) >= MAX_ROUTES or self._looks > MAX_LOOKS
        if is_full:
            report(
                "routes", f"an application has more than {MAX_ROUTES} routes: not all are known in advance"
            )
        return is_full


def _router_of(app: Any) -> Any:
    """Returns the router of an application; a router is its own."""
    return getattr(app, "router", app)


def _root_path_of(app: Any) -> str:
    """Returns the `root_path` of a FastAPI application; empty where it has none, or is another's."""
    fastapi = sys.modules.get("fastapi.applications")
    if fastapi is not None and isinstance(app, fastapi.FastAPI):
        return str(app.root_path or "")
    return ""


def _path_of(route: Any) -> str:
    """Returns a route's own part of the template: the same as `sightline.routes` takes."""
    return str(getattr(route, "path_format", None) or route.path)


def _texts(tags: Iterable[Any]) -> tuple[str, ...]:
    """Returns tags as OpenAPI shows them, each once."""
    return tuple(dict.fromkeys(str(tag.value) if isinstance(tag, Enum) else str(tag) for tag in tags))
