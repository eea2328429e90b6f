"""Histograms that are aggregated in batches and handed to every MetricReader when it collects.

`Histogram.record` of the SDK costs 6 µs: a measurement, a hash of the attributes, a bucket, an exemplar, for
each reader. A `HistogramBuffer` takes the measurements of one attribute set by the hundred, and moves what
it has into the SDK's own aggregations: temporality, Views and readers stay the SDK's matter. Where the SDK
would not aggregate into explicit buckets with the default exemplars (exponential histograms, a View's own
boundaries for one reader, a foreign MeterProvider), the instrument records one by one.
"""

# ruff: noqa: SLF001  see `histogram_aggregations`

import math
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from opentelemetry.attributes import _clean_attribute_value
from opentelemetry.metrics import Histogram
from opentelemetry.sdk.metrics._internal._view_instrument_match import _hash_attributes
from opentelemetry.util.types import AttributeValue

from sightline_processors.forked_processes import renew_in_children
from sightline_processors.histogram_aggregations import (
    Content,
    Exemplar,
    Plan,
    Taken,
    hand_over,
    plan_for,
    record,
)
from sightline_processors.report import report

__all__ = ["Exemplar", "HistogramBuffer", "HistogramBuffers", "Plan", "plan_for"]

MAX_BUFFERS: Final = 30_000
"""Attribute sets of one MeterProvider's histograms, of 10,000 outcomes; further ones record one by one."""

FLUSH_LOCK_SECONDS: Final = 1.0
"""Longest wait for a buffer's lock: its holder may be what a signal handler has interrupted."""


NO_ATTRIBUTES: Final[Mapping[str, AttributeValue]] = {}


def _as_it_is(exemplar: Exemplar) -> Exemplar:
    return exemplar


def _aggregate(
    content: Content, ordered: Sequence[float], boundaries: Sequence[float], total: float
) -> list[int]:
    """Adds valid measurements, in ascending order; returns the buckets that they fell into.

    Values of one bucket stand together then: a look-up for each bucket is less than one for each value.
    """
    buckets = []
    start, size = 0, len(ordered)
    while start < size:
        bucket = bisect_left(boundaries, ordered[start])
        end = bisect_right(ordered, boundaries[bucket], start) if bucket < len(boundaries) else size
        content.counts[bucket] += end - start
        buckets.append(bucket)
        start = end
    content.sum += total
    content.min = min(content.min, ordered[0])
    content.max = max(content.max, ordered[-1])
    return buckets


def _keep_exemplars(
    content: Content,
    values: Sequence[float],
    buckets: Sequence[int],
    plan: Plan,
    sources: Sequence[Any],
    exemplar_of: Callable[[Any], Exemplar],
    more: Mapping[str, AttributeValue],
) -> None:
    """Keeps the last exemplar of each bucket; most buckets have one near the end."""
    missing, boundaries = set(buckets), plan.boundaries or ()
    for index in range(len(values) - 1, -1, -1):
        bucket = bisect_left(boundaries, values[index])
        if bucket in missing:
            exemplar = exemplar_of(sources[index])
            if exemplar[3] or plan.takes_all_exemplars:
                content.exemplars[bucket] = (values[index], exemplar, more)
                missing.discard(bucket)
                if not missing:
                    return


class HistogramBuffer:
    """Aggregates the measurements of one attribute set until the next flush; any thread.

    Memory is constant: one count and one exemplar for each bucket, the last measurement of a sampled span.

    Args:
        instrument: A histogram of the SDK.
        attributes: The attribute set; not changed after.
        plan: How the instrument is aggregated now.
        siblings: The buffers whose attribute sets a View may make one stream with this one's.
    """

    __slots__ = ("_attributes", "_content", "_instrument", "_lock", "_plan", "_siblings")

    def __init__(
        self,
        instrument: Any,
        attributes: Mapping[str, AttributeValue],
        plan: Plan,
        siblings: "HistogramBuffers",
    ) -> None:
        self._instrument = instrument
        self._attributes = attributes
        self._plan = plan
        self._siblings = siblings
        self._lock = threading.Lock()
        self._content: Content | None = None

    def add(
        self,
        values: Sequence[float],
        sources: Sequence[Any],
        exemplar_of: Callable[[Any], Exemplar] = _as_it_is,
        more: Mapping[str, AttributeValue] | None = NO_ATTRIBUTES,
    ) -> None:
        """Takes measurements in the order in which they were made.

        One that is negative or not finite is ignored with a line in the log, and all are while the meter is
        disabled, as by `Histogram.record`.

        Args:
            values: At least one.
            sources: As many, where each was made.
            exemplar_of: Makes an exemplar of a source; asked for the few that become one.
            more: Attributes of the measurements that only their exemplars show; None where none of them
                belongs to a sampled span.
        """
        if not self._instrument._is_enabled():
            return
        plan = self._plan
        if plan.consumer._reader_storages is not plan.storages:
            self._renew()
        total = sum(values)
        ordered = sorted(values) if math.isfinite(total) else ()
        if ordered and ordered[0] >= 0:
            with self._lock:
                plan = self._plan
                if plan.boundaries is not None:
                    content = self._content
                    if content is None:
                        started_unix_ns = exemplar_of(sources[0])[2]
                        content = self._content = Content(len(plan.boundaries) + 1, started_unix_ns)
                    buckets = _aggregate(content, ordered, plan.boundaries, total)
                    if plan.takes_all_exemplars or (plan.takes_exemplars and more is not None):
                        _keep_exemplars(
                            content,
                            values,
                            buckets,
                            plan,
                            sources,
                            exemplar_of,
                            more or NO_ATTRIBUTES,
                        )
                    return
        else:
            self._siblings.flush()
        for value, source in zip(values, sources, strict=True):
            record(self._instrument, value, self._attributes, exemplar_of(source))

    def _renew(self) -> None:
        """Adapts to readers that came or went: those that came get nothing from before."""
        consumer = self._plan.consumer
        storages = consumer._reader_storages
        plan = plan_for(self._instrument) or Plan(consumer, storages)
        self._siblings.flush()
        with self._lock:
            taken = self._take()
            self._plan = plan
        hand_over(taken)

    def _take(self) -> list[Taken]:
        """Empties the buffer, with the lock held; returns what was in it, if anything."""
        content, self._content = self._content, None
        return [] if content is None else [Taken(content, self._plan, self._instrument, self._attributes)]

    def take(self) -> list[Taken]:
        """Empties the buffer; returns what was in it, for `hand_over`: at most one."""
        if self._content is None or not self._lock.acquire(timeout=FLUSH_LOCK_SECONDS):
            return []
        try:
            return self._take()
        finally:
            self._lock.release()

    def flush(self) -> None:
        """Moves what has been taken into the aggregations of every reader."""
        hand_over(self.take())

    def forget(self) -> None:
        """Drops what has been taken: a forked process has it from its parent, which exports it."""
        self._lock = threading.Lock()
        self._content = None


class HistogramBuffers:
    """Holds the buffers of one MeterProvider and flushes them; safe from any thread.

    Memory is bounded by `MAX_BUFFERS`. A limit on attribute sets (`cardinality.guard_instruments`) acts where
    the buffers are flushed: what is beyond it goes to the overflow set, with its exemplars' traces.
    """

    def __init__(self) -> None:
        self._buffers: dict[Any, HistogramBuffer] = {}
        renew_in_children(self, HistogramBuffers.forget)

    def buffer(
        self, instrument: Histogram, attributes: Mapping[str, AttributeValue]
    ) -> HistogramBuffer | None:
        """Returns the one buffer of an attribute set; None where the instrument has to record one by one."""
        try:
            plan = plan_for(instrument)
            if plan is None:
                self.flush()  # what was measured before stays before
                return None
            clean: Any = _clean_attribute_value(attributes, None)
            key = (instrument, _hash_attributes(clean))
            if len(self._buffers) >= MAX_BUFFERS:
                return self._buffers.get(key)
            return self._buffers.setdefault(key, HistogramBuffer(instrument, clean, plan, self))
        except Exception as error:  # noqa: BLE001  another SDK than the tested one
            report("histograms", "cannot aggregate beside the request; recording one by one", error=error)
            return None

    def flush(self) -> None:
        """Hands everything to the SDK; called when a reader collects."""
        hand_over([taken for buffer in list(self._buffers.values()) for taken in buffer.take()])

    def forget(self) -> None:
        """Drops everything; for a forked process."""
        for buffer in list(self._buffers.values()):
            buffer.forget()
