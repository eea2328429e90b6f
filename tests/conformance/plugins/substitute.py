"""A pytest plugin that puts another class under OpenTelemetry's own tests of its ASGI and FastAPI classes.

Loaded with `-p substitute` before the suites import anything. `CONFORMANCE_CANDIDATE` names what they judge:
`sightline`, `nothing` (a class that does nothing: what passes then proves nothing) or `stock`.

Two things change in every run, because the substitution needs them: the name of the instrumentation scope
that a test filters by, and, where `OTEL_SEMCONV_STABILITY_OPT_IN` is set for the whole run, the suite's own
choice of that variable, which goes to a variable that nobody reads. With `CONFORMANCE_TRANSLATE=1`, the
documented differences of `translation` are translated as well, for the class that does nothing too.
"""

import os
from collections.abc import Sequence
from functools import partial, wraps
from typing import Any, cast
from weakref import WeakKeyDictionary

import fastapi
import opentelemetry.instrumentation.asgi as stock_asgi
import opentelemetry.instrumentation.fastapi as stock_fastapi
import pytest
import translation  # type: ignore[import-not-found]  # beside this file; pytest's -p finds it

from sightline import SightlineInstrumentor, SightlineMiddleware
from sightline.options import capture_options

CANDIDATE = os.environ["CONFORMANCE_CANDIDATE"]
IS_TRANSLATED = os.environ.get("CONFORMANCE_TRANSLATE") == "1"
OPT_IN_VARIABLE = "OTEL_SEMCONV_STABILITY_OPT_IN"
IS_OPT_IN_FORCED = OPT_IN_VARIABLE in os.environ


class SubstituteMiddleware:
    """`SightlineMiddleware` with the stock middleware's constructor.

    What has no equivalent is ignored: the span's name comes from the conventions (`default_span_details`),
    there are no send and receive spans to leave out (`exclude_spans`), and the instrumentation scope is
    Sightline's own (`tracer`, `meter`).
    """

    _sightline = None  # Sightline patches the stock class, which this one is not

    def __init__(
        self,
        app: Any,
        excluded_urls: Any = None,
        default_span_details: Any = None,
        server_request_hook: Any = None,
        client_request_hook: Any = None,
        client_response_hook: Any = None,
        tracer_provider: Any = None,
        meter_provider: Any = None,
        tracer: Any = None,
        meter: Any = None,
        http_capture_headers_server_request: Sequence[str] | None = None,
        http_capture_headers_server_response: Sequence[str] | None = None,
        http_capture_headers_sanitize_fields: Sequence[str] | None = None,
        exclude_spans: Sequence[str] | None = None,
    ) -> None:
        details = default_span_details or stock_asgi.get_default_span_details
        if IS_TRANSLATED:
            server_request_hook = translation.named(details, server_request_hook)
        self.app: Any = SightlineMiddleware(
            app,
            capture_options(
                excluded_urls=excluded_urls,
                server_request_hook=server_request_hook,
                client_request_hook=client_request_hook,
                client_response_hook=client_response_hook,
                tracer_provider=tracer_provider,
                meter_provider=meter_provider,
                http_capture_headers_server_request=http_capture_headers_server_request,
                http_capture_headers_server_response=http_capture_headers_server_response,
                http_capture_headers_sanitize_fields=http_capture_headers_sanitize_fields,
            ),
        )
        if IS_TRANSLATED:
            self.app = translation.MessageSpans(self.app, details, tracer_provider, exclude_spans)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serves one ASGI connection."""
        await self.app(scope, receive, send)


class NothingMiddleware:
    """Passes every connection on."""

    _sightline = None

    def __init__(
        self,
        app: Any,
        *_: Any,
        default_span_details: Any = None,
        tracer_provider: Any = None,
        exclude_spans: Sequence[str] | None = None,
        **__: Any,
    ) -> None:
        self.app = app
        if IS_TRANSLATED:
            details = default_span_details or stock_asgi.get_default_span_details
            self.app = translation.MessageSpans(app, details, tracer_provider, exclude_spans)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serves one ASGI connection."""
        await self.app(scope, receive, send)


class SubstituteInstrumentor(SightlineInstrumentor):
    """`SightlineInstrumentor` itself, whose call shapes are the stock ones."""

    _sightline = True  # Sightline patches the stock class, which this one is not

    def instrument(self, **options: Any) -> None:
        """Captures every application."""
        super().instrument(**options)
        _translated.instrument(options)

    def uninstrument(self, **options: Any) -> None:
        """Captures nothing any more."""
        super().uninstrument(**options)
        _translated.uninstrument()

    @staticmethod
    def instrument_app(app: Any, *arguments: Any, **options: Any) -> None:
        """Captures one application."""
        SightlineInstrumentor.instrument_app(app, *arguments, **options)
        _translated.instrument_app(app, options)

    @staticmethod
    def uninstrument_app(app: Any) -> None:
        """Stops capturing one application."""
        SightlineInstrumentor.uninstrument_app(app)
        _translated.uninstrument_app(app)


class NothingInstrumentor:
    """Accepts every call of the stock instrumentor."""

    _sightline = True

    def __init__(self, *_: Any, **__: Any) -> None:
        """Accepts everything."""

    def instrument(self, **options: Any) -> None:
        """Does nothing."""
        _translated.instrument(options)

    def uninstrument(self, **_: Any) -> None:
        """Does nothing."""
        _translated.uninstrument()

    @staticmethod
    def instrument_app(app: Any, *_: Any, **options: Any) -> None:
        """Does nothing."""
        _translated.instrument_app(app, options)

    @staticmethod
    def uninstrument_app(app: Any) -> None:
        """Does nothing."""
        _translated.uninstrument_app(app)


class _TranslatedApplications:
    """Puts the translation around the applications that the candidate was told to instrument."""

    def __init__(self) -> None:
        self.all: dict[str, Any] | None = None
        self.single: WeakKeyDictionary[Any, dict[str, Any] | None] = WeakKeyDictionary()

    def instrument(self, options: dict[str, Any]) -> None:
        self.all = options
        self._wrap()

    def uninstrument(self) -> None:
        self.all = None
        self.single.clear()

    def instrument_app(self, app: Any, options: dict[str, Any]) -> None:
        self.single[app] = options
        self._wrap()

    def uninstrument_app(self, app: Any) -> None:
        self.single[app] = None

    def _wrap(self) -> None:
        inner: Any = fastapi.FastAPI.__call__
        if not IS_TRANSLATED or hasattr(inner, "_conformance"):
            return

        @wraps(inner)  # with the marks that Sightline left on it
        async def outer(app: Any, scope: Any, receive: Any, send: Any) -> None:
            options = self.single.get(app, self.all)
            judged: Any = partial(inner, app)
            if options is not None:
                judged = translation.MessageSpans(
                    judged,
                    lambda scope: stock_fastapi._get_default_span_details({**scope, "app": app}),
                    options.get("tracer_provider"),
                    options.get("exclude_spans"),
                )
            await judged(scope, receive, send)

        outer._conformance = True  # type: ignore[attr-defined]
        fastapi.FastAPI.__call__ = cast("Any", outer)  # type: ignore[method-assign]


_translated = _TranslatedApplications()

for _module, _name, _sightline, _nothing in (
    (stock_asgi, "OpenTelemetryMiddleware", SubstituteMiddleware, NothingMiddleware),
    (stock_fastapi, "OpenTelemetryMiddleware", SubstituteMiddleware, NothingMiddleware),
    (stock_fastapi, "FastAPIInstrumentor", SubstituteInstrumentor, NothingInstrumentor),
):
    if CANDIDATE != "stock":
        setattr(_module, _name, _sightline if CANDIDATE == "sightline" else _nothing)
if IS_TRANSLATED:
    translation.install(drop_stable=IS_OPT_IN_FORCED)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tells the translation which conventions the test is about."""
    name = item.name  # as the suites' own set-up reads it
    translation.conventions = "new" if "new_semconv" in name else "both" if "both_semconv" in name else "old"


def pytest_collection_finish(session: pytest.Session) -> None:
    """Adapts the two names that the substitution needs, in every module of the suite."""
    for module in {item.getparent(pytest.Module).obj for item in session.items}:
        if CANDIDATE != "stock" and hasattr(module, "SCOPE"):
            module.SCOPE = "sightline"
        if IS_OPT_IN_FORCED and hasattr(module, OPT_IN_VARIABLE):
            setattr(module, OPT_IN_VARIABLE, "CONFORMANCE_IGNORED_OPT_IN")
