"""Spans and metrics of FastAPI's and Starlette's background tasks.

A task runs after the response, so it is neither inside the request's duration nor a child of its span:
it has a span of its own, in a new trace that is linked to the request. The correlation ID stays. The
context is the one in which the task was added, so that what a sync handler sets arrives as well.
"""

import functools
import time
from collections.abc import Awaitable, Callable
from functools import lru_cache, wraps
from typing import Any, Final

import wrapt
from opentelemetry import context as otel_context
from opentelemetry.context import Context
from opentelemetry.metrics import Histogram
from opentelemetry.semconv.attributes.code_attributes import CODE_FUNCTION_NAME
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.trace import (
    INVALID_SPAN,
    Link,
    Span,
    SpanKind,
    Status,
    StatusCode,
    get_current_span,
    set_span_in_context,
)

from sightline import exceptions, names
from sightline.attributes import OTHER_METHOD
from sightline.boundaries import LONG_BOUNDARIES_SECONDS
from sightline.correlation import correlation_id_of
from sightline.options import OPTIONS_KEY, CaptureOptions, capture_options
from sightline.recorder import (
    MAX_ERROR_TYPES,
    instrumentation_scope,
    qualified_name,
)
from sightline.types import Attributes
from sightline_processors.bounded_names import BoundedNames
from sightline_processors.report import report

EVENT_NAME: Final = "sightline.background.exception"
MAX_FUNCTIONS: Final = 200
"""Distinct `code.function.name` values; further functions are `_OTHER`."""

_CONTEXT: Final = "_sightline_context"


class TaskRecorder:
    """Runs background work in a span of its own and measures it; safe from any thread."""

    def __init__(self, options: CaptureOptions) -> None:
        self._tracer, meter, self._logger = instrumentation_scope(options)
        self._duration: Histogram = meter.create_histogram(
            names.BACKGROUND_DURATION,
            unit="s",
            description="Duration of background tasks.",
            explicit_bucket_boundaries_advisory=LONG_BOUNDARIES_SECONDS,
        )
        self._functions = BoundedNames(MAX_FUNCTIONS, OTHER_METHOD)
        self._error_types = BoundedNames(MAX_ERROR_TYPES, OTHER_METHOD)

    async def run(
        self,
        function: Any,
        work: Callable[[], Awaitable[Any]],
        origin: Context,
        more: Attributes | None = None,
    ) -> Any:
        """Awaits `work()` in a new trace that is linked to the span of `origin`; its exception passes.

        Args:
            function: What the work calls, for the names.
            work: Makes the awaitable.
            origin: The context in which the work was asked for.
            more: Further span attributes.
        """
        started_unix_ns = time.time_ns()
        try:
            name = self._functions.bounded(_qualified(function))
            span = self._start(name, origin, more or {}, started_unix_ns)
        except Exception as failure:  # noqa: BLE001  fail open: the task runs without telemetry
            report("background", "could not capture a background task; it runs all the same", error=failure)
            return await work()
        context = set_span_in_context(span, origin)
        started_ns = time.perf_counter_ns()
        token = otel_context.attach(context)
        error: BaseException | None = None
        try:
            return await work()
        except BaseException as raised:
            error = raised
            raise
        finally:
            otel_context.detach(token)
            try:
                duration_ns = time.perf_counter_ns() - started_ns
                try:
                    self._end(name, span, context, duration_ns, error)
                finally:
                    span.end(started_unix_ns + duration_ns)
            except Exception as failure:  # noqa: BLE001  fail open: the task's result stands
                report("background", "could not finish the telemetry of a background task", error=failure)

    def _start(self, name: str, origin: Context, more: Attributes, started_unix_ns: int) -> Span:
        request = get_current_span(origin).get_span_context()
        attributes: Attributes = {CODE_FUNCTION_NAME: name, **more}
        correlation_id = correlation_id_of(origin)
        if correlation_id is not None:
            attributes[names.CORRELATION_ID] = correlation_id
        return self._tracer.start_span(
            f"background {name.rpartition('.')[2]}",
            set_span_in_context(INVALID_SPAN, origin),
            SpanKind.INTERNAL,
            attributes,
            links=[Link(request)] if request.is_valid else None,
            start_time=started_unix_ns,
        )

    def _end(
        self, name: str, span: Span, context: Context, duration_ns: int, error: BaseException | None
    ) -> None:
        attributes: Attributes = {CODE_FUNCTION_NAME: name}
        if error is not None:
            error = exceptions.unwrapped(error)
            exceptions.record(error, span, context, self._logger, event_name=EVENT_NAME)
            attributes[ERROR_TYPE] = error_type = self._error_types.bounded(qualified_name(type(error)))
            span.set_attribute(ERROR_TYPE, error_type)
            span.set_status(Status(StatusCode.ERROR, exceptions.message_of(error) or None))
        self._duration.record(duration_ns / 1e9, attributes, context)


def _qualified(function: Any) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{getattr(named, '__module__', '')}.{named.__qualname__}".lstrip(".")


_options: list[CaptureOptions] = []


@lru_cache(maxsize=64)
def _recorder(options: CaptureOptions) -> TaskRecorder:
    return TaskRecorder(options)


def task_recorder(origin: Context) -> TaskRecorder:
    """Returns the recorder of the application that captured a request; outside one, that of the last one."""
    options = origin.get(OPTIONS_KEY)
    if isinstance(options, CaptureOptions):
        return _recorder(options)
    return _recorder(_options[0] if _options else capture_options())


def watch_background_tasks(options: CaptureOptions) -> None:
    """Wraps `starlette.background.BackgroundTask` when that module is imported."""
    _options[:] = [options]
    wrapt.register_post_import_hook(_wrap_background, "starlette.background")


def release_background_tasks() -> None:
    """Leaves background tasks as they are shipped."""
    _options.clear()
    _recorder.cache_clear()


def _wrap_background(module: Any) -> None:
    task = module.BackgroundTask
    if hasattr(task.__call__, "__wrapped__"):
        return
    original_init, original_call = task.__init__, task.__call__

    @wraps(original_init)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        original_init(self, *args, **kwargs)
        if _options:
            setattr(self, _CONTEXT, otel_context.get_current())

    @wraps(original_call)
    async def __call__(self: Any) -> None:  # noqa: N807
        origin = getattr(self, _CONTEXT, None) or otel_context.get_current()
        if not _options or correlation_id_of(origin) is None:  # not from a captured request
            await original_call(self)
            return
        await task_recorder(origin).run(self.func, functools.partial(original_call, self), origin)

    task.__init__, task.__call__ = __init__, __call__
