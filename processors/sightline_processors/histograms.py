"""Histograms that are aggregated in batches and handed to every MetricReader when it collects.

`Histogram.record` of the SDK costs 6 µs: a measurement, a hash of the attributes, a bucket, an exemplar, for
each reader. A `HistogramBuffer` takes the measurements of one attribute set by the hundred, and moves what
it has into the SDK's own aggregations: temporality, Views and readers stay the SDK's matter. Where the SDK
would not aggregate into explicit buckets with the default exemplars (exponential histograms, a View's own
boundaries for one reader, a foreign MeterProvider), the instrument records one by one.

The SDK has no public way into an aggregation: private names of opentelemetry-sdk 1.45, tested with it.
"""

# ruff: noqa: SLF001

import os
import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from weakref import WeakSet

from opentelemetry.context import Context
from opentelemetry.metrics import Histogram
from opentelemetry.sdk.metrics._internal._view_instrument_match import _hash_attributes
from opentelemetry.sdk.metrics._internal.aggregation import (
    DefaultAggregation,
    _DropAggregation,
    _ExplicitBucketHistogramAggregation,
)
from opentelemetry.sdk.metrics._internal.exemplar.exemplar_filter import (
    AlwaysOffExemplarFilter,
    AlwaysOnExemplarFilter,
    TraceBasedExemplarFilter,
)
from opentelemetry.sdk.metrics._internal.exemplar.exemplar_reservoir import (
    AlignedHistogramBucketExemplarReservoir,
)
from opentelemetry.sdk.metrics._internal.instrument import _Histogram
from opentelemetry.sdk.metrics._internal.measurement_consumer import SynchronousMeasurementConsumer
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context
from opentelemetry.util.types import AttributeValue

from sightline_processors.report import report

FLUSH_LOCK_SECONDS: Final = 1.0
"""Longest wait for a buffer's lock: its holder may be what a signal handler has interrupted."""


Exemplar = tuple[int, int, int, int]
"""Trace ID, span ID, time in Unix nanoseconds, and 1 if the span is exported, else 0."""


class _Content:
    """What a buffer has taken since its last flush."""

    __slots__ = ("counts", "exemplars", "max", "min", "started_unix_ns", "sum")

    def __init__(self, buckets: int, started_unix_ns: int) -> None:
        self.counts = [0] * buckets
        self.exemplars: list[tuple[float, Exemplar] | None] = [None] * buckets
        self.started_unix_ns = started_unix_ns
        self.sum: float = 0
        self.min = float("inf")
        self.max = float("-inf")


class HistogramBuffer:
    """Aggregates the measurements of one attribute set until the next flush; any thread.

    Memory is constant: one count and one exemplar for each bucket, the last measurement of a sampled span.

    Args:
        instrument: A histogram of the SDK.
        attributes: The attribute set; not changed after.
        plan: How the instrument is aggregated now.
    """

    __slots__ = ("_attributes", "_content", "_instrument", "_lock", "_plan")

    def __init__(self, instrument: Any, attributes: Mapping[str, AttributeValue], plan: "Plan") -> None:
        self._instrument = instrument
        self._attributes = attributes
        self._plan = plan
        self._lock = threading.Lock()
        self._content: _Content | None = None

    def add(self, values: Sequence[float], exemplars: Sequence[Exemplar]) -> None:
        """Takes measurements, 0 or more each, in the order in which they were made.

        Args:
            values: At least one.
            exemplars: As many, where each was made.
        """
        plan = self._plan
        if plan.consumer._reader_storages is not plan.storages and not self._renew():
            self._record_each(values, exemplars)
            return
        with self._lock:
            plan = self._plan
            content = self._content
            if content is None:
                content = self._content = _Content(len(plan.boundaries) + 1, exemplars[0][2])
            buckets = list(map(partial(bisect_left, plan.boundaries), values))
            for bucket, count in Counter(buckets).items():
                content.counts[bucket] += count
            content.sum += sum(values)
            content.min = min(content.min, *values)
            content.max = max(content.max, *values)
            if plan.takes_exemplars:
                for bucket, value, exemplar in zip(buckets, values, exemplars, strict=True):
                    if exemplar[3] or plan.takes_all_exemplars:
                        content.exemplars[bucket] = (value, exemplar)

    def _record_each(self, values: Sequence[float], exemplars: Sequence[Exemplar]) -> None:
        for value, exemplar in zip(values, exemplars, strict=True):
            self._instrument.record(value, self._attributes, _context(exemplar))

    def _renew(self) -> bool:
        """Adapts to readers that came or went; returns whether measurements can be aggregated here."""
        plan = plan_for(self._instrument)
        if plan is None:
            self.flush()
            return False
        with self._lock:
            content, self._content = self._content, None
            before, self._plan = self._plan, plan
        self._deliver(content, before)
        return True

    def flush(self) -> None:
        """Moves what has been taken into the aggregations of every reader."""
        if self._content is None or not self._lock.acquire(timeout=FLUSH_LOCK_SECONDS):
            return
        try:
            content, self._content = self._content, None
            plan = self._plan
        finally:
            self._lock.release()
        self._deliver(content, plan)

    def _deliver(self, content: _Content | None, plan: "Plan") -> None:
        if content is None or not self._instrument._is_enabled():
            return
        for storage in plan.storages.values():
            for match in storage._get_or_init_view_instrument_match(self._instrument):
                if not isinstance(match._aggregation, _DropAggregation):
                    aggregation = _aggregation(match, self._attributes, content.started_unix_ns)
                    _add(aggregation, content, self._attributes)

    def forget(self) -> None:
        """Drops what has been taken: a forked process has it from its parent, which exports it."""
        self._lock = threading.Lock()
        self._content = None


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """How the readers of a MeterProvider aggregate one instrument, all of them alike.

    Attributes:
        consumer: The provider's.
        storages: Each reader's storage; the consumer replaces this mapping whenever a reader comes or goes.
        boundaries: Upper bounds of the buckets, inclusive, in the instrument's unit.
        takes_exemplars: Whether measurements of sampled spans become exemplars.
        takes_all_exemplars: Whether all others do as well.
    """

    consumer: SynchronousMeasurementConsumer
    storages: Mapping[Any, Any]
    boundaries: Sequence[float]
    takes_exemplars: bool
    takes_all_exemplars: bool


_FILTERS: Final = {
    AlwaysOffExemplarFilter: (False, False),
    TraceBasedExemplarFilter: (True, False),
    AlwaysOnExemplarFilter: (True, True),
}


def plan_for(instrument: object) -> Plan | None:
    """Returns how an instrument is aggregated, or None where it has to record one by one."""
    if type(instrument) is not _Histogram:
        return None
    consumer = instrument._measurement_consumer
    if type(consumer) is not SynchronousMeasurementConsumer:
        return None
    exemplars = _FILTERS.get(type(consumer._sdk_config.exemplar_filter))
    storages = consumer._reader_storages
    boundaries = _common_boundaries(storages, instrument)
    if exemplars is None or boundaries is None:
        return None
    return Plan(consumer, storages, boundaries, *exemplars)


def _common_boundaries(storages: Mapping[Any, Any], instrument: Any) -> tuple[float, ...] | None:
    """Returns the boundaries that all readers and Views agree on; None where they do not."""
    found: set[tuple[float, ...]] = set()
    for storage in storages.values():
        for match in storage._get_or_init_view_instrument_match(instrument):
            aggregation = match._aggregation
            if isinstance(aggregation, _DropAggregation):
                continue
            if (
                type(aggregation) is not _ExplicitBucketHistogramAggregation
                or type(aggregation._reservoir) is not AlignedHistogramBucketExemplarReservoir
            ):
                return None
            found.add(aggregation._boundaries)
    if len(found) > 1:
        return None
    return found.pop() if found else ()


def _aggregation(match: Any, attributes: Mapping[str, AttributeValue], started_unix_ns: int) -> Any:
    """Returns the aggregation of an attribute set; makes it as `_ViewInstrumentMatch` does."""
    kept = dict(attributes)
    if match._view._attribute_keys is not None:
        kept = {key: value for key, value in kept.items() if key in match._view._attribute_keys}
    key = _hash_attributes(kept)
    with match._lock:
        found = match._attributes_aggregation.get(key)
        if found is None:
            wanted = match._view._aggregation
            if isinstance(wanted, DefaultAggregation):
                wanted = match._instrument_class_aggregation[type(match._instrument)]
            found = match._attributes_aggregation[key] = wanted._create_aggregation(
                match._instrument, kept, match._view._exemplar_reservoir_factory, started_unix_ns
            )
    return found


def _add(aggregation: Any, content: _Content, attributes: Mapping[str, AttributeValue]) -> None:
    """Adds to an aggregation, as if each measurement had been recorded there."""
    with aggregation._lock:
        if aggregation._value is None:
            aggregation._value = aggregation._get_empty_bucket_counts()
        aggregation._value = [old + new for old, new in zip(aggregation._value, content.counts, strict=True)]
        aggregation._sum += content.sum
        if aggregation._record_min_max:
            aggregation._min = min(aggregation._min, content.min)
            aggregation._max = max(aggregation._max, content.max)
    for sampled in content.exemplars:
        if sampled is not None:
            value, exemplar = sampled
            aggregation._reservoir.offer(value, exemplar[2], attributes, _context(exemplar))


def _context(exemplar: Exemplar) -> Context:
    """Returns a context that names the span of a measurement."""
    trace_id, span_id, _, is_sampled = exemplar
    flags = TraceFlags(TraceFlags.SAMPLED if is_sampled else TraceFlags.DEFAULT)
    span = SpanContext(trace_id, span_id, is_remote=False, trace_flags=flags)
    return set_span_in_context(NonRecordingSpan(span), Context())


class HistogramBuffers:
    """Holds the buffers of one MeterProvider and flushes them; safe from any thread."""

    def __init__(self) -> None:
        self._buffers: list[HistogramBuffer] = []
        _all.add(self)

    def buffer(
        self, instrument: Histogram, attributes: Mapping[str, AttributeValue]
    ) -> HistogramBuffer | None:
        """Returns the buffer of one attribute set; None where the instrument has to record one by one."""
        try:
            plan = plan_for(instrument)
        except Exception as error:  # noqa: BLE001  another SDK than the tested one
            report("histograms", "cannot aggregate beside the request; recording one by one", error=error)
            return None
        if plan is None:
            return None
        made = HistogramBuffer(instrument, attributes, plan)
        self._buffers.append(made)
        return made

    def flush(self) -> None:
        """Hands everything to the SDK; called when a reader collects."""
        for buffer in list(self._buffers):
            try:
                buffer.flush()
            except Exception as error:  # noqa: BLE001  fail open: the others are flushed
                report("histograms", "could not hand a histogram to its readers", error=error)

    def forget(self) -> None:
        """Drops everything; for a forked process."""
        for buffer in self._buffers:
            buffer.forget()


_all: "WeakSet[HistogramBuffers]" = WeakSet()


def _forget_all() -> None:
    for buffers in list(_all):
        buffers.forget()


os.register_at_fork(after_in_child=_forget_all)
