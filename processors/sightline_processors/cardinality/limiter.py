"""A limit on the attribute sets of one metric stream.

Source: OpenTelemetry specification, metrics SDK, cardinality limits (stable): 2000 sets by default, the
overflow set `otel.metric.overflow=true` is one of them, sets seen before keep counting, and each measurement
is in exactly one set.
"""

import itertools
from collections.abc import Hashable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from sightline_processors.cardinality.routes import ReservedRoutes

DEFAULT_LIMIT: Final = 2000
"""Attribute sets, the overflow set included. Source: metrics SDK, cardinality limits."""

MAX_SETS_OF_ROUTE: Final = 256
"""Sets of one reserved route with a place of their own: methods times statuses times protocol versions.

Further sets of the route compete for the unreserved places, so that an attribute with many values cannot
hide behind a route.
"""

OVERFLOW: Final = "otel.metric.overflow"
OVERFLOW_ATTRIBUTES: Final[Mapping[str, bool]] = MappingProxyType({OVERFLOW: True})
"""The overflow set. Source: metrics SDK, overflow attribute."""

Attributes = Mapping[str, Any]


class AttributeSetLimiter:
    """Decides which attribute sets of a stream keep a series of their own; any thread, without a lock.

    A look-up is O(1). Memory is bounded by `limit` unreserved sets, and `MAX_SETS_OF_ROUTE` for each route
    of `routes`, each about 100 bytes beside its key. A set that is admitted stays admitted. Threads that meet
    the same new set at the same instant may use up a place each: the bound holds all the same.

    Args:
        limit: Unreserved sets, from 1, the overflow set included: 2000 are 1999 and the overflow set.
        routes: Whose sets have places of their own, beside the limit; None for no such sets.

    Raises:
        ValueError: The limit is below 1.
    """

    def __init__(self, limit: int = DEFAULT_LIMIT, *, routes: ReservedRoutes | None = None) -> None:
        if limit < 1:
            raise ValueError(
                f"cardinality limit must be >= 1, got {limit}; the specification's is {DEFAULT_LIMIT}"
            )
        self._routes = ReservedRoutes() if routes is None else routes
        self._seen: dict[Hashable, None] = {}
        self._unreserved = _Places(limit - 1)
        self._reserved: dict[str, _Places] = {}

    def __len__(self) -> int:
        """Returns the number of admitted sets, reserved ones included, without the overflow set."""
        return len(self._seen)

    def admits(self, key: Hashable, attributes: Attributes) -> bool:
        """Tells whether a set keeps its series, now and from now on; if not, it belongs to the overflow set.

        Args:
            key: Identifies the set: equal for equal sets, and for those only.
            attributes: The set.
        """
        if key in self._seen or is_overflow(attributes):
            return True
        route = self._routes.reserved_route(attributes)
        is_placed = route is not None and self._places_of(route).take()
        if not is_placed and not self._unreserved.take():
            return False
        self._seen[key] = None
        return True

    def limited(self, attributes: Attributes) -> Attributes:
        """Returns the same set where it is admitted, else `OVERFLOW_ATTRIBUTES`."""
        return attributes if self.admits(key_of(attributes), attributes) else OVERFLOW_ATTRIBUTES

    def _places_of(self, route: str) -> "_Places":
        places = self._reserved.get(route)
        return self._reserved.setdefault(route, _Places(MAX_SETS_OF_ROUTE)) if places is None else places


class _Places:
    """Gives out a number of places, each once; any thread: `next` of a count is one step in CPython."""

    __slots__ = ("_is_full", "_limit", "_tickets")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._tickets: Iterator[int] = itertools.count()
        self._is_full = False

    def take(self) -> bool:
        """Takes a place; False where there is none left."""
        if self._is_full:
            return False
        is_taken = next(self._tickets) < self._limit
        self._is_full = not is_taken
        return is_taken


def key_of(value: object) -> Hashable:
    """Returns what identifies an attribute value or set; `True`, `1` and `1.0` differ."""
    if isinstance(value, Mapping):
        return "mapping", frozenset((key, key_of(item)) for key, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return "sequence", tuple(map(key_of, value))
    return type(value).__name__, value


def is_overflow(attributes: Attributes) -> bool:
    """Tells the overflow set, whoever made it."""
    return len(attributes) == 1 and attributes.get(OVERFLOW) is True
