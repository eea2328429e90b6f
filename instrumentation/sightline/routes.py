"""The route template of a request, read after dispatch.

Nothing is matched a second time: the router leaves the matched route in the scope, and the mounts on the
way leave a trace there because `Mount.handle` is wrapped. A request that no route handled (404, a static
file, an unknown path in a mounted application) has no template, and the path never stands in for one.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import wrapt

from sightline.names import SCOPE_EXCHANGE, SCOPE_MOUNTS, SCOPE_ROUTE
from sightline.types import Receive, Scope, Send

_Handle = Callable[[Any, Scope, Receive, Send], Any]


def route_template(scope: Scope) -> str | None:
    """Returns the full template, application root and mount templates included, or None.

    Follows from the values of `route`, `fastapi`, `root_path`, SCOPE_ROUTE and SCOPE_MOUNTS alone: what is
    remembered by them (`request_facts`) need not ask again.

    Args:
        scope: The ASGI scope that the innermost route was dispatched with.
    """
    route = scope.get("route")
    if not _is_leaf(route):
        route = scope.get(SCOPE_ROUTE)
    # FastAPI 0.137 and later keep the included path apart from the original route.
    fastapi_scope = scope.get("fastapi")
    included = fastapi_scope.get("effective_route_context") if isinstance(fastapi_scope, dict) else None
    leaf = None
    if included is not None and getattr(included, "original_route", None) is route:
        leaf = _path_of(included)
    leaf = leaf or _path_of(route)
    if leaf is None:
        return None
    root = str(scope.get("app_root_path", scope.get("root_path", ""))).rstrip("/")
    return root + "".join(scope.get(SCOPE_MOUNTS, ())) + leaf


def _path_of(route: object) -> str | None:
    if not _is_leaf(route):
        return None
    path = getattr(route, "path_format", None) or getattr(route, "path", None)
    return path if isinstance(path, str) else None


def _is_leaf(route: object) -> bool:
    """Tells a route from a mount, host or included router, which only lead to one."""
    return hasattr(route, "endpoint")


def watch_dispatch() -> None:
    """Wraps the `handle` methods of Starlette's and FastAPI's routes when those modules are imported."""
    wrapt.register_post_import_hook(_wrap_routes, "starlette.routing")
    wrapt.register_post_import_hook(_wrap_routes, "fastapi.routing")


def _wrap_routes(module: Any) -> None:
    for name, wrap in (
        ("Mount", _noting_mount),
        ("Route", _noting_route),
        ("WebSocketRoute", _noting_route),
        ("APIRoute", _noting_dispatch),
    ):
        cls = getattr(module, name, None)
        if cls is not None and "handle" in vars(cls) and not hasattr(cls.handle, "__wrapped__"):
            cls.handle = wrap(cls.handle)


# Each wrapper returns the coroutine itself, and notes without a call: they are on the way of every request.


def _noting_dispatch(handle: _Handle) -> _Handle:
    @wraps(handle)
    def wrapper(self: Any, scope: Scope, receive: Receive, send: Send) -> Any:
        # A middleware may have copied the scope: the exchange learns which one was dispatched.
        if SCOPE_EXCHANGE in scope:
            scope[SCOPE_EXCHANGE].scope = scope
        return handle(self, scope, receive, send)

    return wrapper


def _noting_route(handle: _Handle) -> _Handle:
    @wraps(handle)
    def wrapper(self: Any, scope: Scope, receive: Receive, send: Send) -> Any:
        if SCOPE_EXCHANGE in scope:
            exchange = scope[SCOPE_EXCHANGE]
            exchange.scope = scope
            if "route" not in scope or scope["route"] is not self:
                scope[SCOPE_ROUTE] = self
                exchange.nest()
        return handle(self, scope, receive, send)

    return wrapper


def _noting_mount(handle: _Handle) -> _Handle:
    @wraps(handle)
    def wrapper(self: Any, scope: Scope, receive: Receive, send: Send) -> Any:
        # A new tuple: a scope that a middleware copied must not see the mounts of its siblings.
        scope[SCOPE_MOUNTS] = (*scope.get(SCOPE_MOUNTS, ()), self.path)
        exchange = scope.get(SCOPE_EXCHANGE)
        if exchange is not None:
            exchange.scope = scope
            exchange.nest()
        return handle(self, scope, receive, send)

    return wrapper
