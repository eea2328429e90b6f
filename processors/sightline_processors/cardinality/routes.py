"""Route templates of the application: their attribute sets are guaranteed a series of their own."""

from collections.abc import Mapping
from typing import Final

from opentelemetry.semconv._incubating.attributes.http_attributes import HTTP_TARGET
from opentelemetry.semconv.attributes.http_attributes import HTTP_ROUTE

from sightline_processors.report import report

MAX_ROUTES: Final = 10_000
"""Templates that a registry holds."""


class ReservedRoutes:
    """Holds the route templates that never overflow; any thread, without a lock.

    Memory: `limit` strings, that the application has anyway, and 100 bytes for each. Threads that reserve at
    the same instant may exceed the limit by one template each.

    Args:
        limit: Templates that are held at most; further ones share the unreserved sets.
    """

    def __init__(self, limit: int = MAX_ROUTES) -> None:
        self._limit = limit
        self._routes: set[str] = set()

    def reserve(self, route: str) -> bool:
        """Reserves a template, for the life of the registry; again is no change.

        Args:
            route: As it stands in `http.route`, mounts included.

        Returns:
            Whether it is reserved now; False, with a line in the log, once the registry is full.
        """
        if route in self._routes:
            return True
        if len(self._routes) >= self._limit:
            report("cardinality", f"more than {self._limit} route templates; further ones share one limit")
            return False
        self._routes.add(route)
        return True

    def reserved_route(self, attributes: Mapping[str, object]) -> str | None:
        """Returns the reserved template of an attribute set, or None.

        The old HTTP conventions of Sightline have the template in `http.target`. A raw path there is not
        reserved unless it is a template.
        """
        route = attributes.get(HTTP_ROUTE) or attributes.get(HTTP_TARGET)
        return route if isinstance(route, str) and route in self._routes else None

    def is_reserved(self, attributes: Mapping[str, object]) -> bool:
        """Tells whether an attribute set belongs to a reserved template."""
        return self.reserved_route(attributes) is not None
