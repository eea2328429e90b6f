"""The way from a captured request to the application's middlewares, without two coroutines in between.

`FastAPI.__call__` and `Starlette.__call__` do next to nothing for a request that is captured already: they
note the application in the scope, and call its middlewares. That they do no more is not assumed but tried, on
an application that has nothing else. Where one of them does more, or somebody has put something in its
place, now or later, both are called.
"""

from collections.abc import Callable
from types import FunctionType
from typing import Any, Final

from sightline.names import FASTAPI_MARKER
from sightline.types import Message, Receive, Scope, Send

Serve = Callable[[Any, Scope, Receive, Send], Any]
"""Is the `__call__` of an application's class."""

_KINDS: Final = ("http", "websocket")


def serve_captured(original: Serve, cls: type) -> Serve:
    """Returns what serves the captured requests and connections of the applications of a class.

    Args:
        original: `FastAPI.__call__`, as it was before it captured anything.
        cls: FastAPI, or a subclass.
    """
    from starlette.applications import Starlette  # noqa: PLC0415  loaded by now, as FastAPI is

    starlette_call = Starlette.__call__
    inner = _next_call(cls)
    if inner is not starlette_call or not (
        _is_of(original, "fastapi.applications") and _is_of(starlette_call, "starlette.applications")
    ):
        return original
    if not all(_only_calls_middlewares(original, kind) for kind in _KINDS):
        return original

    def serve(app: Any, scope: Scope, receive: Receive, send: Send) -> Any:
        stack = app.middleware_stack
        if stack is None or app.root_path or Starlette.__call__ is not starlette_call:
            return original(app, scope, receive, send)
        scope["app"] = app
        return stack(scope, receive, send)

    return serve


def _next_call(cls: type) -> object:
    """Returns what `super().__call__` is in FastAPI, for the applications of a class."""
    from fastapi.applications import FastAPI  # noqa: PLC0415  loaded by now

    if FastAPI not in cls.__mro__:  # that of a module which has been loaded anew
        return None
    after = cls.__mro__[cls.__mro__.index(FastAPI) + 1 :]
    return next((vars(base)["__call__"] for base in after if "__call__" in vars(base)), None)


def _is_of(function: object, module: str) -> bool:
    """Tells whether a function was defined in a module: what is put around one says that, but is not."""
    return type(function) is FunctionType and function.__globals__.get("__name__") == module


def _only_calls_middlewares(original: Serve, kind: str) -> bool:
    """Tries `FastAPI.__call__` on an application without any attribute but the two that it may read."""
    from fastapi.applications import FastAPI  # noqa: PLC0415  loaded by now

    calls: list[tuple[object, ...]] = []

    async def stack(*arguments: object) -> None:
        calls.append(arguments)

    async def receive() -> Message:
        return {}

    async def send(_message: Message) -> None:
        return

    app: Any = object.__new__(FastAPI)
    app.root_path, app.middleware_stack = "", stack
    scope: Scope = {"type": kind, FASTAPI_MARKER: None}
    serving = original(app, scope, receive, send)
    try:
        serving.send(None)
    except StopIteration:
        is_over = True
    except Exception:  # noqa: BLE001  it reads what this application does not have
        return False
    else:
        is_over = False
        serving.close()
    return (
        is_over
        and calls == [(scope, receive, send)]
        and calls[0][0] is scope
        and scope == {"type": kind, FASTAPI_MARKER: None, "app": app}
        and vars(app) == {"root_path": "", "middleware_stack": stack}
    )
