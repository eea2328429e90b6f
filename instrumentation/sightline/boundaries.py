"""Bucket boundaries that Sightline advises; Views and exponential histograms win over them."""

from typing import Final

DURATION_BOUNDARIES_SECONDS: Final = (
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
)  # fmt: skip
"""Durations of requests. Source: semantic conventions v1.44.0, http.server.request.duration."""

LONG_BOUNDARIES_SECONDS: Final = (
    0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 10800.0,
)  # fmt: skip
"""What lasts longer than a request: connections and background tasks, 10 ms to 3 hours."""

BODY_SIZE_BOUNDARIES_BYTES: Final = (0, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000)
