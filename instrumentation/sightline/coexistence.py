"""Keeps every other instrumentation of the same requests from emitting beside Sightline.

- FastAPI's own telemetry (0.142 and later) stands aside for a scope that carries its marker; the exporters
  that it adds at lifespan start-up are switched off where a provider is configured already.
- The stock FastAPI instrumentor hands applications to Sightline instead.
- The stock ASGI middleware, whoever put it there, passes captured requests through, and captures others
  by way of Sightline.

The patches wait for the modules that they concern: an import hook costs nothing where they never load.
"""

import inspect
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

import wrapt
from opentelemetry import _logs, metrics, trace

from sightline.middleware import SightlineMiddleware
from sightline.names import FASTAPI_MARKER, SCOPE_EXCHANGE
from sightline.options import capture_options
from sightline.types import Receive, Scope, Send

STOCK_OPTIONS = frozenset(
    {
        "server_request_hook",
        "client_request_hook",
        "client_response_hook",
        "tracer_provider",
        "meter_provider",
        "logger_provider",
        "excluded_urls",
        "http_capture_headers_server_request",
        "http_capture_headers_server_response",
        "http_capture_headers_sanitize_fields",
    }
)
"""Options of the stock instrumentors that keep their meaning."""

_PROXIES = ("ProxyTracerProvider", "_ProxyMeterProvider", "ProxyLoggerProvider")


def silence_fastapi_telemetry(scope: Scope) -> None:
    """Marks a request so that FastAPI does not trace and measure it as well."""
    scope.setdefault(FASTAPI_MARKER, None)


def silence_fastapi_exporters(app: object) -> None:
    """Switches off the exporters that FastAPI would add to providers which export already.

    Runs before lifespan start-up. Where no provider is configured yet, FastAPI's set-up is the only one
    and stays on.
    """
    telemetry = getattr(app, "_telemetry", None)
    if not isinstance(telemetry, MutableMapping) or not telemetry.get("auto_configure"):
        return
    if _any_provider_configured():
        telemetry["auto_configure"] = False


def _any_provider_configured() -> bool:
    providers = (trace.get_tracer_provider(), metrics.get_meter_provider(), _logs.get_logger_provider())
    return any(type(provider).__name__ not in _PROXIES for provider in providers)


@dataclass(frozen=True, slots=True)
class _Replacement:
    instrument_app: Callable[..., None]
    uninstrument_app: Callable[[Any], None]


_active: list[_Replacement] = []
"""The replacement in force, if any; without one the patched stock classes behave as shipped."""


def take_over_stock_instrumentors(
    instrument_app: Callable[..., None], uninstrument_app: Callable[[Any], None]
) -> None:
    """Makes the stock instrumentors use Sightline, now or when they are imported."""
    _active[:] = [_Replacement(instrument_app, uninstrument_app)]
    wrapt.register_post_import_hook(_patch_fastapi_instrumentor, "opentelemetry.instrumentation.fastapi")
    wrapt.register_post_import_hook(_patch_asgi_middleware, "opentelemetry.instrumentation.asgi")


def release_stock_instrumentors() -> None:
    """Gives the stock instrumentors their own behaviour back."""
    _active.clear()


def _patch_fastapi_instrumentor(module: Any) -> None:
    stock = module.FastAPIInstrumentor
    if hasattr(stock, "_sightline"):
        return
    stock._sightline = True  # noqa: SLF001  patched once per process
    instance = stock()
    if instance.is_instrumented_by_opentelemetry:
        instance.uninstrument()  # loaded before Sightline: FastAPI gets its class back

    def instrument_app(stock_function: Any, _: Any, arguments: Any, options: Any) -> None:
        if not _active:
            stock_function(*arguments, **options)
            return
        named = _named_options(stock_function, arguments, options)
        app = named.pop("app")
        _active[0].instrument_app(app, **named)
        app._is_instrumented_by_opentelemetry = True  # noqa: SLF001  the stock flag, which applications read

    def uninstrument_app(stock_function: Any, _: Any, arguments: Any, options: Any) -> None:
        if not _active:
            stock_function(*arguments, **options)
            return
        app = arguments[0] if arguments else options["app"]
        _active[0].uninstrument_app(app)
        app._is_instrumented_by_opentelemetry = False  # noqa: SLF001

    def instrument(stock_function: Any, _: Any, arguments: Any, options: Any) -> None:
        if not _active:  # otherwise Sightline captures every application already
            stock_function(*arguments, **options)

    wrapt.wrap_function_wrapper(stock, "instrument_app", instrument_app)
    wrapt.wrap_function_wrapper(stock, "uninstrument_app", uninstrument_app)
    wrapt.wrap_function_wrapper(stock, "_instrument", instrument)
    wrapt.wrap_function_wrapper(stock, "_uninstrument", instrument)


def _patch_asgi_middleware(module: Any) -> None:
    stock = module.OpenTelemetryMiddleware
    if hasattr(stock, "_sightline"):
        return
    stock._sightline = None  # noqa: SLF001  per instance: the middleware that captures in its place

    def initialize(stock_function: Any, instance: Any, arguments: Any, options: Any) -> None:
        instance._sightline_options = _named_options(stock_function, arguments, options)  # noqa: SLF001
        stock_function(*arguments, **options)

    original = stock.__call__

    # A function with the real signature: servers call an application to find out whether it is a factory.
    async def __call__(self: Any, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: N807
        if not _active or scope["type"] not in ("http", "websocket"):
            await original(self, scope, receive, send)
        elif SCOPE_EXCHANGE in scope:
            await self.app(scope, receive, send)
        else:
            await _own_middleware(self)(scope, receive, send)

    wrapt.wrap_function_wrapper(stock, "__init__", initialize)
    stock.__call__ = __call__


def _named_options(function: Any, arguments: Any, options: Any) -> dict[str, Any]:
    """Returns the application and the options that keep their meaning, by name."""
    bound = inspect.signature(function).bind(*arguments, **options).arguments
    return {name: value for name, value in bound.items() if name == "app" or name in STOCK_OPTIONS}


def _own_middleware(stock: Any) -> SightlineMiddleware:
    """Returns the Sightline middleware that captures in place of a stock one, made at its first request."""
    own: SightlineMiddleware | None = stock._sightline  # noqa: SLF001
    if own is None:
        named = {**getattr(stock, "_sightline_options", {})}
        named.pop("app", None)
        own = stock._sightline = SightlineMiddleware(stock.app, capture_options(**named))  # noqa: SLF001
    return own
