"""Why an item was dropped: the closed set of values of the attribute `reason`, and the three signals."""

from typing import Final, Literal

Signal = Literal["traces", "metrics", "logs"]

SIGNALS: Final[tuple[Signal, ...]] = ("traces", "metrics", "logs")

QUEUE_FULL: Final = "queue_full"
"""The oldest item made room for a new one: the queue held as many items, or bytes, as it may."""
TOO_LARGE: Final = "too_large"
"""The item alone is bigger than the queue may be."""
ENCODING: Final = "encoding"
"""The item, or its batch, could not be encoded."""
REJECTED: Final = "rejected"
"""The collector took the request and said that it did not take this many of its items (partial success)."""
REFUSED: Final = "refused"
"""The collector answered with a status that asks for no retry."""
NOT_OTLP: Final = "not_otlp"
"""Something answered 2xx with a body that is not OTLP: a login page, another service."""
REDIRECTED: Final = "redirected"
"""The endpoint answered 3xx until the batch's deadline; redirects are not followed."""
UNAVAILABLE: Final = "unavailable"
"""The collector asked for a retry (429, 502, 503, 504) until the batch's deadline."""
UNREACHABLE: Final = "unreachable"
"""No connection, or a broken one, until the batch's deadline."""
TIMEOUT: Final = "timeout"
"""No whole answer in time, until the batch's deadline."""
SHUTDOWN: Final = "shutdown"
"""Not delivered when the process ended, or ended after the shutdown."""
SPOOL_FULL: Final = "spool_full"
"""The oldest file of the spool made room for a new one."""
SPOOL_CORRUPT: Final = "spool_corrupt"
"""A file of the spool does not hold what was written."""

REASONS: Final = frozenset(
    {
        QUEUE_FULL, TOO_LARGE, ENCODING, REJECTED, REFUSED, NOT_OTLP, REDIRECTED, UNAVAILABLE, UNREACHABLE,
        TIMEOUT, SHUTDOWN, SPOOL_FULL, SPOOL_CORRUPT,
    }
)  # fmt: skip
