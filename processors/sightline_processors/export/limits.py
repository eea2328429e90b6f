"""How much may wait, how long, and in what portions."""

import os
from dataclasses import dataclass
from typing import Final

from opentelemetry.sdk.environment_variables import (
    OTEL_BLRP_EXPORT_TIMEOUT,
    OTEL_BLRP_MAX_EXPORT_BATCH_SIZE,
    OTEL_BLRP_MAX_QUEUE_SIZE,
    OTEL_BLRP_SCHEDULE_DELAY,
    OTEL_BSP_EXPORT_TIMEOUT,
    OTEL_BSP_MAX_EXPORT_BATCH_SIZE,
    OTEL_BSP_MAX_QUEUE_SIZE,
    OTEL_BSP_SCHEDULE_DELAY,
    OTEL_METRIC_EXPORT_TIMEOUT,
)

from sightline_processors.export.reasons import Signal

MAX_QUEUE_BYTES: Final = 8 * 1024 * 1024
"""Encoded bytes of spans, and as many of log records, that may wait, those that are being sent included."""
MAX_METRICS_BYTES: Final = 32 * 1024 * 1024
"""The same of metrics, where one item is a whole collection."""
MAX_REQUEST_BYTES: Final = 3_500_000
"""Where a batch ends before its number of items: receivers of OTLP over gRPC take 4 MiB by default."""
MAX_COLLECTIONS: Final = 64
"""Collections of metrics that may wait."""

_VARIABLES: Final[dict[Signal, tuple[tuple[str, int], ...]]] = {
    "traces": (
        (OTEL_BSP_MAX_QUEUE_SIZE, 2048),
        (OTEL_BSP_MAX_EXPORT_BATCH_SIZE, 512),
        (OTEL_BSP_SCHEDULE_DELAY, 5000),
        (OTEL_BSP_EXPORT_TIMEOUT, 30_000),
    ),
    "logs": (
        (OTEL_BLRP_MAX_QUEUE_SIZE, 2048),
        (OTEL_BLRP_MAX_EXPORT_BATCH_SIZE, 512),
        (OTEL_BLRP_SCHEDULE_DELAY, 1000),
        (OTEL_BLRP_EXPORT_TIMEOUT, 30_000),
    ),
}


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds one signal's queue; what is being sent, or waits for a retry, counts.

    Attributes:
        max_items: Items that may wait, above 0.
        max_batch_items: Items of one request, above 0; at most half of `max_items` is sent at a time, so that
            the other half can wait meanwhile.
        schedule_delay_seconds: How long a batch that is not full waits for more.
        export_timeout_seconds: How long a batch is tried, retries included, from its first attempt on.
        max_bytes: Encoded bytes that may wait.
    """

    max_items: int = 2048
    max_batch_items: int = 512
    schedule_delay_seconds: float = 5.0
    export_timeout_seconds: float = 30.0
    max_bytes: int = MAX_QUEUE_BYTES

    @property
    def batch_items(self) -> int:
        """Items of one request in effect."""
        return max(1, min(self.max_batch_items, self.max_items // 2))

    @classmethod
    def from_environment(cls, signal: Signal) -> "Limits":
        """Reads `OTEL_BSP_*`, `OTEL_BLRP_*` or `OTEL_METRIC_EXPORT_TIMEOUT`; defaults as in the SDK."""
        if signal == "metrics":
            return cls.of_metrics(_number(OTEL_METRIC_EXPORT_TIMEOUT, 30_000) / 1000)
        items, batch, delay, timeout = (_number(*variable) for variable in _VARIABLES[signal])
        return cls(int(items), int(batch), delay / 1000, timeout / 1000)

    @classmethod
    def of_metrics(cls, export_timeout_seconds: float) -> "Limits":
        """Returns the bounds of a queue of collections, each of which leaves at once and alone."""
        return cls(MAX_COLLECTIONS, 1, 0.0, export_timeout_seconds, MAX_METRICS_BYTES)


def _number(variable: str, default: int) -> float:
    try:
        value = float(os.environ.get(variable) or default)
    except ValueError:
        return default
    return value if 0 < value < float("inf") else default
