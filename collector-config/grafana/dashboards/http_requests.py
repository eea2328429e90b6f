"""What is asked about HTTP requests, for the overview and for one route."""

from typing import Final

from dashboards.queries import INTERVAL, per_second, quantile, select, share

DURATION: Final = "http_server_request_duration_seconds"
COUNT: Final = f"{DURATION}_count"
ACTIVE: Final = "http_server_active_requests"

FAILED: Final = 'error_type!~"|client_disconnect"'
"""A 5xx, an exception or an incomplete response; a client that went away is no error of the service."""

SLOW_SECONDS: Final = ((0.5, "orange"), (1.0, "red"))
"""Of a p95, where no objective is known: the default objective, and twice that."""
ERROR_RATIO: Final = ((0.001, "orange"), (0.01, "red"))
"""The budget of the default objective, and ten times that."""


def rate(*matchers: str, by: str = "", over: str = INTERVAL) -> str:
    """Returns requests per second."""
    return per_second(COUNT, *matchers, by=by, over=over)


def failures(*matchers: str, by: str = "", over: str = INTERVAL) -> str:
    """Returns the ratio of requests that failed."""
    return share(rate(*matchers, FAILED, by=by, over=over), rate(*matchers, by=by, over=over))


def duration(ratio: float, *matchers: str, by: str = "", over: str = INTERVAL) -> str:
    """Returns a quantile of the duration, in seconds."""
    return quantile(ratio, DURATION, *matchers, by=by, over=over)


def time_spent(*matchers: str, by: str = "", over: str = INTERVAL) -> str:
    """Returns the seconds spent per second: how many requests are under way on average."""
    return per_second(f"{DURATION}_sum", *matchers, by=by, over=over)


def active(by: str = "") -> str:
    """Returns the requests under way at this moment."""
    selected = select(ACTIVE)
    return f"sum by ({by}) ({selected})" if by else f"sum({selected})"
