"""Figures out of samples: medians and ranges of ratios and differences within the same round."""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from benchmarks.rounds import Sample

Samples = Mapping[str, Sequence[Sample]]
"""Samples by the name of their case, one for each round, in the order of the rounds."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and range of one figure over the rounds; NaN where no round counted."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Self:
        """Returns the spread of the values that are numbers."""
        counted = [value for value in values if not math.isnan(value)]
        if not counted:
            return cls(math.nan, math.nan, math.nan)
        return cls(statistics.median(counted), min(counted), max(counted))

    def text(self, digits: int) -> str:
        """Returns `median (low to high)`."""
        return f"{self.median:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"


def spread(samples: Samples, name: str, of: Callable[[Sample], float]) -> Spread:
    """Returns the spread of a figure of one case, over the rounds that count."""
    return Spread.of(of(sample) for sample in samples.get(name, ()) if not sample.lost)


def cpu_ratio(samples: Samples, name: str) -> Spread:
    """Returns the spread of the CPU per request as a ratio to that of the case's base."""
    return spread(samples, name, lambda each: each.cpu_us / each.base_us)


def added_us(samples: Samples, name: str) -> Spread:
    """Returns the spread of what a case costs beyond its base, in microseconds per request."""
    return spread(samples, name, lambda each: each.cpu_us - each.base_us)


def added_ratio(samples: Samples, name: str) -> float:
    """Returns what a case costs beyond its base, as a share of the base; the machine's speed is not in it."""
    return cpu_ratio(samples, name).median - 1


def p99_ratio(samples: Samples, name: str) -> Spread:
    """Returns the spread of the p99 as a ratio to that of the case's base."""
    return spread(samples, name, lambda each: each.p99_ms / each.base_p99_ms)


def share(part: float, whole: float) -> float:
    """Returns one figure as a share of another; NaN where the whole is not above zero."""
    return part / whole if whole > 0 else math.nan
