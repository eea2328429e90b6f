"""Which objective judges a request, what is left out, and what counts as a failure."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import translate
from typing import Final

from sightline_processors.sla.objectives import DEFAULT_OBJECTIVE, Objective

MAX_REMEMBERED: Final = 10_000
"""Answers that a catalogue remembers, at most: about 2 MB. Further ones are looked for each time."""

FIRST_SERVER_ERROR: Final = 500

_CONVERTOR: Final = re.compile(r"\{([^{}:]{1,64}):[^{}:]{1,64}\}")


@dataclass(frozen=True, slots=True)
class MatchedObjective:
    """Is an objective with what it is for: every part that is not empty must match.

    Args:
        objective: The objective.
        routes: Globs, case-sensitive, of which one must match the route template. `*` stands for any
            characters, the slash too; `{path:path}` means the same as `{path}`, which is what templates hold.
        methods: HTTP methods in capitals, of which the request has one.
        tags: Of which the route has one.
    """

    objective: Objective
    routes: tuple[str, ...] = ()
    methods: frozenset[str] = frozenset()
    tags: frozenset[str] = frozenset()


class Catalogue:
    """Holds the objectives of a service; immutable, for any thread.

    Args:
        objectives: The first one that matches is the one that judges.
        default: Judges what none of them matches.
        excluded_paths: Globs, case-sensitive, on the path of a request as the client sent it.
        failed_statuses: HTTP statuses below 500 that count as failures too.
    """

    __slots__ = ("_answers", "_excluded", "_failed", "_matchers", "default", "objectives")

    def __init__(
        self,
        objectives: Sequence[MatchedObjective] = (),
        default: Objective = DEFAULT_OBJECTIVE,
        *,
        excluded_paths: Sequence[str] = (),
        failed_statuses: Collection[int] = (),
    ) -> None:
        self.default: Final = default
        self.objectives: Final = (default, *(each.objective for each in objectives))
        """Every objective, the default one first."""
        self._matchers = [(each, _any_of(each.routes)) for each in objectives]
        self._excluded = _any_of(excluded_paths)
        self._failed = frozenset(failed_statuses)
        self._answers: dict[tuple[str | None, str, tuple[str, ...]], Objective] = {}

    def objective_for(self, route: str | None, method: str, tags: Collection[str] = ()) -> Objective:
        """Returns the objective of the first entry that matches, else the default one.

        Answers are remembered: what is asked for must come from closed sets.

        Args:
            route: The route template; None where no route handled the request: no entry with routes matches.
            method: The HTTP method in capitals, or `_OTHER`.
            tags: Of the route.
        """
        key = (route, method, tuple(tags))
        answer = self._answers.get(key)
        if answer is None:
            answer = self._find(route, method, tags)
            if len(self._answers) < MAX_REMEMBERED:
                self._answers[key] = answer
        return answer

    def thresholds(self) -> tuple[float, ...]:
        """Returns the latency thresholds in seconds, each once, the default one first."""
        seconds = (each.latency_seconds for each in self.objectives)
        return tuple(dict.fromkeys(each for each in seconds if each is not None))

    @property
    def excludes_paths(self) -> bool:
        """Whether there are paths that are left out."""
        return self._excluded is not None

    def is_excluded_path(self, path: str) -> bool:
        """Tells whether requests for a path are left out; linear in its length."""
        return self._excluded is not None and self._excluded.match(path) is not None

    def fails(self, status: int) -> bool:
        """Tells whether an HTTP status is a failure: 500 and above, or one that is configured."""
        return status >= FIRST_SERVER_ERROR or status in self._failed

    def _find(self, route: str | None, method: str, tags: Collection[str]) -> Objective:
        for each, routes in self._matchers:
            if (
                (routes is None or (route is not None and routes.match(route) is not None))
                and (not each.methods or method in each.methods)
                and (not each.tags or not each.tags.isdisjoint(tags))
            ):
                return each.objective
        return self.default


def _any_of(globs: Sequence[str]) -> re.Pattern[str] | None:
    """Returns a pattern that matches what one of the globs matches (`fnmatch.fnmatchcase`); None for none.

    What `fnmatch` makes of a glob never goes back over what `*` has matched: the cost is linear.
    """
    if not globs:
        return None
    return re.compile("|".join(translate(_CONVERTOR.sub(r"{\1}", glob)) for glob in globs))
