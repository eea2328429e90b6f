"""Hands spans to the span processors; one that raises is counted and keeps nobody from the others."""

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, SynchronousMultiSpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from sightline_processors.report import report

_MESSAGE = "a span processor raised; the application goes on, and so do the other processors"


class EncodedSpanProcessor(SpanProcessor):
    """A processor that does nothing at the start of a span, and takes it encoded at its end."""

    def put_encoded(self, resource: Resource, scope: InstrumentationScope, item: bytes) -> None:
        """Takes a sampled span.

        Args:
            resource: Of the tracer.
            scope: Of the tracer.
            item: The span as an element of `ScopeSpans.spans`, tag and length included.
        """
        raise NotImplementedError


def processors_of(processor: SpanProcessor) -> tuple[SpanProcessor, ...]:
    """Returns the processors behind the provider's own, in the order of their registration."""
    if type(processor) is SynchronousMultiSpanProcessor:
        return processor._span_processors  # noqa: SLF001  there is no public way to them
    return (processor,)


def on_start(processor: SpanProcessor, span: Span, parent_context: Context | None) -> None:
    """Tells each processor that a span has started."""
    for each in processors_of(processor):
        if not isinstance(each, EncodedSpanProcessor):
            try:
                each.on_start(span, parent_context=parent_context)
            except Exception as error:  # noqa: BLE001  a processor of the application's own
                report("span_processor", _MESSAGE, error=error)


def on_end(processor: SpanProcessor, span: Span) -> None:
    """Tells each processor that a span is ending, and then that it has ended.

    All of them get the same object, so that what one changes the later ones see: a `ReadableSpan` as from the
    SDK, or the span itself where it is only encoded.
    """
    processors = processors_of(processor)
    on_ending(processors, span)
    ended: ReadableSpan = span
    for each in processors:
        if not isinstance(each, EncodedSpanProcessor):
            ended = span._readable_span()  # noqa: SLF001  the SDK's own way to it
            break
    for each in processors:
        try:  # the lines of `on_ended`, without its call
            each.on_end(ended)
        except Exception as error:  # noqa: BLE001  a processor of the application's own
            report("span_processor", _MESSAGE, error=error)


def on_ending(processors: tuple[SpanProcessor, ...], span: ReadableSpan) -> None:
    """Tells each processor that a span is ending."""
    for each in processors:
        if not isinstance(each, EncodedSpanProcessor):
            try:
                each._on_ending(span)  # type: ignore[arg-type]  # noqa: SLF001  the SDK's hook, not yet public
            except Exception as error:  # noqa: BLE001  a processor of the application's own
                report("span_processor", _MESSAGE, error=error)


def on_ended(processor: SpanProcessor, span: ReadableSpan) -> None:
    """Tells a processor that a span has ended."""
    try:
        processor.on_end(span)
    except Exception as error:  # noqa: BLE001  a processor of the application's own
        report("span_processor", _MESSAGE, error=error)
