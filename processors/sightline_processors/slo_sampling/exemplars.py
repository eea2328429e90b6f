"""Which requests a histogram's exemplars may lead to: the first of each series and bucket."""

import time
from bisect import bisect_left
from collections.abc import Callable, Hashable, Sequence
from typing import Final

MAX_SLOTS: Final = 10_000
"""Series and buckets remembered between two collections; further ones keep no trace for an exemplar."""

DURATION_BOUNDARIES_SECONDS: Final = (
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
)  # fmt: skip
"""Source: semantic conventions v1.44.0, http.server.request.duration."""


class ExemplarSlots:
    """Remembers which buckets have an exemplar already; not thread-safe, its caller holds a lock.

    Args:
        interval_seconds: After this long every bucket gets a new one, unless `renew` came before.
        boundaries: Upper bounds of the buckets, inclusive, ascending.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        interval_seconds: float,
        boundaries: Sequence[float] = DURATION_BOUNDARIES_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.boundaries = tuple(boundaries)
        self._interval = interval_seconds
        self._clock = clock
        self._taken: set[tuple[Hashable, int]] = set()
        self._renewed = clock()

    def renew(self) -> None:
        """Begins an interval: the first request of each bucket is wanted again."""
        self._taken = set()
        self._renewed = self._clock()

    def take(self, series: Hashable, seconds: float) -> bool:
        """Tells whether a measurement is the first of its bucket in this interval.

        Args:
            series: What tells the attribute sets of the histogram apart; from a bounded set.
            seconds: The measurement.
        """
        if self._clock() - self._renewed >= self._interval:
            self.renew()
        slot = (series, bisect_left(self.boundaries, seconds))
        if slot in self._taken or len(self._taken) >= MAX_SLOTS:
            return False
        self._taken.add(slot)
        return True
