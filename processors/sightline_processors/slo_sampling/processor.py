"""Exports the spans that the sampler keeps, when it has decided about their trace."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

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
from opentelemetry.trace import SpanContext, StatusCode

from sightline_processors.report import report
from sightline_processors.sla.verdict import OUTCOME_ATTRIBUTE, Verdict
from sightline_processors.slo_sampling.buffer import OpenTrace
from sightline_processors.slo_sampling.choices import Sampled, sampled_copy
from sightline_processors.slo_sampling.encoded import EncodedRoot, encoded_sampled, with_fields
from sightline_processors.slo_sampling.roots import RootFacts
from sightline_processors.slo_sampling.sampler import SloSampler
from sightline_processors.slo_sampling.sizes import SPAN_BYTES, estimated_bytes, slotted_bytes
from sightline_processors.tracing.delivery import EncodedSpanProcessor, on_ended, on_ending, on_start
from sightline_processors.tracing.slotted_span import UNSET, TracerSpan

VIOLATIONS: Final = frozenset({Verdict.SLOW, Verdict.FAILED})
"""Verdicts that keep a trace."""

_FLUSH_MILLIS: Final = 30_000
_UNDECIDED: Final = "could not decide about a span; it is not sampled"


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
            report("sampling", _UNDECIDED, error=error)

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
        from sightline_processors.export.processors import (  # noqa: PLC0415  imports much
            OtlpSpanProcessor,
        )

        super().__init__(sampler, targets, is_violation)
        self._encoding_class = OtlpSpanProcessor
        self._sources: tuple[Callable[[], None], ...] = ()

    def decides(self, sampler: object) -> bool:
        """Tells whether this is the processor of a sampler, and a verdict is all that it wants to know."""
        return sampler is self.sampler and self._is_violation is misses_objective

    def on_end(self, span: ReadableSpan) -> None:
        """Takes a span; see the base class. One of ours below a local parent is only put aside."""
        parent = span._parent if type(span) is TracerSpan else None  # noqa: SLF001  its slots
        if parent is None or parent[2] or not isinstance(span, TracerSpan):
            super().on_end(span)
            return
        try:
            context, status = span._context, span._status  # noqa: SLF001  likewise
            releases = self.sampler.buffer.take(
                context[0],
                span,
                slotted_bytes(span),
                is_error=status is not UNSET and status.status_code is StatusCode.ERROR,
                is_flagged=bool(context[3] & 1),
            )
            if releases:
                self.sampler.deliver(releases)
        except Exception as error:  # noqa: BLE001  fail open
            report("sampling", _UNDECIDED, error=error)

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
        trace: OpenTrace | None = None,
    ) -> None:
        """Takes a local root for which `SloSampler.decide` has returned True.

        Args:
            context: Of the root.
            root: Its bytes, without what says that it is sampled.
            is_error: Whether its status is an error.
            trace: The one whose spans await the root.
        """
        if trace is not None and self.sampler.let_leave(trace, root):
            return
        self.sampler.take(
            context.trace_id,
            root,
            len(root.item) + SPAN_BYTES,
            is_error=is_error,
            is_flagged=bool(context.trace_flags.sampled),
        )

    def draw_from(self, source: Callable[[], None]) -> Callable[[], None] | None:
        """Asks a source through the first target, and before the end; see the base class."""
        if source not in self._sources:
            self._sources += (source,)
        return self.targets[0].draw_from(source) if self.targets else None

    def _export(self, choice: Sampled, span: Any) -> None:
        if type(span) is EncodedRoot:
            item = with_fields(span.item, choice.fields(span.state))
            self.put_encoded(span.resource, span.scope, item)
            return
        copy = None
        for target in self.targets:
            if type(target) is self._encoding_class and isinstance(span, TracerSpan):
                item = encoded_sampled(span, choice, target.span_rewriters)
                target.put_encoded(span._resource, span._instrumentation_scope, item)  # noqa: SLF001
            else:
                copy = sampled_copy(span, choice) if copy is None else copy
                on_ended(target, copy)

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
    return (span.attributes or {}).get(OUTCOME_ATTRIBUTE) in VIOLATIONS
