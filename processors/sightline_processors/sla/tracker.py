"""Counts the verdicts of requests and answers how the service is doing: one tracker per MeterProvider.

Requests are counted in bulk, many with one call; everything else is worked out when somebody reads.
"""

import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from sightline_processors.forked_processes import renew_in_children
from sightline_processors.report import report
from sightline_processors.sla.cells import COLUMNS, Key, SlaCell
from sightline_processors.sla.objectives import Objective
from sightline_processors.sla.rolling import RollingKey, RollingSketches, RouteLatency
from sightline_processors.sla.sketch import QUANTILES, merged
from sightline_processors.sla.state import SavedWindows, StateFolder
from sightline_processors.sla.state_keeper import StateKeeper
from sightline_processors.sla.status import ObjectiveStatus, RouteStatus, SlaStatus, kinds_of
from sightline_processors.sla.verdict import VERDICTS, Verdict
from sightline_processors.sla.windows import NOTHING, Timeline, Windows

MAX_CELLS: Final = 40_000
"""Combinations of objective, method and route that are counted apart; under 1 KB each."""

MAX_EXPECTED_SERIES: Final = 2_000
"""Series of counters that are exported before their first request. A route has three, one that is not
eligible for latency two; the SDK takes 16 µs for each at each collection."""

MAX_OBJECTIVES: Final = 1_024
"""Names of objectives that have windows, 12 KB each, since the process began."""

OTHER_METHOD: Final = "_OTHER"

_EXCLUDED: Final = COLUMNS[Verdict.EXCLUDED]
_FAILED: Final = COLUMNS[Verdict.FAILED]
_INELIGIBLE: Final = NOTHING._fields.index("ineligible")


class SlaTracker:
    """Counts verdicts; every method is safe from any thread. A forked process begins at nothing.

    A request waits for a reader at most as long as that copies one route or one objective (20 µs), or sorts
    out which routes are active (0.5 µs each).

    Args:
        clock: Seconds, monotonic.
        wall: Seconds since the Unix epoch.

    Attributes:
        flush_hooks: Are called before anything is read, so that requests that are pending somewhere are in.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time
    ) -> None:
        self.flush_hooks: list[Callable[[], object]] = []
        self._wall = wall
        self._timeline = Timeline(clock, wall)
        self._lock = threading.RLock()  # a signal handler may interrupt its holder
        self._cells: dict[Key, SlaCell] = {}
        self._expected = 0
        self._objectives: dict[str, Objective] = {}
        self._windows: dict[str, Windows] = {}
        self._durations = RollingSketches()
        self._keeper: StateKeeper | None = None
        renew_in_children(self, SlaTracker.forget)

    # What is counted

    def set_objectives(self, objectives: Iterable[Objective]) -> None:
        """Replaces the objectives that are reported on; what was counted under a name stays with the name."""
        with self._lock:
            self._objectives = {each.name: each for each in objectives}

    def cell(
        self, objective: Objective, method: str, route: str | None, *, latency_eligible: bool = True
    ) -> SlaCell:
        """Returns the one cell of an objective, method and route.

        Beyond `MAX_CELLS` new routes of an objective share one without route, of the method `_OTHER`.

        Args:
            objective: Is reported on from then on, as by `set_objectives`, unless one of its name is.
            method: From a closed set; empty for what has no method.
            route: Template, never a path as a client wrote it.
            latency_eligible: False for streams and WebSockets.
        """
        key = (objective.name, method, route, latency_eligible)
        found = self._cells.get(key)
        if found is not None and objective.name in self._objectives:
            return found
        with self._lock:
            self._objectives.setdefault(objective.name, objective)
            if len(self._cells) >= MAX_CELLS and key not in self._cells:
                report(
                    "sla_cells", f"more than {MAX_CELLS} routes have an SLA: further ones are counted as one"
                )
                key = (objective.name, OTHER_METHOD, None, latency_eligible)
            return self._cells.get(key) or self._new_cell(key)

    def expect(
        self, objective: Objective, method: str, route: str | None, *, latency_eligible: bool = True
    ) -> None:
        """Makes a route known before its first request, so that its counters begin at 0.

        Routes are, in the order of the calls, until they have `MAX_EXPECTED_SERIES`; the counters of others
        begin with their first request.
        """
        series = 3 if latency_eligible else 2
        with self._lock:
            if self._expected + series > MAX_EXPECTED_SERIES:
                return
            cell = self.cell(objective, method, route, latency_eligible=latency_eligible)
            if not cell.is_expected:
                cell.is_expected = True
                self._expected += series

    def count(self, cell: SlaCell, column: int, seconds: Sequence[float]) -> None:
        """Counts requests; called by `SlaCell.add`."""
        number = len(seconds)
        with self._lock:
            cell.counts[column] += number
            if column == _EXCLUDED:
                return
            now = self._timeline.now()
            is_timed = cell.latency_eligible and column != _FAILED
            if cell.windows is not None:
                of_windows = column if is_timed or column == _FAILED else _INELIGIBLE
                cell.windows.add(of_windows, number, now)
            if is_timed:
                cell.durations.add(int(now // 60), seconds)

    # What is read

    def flush(self) -> None:
        """Lets everything that is pending come in."""
        for hook in list(self.flush_hooks):
            try:
                hook()
            except Exception as error:  # noqa: BLE001  fail open: what is in can be read
                report("sla_flush", "requests that are pending are not in the SLA status", error=error)

    def objectives(self) -> tuple[Objective, ...]:
        """Returns the objectives that are reported on."""
        return tuple(self._objectives.values())

    def cells(self) -> list[SlaCell]:
        """Returns the cells that are expected or have counted."""
        self.flush()
        return [cell for cell in list(self._cells.values()) if cell.is_expected or any(cell.counts)]

    def objective_statuses(self) -> tuple[ObjectiveStatus, ...]:
        """Returns how each objective does."""
        counts: dict[str, list[int]] = {}
        for cell in self.cells():
            _add(counts.setdefault(cell.objective, [0] * len(VERDICTS)), cell.counts)
        return tuple(
            self._objective_status(each, counts.get(each.name, [0] * len(VERDICTS)))
            for each in self.objectives()
        )

    def latencies(self) -> list[RouteLatency]:
        """Returns how long requests took, by method and route; those without any are left out."""
        self.flush()
        with self._lock:
            minute = int(self._timeline.now() // 60)
            active = self._durations.active(minute)
        found = []
        for durations in active:
            with self._lock:
                copies = durations.copies(minute)
            sketch = merged(copies)
            if sketch.count:
                quantiles = tuple(each for each in sketch.quantiles(QUANTILES) if each is not None)
                found.append(RouteLatency(*durations.key, sketch.count, quantiles))
        return found

    def status(self) -> SlaStatus:
        """Returns everything."""
        objectives = self.objective_statuses()
        latencies = {(each.method, each.route): each for each in self.latencies()}
        counts: dict[RollingKey, list[int]] = {}
        for cell in self.cells():
            if any(cell.counts):
                _add(counts.setdefault((cell.method, cell.route), [0] * len(VERDICTS)), cell.counts)
        routes = [_route_status(key, each, latencies.get(key)) for key, each in counts.items()]
        return SlaStatus(
            taken_at=self._wall(),
            objectives=objectives,
            routes=tuple(sorted(routes, key=lambda each: (each.route or "", each.method))),
            durations_left_out=self._durations.left_out,
            durations_refused=self._durations.refused,
        )

    # What outlives the process

    def keep_state(self, folder: str | os.PathLike[str], service: str = "") -> None:
        """Keeps the windows in a folder, and takes in what a process that has ended left there; never raises.

        Args:
            folder: Is made where it is missing.
            service: Name; keeps services apart that share a folder.
        """
        self._keeper = StateKeeper(StateFolder(folder, service), self)
        self._keeper.start(self._now())

    def save(self) -> None:
        """Writes the windows into the folder, if there is one; never raises, waits a second at most."""
        if self._keeper is not None:
            self.flush()
            self._keeper.save(self._now())

    def save_if_due(self) -> None:
        """Saves unless that was done within the last half minute; for whoever reads regularly."""
        if self._keeper is not None and self._keeper.is_due(self._now()):
            self.save()

    def saved_windows(self) -> SavedWindows:
        """Returns what the windows hold, for another process."""
        objectives = {}
        for name, windows in list(self._windows.items()):
            with self._lock:
                slots = windows.slots(self._timeline.now())
            if any(slots.values()):
                objectives[name] = slots
        return SavedWindows(self._now(), self._wall(), objectives)

    def restore(self, saved: SavedWindows) -> None:
        """Adds what another process has counted to the windows."""
        shift = saved.shift_seconds(self._now(), self._wall())
        for name, slots in saved.objectives.items():
            with self._lock:
                windows = self._windows_of(name)
                if windows is not None:
                    windows.restore(slots, shift)

    def forget(self) -> None:
        """Begins at nothing: a forked process has the counts of its parent, which exports them."""
        self._lock = threading.RLock()
        self._durations.clear()
        for windows in self._windows.values():
            windows.clear()
        for cell in self._cells.values():
            cell.counts = [0] * len(VERDICTS)
        if self._keeper is not None:
            self._keeper.forget()

    def _now(self) -> float:
        with self._lock:
            return self._timeline.now()

    def _new_cell(self, key: Key) -> SlaCell:
        durations = self._durations.of((key[1], key[2]))
        cell = self._cells[key] = SlaCell(self.count, key, self._windows_of(key[0]), durations)
        return cell

    def _windows_of(self, name: str) -> Windows | None:
        """Returns the windows of an objective, with the lock held."""
        found = self._windows.get(name)
        if found is None and len(self._windows) >= MAX_OBJECTIVES:
            report("sla_objectives", f"more than {MAX_OBJECTIVES} objectives: further ones have no windows")
        elif found is None:
            found = self._windows[name] = Windows()
        return found

    def _objective_status(self, objective: Objective, counts: Sequence[int]) -> ObjectiveStatus:
        with self._lock:
            windows = self._windows.get(objective.name) or Windows()
            totals = windows.totals(self._timeline.now())
        return ObjectiveStatus(
            objective.name, dict(zip(VERDICTS, counts, strict=True)), kinds_of(objective, totals)
        )


def _add(total: list[int], counts: Sequence[int]) -> None:
    for index, count in enumerate(counts):
        total[index] += count


def _route_status(key: RollingKey, counts: Sequence[int], latency: RouteLatency | None) -> RouteStatus:
    quantiles: tuple[float | None, ...] = (None,) * len(QUANTILES) if latency is None else latency.quantiles
    measured = 0 if latency is None else latency.measured
    return RouteStatus(*key, dict(zip(VERDICTS, counts, strict=True)), measured, *quantiles)
