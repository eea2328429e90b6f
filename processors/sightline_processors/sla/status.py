"""What the service level is now: for each objective and window, and for each route.

Where there were no requests there is no data: None, never 0 and never a share of nothing.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from sightline_processors.sla.objectives import Objective
from sightline_processors.sla.windows import BUDGET_WINDOW, WINDOWS, Counts

Kind = Literal["latency", "availability"]
KINDS: Final[tuple[Kind, ...]] = ("latency", "availability")


@dataclass(frozen=True, slots=True)
class WindowStatus:
    """Is how one objective of one kind does in one window.

    Attributes:
        window: `5m`, `1h`, `6h` or `3d`.
        bad: Requests that were slow (latency) or failed (availability).
        total: Requests that count: for latency those that were ok or slow and that the latency objective
            applies to; for availability those that were ok, slow or failed.
        burn_rate: The ratio of bad requests to what the target allows: 1 spends exactly the whole budget.
            None without requests.
        budget_remaining: 1 minus the burn rate: the ratio of this window's error budget that is left, as if
            the window held no more requests than those; below 0 where more than all is spent. None without
            requests.
        exhaustion_seconds: How long the budget of three days lasts if the burn rate stays as it is in this
            window, 0 where it is spent. What comes back meanwhile, as requests become older than three days,
            is not counted: it lasts at least so long. None without requests, or while nothing burns.
    """

    window: str
    bad: int
    total: int
    burn_rate: float | None
    budget_remaining: float | None
    exhaustion_seconds: float | None


@dataclass(frozen=True, slots=True)
class KindStatus:
    """Is how one objective of one kind does.

    Attributes:
        kind: `latency` or `availability`.
        target: Ratio of good requests that is asked for, between 0 and 1.
        threshold_seconds: What a request may take; None for availability.
        windows: One for each of `WINDOWS`, ascending.
    """

    kind: Kind
    target: float
    threshold_seconds: float | None
    windows: tuple[WindowStatus, ...]


@dataclass(frozen=True, slots=True)
class ObjectiveStatus:
    """Is how one objective does.

    Attributes:
        name: Of the objective.
        requests: Since the process began, by verdict, excluded ones included.
        kinds: What the objective has targets for.
    """

    name: str
    requests: dict[str, int]
    kinds: tuple[KindStatus, ...]


@dataclass(frozen=True, slots=True)
class RouteStatus:
    """Is how one route and method does.

    Attributes:
        method: Of the request; empty where there is none.
        route: Template; None for requests without a route.
        requests: Since the process began, by verdict.
        measured: Durations of the last 4 to 5 minutes: requests that were ok or slow and that the latency
            objective applies to.
        p50_seconds: Their median; None without any. Error of this and the next: at most 1 %.
        p95_seconds: 95 % took at most that.
        p99_seconds: 99 % took at most that.
    """

    method: str
    route: str | None
    requests: dict[str, int]
    measured: int
    p50_seconds: float | None
    p95_seconds: float | None
    p99_seconds: float | None


@dataclass(frozen=True, slots=True)
class SlaStatus:
    """Is the service level of this process.

    Attributes:
        taken_at: Seconds since the Unix epoch.
        objectives: In the order in which they were set.
        routes: Those that had requests, by route and method.
        durations_left_out: Durations that are in no quantile because too many routes were active.
        durations_refused: Durations that were negative or not finite.
    """

    taken_at: float
    objectives: tuple[ObjectiveStatus, ...]
    routes: tuple[RouteStatus, ...]
    durations_left_out: int
    durations_refused: int

    def to_dict(self) -> dict[str, Any]:
        """Returns the tree as dictionaries, lists and plain values, ready for JSON."""
        return {
            "taken_at": self.taken_at,
            "objectives": [_objective_to_dict(each) for each in self.objectives],
            "routes": [asdict(each) for each in self.routes],
            "durations_left_out": self.durations_left_out,
            "durations_refused": self.durations_refused,
        }


def kinds_of(objective: Objective, totals: Mapping[str, Counts]) -> tuple[KindStatus, ...]:
    """Returns how an objective does in each window, for each kind that it has a target for.

    Args:
        objective: Targets and threshold.
        totals: The counts of each window by its name.
    """
    targets = {"latency": objective.latency_target, "availability": objective.availability_target}
    thresholds = {"latency": objective.latency_seconds, "availability": None}
    return tuple(
        KindStatus(kind, target, thresholds[kind], _windows_of(kind, target, totals))
        for kind in KINDS
        if (target := targets[kind]) is not None
    )


def _windows_of(kind: Kind, target: float, totals: Mapping[str, Counts]) -> tuple[WindowStatus, ...]:
    remaining = _remaining(_burn_rate(*_share(kind, totals[BUDGET_WINDOW.name]), target))
    statuses = []
    for window in WINDOWS:
        bad, total = _share(kind, totals[window.name])
        rate = _burn_rate(bad, total, target)
        statuses.append(
            WindowStatus(window.name, bad, total, rate, _remaining(rate), _exhaustion(remaining, rate))
        )
    return tuple(statuses)


def _share(kind: Kind, counts: Counts) -> tuple[int, int]:
    """Returns how many requests were bad, of how many."""
    if kind == "latency":
        return counts.slow, counts.ok + counts.slow
    return counts.failed, sum(counts)


def _burn_rate(bad: int, total: int, target: float) -> float | None:
    allowed = total * (1 - target)
    return bad / allowed if allowed > 0 else None


def _remaining(rate: float | None) -> float | None:
    return None if rate is None else 1 - rate


def _exhaustion(remaining: float | None, rate: float | None) -> float | None:
    if remaining is None or not rate:
        return None
    return max(0.0, remaining) * BUDGET_WINDOW.seconds / rate


def _objective_to_dict(objective: ObjectiveStatus) -> dict[str, Any]:
    kinds = [
        {**asdict(kind), "windows": [asdict(window) for window in kind.windows]} for kind in objective.kinds
    ]
    return {"name": objective.name, "requests": dict(objective.requests), "kinds": kinds}
