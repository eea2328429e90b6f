"""Log records of what broke its objective, at a bounded rate.

The record is an event `sla_violation`, severity WARN, with the trace and span ID of what was slow or failed.
"""

import os
import threading
import time
from collections.abc import Callable
from typing import Any, Final
from weakref import WeakSet

from opentelemetry._logs import Logger, LoggerProvider, LogRecord, SeverityNumber, get_logger
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.semconv.attributes.http_attributes import HTTP_ROUTE
from opentelemetry.trace import NonRecordingSpan, set_span_in_context

from sightline_processors.sla.objectives import OBJECTIVE_ATTRIBUTE, Objective
from sightline_processors.sla.verdict import OUTCOME_ATTRIBUTE, Outcome

SCOPE: Final = "sightline"
EVENT_NAME: Final = "sla_violation"
DURATION: Final = "sightline.duration_seconds"
"""Log attribute, float."""
THRESHOLD: Final = "sightline.threshold_seconds"
"""Log attribute, float; absent where latency is not judged."""
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
        self._tokens = float(VIOLATIONS_PER_MINUTE)
        self._refilled_at = clock()
        self._left_out = 0
        self._lock = threading.RLock()  # a signal handler may interrupt its holder
        _all.add(self)

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
            now = self._clock()
            refill = max(0.0, now - self._refilled_at) * VIOLATIONS_PER_MINUTE / 60
            self._refilled_at = now
            self._tokens = min(float(VIOLATIONS_PER_MINUTE), self._tokens + refill)
            if self._tokens < 1:
                self._left_out += 1
                return None
            self._tokens -= 1
            left_out, self._left_out = self._left_out, 0
            return left_out

    def _renew_lock(self) -> None:
        self._lock = threading.RLock()  # another thread may have held it at the fork


def _context_of(span: ReadableSpan) -> Context | None:
    context = span.context
    return None if context is None else set_span_in_context(NonRecordingSpan(context), Context())


_all: "WeakSet[ViolationLog]" = WeakSet()


def _renew_locks() -> None:
    for each in list(_all):
        each._renew_lock()  # noqa: SLF001  of the class above


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)
