"""Counts of the last five minutes, hour, six hours and three days, in constant memory.

Each window is a ring of slots; a slot holds the counts of a stretch of time and is used again when the window
has moved past it. Time is `Timeline`'s: it goes by the monotonic clock, so that a wall clock that is set
changes nothing, and it begins at the wall clock's time, so that slots of different processes mean the same.
"""

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple


class Window(NamedTuple):
    """Is a stretch of time up to now.

    A reading covers the slot under way and those before it: up to one slot less than `seconds`.
    """

    name: str
    seconds: int
    slot_seconds: int


WINDOWS: Final = (
    Window("5m", 300, 10),
    Window("1h", 3_600, 60),
    Window("6h", 21_600, 300),
    Window("3d", 259_200, 3_600),
)
"""Ascending. Source: the windows of multi-window burn-rate alerts, Google SRE Workbook, chapter 5."""

BUDGET_WINDOW: Final = WINDOWS[-1]
"""The window whose error budget is meant where none is named."""


class Counts(NamedTuple):
    """Is how many requests there were, by verdict; excluded ones are in none."""

    ok: int
    """Of those that the latency objective applies to."""
    slow: int
    failed: int
    ineligible: int
    """Not failed, and the latency objective does not apply: streams, WebSockets."""


NOTHING: Final = Counts(0, 0, 0, 0)

Slot = tuple[int, Counts]
"""Its number, `seconds since the epoch // slot_seconds`, and what it holds."""

_WIDTH: Final = len(NOTHING)
_UNUSED: Final = -(2**62)
"""Number of a slot that holds nothing: older than every window."""


class Timeline:
    """Tells the time in seconds since the Unix epoch; it never goes back.

    The wall clock is read once. What the monotonic clock does not count (on Linux, a suspended machine) is
    missing from then on, so a window is of the time that the machine was awake.

    Args:
        clock: Seconds, monotonic; a step backwards is taken as a standstill.
        wall: Seconds since the epoch.
    """

    def __init__(self, clock: Callable[[], float], wall: Callable[[], float]) -> None:
        self._clock = clock
        self._offset = wall() - clock()
        self._latest = float("-inf")

    def now(self) -> float:
        """Returns the time; the caller keeps other threads away."""
        self._latest = max(self._latest, self._clock() + self._offset)
        return self._latest


class Ring:
    """Is one window of counts; not safe for several threads.

    Memory is constant: 40 bytes for each slot, of which a window has at most 72.
    """

    __slots__ = ("_counts", "_numbers", "slot_seconds")

    def __init__(self, window: Window) -> None:
        self.slot_seconds = window.slot_seconds
        slots = window.seconds // window.slot_seconds
        self._numbers = array("q", [_UNUSED]) * slots
        self._counts = array("q", [0]) * (slots * _WIDTH)

    def add(self, number: int, counts: Iterable[int]) -> None:
        """Counts requests in a slot; in one that the window has moved past, nothing."""
        position = number % len(self._numbers)
        start = position * _WIDTH
        if self._numbers[position] != number:
            if self._numbers[position] > number:
                return
            self._numbers[position] = number
            self._counts[start : start + _WIDTH] = array("q", NOTHING)
        for column, count in enumerate(counts, start):
            self._counts[column] += count

    def slots(self, now: float) -> Iterator[Slot]:
        """Yields the slots in use, in no order."""
        last = int(now // self.slot_seconds)
        first = last - len(self._numbers)
        for position, number in enumerate(self._numbers):
            if first < number <= last:
                start = position * _WIDTH
                yield number, Counts(*self._counts[start : start + _WIDTH])

    def total(self, now: float) -> Counts:
        """Returns the counts of the whole window."""
        ok = slow = failed = ineligible = 0
        for _, counts in self.slots(now):
            ok += counts[0]
            slow += counts[1]
            failed += counts[2]
            ineligible += counts[3]
        return Counts(ok, slow, failed, ineligible)

    def clear(self) -> None:
        """Forgets everything."""
        for position in range(len(self._numbers)):
            self._numbers[position] = _UNUSED


class Windows:
    """Holds the windows of one objective: about 12 KB; not safe for several threads.

    Requests are counted in four integers, which go into the rings when the finest slot ends or somebody
    reads.
    """

    __slots__ = ("_current", "_current_slot", "_rings")

    def __init__(self) -> None:
        self._rings = {window.name: Ring(window) for window in WINDOWS}
        self._current = [0] * _WIDTH
        self._current_slot = 0

    def add(self, column: int, count: int, now: float) -> None:
        """Counts requests.

        Args:
            column: Which of `Counts`.
            count: How many.
            now: Of a `Timeline`; not before that of the call before.
        """
        slot = int(now // WINDOWS[0].slot_seconds)
        if slot != self._current_slot:
            self._settle()
            self._current_slot = slot
        self._current[column] += count

    def totals(self, now: float) -> dict[str, Counts]:
        """Returns the counts of each window by its name."""
        self._settle()
        return {name: ring.total(now) for name, ring in self._rings.items()}

    def slots(self, now: float) -> dict[str, list[Slot]]:
        """Returns the slots of each window, to be kept and given to `restore`."""
        self._settle()
        return {name: list(ring.slots(now)) for name, ring in self._rings.items()}

    def restore(self, slots: Mapping[str, Sequence[Slot]], shift_seconds: float) -> None:
        """Adds what another process has counted; slots of windows that are unknown are left out.

        Args:
            slots: By window, as `slots` returns them.
            shift_seconds: How much later than its slot's number says a request is taken to have been; rounded
                to whole slots, so that restart after restart nothing drifts.
        """
        for name, ring in self._rings.items():
            shift = round(shift_seconds / ring.slot_seconds)
            for number, counts in slots.get(name, ()):
                ring.add(number + shift, counts)

    def clear(self) -> None:
        """Forgets everything."""
        self._current = [0] * _WIDTH
        for ring in self._rings.values():
            ring.clear()

    def _settle(self) -> None:
        """Moves what was counted since the last time into the rings."""
        if not any(self._current):
            return
        counts, self._current = self._current, [0] * _WIDTH
        began = self._current_slot * WINDOWS[0].slot_seconds
        for ring in self._rings.values():
            ring.add(began // ring.slot_seconds, counts)
