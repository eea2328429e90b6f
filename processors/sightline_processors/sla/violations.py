"""Log records of what broke its objective, at a bounded rate.

The record is an event `sla_violation`, severity WARN, with the trace and span ID of what was slow or failed.
"""

import threading
import time
from collections.abc import Callable
from typing import Any, Final

from opentelemetry._logs import Logger, LoggerProvider, LogRecord, SeverityNumber, get_logger
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.semconv.attributes.http_attributes import HTTP_ROUTE
from opentelemetry.trace import NonRecordingSpan, set_span_in_context

from sightline_processors.forked_processes import renew_in_children
from sightline_processors.performance_alerts import DURATION, SCOPE, THRESHOLD
from sightline_processors.sla.objectives import OBJECTIVE_ATTRIBUTE, Objective
from sightline_processors.sla.verdict import OUTCOME_ATTRIBUTE, Outcome
from sightline_processors.token_bucket import TokenBucket

EVENT_NAME: Final = "sla_violation"
LEFT_OUT: Final = "sightline.violations_left_out"
"""Log attribute, int: violations without a record since the last one; absent where there are none."""

VIOLATIONS_PER_MINUTE: Final = 10
"""Log records, on average and at once."""


class ViolationLog:
    """Logs violations: ten at once, and ten a minute from then on. Any thread.

    Args:
        logger_provider: Gets the records; the global one when omitted, asked for at the first record.
        clock: In seconds, monotonic.
    """

    def __init__(
        self, logger_provider: LoggerProvider | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._logger_provider = logger_provider
        self._logger: Logger | None = None
        self._clock = clock
        self._budget = TokenBucket(VIOLATIONS_PER_MINUTE, clock())
        self._lock = threading.RLock()  # a signal handler may interrupt its holder
        renew_in_children(self, ViolationLog._renew_lock)

    def log(
        self, span: ReadableSpan, outcome: Outcome, objective: Objective, seconds: float, route: str | None
    ) -> None:
        """Logs one, or counts it as left out.

        Args:
            span: What was slow or failed; has ended.
            outcome: `slow` or `failed`.
            objective: Judged it.
            seconds: How long it took.
            route: What it counts for; None for no route.
        """
        left_out = self._take()
        if left_out is None:
            return
        if self._logger is None:
            self._logger = get_logger(SCOPE, logger_provider=self._logger_provider)
        attributes: dict[str, Any] = {
            OUTCOME_ATTRIBUTE: outcome,
            OBJECTIVE_ATTRIBUTE: objective.name,
            DURATION: seconds,
            THRESHOLD: objective.latency_seconds,
            HTTP_ROUTE: route,
            LEFT_OUT: left_out or None,
        }
        self._logger.emit(
            LogRecord(
                timestamp=span.end_time,
                context=_context_of(span),
                severity_number=SeverityNumber.WARN,
                severity_text="WARN",
                body=f"{outcome} by the objective {objective.name} ({objective}): took {seconds:.3f} s",
                attributes={key: value for key, value in attributes.items() if value is not None},
                event_name=EVENT_NAME,
            )
        )

    def _take(self) -> int | None:
        """Returns how many were left out since the last record; None when this one is left out too."""
        with self._lock:
            return self._budget.take(self._clock())

    def _renew_lock(self) -> None:
        self._lock = threading.RLock()  # another thread may have held it at the fork


def _context_of(span: ReadableSpan) -> Context | None:
    context = span.context
    return None if context is None else set_span_in_context(NonRecordingSpan(context), Context())
