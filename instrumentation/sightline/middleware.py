"""The ASGI middleware: opens an exchange, runs the application in it, closes it."""

from opentelemetry import context as otel_context
from opentelemetry.instrumentation.utils import is_http_instrumentation_enabled

from sightline.exchange import Exchange
from sightline.http_exchange import HttpExchange
from sightline.logs import remember_context, remember_finished
from sightline.names import SCOPE_EXCHANGE
from sightline.options import CaptureOptions, capture_options
from sightline.recorder import Recorder
from sightline.report import report
from sightline.routes import watch_dispatch
from sightline.types import ASGIApp, Receive, Scope, Send
from sightline.websocket_exchange import WebSocketExchange

_EXCHANGES: dict[str, type[HttpExchange] | type[WebSocketExchange]] = {
    "http": HttpExchange,
    "websocket": WebSocketExchange,
}


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
        self._options = options or capture_options()
        self._recorder = Recorder(self._options)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one ASGI connection."""
        exchange = None
        if scope["type"] in _EXCHANGES and SCOPE_EXCHANGE not in scope:
            exchange = self._open(scope, receive, send)
        if exchange is None:
            await self.app(scope, receive, send)
            return
        scope[SCOPE_EXCHANGE] = exchange
        token = otel_context.attach(exchange.context)
        try:
            await self.app(scope, exchange.receive, exchange)
        except BaseException as error:
            if isinstance(error, Exception):
                remember_context(error, exchange.context)
            _close(exchange, error)
            raise
        else:
            _close(exchange, None)
        finally:
            otel_context.detach(token)
            remember_finished(exchange.context)
            scope.pop(SCOPE_EXCHANGE, None)  # breaks the cycle between scope and exchange

    def _open(self, scope: Scope, receive: Receive, send: Send) -> Exchange | None:
        if not is_http_instrumentation_enabled():
            return None
        try:
            exchange = _EXCHANGES[scope["type"]](self._options, self._recorder, scope, receive, send)
            exchange.begin()
        except Exception as error:  # noqa: BLE001  fail open: the request is served uncaptured
            report("open", "could not capture a request; it is served without telemetry", error=error)
            return None
        return exchange


def _close(exchange: Exchange, error: BaseException | None) -> None:
    try:
        if error is None:
            exchange.returned()
        else:
            exchange.raised(error)
    except Exception as failure:  # noqa: BLE001  fail open: the application's result stands
        report("close", "could not finish the telemetry of a request", error=failure)
