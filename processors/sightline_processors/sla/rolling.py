"""The durations of the last five minutes, one rolling sketch for each method and route."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sightline_processors.report import report
from sightline_processors.sla.sketch import Sketch

MINUTES: Final = 5
"""Sketches of a rolling one: it covers the minute under way and the four before."""

MAX_ACTIVE: Final = 1_000
"""Rolling sketches that hold something, at most. Where durations go from 1 ms to 1 s one takes 15 KB; the
most is 51 KB, of durations that go from a microsecond to a day in each minute."""

_NEVER: Final = -(2**62)

RollingKey = tuple[str, str | None]
"""Method and route."""


@dataclass(frozen=True, slots=True)
class RouteLatency:
    """Is how long the requests with one method and route took in the last 4 to 5 minutes.

    Attributes:
        method: Of the requests.
        route: Template; None for requests without a route.
        measured: How many there were: at least one.
        quantiles: Seconds, for each of `QUANTILES`.
    """

    method: str
    route: str | None
    measured: int
    quantiles: tuple[float, ...]


class RollingSketch:
    """Holds the durations of the last minutes; made by `RollingSketches`.

    Args:
        key: Method and route.
        siblings: What bounds the memory of all.
    """

    __slots__ = ("_minutes", "_siblings", "key")

    def __init__(self, key: RollingKey, siblings: "RollingSketches") -> None:
        self.key = key
        self._siblings = siblings
        self._minutes: dict[int, Sketch] = {}

    def add(self, minute: int, values: Sequence[float]) -> None:
        """Counts durations in seconds.

        Args:
            minute: When they were measured, since the epoch.
            values: One or more.
        """
        sketch = self._minutes.get(minute)
        if sketch is None:
            if not self._siblings.admits(self, minute):
                self._siblings.left_out += len(values)
                return
            self.drop_old(minute)
            sketch = self._minutes[minute] = Sketch()
        refused = sketch.refused
        sketch.add(values)
        self._siblings.refused += sketch.refused - refused

    def copies(self, minute: int) -> list[Sketch]:
        """Returns copies of what the last minutes hold, to be merged without holding a lock."""
        return [sketch.copy() for each, sketch in self._minutes.items() if minute - MINUTES < each <= minute]

    def drop_old(self, minute: int) -> bool:
        """Forgets what is older than the last minutes; tells whether anything is left."""
        for each in [each for each in self._minutes if each <= minute - MINUTES]:
            del self._minutes[each]
        return bool(self._minutes)

    def clear(self) -> None:
        """Forgets everything."""
        self._minutes = {}


class RollingSketches:
    """Holds the rolling sketches and bounds how many of them hold something; not safe for several threads.

    Args:
        max_active: The bound.

    Attributes:
        left_out: Durations that were not taken because `max_active` others were active.
        refused: Durations that were negative or not finite.
    """

    def __init__(self, max_active: int = MAX_ACTIVE) -> None:
        self._max_active = max_active
        self._sketches: dict[RollingKey, RollingSketch] = {}
        self._active: set[RollingSketch] = set()
        self._dropped_at = _NEVER
        self.left_out = 0
        self.refused = 0

    def of(self, key: RollingKey) -> RollingSketch:
        """Returns the one sketch of a method and route; the caller bounds how many there are."""
        return self._sketches.get(key) or self._sketches.setdefault(key, RollingSketch(key, self))

    def admits(self, sketch: RollingSketch, minute: int) -> bool:
        """Tells whether a rolling sketch may begin a minute, and remembers it as active."""
        if sketch in self._active:
            return True
        if len(self._active) >= self._max_active and minute > self._dropped_at:
            self.active(minute)  # once a minute is enough: within one, none gets old
        if len(self._active) >= self._max_active:
            report(
                "sla_quantiles", f"more than {self._max_active} active routes: further ones have no quantiles"
            )
            return False
        self._active.add(sketch)
        return True

    def active(self, minute: int) -> list[RollingSketch]:
        """Returns those that hold something of the last minutes; gives back the memory of others."""
        self._dropped_at = minute
        self._active = {each for each in self._active if each.drop_old(minute)}
        return list(self._active)

    def clear(self) -> None:
        """Forgets everything that was counted."""
        for each in self._active:
            each.clear()
        self._active = set()
        self.left_out = self.refused = 0
