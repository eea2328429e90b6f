"""Quantiles of durations with a relative error of at most 1 %, in constant memory, from mergeable sketches.

A sketch counts values in bins whose edges grow by a constant factor, so that the middle of a bin is within
1 % of everything in it. It is a DDSketch with a bounded range. It is written with the standard library: to
import numpy costs a process 24 MB and a thread, and with the few values of a route at a time it is no faster.

Source: Masson, Rim, Lee: DDSketch, a fast and fully-mergeable quantile sketch with relative-error
guarantees (PVLDB 12, 2019), section 2.
"""

import math
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from operator import add
from typing import Final

RELATIVE_ERROR: Final = 0.01
LOWEST_SECONDS: Final = 1e-6
HIGHEST_SECONDS: Final = 86_400.0

_GAMMA: Final = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
"""A bin holds the values from its lower edge up to this many times as much."""
_BINS_PER_E: Final = 1 / math.log(_GAMMA)
_SHIFT: Final = -math.log(LOWEST_SECONDS) * _BINS_PER_E
_TOP: Final = int(math.log(HIGHEST_SECONDS) * _BINS_PER_E + _SHIFT)
_MIDDLE: Final = LOWEST_SECONDS * 2 * _GAMMA / (1 + _GAMMA)

BINS: Final = _TOP + 1
"""Of a sketch that has seen durations from a microsecond to a day."""

QUANTILES: Final = (0.5, 0.95, 0.99)


class Sketch:
    """Counts durations so that quantiles can be read; not safe for several threads.

    The relative error is at most `RELATIVE_ERROR` between `LOWEST_SECONDS` and `HIGHEST_SECONDS`; below, the
    absolute error is at most `LOWEST_SECONDS`; above, a value is only known to lie between `HIGHEST_SECONDS`
    and the maximum. Memory: 8 bytes for each bin between the smallest and the largest value, `BINS` at most.

    Attributes:
        count: Values that it holds.
        refused: Values that were negative or not finite, and that it does not hold.
        minimum: Exact; infinity while there is none.
        maximum: Exact; minus infinity while there is none.
    """

    __slots__ = ("_counts", "_low", "count", "maximum", "minimum", "refused")

    def __init__(self) -> None:
        self._low = 0
        self._counts = array("Q")
        self.count = 0
        self.refused = 0
        self.minimum = math.inf
        self.maximum = -math.inf

    def add(self, values: Sequence[float]) -> None:
        """Counts durations in seconds; those that are negative or not finite are refused."""
        if not values:
            return
        lowest, highest = min(values), max(values)
        if not (lowest >= 0 and math.isfinite(sum(values))):  # rare, so that the values are looked at twice
            values = self._valid(values)
            if not values:
                return
            lowest, highest = min(values), max(values)
        bins = _bins(values, lowest, highest)
        self._reach(min(bins), max(bins))
        counts, low = self._counts, self._low
        for number in bins:
            counts[number - low] += 1
        self._widen(len(values), lowest, highest)

    def merge(self, other: "Sketch") -> None:
        """Adds what another sketch holds: afterwards this one is as if it had counted both."""
        self.refused += other.refused
        if not other.count:
            return
        counts, low = other._counts, other._low  # noqa: SLF001  of the same class
        self._reach(low, low + len(counts) - 1)
        start = low - self._low
        end = start + len(counts)
        self._counts[start:end] = array("Q", map(add, self._counts[start:end], counts))
        self._widen(other.count, other.minimum, other.maximum)

    def copy(self) -> "Sketch":
        """Returns a sketch of the same content, in a microsecond or two."""
        copy = Sketch()
        copy._low, copy._counts = self._low, self._counts[:]
        copy.count, copy.refused = self.count, self.refused
        copy.minimum, copy.maximum = self.minimum, self.maximum
        return copy

    def quantile(self, ratio: float) -> float | None:
        """Returns the smallest duration in seconds that at least this ratio of all reaches at most.

        Args:
            ratio: 0 to 1. With 10 values, 0.99 is the greatest of them (numpy calls it `inverted_cdf`).

        Returns:
            The estimate; None where the sketch is empty.
        """
        return next(self.quantiles((ratio,)))

    def quantiles(self, ratios: Iterable[float]) -> Iterator[float | None]:
        """Yields the quantile of each ratio; each None where the sketch is empty."""
        sums = list(accumulate(self._counts))
        for ratio in ratios:
            if not self.count:
                yield None
                continue
            rank = max(1, math.ceil(ratio * self.count))
            middle = _MIDDLE * _GAMMA ** (self._low + bisect_left(sums, min(rank, self.count)))
            yield min(max(middle, self.minimum), self.maximum)

    def _widen(self, count: int, lowest: float, highest: float) -> None:
        self.count += count
        if lowest < self.minimum:  # noqa: PLR1730  twice as fast as min, for each call of add
            self.minimum = lowest
        if highest > self.maximum:  # noqa: PLR1730  as above
            self.maximum = highest

    def _valid(self, values: Sequence[float]) -> Sequence[float]:
        """Returns the values that can be counted; counts the others."""
        valid = [value for value in values if 0 <= value < math.inf]
        self.refused += len(values) - len(valid)
        return valid

    def _reach(self, low: int, high: int) -> None:
        """Makes room for the bins from one to another, both included."""
        if not self._counts:
            self._low = low
        if low < self._low:
            self._counts = array("Q", bytes(8 * (self._low - low))) + self._counts
            self._low = low
        missing = high + 1 - self._low - len(self._counts)
        if missing > 0:
            self._counts.frombytes(bytes(8 * missing))


def _bins(values: Iterable[float], lowest: float, highest: float) -> list[int]:
    """Returns the bin of each value, of which the lowest and the highest are known."""
    log = math.log
    if lowest > LOWEST_SECONDS and highest < HIGHEST_SECONDS:  # nearly always: no comparison for each then
        return [int(log(value) * _BINS_PER_E + _SHIFT) for value in values]
    return [
        int(log(value) * _BINS_PER_E + _SHIFT)
        if LOWEST_SECONDS < value < HIGHEST_SECONDS
        else (0 if value <= LOWEST_SECONDS else _TOP)
        for value in values
    ]


def merged(sketches: Iterable[Sketch]) -> Sketch:
    """Returns one sketch of the content of several."""
    union = Sketch()
    for sketch in sketches:
        union.merge(sketch)
    return union
