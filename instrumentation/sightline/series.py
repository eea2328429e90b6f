"""The bound on metric series: the routes that always have theirs, and the limit on all others."""

from typing import Any, Final

from sightline.settings import Settings
from sightline_processors.cardinality import ReservedRoutes, guard_instruments

SCOPE_NAME: Final = "sightline"
"""The instrumentation scope of all that Sightline emits."""

process_routes: Final = ReservedRoutes()
"""The routes of all applications of the process: their series never share the overflow's."""


def guard_metrics(provider: Any, settings: Settings) -> None:
    """Limits the attribute sets of Sightline's instruments, and of all others where that is asked for."""
    scopes = None if settings.limit_all_instruments else frozenset({SCOPE_NAME})
    guard_instruments(provider, limit=settings.cardinality_limit, routes=process_routes, scopes=scopes)
