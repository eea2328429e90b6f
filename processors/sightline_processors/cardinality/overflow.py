"""What overflowed: `sightline.cardinality.overflow`, and one line an hour for each instrument.

The offender is the attribute with the most distinct values among the sets that overflowed, as estimated from
hashes: no value is kept, and none is ever shown.
"""

import logging
import math
import re
import threading
import time
from collections.abc import Callable, Hashable, Iterable
from typing import Any, Final
from weakref import WeakKeyDictionary

from opentelemetry.metrics import CallbackOptions, Meter, Observation
from opentelemetry.sdk.metrics import Meter as SdkMeter

from sightline_processors.forked_processes import renew_in_children

logger = logging.getLogger("sightline")

OVERFLOW_COUNTER: Final = "sightline.cardinality.overflow"
"""Counter, `{measurement}`, by `instrument` and `attribute`: measurements that went to the overflow set.

Of at most `MAX_INSTRUMENTS` times `MAX_KEYS` series, one or two for each instrument in practice.
"""

INTERVAL_SECONDS: Final = 3600.0
"""Between two lines about one instrument."""
EVIDENCE: Final = 100
"""Measurements after which the offender is named, where no reader collects before."""
MAX_INSTRUMENTS: Final = 200
"""Instruments that are told apart; further ones are `_other`."""
MAX_KEYS: Final = 32
"""Attribute keys that are told apart for each instrument; further and odd ones are `_other`."""
OTHER: Final = "_other"

_KEY: Final = re.compile(r"[A-Za-z0-9_.:/-]{1,100}")

_64_BITS: Final = 0xFFFF_FFFF_FFFF_FFFF

Pairs = Iterable[tuple[str, Hashable]]


class DistinctValues:
    """Estimates how many distinct values there were, within 20 % nearly always; memory is 256 bytes.

    Source: Flajolet et al., HyperLogLog (2007), with linear counting while few registers are used.
    """

    __slots__ = ("_registers",)

    SIZE: Final = 256

    def __init__(self) -> None:
        self._registers = bytearray(self.SIZE)

    def add(self, value_hash: int) -> None:
        """Takes the hash of a value, as `hash` returns it."""
        bits = _mixed(value_hash)
        index = bits % self.SIZE
        rank = 57 - (bits // self.SIZE).bit_length()
        self._registers[index] = max(self._registers[index], rank)

    def estimate(self) -> float:
        """Returns the number of distinct values, approximately."""
        size = self.SIZE
        estimate = 0.7183 * size * size / sum(2.0**-register for register in self._registers)
        unused = self._registers.count(0)
        return size * math.log(size / unused) if unused and estimate <= 2.5 * size else estimate


def _mixed(value_hash: int) -> int:
    """Returns 64 bits that look random: hashes of numbers in a row are in a pattern, as a tuple's item too.

    Source: `fmix64` of MurmurHash3 (Appleby, public domain).
    """
    bits = value_hash & _64_BITS
    bits = (bits ^ bits >> 33) * 0xFF51_AFD7_ED55_8CCD & _64_BITS
    bits = (bits ^ bits >> 33) * 0xC4CE_B9FE_1A85_EC53 & _64_BITS
    return bits ^ bits >> 33


class Tally:
    """Counts what overflowed of one instrument, and finds out why; any thread.

    Memory: 256 bytes for each of `MAX_KEYS` attribute keys.

    Args:
        instrument: Its name.
        clock: Monotonic seconds.
    """

    def __init__(self, instrument: str, clock: Callable[[], float]) -> None:
        self._instrument = instrument
        self._clock = clock
        self._total = 0
        self._limit = 0
        self._values: dict[str, DistinctValues] = {}
        self._counts: dict[str, int] = {}
        self._attributed = 0
        self._told_total = 0
        self._told_at = -math.inf
        self.renew_lock()

    def renew_lock(self) -> None:
        """Frees the tally of a forked process, whose lock a thread of its parent may hold."""
        self._lock = threading.RLock()  # a signal handler may interrupt its holder

    def note(self, limit: int, pairs: Pairs, count: int) -> None:
        """Counts measurements of one attribute set that overflowed.

        Args:
            limit: What has been exceeded.
            pairs: The set's keys, each with something that equals for equal values.
            count: Number of measurements.
        """
        with self._lock:
            self._limit = limit
            self._total += count
            for key, value in pairs:
                self._values_of(key).add(hash((key, value)))
            has_evidence = self._total - self._told_total >= EVIDENCE
        if has_evidence:
            self.tell()

    def _values_of(self, key: str) -> DistinctValues:
        found = self._values.get(key)
        if found is None:
            is_told_apart = len(self._values) < MAX_KEYS and _KEY.fullmatch(key)
            found = self._values.setdefault(key if is_told_apart else OTHER, DistinctValues())
        return found

    def counts(self) -> dict[str, int]:
        """Returns the measurements by offender: what came since the last call goes to the present one."""
        with self._lock:
            new = self._total - self._attributed
            if new:
                offender = self._offender()
                self._counts[offender] = self._counts.get(offender, 0) + new
                self._attributed = self._total
            return dict(self._counts)

    def _offender(self) -> str:
        return max(self._values, key=lambda key: self._values[key].estimate(), default=OTHER)

    def tell(self) -> None:
        """Logs a line if anything has overflowed since the last, an hour after it at the earliest."""
        with self._lock:
            now, new = self._clock(), self._total - self._told_total
            if not new or now - self._told_at < INTERVAL_SECONDS:
                return
            self._told_at, self._told_total = now, self._total
            offender, limit = self._offender(), self._limit
        logger.warning(
            "%s has more than %d attribute sets, most of them by the values of %s: %d measurements since the "
            "last such line went into one series, otel.metric.overflow=true; leave the attribute out with a "
            "View (attribute_keys), bound its values, or raise SIGHTLINE_CARDINALITY_LIMIT",
            self._instrument,
            limit,
            offender,
            new,
        )


class Overflows:
    """Holds the tallies of one MeterProvider, `MAX_INSTRUMENTS` and one at most; any thread.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tallies: dict[str, Tally] = {}
        renew_in_children(self, Overflows.renew_locks)

    def note(self, instrument: str, limit: int, pairs: Pairs, count: int = 1) -> None:
        """Counts measurements of one attribute set of an instrument; see `Tally.note`."""
        tally = self._tallies.get(instrument)
        if tally is None:
            name = instrument if len(self._tallies) < MAX_INSTRUMENTS else OTHER
            tally = self._tallies.setdefault(name, Tally(name, self._clock))
        tally.note(limit, pairs, count)

    def observations(self) -> list[Observation]:
        """Returns the counts by instrument and offender, and tells of what has not been told."""
        found: list[Observation] = []
        for instrument, tally in list(self._tallies.items()):
            tally.tell()
            found += [
                Observation(count, {"instrument": instrument, "attribute": attribute})
                for attribute, count in tally.counts().items()
            ]
        return found

    def renew_locks(self) -> None:
        """Frees the tallies of a forked process."""
        for tally in list(self._tallies.values()):
            tally.renew_lock()


_of_consumers: "WeakKeyDictionary[Any, Overflows]" = WeakKeyDictionary()


def overflows_of(consumer: object) -> Overflows:
    """Returns the tallies of a MeterProvider.

    Args:
        consumer: The provider's measurement consumer, which its meters share.
    """
    return _of_consumers.setdefault(consumer, Overflows())


def observe_overflow(meter: Meter) -> None:
    """Makes the counter; its values are read when a reader collects.

    It counts what `guard_instruments` has put into the overflow sets of the meter's provider, whichever is
    called first. A second call changes nothing, and with a meter that is not the SDK's nothing is made.

    Args:
        meter: One of the guarded MeterProvider.
    """
    meter = getattr(meter, "_real_meter", None) or meter  # behind the API's proxy
    if not isinstance(meter, SdkMeter):
        return
    overflows = overflows_of(meter._measurement_consumer)  # noqa: SLF001  what all meters of a provider share

    def observe(_options: CallbackOptions) -> list[Observation]:
        return overflows.observations()

    meter.create_observable_counter(
        OVERFLOW_COUNTER,
        [observe],
        unit="{measurement}",
        description="Measurements beyond the cardinality limit, by instrument and the attribute to blame.",
    )
