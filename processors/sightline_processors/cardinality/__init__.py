"""What bounds series: a limit on attribute sets, reserved routes, and the name of the offender."""

from sightline_processors.cardinality.instruments import guard_instruments, release_instruments
from sightline_processors.cardinality.limiter import AttributeSetLimiter
from sightline_processors.cardinality.overflow import observe_overflow
from sightline_processors.cardinality.routes import ReservedRoutes

__all__ = [
    "AttributeSetLimiter",
    "ReservedRoutes",
    "guard_instruments",
    "observe_overflow",
    "release_instruments",
]
"""The sorted public names."""
