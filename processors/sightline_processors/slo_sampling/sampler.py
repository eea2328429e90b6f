"""The sampler: records every trace that begins here, and decides at its local root's end which are kept.

A trace that begins here is flagged as sampled at once where its random bits already say that it will be
kept; any other is recorded without the flag, so that no callee is promised a trace that may be dropped.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from opentelemetry.context import Context, get_current
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanContext, SpanKind, TraceState, get_current_span
from opentelemetry.trace.propagation import _SPAN_KEY
from opentelemetry.util.types import Attributes

from sightline_processors.forked_processes import renew_in_children
from sightline_processors.report import report
from sightline_processors.slo_sampling.budget import SpanBudget
from sightline_processors.slo_sampling.buffer import NOT_SAMPLED, Limits, OpenTrace, Release, TraceBuffer
from sightline_processors.slo_sampling.choices import (
    BUDGET,
    CERTAIN,
    ERROR,
    EXEMPLAR,
    OF_PARENT,
    VIOLATION,
    Sampled,
    drawn,
    likelier,
)
from sightline_processors.slo_sampling.exemplars import DURATION_BOUNDARIES_SECONDS, ExemplarSlots
from sightline_processors.slo_sampling.probability import (
    RANDOM_BITS,
    state_of,
    threshold_in,
    threshold_of,
)
from sightline_processors.slo_sampling.roots import Exporting, RootFacts, promise_of
from sightline_processors.tracing.slotted_span import SlottedSpan

SPANS_PER_SECOND: Final = 100.0
EXEMPLAR_INTERVAL_SECONDS: Final = 60.0
"""Source: `OTEL_METRIC_EXPORT_INTERVAL`, its default."""


class SloSampler(Sampler):
    """Samples by service level objectives; any thread, and nothing raises.

    The spans that it records without the sampled flag are exported by `SloSamplingProcessor` alone.

    Args:
        spans_per_second: The aim for all kept spans, 0 or more. What must be kept may exceed it.
        exemplar_interval_seconds: How often each bucket's first request is kept, without `renew_exemplars`.
        boundaries: Of the buckets, in seconds.
        limits: Of the spans that are held until their trace is decided.
        clock: Monotonic seconds.

    Attributes:
        buffer: Holds the spans.
        processor: Exports what is kept; None until there is one.
        on_first_root: Called once, when the first trace begins without a processor.
    """

    def __init__(
        self,
        spans_per_second: float = SPANS_PER_SECOND,
        *,
        exemplar_interval_seconds: float = EXEMPLAR_INTERVAL_SECONDS,
        boundaries: Sequence[float] = DURATION_BOUNDARIES_SECONDS,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.spans_per_second = spans_per_second
        self.buffer = TraceBuffer(limits)
        self.processor: Exporting | None = None
        self.on_first_root: Callable[[], object] | None = None
        self._budget = SpanBudget(spans_per_second, clock)
        self._exemplars = ExemplarSlots(exemplar_interval_seconds, boundaries, clock)
        self._kept: Counter[str] = Counter()
        renew_in_children(self, SloSampler.forget)

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """Decides whether a span is recorded, and whether it is flagged; see the module's docstring."""
        del name, kind, links, trace_state
        around: Any = (get_current() if parent_context is None else parent_context).get(_SPAN_KEY)
        if SlottedSpan in type(around).__mro__:
            parent = around._context  # noqa: SLF001  a call less
        else:
            parent = get_current_span(parent_context).get_span_context()
        _, _, is_remote, flags, state, is_valid = parent  # its properties cost a call each
        if not is_valid or is_remote:
            _, is_flagged, state = self.begin(trace_id, parent if is_valid else None)
            decision = Decision.RECORD_AND_SAMPLE if is_flagged else Decision.RECORD_ONLY
            return SamplingResult(decision, attributes, state)
        trace = self.buffer.open.get(trace_id)
        if flags & 1 or (self.buffer.is_kept(trace_id) if trace is None else trace.choice or trace.promise):
            decision = Decision.RECORD_AND_SAMPLE
        elif trace is not None and not attributes and not state:
            return _RECORDED
        elif self.buffer.records(trace_id):
            decision = Decision.RECORD_ONLY
        else:  # below an excluded request, or of a trace that is long over
            return SamplingResult(Decision.DROP, None, state)
        return SamplingResult(decision, attributes, state)

    def get_description(self) -> str:
        """Returns the sampler's name with its budget."""
        return f"SightlineSlo{{{self.spans_per_second:g}}}"

    def begin(self, trace_id: int, parent: SpanContext | None) -> tuple[OpenTrace, bool, TraceState | None]:
        """Begins a local root, for `decide`.

        Args:
            trace_id: Of its trace.
            parent: Valid and remote, or None.

        Returns:
            Its trace, whether the span is flagged as sampled, and the trace state of its context.
        """
        if self.on_first_root is not None:
            self._attach()
        with self.buffer.lock:
            if parent is None:
                threshold = threshold_of(self._budget.head_probability())
                promise = drawn(threshold) if trace_id & RANDOM_BITS >= threshold else None
            else:
                promise = promise_of(trace_id, parent)
            trace, releases = self.buffer.begin(trace_id, promise)
        if releases:
            self.deliver(releases)
        if parent is not None:
            return trace, bool(parent.trace_flags.sampled), parent.trace_state
        if promise is None or promise.threshold is None:
            return trace, False, None
        return trace, True, state_of(promise.threshold)

    def decide(
        self,
        trace: OpenTrace,
        facts: RootFacts,
        parent: SpanContext | None,
        *,
        awaits_root: bool = False,
    ) -> bool:
        """Ends a local root that is not encoded yet; never raises.

        Args:
            trace: What `begin` gave.
            facts: Of the local root.
            parent: As `begin` had it.
            awaits_root: Whether the other spans are exported with the root, and not before.

        Returns:
            False when the root is not kept and not to be encoded; otherwise it is to be given to `put_root`
            of the processor, with the trace where the others await it.
        """
        buffer = self.buffer
        try:
            with buffer.lock:
                choice = self._choice(trace, facts, parent)
                releases = buffer.close(trace, choice, awaits_root=awaits_root)
                is_kept = trace.choice is not None or trace.open_roots > 0
                if not is_kept:
                    buffer.counts[NOT_SAMPLED] += 1
            if releases:
                self.deliver(releases)
        except Exception as error:  # noqa: BLE001  fail open
            report("sampling", "could not decide about a trace; it is not sampled", error=error)
            return False
        return is_kept

    def close(self, trace: OpenTrace, facts: RootFacts, parent: SpanContext | None) -> bool:
        """Ends a local root, and exports its children or drops them; tells whether its trace is decided."""
        with self.buffer.lock:
            choice = self._choice(trace, facts, parent)
            releases = self.buffer.close(trace, choice)
            is_over = trace.open_roots <= 0
        if releases:
            self.deliver(releases)
        return is_over

    def take(
        self, trace_id: int, span: Any, size: int, *, is_error: bool = False, is_flagged: bool = False
    ) -> None:
        """Takes a span that has ended; the arguments are those of `TraceBuffer.take`."""
        releases = self.buffer.take(trace_id, span, size, is_error=is_error, is_flagged=is_flagged)
        if releases:
            self.deliver(releases)

    def let_leave(self, trace: OpenTrace, *root: Any) -> bool:
        """Exports what awaits a root, and the root if there is one; tells whether its trace is kept."""
        releases = self.buffer.leave_with(trace, *root) if trace.open_roots <= 0 else []
        if releases:
            self.deliver(releases)
        return bool(releases)

    def reopened(self, context: SpanContext, parent: SpanContext | None) -> OpenTrace:
        """Returns the open trace of a local root that ends; a new one where it had to make room."""
        found = self.buffer.open.get(context.trace_id)
        if found is not None:
            return found
        promise = None
        if context.trace_flags.sampled:
            threshold = threshold_in(context.trace_state) if parent is None else None
            promise = OF_PARENT if threshold is None else Sampled(BUDGET, threshold)
        return OpenTrace(context.trace_id, promise)

    def renew_exemplars(self) -> None:
        """Wants the first request of each bucket again; for whoever collects the metrics."""
        with self.buffer.lock:
            self._exemplars.renew()

    def set_boundaries(self, boundaries: Sequence[float]) -> None:
        """Takes the boundaries of the histogram's buckets, in seconds, ascending."""
        self._exemplars.boundaries = tuple(boundaries)

    def kept(self) -> Mapping[str, int]:
        """Returns how many spans were kept, by reason."""
        with self.buffer.lock:
            return dict(self._kept)

    def finish(self) -> None:
        """Decides all open traces, at the end of the process."""
        self.deliver(self.buffer.finish())

    def forget(self) -> None:
        """Starts anew in a forked process; the parent exports what was open at the fork."""
        self.buffer.forget()
        self._kept = Counter()

    def _attach(self) -> None:
        attach, self.on_first_root = self.on_first_root, None
        try:
            if attach is not None:
                attach()
        except Exception as error:  # noqa: BLE001  another SDK: its processors stay as they are
            report("sampling", "could not attach the sampler to its exporters", error=error)

    def _choice(self, trace: OpenTrace, facts: RootFacts, parent: SpanContext | None) -> Sampled | None:
        """Returns what speaks for a local root that ends, with the lock held."""
        # Also where something else speaks for it: its measurement is the first of its bucket all the same.
        is_exemplar = self._exemplars.take(facts.series, facts.seconds)
        if facts.is_violation:
            return CERTAIN[VIOLATION]
        if facts.is_error:
            return CERTAIN[ERROR]
        if is_exemplar:
            return CERTAIN[EXEMPLAR]
        if trace.choice is not None and trace.choice.is_certain:
            return trace.choice
        if parent is not None:
            return promise_of(trace.trace_id, parent)
        threshold = threshold_of(self._budget.offer(facts.route, trace.ended_spans + 1))
        if trace.trace_id & RANDOM_BITS < threshold:
            return trace.promise
        return drawn(threshold) if trace.promise is None else likelier(drawn(threshold), trace.promise)

    def deliver(self, releases: Sequence[Release]) -> None:
        """Counts spans that are kept, and has them exported."""
        with self.buffer.lock:
            for choice, spans in releases:
                self._kept[choice.reason] += len(spans)
                if choice.reason != BUDGET:
                    self._budget.spend(len(spans))
        if self.processor is not None:
            for choice, spans in releases:
                self.processor.export(choice, spans)


_RECORDED: Final = SamplingResult(Decision.RECORD_ONLY)
"""The answer for most spans; nobody changes it."""
