"""One service level out of several: what the trackers of a process have counted, added up."""

import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from operator import attrgetter
from typing import Any, Final, TypeVar

from sightline_processors.sla import Objective, SlaStatus
from sightline_processors.sla.status import KindStatus, ObjectiveStatus, RouteStatus, kinds_of
from sightline_processors.sla.windows import WINDOWS, Counts

_Status = TypeVar("_Status", ObjectiveStatus, RouteStatus)

_QUANTILES: Final = ("p50_seconds", "p95_seconds", "p99_seconds")


def sum_of(statuses: Sequence[SlaStatus]) -> SlaStatus:
    """Returns the status of all of them together; an empty one for none.

    Objectives of the same name are one, with the targets of the first. Quantiles do not add up: of a route
    that is in several, each is the largest of theirs, which the true one does not exceed.
    """
    if len(statuses) == 1:
        return statuses[0]
    objectives = _groups((each for status in statuses for each in status.objectives), attrgetter("name"))
    routes = _groups(
        (each for status in statuses for each in status.routes), lambda each: (each.route or "", each.method)
    )
    return SlaStatus(
        taken_at=max((each.taken_at for each in statuses), default=time.time()),
        objectives=tuple(map(_objective, objectives.values())),
        routes=tuple(_route(routes[key]) for key in sorted(routes)),
        durations_left_out=sum(each.durations_left_out for each in statuses),
        durations_refused=sum(each.durations_refused for each in statuses),
    )


def _groups(statuses: Iterable[_Status], key: Callable[[Any], Any]) -> dict[Any, list[_Status]]:
    groups: dict[Hashable, list[_Status]] = {}
    for each in statuses:
        groups.setdefault(key(each), []).append(each)
    return groups


def _objective(group: Sequence[ObjectiveStatus]) -> ObjectiveStatus:
    first = group[0]
    if len(group) == 1:
        return first
    kinds = {kind.kind: kind for kind in first.kinds}
    latency, availability = kinds.get("latency"), kinds.get("availability")
    objective = Objective(
        first.name,
        latency.threshold_seconds if latency else None,
        latency.target if latency else None,
        availability.target if availability else None,
    )
    counts = {
        window.name: Counts(*map(sum, zip(*(_counts(each, index) for each in group), strict=True)))
        for index, window in enumerate(WINDOWS)
    }
    return ObjectiveStatus(first.name, _requests(group), kinds_of(objective, counts))


def _counts(status: ObjectiveStatus, window: int) -> Counts:
    """Returns what the two kinds were worked out from, as far as they tell."""
    slow, timed = _bad_and_total(status.kinds, "latency", window)
    failed, total = _bad_and_total(status.kinds, "availability", window)
    return Counts(timed - slow, slow, failed, max(0, total - failed - timed))


def _bad_and_total(kinds: Sequence[KindStatus], kind: str, window: int) -> tuple[int, int]:
    for each in kinds:
        if each.kind == kind:
            return each.windows[window].bad, each.windows[window].total
    return 0, 0


def _route(group: Sequence[RouteStatus]) -> RouteStatus:
    first = group[0]
    if len(group) == 1:
        return first
    quantiles = (_largest(getattr(each, name) for each in group) for name in _QUANTILES)
    measured = sum(each.measured for each in group)
    return RouteStatus(first.method, first.route, _requests(group), measured, *quantiles)


def _largest(seconds: Iterable[float | None]) -> float | None:
    return max((each for each in seconds if each is not None), default=None)


def _requests(group: Sequence[_Status]) -> dict[str, int]:
    return {verdict: sum(each.requests.get(verdict, 0) for each in group) for verdict in group[0].requests}
