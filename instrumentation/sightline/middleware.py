"""The ASGI middleware: opens an exchange, runs the application in it, closes it."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import Token
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.instrumentation.utils import is_http_instrumentation_enabled

from sightline.exchange import Exchange
from sightline.http_exchange import HttpExchange, open_request
from sightline.logs import remember_context, remember_finished
from sightline.names import FASTAPI_MARKER, SCOPE_EXCHANGE
from sightline.options import CaptureOptions, capture_options
from sightline.recorder import Recorder
from sightline.routes import watch_dispatch
from sightline.types import ASGIApp, Receive, Scope, Send
from sightline.websocket_exchange import WebSocketExchange
from sightline_processors.report import report
from sightline_processors.tracing.current_context import attach, get_current, reset

UNDECIDED: Final[tuple[None, None, None]] = (None, None, None)
"""Stands for a missing attribute `_sightline`: its owner, which a copy of that is not, what captures it, and
the recorder of that; without one it is not captured, or not yet."""


_EXCHANGES: dict[str, type[HttpExchange] | type[WebSocketExchange]] = {
    "http": HttpExchange,
    "websocket": WebSocketExchange,
}


async def serve(  # noqa: C901, PLR0912  the way of every request, in one piece: a call less is felt
    self: Any, scope: Scope, receive: Receive, send: Send
) -> None:
    """Serves one ASGI connection: is the `__call__` of the middleware, and of FastAPI applications.

    One function for both, because each coroutine on the way of a request is felt.
    """
    owner: Any
    middleware: Any
    try:
        owner, middleware, recorder = self._sightline
    except AttributeError:
        owner, middleware, recorder = UNDECIDED
    kind = scope["type"]
    if owner is not self or recorder is None or SCOPE_EXCHANGE in scope or kind not in _EXCHANGES:
        await _serve_uncaptured(self, scope, receive, send)
        return
    scope.setdefault(FASTAPI_MARKER)
    current = get_current()
    roots = recorder.roots
    exchange: Exchange | None
    try:
        if roots is not None and kind == "http" and not current:
            exchange = open_request(recorder, roots, current, scope, receive, send)
        else:
            exchange = _open(recorder, current, scope, receive, send)
    except Exception as error:  # noqa: BLE001  fail open: the request is served uncaptured
        report("open", "could not capture a request; it is served without telemetry", error=error)
        exchange = None
    if exchange is None:
        await middleware.app(scope, receive, send)
        return
    scope[SCOPE_EXCHANGE] = exchange
    token = attach(exchange.context)
    app = middleware.app  # before the call: as a method it is looked up the long way
    try:
        await app(scope, exchange.receive, exchange.send)
    except BaseException as error:
        if isinstance(error, Exception):
            remember_context(error, exchange.context)
        _close(exchange, error)
        raise
    else:
        if not exchange.is_over:
            _close(exchange, None)
    finally:
        if recorder.remembers:
            remember_finished(exchange.context)
        try:
            del scope[SCOPE_EXCHANGE]  # breaks the cycle between scope and exchange
            reset(token)
        except (KeyError, ValueError):
            _leave(scope, token)


class SightlineMiddleware:
    """Captures the requests and connections of any ASGI application; immutable, shared by all of them.

    Wrap the whole application, outside everything that sends responses, so that each of them carries
    the correlation ID. A request that an outer middleware of this class already captures passes through.

    Args:
        app: The ASGI application.
        options: Capture options from `capture_options(...)`; those of the environment when omitted.
    """

    def __init__(self, app: ASGIApp, options: CaptureOptions | None = None) -> None:
        watch_dispatch()
        self.app = app
        self._recorder = Recorder(options or capture_options(), getattr(app, "__self__", app))
        self._sightline = (self, self, self._recorder)

    __call__ = serve


def _open(
    recorder: Recorder, current: Context, scope: Scope, receive: Receive, send: Send
) -> Exchange | None:
    """Opens any request or connection; None where the caller has suppressed instrumentation."""
    if current and not is_http_instrumentation_enabled():
        return None
    if not recorder.is_swift:
        recorder.settle()
    exchange = _EXCHANGES[scope["type"]](recorder, current, scope, receive, send)
    if recorder.options.server_request_hook is not None:
        exchange.begin(recorder.options.server_request_hook)
    return exchange


otherwise: list[Callable[[Any, Scope, Receive, Send], Awaitable[None]]] = []
"""How FastAPI serves what is not captured, or not yet; set where `FastAPI.__call__` is wrapped."""


async def _serve_uncaptured(self: Any, scope: Scope, receive: Receive, send: Send) -> None:
    if not isinstance(self, SightlineMiddleware):
        await otherwise[-1](self, scope, receive, send)
    elif self._sightline[0] is not self:  # a copy
        self._sightline = (self, self, self._recorder)
        await serve(self, scope, receive, send)
    else:
        await self.app(scope, receive, send)


def _leave(scope: Scope, token: Token[Context]) -> None:
    """Leaves a request whose scope the application has changed, or which ends in another task."""
    scope.pop(SCOPE_EXCHANGE, None)
    with suppress(ValueError):  # that task keeps its own context
        reset(token)


def _close(exchange: Exchange, error: BaseException | None) -> None:
    try:
        if error is None:
            exchange.returned()
        else:
            exchange.raised(error)
    except Exception as failure:  # noqa: BLE001  fail open: the application's result stands
        report("close", "could not finish the telemetry of a request", error=failure)
