"""The SDK's aggregations of a histogram: how its readers aggregate it, and the way in.

The SDK has no public way into an aggregation: private names of opentelemetry-sdk 1.45, tested with it.
"""

# ruff: noqa: SLF001

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.sdk.metrics._internal.aggregation import (
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
from opentelemetry.sdk.metrics._internal.measurement import Measurement
from opentelemetry.sdk.metrics._internal.measurement_consumer import SynchronousMeasurementConsumer
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context
from opentelemetry.util.types import AttributeValue

from sightline_processors.cardinality.limiter import OVERFLOW_ATTRIBUTES
from sightline_processors.cardinality.streams import (
    guard_of,
    hash_attributes,
    kept_attributes,
    made_aggregation,
)
from sightline_processors.report import report

Exemplar = tuple[int, int, int, int]
"""Trace ID, span ID (both 0 outside of a trace), Unix nanoseconds, and 1 if the span is exported, else 0."""

Attributes = Mapping[str, AttributeValue]


class Content:
    """What a buffer has taken since its last flush."""

    __slots__ = ("counts", "exemplars", "max", "min", "started_unix_ns", "sum")

    def __init__(self, buckets: int, started_unix_ns: int) -> None:
        self.counts = [0] * buckets
        self.exemplars: list[tuple[float, Exemplar, Attributes] | None] = [None] * buckets
        self.started_unix_ns = started_unix_ns
        self.sum: float = 0
        self.min = float("inf")
        self.max = float("-inf")


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """How the readers of a MeterProvider aggregate one instrument, all of them alike.

    Attributes:
        consumer: The provider's.
        storages: Each reader's storage; the consumer replaces this mapping whenever a reader comes or goes.
        boundaries: Upper bounds of the buckets, inclusive, in the instrument's unit; None where they do not
            aggregate alike, and the instrument has to record one by one.
        takes_exemplars: Whether measurements of sampled spans become exemplars.
        takes_all_exemplars: Whether all others do as well.
    """

    consumer: SynchronousMeasurementConsumer
    storages: Mapping[Any, Any]
    boundaries: Sequence[float] | None = None
    takes_exemplars: bool = False
    takes_all_exemplars: bool = False


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


def _kept_matches(storages: Mapping[Any, Any], instrument: Any) -> Iterator[Any]:
    """Yields each reader's streams of an instrument, but for those that a View drops."""
    for storage in storages.values():
        for match in storage._get_or_init_view_instrument_match(instrument):
            if not isinstance(match._aggregation, _DropAggregation):
                yield match


def _common_boundaries(storages: Mapping[Any, Any], instrument: Any) -> tuple[float, ...] | None:
    """Returns the boundaries that all readers and Views agree on; None where they do not."""
    found: set[tuple[float, ...]] = set()
    for match in _kept_matches(storages, instrument):
        aggregation = match._aggregation
        if (
            type(aggregation) is not _ExplicitBucketHistogramAggregation
            or type(aggregation._reservoir) is not AlignedHistogramBucketExemplarReservoir
        ):
            return None
        found.add(aggregation._boundaries)
    if len(found) > 1:
        return None
    return found.pop() if found else ()


@dataclass(frozen=True, slots=True, eq=False)
class Taken:
    """What one buffer gives away, with all that is needed to add it to the SDK's aggregations."""

    content: Content
    plan: Plan
    instrument: Any
    attributes: Attributes


Offer = tuple[Any, float, Exemplar, Attributes]
"""Reservoir, value, where the value was measured, attributes of the measurement."""


def hand_over(taken: Iterable[Taken]) -> None:
    """Adds to the aggregations of every reader, as if each measurement had been recorded there.

    In the order of time, because a View may make one stream of several attribute sets: it starts with the
    first of them, and its exemplars are the last. So may the limit on attribute sets, which counts them in
    that order. A failure is counted and keeps nothing else back.
    """
    offers: list[Offer] = []
    for each in sorted(taken, key=lambda each: each.content.started_unix_ns):
        try:
            offers += _deliver(each)
        except Exception as error:  # noqa: BLE001  fail open: the others are handed over
            report("histograms", "could not hand a histogram to its readers", error=error)
    for reservoir, value, exemplar, attributes in sorted(offers, key=lambda offer: offer[2][2]):
        reservoir.offer(value, exemplar[2], attributes, context_of(exemplar))


def _deliver(taken: Taken) -> list[Offer]:
    """Adds what was taken; returns its exemplars, which are still to be offered."""
    content = taken.content
    sampled = [each for each in content.exemplars if each is not None]
    offers: list[Offer] = []
    is_noted = False
    for match in _kept_matches(taken.plan.storages, taken.instrument):
        aggregation, attributes, overflow = _aggregation(match, taken.attributes, content.started_unix_ns)
        _add(aggregation, content)
        offers += [
            (aggregation._reservoir, value, exemplar, {**attributes, **more})
            for value, exemplar, more in sampled
        ]
        if overflow is not None and not is_noted:
            is_noted = True
            overflow(sum(content.counts))
    return offers


def _aggregation(
    match: Any, attributes: Attributes, started_unix_ns: int
) -> tuple[Any, Attributes, Callable[[int], None] | None]:
    """Returns where an attribute set is aggregated.

    Returns:
        Its aggregation or that of the overflow set, the attributes of the measurements there, and what
        counts them in the latter case.
    """
    kept = kept_attributes(match, attributes)
    key = hash_attributes(kept)
    guard = guard_of(match)
    if guard is None or key in match._attributes_aggregation or guard.admits(key, kept):
        return made_aggregation(match, key, kept, started_unix_ns), attributes, None
    return guard.overflow_aggregation(started_unix_ns), OVERFLOW_ATTRIBUTES, partial(guard.note, key)


def _add(aggregation: Any, content: Content) -> None:
    with aggregation._lock:
        if aggregation._value is None:
            aggregation._value = aggregation._get_empty_bucket_counts()
        aggregation._value = [old + new for old, new in zip(aggregation._value, content.counts, strict=True)]
        aggregation._sum += content.sum
        if aggregation._record_min_max:
            aggregation._min = min(aggregation._min, content.min)
            aggregation._max = max(aggregation._max, content.max)


def record(instrument: Any, value: float, attributes: Attributes, exemplar: Exemplar) -> None:
    """Records one measurement as of when and where it was made, and not as of here and now."""
    if math.isfinite(value) and value >= 0:
        consumer: SynchronousMeasurementConsumer = instrument._measurement_consumer
        context = context_of(exemplar)
        consumer.consume_measurement(Measurement(value, exemplar[2], instrument, context, attributes))
    else:
        instrument.record(value, attributes)  # which says why it does not


def context_of(exemplar: Exemplar) -> Context:
    """Returns a context that names the span of a measurement."""
    trace_id, span_id, _, is_sampled = exemplar
    if not trace_id:
        return Context()
    flags = TraceFlags(TraceFlags.SAMPLED if is_sampled else TraceFlags.DEFAULT)
    span = SpanContext(trace_id, span_id, is_remote=False, trace_flags=flags)
    return set_span_in_context(NonRecordingSpan(span), Context())
