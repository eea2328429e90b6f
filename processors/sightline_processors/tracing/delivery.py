"""Hands spans to the span processors; one that raises is counted and keeps nobody from the others."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, SynchronousMultiSpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanKind

from sightline_processors.report import report

_MESSAGE = "a span processor raised; the application goes on, and so do the other processors"


class ReadingSpanProcessor(SpanProcessor):
    """A processor that does nothing until a span has ended, and then only reads it.

    It may be given the span itself in place of a `ReadableSpan`, which saves making one, and a span of a kind
    that it does not read may be kept from it: then a request's span, encoded once and for all, stays so.

    Attributes:
        kinds: The kinds of spans that it reads, fixed before it is registered. Through a tracer of the SDK it
            is told of all spans, and does nothing about the others.
    """

    kinds: frozenset[SpanKind] = frozenset(SpanKind)


class EncodedSpanProcessor(ReadingSpanProcessor):
    """A processor that does nothing at the start of a span, and takes it encoded at its end."""

    def put_encoded(self, resource: Resource, scope: InstrumentationScope, item: bytes) -> None:
        """Takes a sampled span.

        Args:
            resource: Of the tracer.
            scope: Of the tracer.
            item: The span as an element of `ScopeSpans.spans`, tag and length included.
        """
        raise NotImplementedError

    def put_all(self, resource: Resource, scope: InstrumentationScope, items: Sequence[bytes]) -> None:
        """Takes sampled spans of one tracer; the arguments are those of `put_encoded`."""
        for item in items:
            self.put_encoded(resource, scope, item)

    def draw_from(self, source: Callable[[], None]) -> Callable[[], None] | None:
        """Asks a source for what it holds back, whenever it sends: spans that are encoded by the hundred.

        Args:
            source: Hands over what has ended, with `put_encoded`; called from any thread; kept for good.

        Returns:
            What the source calls when it holds something; None where nobody will ask it.
        """
        del source
        return None


def processors_of(processor: SpanProcessor) -> tuple[SpanProcessor, ...]:
    """Returns the processors behind the provider's own, in the order of their registration."""
    if type(processor) is SynchronousMultiSpanProcessor:
        return processor._span_processors  # noqa: SLF001  there is no public way to them
    return (processor,)


def processors_for(processor: SpanProcessor, kind: SpanKind) -> tuple[SpanProcessor, ...]:
    """Returns those processors behind the provider's own that a span of a kind concerns, in their order."""
    return tuple(
        [
            each
            for each in processors_of(processor)
            if not isinstance(each, ReadingSpanProcessor) or kind in each.kinds
        ]
    )


_READERS: Final = "_sightline_readers"
_NOT_KNOWN: Final = (None, None)


def _readers(processor: Any) -> tuple[SpanProcessor, ...] | None:
    """Returns the processors behind the provider's own if all of them only read ended spans, else None."""
    remembers = type(processor) is SynchronousMultiSpanProcessor  # others have no tuple that stays the same
    if remembers:
        known, readers = getattr(processor, _READERS, _NOT_KNOWN)
        if known is processor._span_processors:  # noqa: SLF001  there is no public way to them
            return readers
    processors = processors_of(processor)
    readers = processors if all(isinstance(each, ReadingSpanProcessor) for each in processors) else None
    if remembers:
        setattr(processor, _READERS, (processors, readers))
    return readers


def on_start(processor: SpanProcessor, span: Span, parent_context: Context | None) -> None:
    """Tells each processor that a span has started."""
    if _readers(processor) is not None:
        return
    for each in processors_of(processor):
        if not isinstance(each, ReadingSpanProcessor):
            try:
                each.on_start(span, parent_context=parent_context)
            except Exception as error:  # noqa: BLE001  a processor of the application's own
                report("span_processor", _MESSAGE, error=error)


def on_end(processor: SpanProcessor, span: Span) -> None:
    """Tells each processor that a span is ending, and then that it has ended.

    All of them get the same object, so that what one changes the later ones see: a `ReadableSpan` as from the
    SDK, or the span itself where it is only read.
    """
    processors = _readers(processor)
    ended: ReadableSpan = span
    if processors is None:
        processors = processors_of(processor)
        on_ending(processors, span)
        ended = span._readable_span()  # noqa: SLF001  the SDK's own way to it
    for each in processors:
        try:  # the lines of `on_ended`, without its call
            each.on_end(ended)
        except Exception as error:  # noqa: BLE001  a processor of the application's own
            report("span_processor", _MESSAGE, error=error)


def on_ending(processors: tuple[SpanProcessor, ...], span: ReadableSpan) -> None:
    """Tells each processor that a span is ending."""
    for each in processors:
        if not isinstance(each, ReadingSpanProcessor):
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
