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

    Args:
        scope: The ASGI scope that the innermost route was dispatched with.
    """
    leaf = _leaf_template(scope)
    if leaf is None:
        return None
    root = str(scope.get("app_root_path", scope.get("root_path", ""))).rstrip("/")
    return root + "".join(scope.get(SCOPE_MOUNTS, ())) + leaf


def _leaf_template(scope: Scope) -> str | None:
    """Returns the template of the innermost route, with the prefixes of the routers that include it."""
    route = scope.get("route")
    if not _is_leaf(route):
        route = scope.get(SCOPE_ROUTE)
    # FastAPI 0.137 and later keep the included path apart from the original route.
    fastapi_scope = scope.get("fastapi")
    included = fastapi_scope.get("effective_route_context") if isinstance(fastapi_scope, dict) else None
    if included is not None and getattr(included, "original_route", None) is route:
        return _path_of(included) or _path_of(route)
    return _path_of(route)


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
    for name, note in (
        ("Mount", _note_mount),
        ("Route", _note_route),
        ("WebSocketRoute", _note_route),
        ("APIRoute", _note_dispatch),
    ):
        cls = getattr(module, name, None)
        if cls is not None and "handle" in vars(cls) and not hasattr(cls.handle, "__wrapped__"):
            cls.handle = _noting(cls.handle, note)


def _noting(handle: _Handle, note: Callable[[Any, Scope], None]) -> _Handle:
    @wraps(handle)
    def wrapper(self: Any, scope: Scope, receive: Receive, send: Send) -> Any:
        note(self, scope)
        return handle(self, scope, receive, send)  # the coroutine itself: no extra frame

    return wrapper


def _note_dispatch(_route: Any, scope: Scope) -> None:
    # A middleware may have copied the scope: the exchange learns which one was dispatched.
    exchange = scope.get(SCOPE_EXCHANGE)
    if exchange is not None:
        exchange.scope = scope


def _note_route(route: Any, scope: Scope) -> None:
    scope[SCOPE_ROUTE] = route
    _note_dispatch(route, scope)


def _note_mount(mount: Any, scope: Scope) -> None:
    # A new tuple: a scope that a middleware copied must not see the mounts of its siblings.
    scope[SCOPE_MOUNTS] = (*scope.get(SCOPE_MOUNTS, ()), mount.path)
    _note_dispatch(mount, scope)
