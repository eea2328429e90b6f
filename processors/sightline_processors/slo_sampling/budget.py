"""How likely a span without a special reason is kept: a budget of spans per second, shared by the routes.

Each route gets the same share, and what a quiet route leaves the busy ones divide (max-min fairness). The
probabilities follow from the spans that were offered, never from those that were kept: that keeps `1 /
probability` an unbiased count.
"""

import time
from collections.abc import Callable, Iterable
from typing import Final

MAX_ROUTES: Final = 1_000
"""Routes with a share of their own; further ones have one together."""

INTERVAL_SECONDS: Final = 1.0
_BURST: Final = 2.0
"""All routes together may take this many budgets before their bursts are damped."""
_FLOOR: Final = 0.1
"""Part of the budget that is drawn at random even where what must be kept has used it up."""
_FORGOTTEN_RATE: Final = 0.01
_WEIGHT_OF_NEW: Final = 0.05


class _Route:
    """What one route has offered in this interval, and its probability."""

    __slots__ = ("offered", "probability", "rate")

    def __init__(self) -> None:
        self.offered = 0
        self.rate = 0.0
        self.probability = 1.0


class SpanBudget:
    """Shares a budget of spans among routes; not thread-safe, its caller holds a lock.

    Probabilities are renewed each second from the last one's rates. Within a second the nth span of a route
    is kept with at most `share / n`: a burst of N spans keeps about `share * (1 + ln(N / share))`.

    Args:
        spans_per_second: 0 or more; the aim for all kept spans, whatever the reason.
        clock: Monotonic seconds.
    """

    def __init__(self, spans_per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._budget = spans_per_second
        self._clock = clock
        self._turned = clock()
        self._routes: dict[str | None, _Route] = {}
        self._spent = 0
        self._rest = self._share = float(spans_per_second)
        self._head = 1.0
        self._heads = 0
        self._drawn = 0.0
        self._mean_spans = 1.0

    def spend(self, spans: int) -> None:
        """Counts spans that are kept for a reason; they leave less for the others."""
        self._spent += spans

    def offer(self, route: str | None, spans: int) -> float:
        """Returns the probability with which a trace is kept.

        Args:
            route: Whose share it takes.
            spans: How many spans it has.
        """
        if self._clock() - self._turned >= INTERVAL_SECONDS:
            self._turn()
        found = self._routes.get(route)
        if found is None:
            found = self._routes.setdefault(route if len(self._routes) < MAX_ROUTES else None, _Route())
        found.offered += spans
        self._mean_spans += _WEIGHT_OF_NEW * (spans - self._mean_spans)
        probability = min(found.probability, self._share / found.offered)
        self._drawn += spans * probability
        if self._drawn > _BURST * self._rest:
            probability *= _BURST * self._rest / self._drawn
        return probability

    def head_probability(self) -> float:
        """Returns the probability with which a trace that begins is sure to be kept, whatever its route."""
        if self._clock() - self._turned >= INTERVAL_SECONDS:
            self._turn()
        self._heads += 1
        return min(self._head, self._rest / (self._heads * self._mean_spans))

    def _turn(self) -> None:
        """Begins a new interval."""
        now = self._clock()
        elapsed = now - self._turned
        self._turned = now
        self._rest = max(self._budget - self._spent / elapsed, _FLOOR * self._budget)
        self._spent = self._heads = 0
        self._drawn = 0.0
        self._renew(elapsed)

    def _renew(self, elapsed: float) -> None:
        """Gives each route its probability for the next interval."""
        for route in self._routes.values():
            rate = route.offered / elapsed
            route.rate = rate if elapsed >= 2 * INTERVAL_SECONDS else (route.rate + rate) / 2
            route.offered = 0
        self._routes = {key: each for key, each in self._routes.items() if each.rate > _FORGOTTEN_RATE}
        level = water_level([each.rate for each in self._routes.values()], self._rest)
        self._share = self._rest if level is None else level
        for route in self._routes.values():
            route.probability = 1.0 if level is None else min(1.0, level / route.rate)
        self._head = min((each.probability for each in self._routes.values()), default=1.0)


def water_level(rates: Iterable[float], budget: float) -> float | None:
    """Returns the level at which `min(rate, level)` of all rates add up to a budget.

    Returns:
        None where the rates are within the budget as they are.
    """
    ordered = sorted(rates)
    left = budget
    for index, rate in enumerate(ordered):
        sharers = len(ordered) - index
        if rate * sharers > left:
            return left / sharers
        left -= rate
    return None
