"""Exports the spans that the sampler keeps, when it has decided about their trace."""

import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import (
    ReadableSpan,
    Span,
    SpanProcessor,
    SynchronousMultiSpanProcessor,
    TracerProvider,
)
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.semconv.attributes.http_attributes import HTTP_RESPONSE_STATUS_CODE
from opentelemetry.trace import SpanContext, StatusCode, TraceState

from sightline_processors.otlp import wire
from sightline_processors.report import report
from sightline_processors.slo_sampling.choices import Sampled, sampled_copy
from sightline_processors.slo_sampling.sampler import RootFacts, SloSampler
from sightline_processors.tracing.delivery import EncodedSpanProcessor, on_ended, on_ending, on_start
from sightline_processors.tracing.slotted_span import PLAIN_TYPES

OUTCOME: Final = "sightline.sla.outcome"
"""Attribute of a local root: the verdict by its objective."""
_VIOLATIONS: Final = frozenset({"slow", "failed"})

_SPAN_BYTES: Final = 1_000
"""Estimated memory of a span without attributes. Measured with CPython 3.11."""
_EVENT_BYTES: Final = 400
_VALUE_BYTES: Final = 50
_FLUSH_MILLIS: Final = 30_000


class EncodedRoot(NamedTuple):
    """A local root that came encoded: an element of `ScopeSpans.spans`, and the rest of what it is."""

    resource: Resource
    scope: InstrumentationScope
    item: bytes
    state: TraceState | None


class SloSamplingProcessor(SpanProcessor):
    """Holds the spans of a trace until it is decided, and hands those that are kept to other processors.

    Stands in the place of the exporting processors. Any thread; nothing raises. A span is exported as a
    copy with the sampled flag, the threshold in its trace state, and the attributes that `choices` names.

    Args:
        sampler: Decides; has one processor.
        targets: Export what they are given.
        is_violation: Tells whether a local root missed its objective; `misses_objective` when omitted.

    Raises:
        ValueError: When the sampler has a processor already.
    """

    def __init__(
        self,
        sampler: SloSampler,
        targets: Iterable[SpanProcessor],
        is_violation: Callable[[ReadableSpan], bool] | None = None,
    ) -> None:
        if sampler.processor is not None:
            raise ValueError("a sampler has one processor; give it all targets")
        self.sampler = sampler
        self.targets = tuple(targets)
        self._is_violation = is_violation or misses_objective
        sampler.processor = self
        sampler.on_first_root = None

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Passes the start on."""
        for target in self.targets:
            on_start(target, span, parent_context)

    def _on_ending(self, span: Span) -> None:
        on_ending(self.targets, span)

    def on_end(self, span: ReadableSpan) -> None:
        """Takes a span; exports or drops its whole trace when it is the local root."""
        try:
            context, parent = span.context, span.parent
            if context is None:
                return
            is_over = False
            if parent is None or parent.is_remote:
                trace = self.sampler.reopened(context, parent)
                is_over = self.sampler.close(trace, self._facts_of(span), parent)
            self.sampler.take(
                context.trace_id,
                span,
                0 if is_over else estimated_bytes(span),
                is_error=span.status.status_code is StatusCode.ERROR,
                is_flagged=bool(context.trace_flags.sampled),
            )
        except Exception as error:  # noqa: BLE001  an object that only looks like a span
            report("sampling", "could not decide about a span; it is not sampled", error=error)

    def export(self, choice: Sampled, spans: Sequence[Any]) -> None:
        """Hands spans that are kept to the targets."""
        for span in spans:
            try:
                self._export(choice, span)
            except Exception as error:  # noqa: BLE001  an object that only looks like a span
                report("sampling", "could not export a sampled span", error=error)

    def _export(self, choice: Sampled, span: Any) -> None:
        copy = sampled_copy(span, choice)
        for target in self.targets:
            on_ended(target, copy)

    def _facts_of(self, span: ReadableSpan) -> RootFacts:
        attributes: Mapping[str, Any] = span.attributes or {}
        return RootFacts(
            span.name,
            ((span.end_time or 0) - (span.start_time or 0)) / 1e9,
            self._is_violation(span),
            span.status.status_code is StatusCode.ERROR,
            (span.name, attributes.get(HTTP_RESPONSE_STATUS_CODE)),
        )

    def force_flush(self, timeout_millis: int = _FLUSH_MILLIS) -> bool:
        """Flushes the targets, one after the other, within one timeout; undecided traces stay."""
        ends_at = time.monotonic() + timeout_millis / 1000
        flushed = [
            target.force_flush(max(0, int((ends_at - time.monotonic()) * 1000))) for target in self.targets
        ]
        return all(flushed)

    def shutdown(self) -> None:
        """Exports of the undecided traces those that are sure to be kept, and shuts the targets down."""
        self.sampler.finish()
        for target in self.targets:
            target.shutdown()


class EncodedSloSamplingProcessor(SloSamplingProcessor, EncodedSpanProcessor):
    """The same for targets that take spans encoded; is given the span itself, and not told of its start."""

    targets: tuple[EncodedSpanProcessor, ...]

    def __init__(
        self,
        sampler: SloSampler,
        targets: Iterable[EncodedSpanProcessor],
        is_violation: Callable[[ReadableSpan], bool] | None = None,
    ) -> None:
        super().__init__(sampler, targets, is_violation)
        self._sources: tuple[Callable[[], None], ...] = ()

    def put_encoded(self, resource: Resource, scope: InstrumentationScope, item: bytes) -> None:
        """Exports a span as it is: whoever has encoded it knows that it is sampled."""
        for target in self.targets:
            target.put_encoded(resource, scope, item)

    def put_root(
        self,
        context: SpanContext,
        root: EncodedRoot,
        *,
        is_error: bool = False,
    ) -> None:
        """Takes a local root for which `SloSampler.decide` has returned True.

        Args:
            context: Of the root.
            root: Its bytes, without what says that it is sampled.
            is_error: Whether its status is an error.
        """
        self.sampler.take(
            context.trace_id,
            root,
            len(root.item) + _SPAN_BYTES,
            is_error=is_error,
            is_flagged=bool(context.trace_flags.sampled),
        )

    def draw_from(self, source: Callable[[], None]) -> Callable[[], None] | None:
        """Asks a source through the first target, and before the end; see the base class."""
        if source not in self._sources:
            self._sources += (source,)
        return self.targets[0].draw_from(source) if self.targets else None

    def _export(self, choice: Sampled, span: Any) -> None:
        if type(span) is not EncodedRoot:
            super()._export(choice, span)
            return
        item = with_fields(span.item, choice.fields(span.state))
        self.put_encoded(span.resource, span.scope, item)

    def shutdown(self) -> None:
        """Decides what the sources hold back, and ends as the base class does."""
        for source in self._sources:
            source()
        super().shutdown()


def slo_sampling_processor(
    sampler: SloSampler,
    targets: Iterable[SpanProcessor],
    is_violation: Callable[[ReadableSpan], bool] | None = None,
) -> SloSamplingProcessor:
    """Returns the cheapest processor for these targets; the arguments are those of `SloSamplingProcessor`."""
    targets = tuple(targets)
    encoding = tuple([target for target in targets if isinstance(target, EncodedSpanProcessor)])
    if len(encoding) == len(targets) > 0:
        return EncodedSloSamplingProcessor(sampler, encoding, is_violation)
    return SloSamplingProcessor(sampler, targets, is_violation)


def install_slo_sampling(
    provider: object, is_violation: Callable[[ReadableSpan], bool] | None = None
) -> SloSamplingProcessor | None:
    """Puts the processor in the place of a provider's exporting processors; may be called again.

    Exporting are `BatchSpanProcessor`, `SimpleSpanProcessor` and `OtlpSpanProcessor`; any other stays
    where it is and sees each span that is recorded.

    Args:
        provider: A `TracerProvider` with a `SloSampler`.
        is_violation: As in `SloSamplingProcessor`.

    Returns:
        The processor; None where the provider has another sampler, or nothing that exports, or one already.
    """
    sampler = getattr(provider, "sampler", None)
    if not isinstance(provider, TracerProvider) or not isinstance(sampler, SloSampler):
        return None
    multi = provider._active_span_processor  # noqa: SLF001  there is no public way to a provider's processors
    if type(multi) is not SynchronousMultiSpanProcessor or sampler.processor is not None:
        return None
    with multi._lock:  # noqa: SLF001
        present = multi._span_processors  # noqa: SLF001
        exporting = [each for each in present if isinstance(each, _EXPORTING)]
        if not exporting:
            return None
        ours = slo_sampling_processor(sampler, exporting, is_violation)
        kept = [each for each in present if each is exporting[-1] or each not in exporting]
        multi._span_processors = tuple([ours if each is exporting[-1] else each for each in kept])  # noqa: SLF001
    return ours


_EXPORTING: Final = (BatchSpanProcessor, SimpleSpanProcessor, EncodedSpanProcessor)


def misses_objective(span: ReadableSpan) -> bool:
    """Tells whether a span's own verdict is a violation."""
    return (span.attributes or {}).get(OUTCOME) in _VIOLATIONS


def estimated_bytes(span: ReadableSpan) -> int:
    """Returns about how much memory a span holds on to; rather too much than too little."""
    size = _SPAN_BYTES + _size_of_items(span.attributes or {})
    for event in span.events:
        size += _EVENT_BYTES + _size_of_items(event.attributes or {})
    for link in span.links:
        size += _EVENT_BYTES + _size_of_items(link.attributes or {})
    return size


def _size_of_items(attributes: Mapping[str, Any]) -> int:
    size = sum(map(len, attributes))
    for value in attributes.values():
        size += _VALUE_BYTES + (sys.getsizeof(value) if type(value) in PLAIN_TYPES else _size_of(value))
    return size


def _size_of(value: Any) -> int:
    if isinstance(value, Mapping):
        return _size_of_items(value)
    if isinstance(value, list | tuple):
        return sum([_VALUE_BYTES + _size_of(each) for each in value])
    return sys.getsizeof(value)


def with_fields(item: bytes, fields: bytes) -> bytes:
    """Returns an element of `ScopeSpans.spans` with further fields at its end."""
    start = 1
    while item[start] & 0x80:
        start += 1
    body = item[start + 1 :] + fields
    return wire.SCOPE_ITEM + wire.varint(len(body)) + body
