"""The limit on one metric stream of one reader: what a View has made of an instrument.

The SDK has no cardinality limit and no public way into a stream: private names of opentelemetry-sdk 1.45,
looked up before they are relied on (`is_known`), tested with it.
"""

# ruff: noqa: SLF001

from collections.abc import Hashable, Mapping
from time import time_ns
from typing import Any, Final

from opentelemetry.sdk.metrics._internal import _view_instrument_match
from opentelemetry.sdk.metrics._internal.aggregation import DefaultAggregation, _DropAggregation
from opentelemetry.sdk.metrics._internal.measurement import Measurement

from sightline_processors.cardinality.limiter import OVERFLOW_ATTRIBUTES, AttributeSetLimiter
from sightline_processors.cardinality.overflow import Overflows, Pairs
from sightline_processors.report import report

Attributes = Mapping[str, Any]

hash_attributes: Any = getattr(_view_instrument_match, "_hash_attributes", None)
"""What the SDK knows an attribute set by: `("mapping", ((key, hashed value), …))`."""

_NEEDED: Final = (
    "_aggregation",
    "_attributes_aggregation",
    "_instrument",
    "_instrument_class_aggregation",
    "_lock",
    "_view",
)
_CONSUME: Final = "consume_measurement"
_NOTED: Final = "sightline.noted"
"""Marks a measurement that has been counted: each reader gets the same one."""


class StreamGuard:
    """Puts the measurements of further attribute sets into the overflow set; any thread.

    The way of a set that has been seen takes no lock, and what of the SDK's it replaces takes as long. Memory
    is that of the limiter.

    Args:
        match: The SDK's stream; the sets that it has already keep counting.
        limiter: Its own.
        overflows: Where overflowing measurements are counted.
        limit: The limiter's, for the line in the log.
    """

    __slots__ = ("_consume", "_instrument", "_limit", "_limiter", "_match", "_overflows")

    def __init__(self, match: Any, limiter: AttributeSetLimiter, overflows: Overflows, limit: int) -> None:
        self._match = match
        self._limiter = limiter
        self._limit = limit
        self._instrument: str = match._instrument.name
        # A dropped stream is limited for its memory alone: nobody misses its series.
        is_dropped = isinstance(match._aggregation, _DropAggregation)
        self._overflows = None if is_dropped else overflows
        self._consume = match.consume_measurement

    def install(self) -> None:
        """Takes the place of the stream's `consume_measurement`."""
        with self._match._lock:
            for key, aggregation in self._match._attributes_aggregation.items():
                self._limiter.admits(key, aggregation._attributes or {})
            vars(self._match)[_CONSUME] = self.consume

    def consume(self, measurement: Any, should_sample_exemplar: bool = True) -> None:  # noqa: FBT001, FBT002  the SDK's signature
        """Aggregates a measurement into its set's aggregation or into the overflow set's."""
        try:
            kept = kept_attributes(self._match, measurement.attributes)
            key = hash_attributes(kept)
            aggregation = self._match._attributes_aggregation.get(key)
            if aggregation is None and not self._limiter.admits(key, kept):
                aggregation = self.overflow_aggregation(time_ns())
                if not vars(measurement).setdefault(_NOTED, False):
                    vars(measurement)[_NOTED] = True
                    self.note(key, 1)
                measurement = _without_attributes(measurement)
        except Exception as error:  # noqa: BLE001  fail open: counted without a limit
            report("cardinality", "could not limit a measurement", error=error)
            aggregation = None
        if aggregation is None:
            self._consume(measurement, should_sample_exemplar)
        else:
            aggregation.aggregate(measurement, should_sample_exemplar)

    def admits(self, key: Hashable, kept: Attributes) -> bool:
        """Tells whether a set has its own aggregation, now and from now on."""
        return self._limiter.admits(key, kept)

    def overflow_aggregation(self, started_unix_ns: int) -> Any:
        """Returns the aggregation of the overflow set; makes it with that start."""
        return made_aggregation(self._match, _OVERFLOW_KEY, OVERFLOW_ATTRIBUTES, started_unix_ns)

    def note(self, key: Any, count: int) -> None:
        """Counts measurements of a set that overflowed; once for all streams of the instrument."""
        pairs: Pairs = key[1]
        if self._overflows is not None:
            self._overflows.note(self._instrument, self._limit, pairs, count)


_OVERFLOW_KEY: Final = hash_attributes(OVERFLOW_ATTRIBUTES) if hash_attributes is not None else None


def is_known(match: Any) -> bool:
    """Tells whether a stream is made as this module expects."""
    return hash_attributes is not None and all(name in vars(match) for name in _NEEDED)


def guard_of(match: Any) -> StreamGuard | None:
    """Returns what guards a stream, if anything does."""
    guard = getattr(vars(match).get(_CONSUME), "__self__", None)
    return guard if isinstance(guard, StreamGuard) else None


def release(match: Any) -> None:
    """Gives a stream its own `consume_measurement` back; the sets that it has keep counting."""
    if guard_of(match) is not None:
        del vars(match)[_CONSUME]


def kept_attributes(match: Any, attributes: Attributes | None) -> Attributes:
    """Returns the attributes that a View keeps, in a copy."""
    if not attributes:
        return {}
    keys = match._view._attribute_keys
    if keys is None:
        return dict(attributes)
    return {key: value for key, value in attributes.items() if key in keys}


def made_aggregation(match: Any, key: Hashable, kept: Attributes, started_unix_ns: int) -> Any:
    """Returns the aggregation of an attribute set; makes it as `_ViewInstrumentMatch` does."""
    found = match._attributes_aggregation.get(key)
    if found is not None:
        return found
    with match._lock:
        found = match._attributes_aggregation.get(key)
        if found is None:
            wanted = match._view._aggregation
            if isinstance(wanted, DefaultAggregation):
                wanted = match._instrument_class_aggregation[type(match._instrument)]
            found = match._attributes_aggregation[key] = wanted._create_aggregation(
                match._instrument, dict(kept), match._view._exemplar_reservoir_factory, started_unix_ns
            )
    return found


def _without_attributes(measurement: Any) -> Measurement:
    """Returns the measurement as one of the overflow set: its exemplar holds the trace and no raw value."""
    return Measurement(
        measurement.value,
        measurement.time_unix_nano,
        measurement.instrument,
        measurement.context,
        OVERFLOW_ATTRIBUTES,
    )
