"""The instrumentor: zero-code through its entry point, or `instrument_app` in a program.

`FastAPI.__call__` is wrapped on the class, so that applications created earlier, subclasses and factories
are all captured, and the unhandled 500 is sent inside the wrap.
"""

from collections.abc import Collection, Sequence
from functools import partial
from types import MethodType
from typing import Any
from weakref import WeakSet

import wrapt
from opentelemetry._logs import LoggerProvider
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from sightline.background_tasks import release_background_tasks, watch_background_tasks
from sightline.coexistence import (
    STOCK_OPTIONS,
    release_stock_instrumentors,
    silence_fastapi_exporters,
    silence_fastapi_telemetry,
    take_over_stock_instrumentors,
)
from sightline.configuration_file import file_configuration
from sightline.environment import sdk_disabled
from sightline.error_metrics import count_exporter_errors, release_exporter_errors
from sightline.errors import InstrumentationError
from sightline.executors import carry_context_into_executors, release_executors
from sightline.forks import keep_forks_apart
from sightline.logs import add_ids_to_records, export_records, restore_logging
from sightline.middleware import UNDECIDED, SightlineMiddleware, otherwise, serve
from sightline.middleware_stack import serve_captured
from sightline.options import CaptureOptions, capture_options
from sightline.outgoing_calls import watch_clients
from sightline.propagation import propagate_correlation, release_propagation
from sightline.saturation import release_loops
from sightline.service_levels import forget_objectives
from sightline.shutdown import flush_at_the_end, flushing_send, release_shutdown
from sightline.structured_logs import correlate_structured_logs, release_structured_logs
from sightline.types import ASGIApp, ClientHook, Receive, Scope, Send, ServerRequestHook
from sightline_processors.report import report
from sightline_processors.tracing import (
    make_context_fast,
    make_tracers_fast,
    restore_context,
    restore_tracers,
)

_apps: "WeakSet[Any]" = WeakSet()
"""The applications that hold a decision of ours in their attribute `_sightline`."""

Options = partial[CaptureOptions]
Decision = SightlineMiddleware | Options | None

_defaults: list[Options] = []
"""The options of applications that nobody instrumented by hand; empty when only those are captured."""


class SightlineInstrumentor(BaseInstrumentor):  # type: ignore[misc]  # the base class is untyped
    """Instruments FastAPI; has the call shapes of the stock `FastAPIInstrumentor`."""

    def instrumentation_dependencies(self) -> Collection[str]:
        """Returns nothing: FastAPI is instrumented when, and if, it is imported."""
        return ()

    def instrument(self, **kwargs: Any) -> None:
        """Instruments once: the configuration file and the loader of entry points may both ask for it."""
        if not self.is_instrumented_by_opentelemetry:
            super().instrument(**kwargs)

    def _instrument(self, **kwargs: Any) -> None:
        """Captures every FastAPI application of the process, and its log records.

        Args:
            **kwargs: The options of `instrument_app`, for applications that are not instrumented by hand.
        """
        file = file_configuration()
        if sdk_disabled() or (file is not None and not file.is_enabled):
            return
        # What else arrives here are the options of the configuration file, which the settings have read.
        options = partial(capture_options, **{name: kwargs[name] for name in STOCK_OPTIONS & kwargs.keys()})
        _defaults[:] = [options]
        _install(options())

    def _uninstrument(self, **kwargs: Any) -> None:  # noqa: ARG002  the stock signature
        """Leaves every application, the stock instrumentors and `logging` as they were."""
        _defaults.clear()
        for app in list(_apps):
            del app._sightline  # noqa: SLF001
        _apps.clear()
        release_stock_instrumentors()
        release_background_tasks()
        release_executors()
        release_exporter_errors()
        restore_tracers()
        restore_context()
        release_shutdown()
        release_propagation()
        release_structured_logs()
        release_loops()
        forget_objectives()
        restore_logging()

    @staticmethod
    def instrument_app(
        app: Any,
        server_request_hook: ServerRequestHook | None = None,
        client_request_hook: ClientHook | None = None,
        client_response_hook: ClientHook | None = None,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        logger_provider: LoggerProvider | None = None,
        excluded_urls: str | None = None,
        http_capture_headers_server_request: Sequence[str] | None = None,
        http_capture_headers_server_response: Sequence[str] | None = None,
        http_capture_headers_sanitize_fields: Sequence[str] | None = None,
        exclude_spans: Sequence[str] | None = None,  # noqa: ARG004  there are no send and receive spans
    ) -> None:
        """Captures one application, from its next request on; calling it again replaces the options.

        Args:
            app: The FastAPI application, created before or after.
            server_request_hook: Called with the SERVER span and the ASGI scope for each request.
            client_request_hook: Called with span, scope and each message that the application receives.
            client_response_hook: Called with span, scope and each message that the application sends.
            tracer_provider: The global one when omitted.
            meter_provider: The global one when omitted.
            logger_provider: The global one when omitted; gets exceptions that are recorded as logs.
            excluded_urls: Regular expressions separated by commas, searched in the full URL; matching
                requests are counted but not traced.
            http_capture_headers_server_request: Regular expressions of header names to put on the span.
            http_capture_headers_server_response: The same for response headers.
            http_capture_headers_sanitize_fields: Names whose values are masked, beyond those that carry
                credentials.
            exclude_spans: Accepted for compatibility; Sightline has one span per request.

        Raises:
            InstrumentationError: When `app` is not an instance of a FastAPI application.
            SettingsError: When a header pattern is not a regular expression.
        """
        if sdk_disabled():
            return
        if not _is_fastapi(app):
            raise InstrumentationError(
                f"instrument_app needs a FastAPI application, got {type(app).__qualname__}; "
                "wrap any other ASGI application in SightlineMiddleware"
            )
        options = partial(
            capture_options,
            tracer_provider=tracer_provider,
            meter_provider=meter_provider,
            logger_provider=logger_provider,
            server_request_hook=server_request_hook,
            client_request_hook=client_request_hook,
            client_response_hook=client_response_hook,
            excluded_urls=excluded_urls,
            http_capture_headers_server_request=http_capture_headers_server_request,
            http_capture_headers_server_response=http_capture_headers_server_response,
            http_capture_headers_sanitize_fields=http_capture_headers_sanitize_fields,
        )
        _install(options())
        _decide(app, options)

    @staticmethod
    def uninstrument_app(app: Any) -> None:
        """Stops capturing one application."""
        _decide(app, None)


def _is_fastapi(app: object) -> bool:
    return any(
        cls.__module__ == "fastapi.applications" and cls.__name__ == "FastAPI" for cls in type(app).__mro__
    )


def _install(options: CaptureOptions) -> None:
    """Installs the wraps that both ways of instrumenting share; further calls renew the options only."""
    add_ids_to_records()
    export_records(access_log=options.settings.access_log, logger_provider=options.logger_provider)
    correlate_structured_logs(options)
    watch_background_tasks(options)
    carry_context_into_executors()
    propagate_correlation(options.settings)
    watch_clients()
    keep_forks_apart()
    count_exporter_errors()
    make_tracers_fast()
    make_context_fast()
    flush_at_the_end(options.settings.shutdown_timeout)
    take_over_stock_instrumentors(
        SightlineInstrumentor.instrument_app, SightlineInstrumentor.uninstrument_app
    )
    wrapt.register_post_import_hook(_wrap_fastapi, "fastapi.applications")


def _wrap_fastapi(module: Any) -> None:
    cls = module.FastAPI
    if cls in _originals and cls.__call__ is not _originals[cls]:
        return  # ours, or what somebody has put around it
    original = _originals[cls] = cls.__call__

    async def serve_otherwise(app: Any, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            send = flushing_send(send)
        await _app_for(app, original, scope)(scope, receive, send)

    otherwise.append(serve_otherwise)
    cls.__call__ = serve


_originals: dict[type, Any] = {}
"""What `FastAPI.__call__` was."""


def _app_for(app: Any, original: Any, scope: Scope) -> ASGIApp:
    """Returns what serves a connection: the application's capture, or the application itself."""
    try:
        middleware = _middleware_of(app)
        if middleware is not None and scope["type"] == "lifespan":
            silence_fastapi_exporters(app)
        elif middleware is not None and scope["type"] in ("http", "websocket"):
            silence_fastapi_telemetry(scope)
            return middleware
    except Exception as error:  # noqa: BLE001  fail open: the application serves without telemetry
        report("app", "could not instrument an application; it is served without telemetry", error=error)
    return partial(original, app)


def _middleware_of(app: Any) -> SightlineMiddleware | None:
    """Returns the capture of an application; it is made, and reads its variables, at the first request."""
    owner, decision, _ = getattr(app, "_sightline", UNDECIDED)
    if owner is not app:  # none yet, or that of the application which this one is a copy of
        if not _defaults:
            return None
        decision = _defaults[0]
    if isinstance(decision, partial):
        decision = _middleware(app, decision())
        _decide(app, decision)
    return decision


def _decide(app: Any, decision: "Decision") -> None:
    """Keeps on the application what captures it, or the options to make it from; None for nothing."""
    recorder = decision._recorder if isinstance(decision, SightlineMiddleware) else None  # noqa: SLF001
    app._sightline = (app, decision, recorder)  # noqa: SLF001
    _apps.add(app)


def _middleware(app: Any, options: CaptureOptions) -> SightlineMiddleware:
    from fastapi.applications import FastAPI  # noqa: PLC0415  loaded by now: the application is one

    serving = serve_captured(_originals[FastAPI], type(app))
    return SightlineMiddleware(MethodType(serving, app), options)
