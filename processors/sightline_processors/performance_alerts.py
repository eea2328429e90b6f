"""Alerts of slow requests and operations: each is counted, and a bounded number of them is logged.

The log record is an event `performance_alert`, severity WARN, with the trace and span ID of what was slow.
Which threshold was passed is its `sightline.alert`: `slow_request`, `slow_query` or `slow_call`.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from opentelemetry._logs import Logger, LogRecord, SeverityNumber, get_logger
from opentelemetry.context import Context
from opentelemetry.metrics import Meter, get_meter
from opentelemetry.semconv.attributes.http_attributes import (
    HTTP_REQUEST_METHOD,
    HTTP_RESPONSE_STATUS_CODE,
    HTTP_ROUTE,
)
from opentelemetry.util.types import AnyValue

from sightline_processors.forked_processes import renew_in_children
from sightline_processors.report import report
from sightline_processors.token_bucket import TokenBucket

Operation = Literal["db", "http", "messaging", "redis", "request"]
AlertName = Literal["slow_call", "slow_query", "slow_request"]
Attributes = Mapping[str, AnyValue]

SCOPE: Final = "sightline"
SLOW_OPERATIONS: Final = "sightline.slow_operations"
"""Counter, `{operation}`, by `sightline.operation`, `db.system.name` and `server.address`."""
EVENT_NAME: Final = "performance_alert"

OPERATION: Final = "sightline.operation"
"""`db`, `http`, `messaging`, `redis` or `request`; of the metric and the log record."""
ALERT: Final = "sightline.alert"
"""Log attribute: `slow_request`, `slow_query` (`db`, `redis`) or `slow_call` (`http`, `messaging`)."""
DURATION: Final = "sightline.duration_seconds"
"""Log attribute, float."""
THRESHOLD: Final = "sightline.threshold_seconds"
"""Log attribute, float; what the duration has exceeded."""
LEFT_OUT: Final = "sightline.alerts_left_out"
"""Log attribute, int: alerts of the same operation since the last record; absent where there are none."""
CORRELATION_ID: Final = "correlation_id"

ALERTS_PER_MINUTE: Final = 10
"""Log records of each operation, on average and at once."""

_DESCRIPTION: Final = "Operations that took longer than their threshold."


@dataclass(frozen=True, slots=True)
class SlowOperation:
    """What an alert is about.

    Attributes:
        name: The threshold that was exceeded.
        operation: What was slow.
        duration_seconds: How long it took.
        threshold_seconds: How long it might have taken.
        context: Holds the span that was slow; gives record and exemplar their IDs.
        correlation_id: Of the request; None where there is none.
        metric_attributes: Beside the operation, each from a bounded set of values.
        describe: Returns a few words for the body and further attributes of the record, all of it redacted
            and bounded. Called only when there is a record.
    """

    name: AlertName
    operation: Operation
    duration_seconds: float
    threshold_seconds: float
    context: Context
    describe: Callable[[], tuple[str, Attributes]]
    correlation_id: str | None = None
    metric_attributes: Mapping[str, str] = field(default_factory=dict)


class PerformanceAlerts:
    """Counts slow operations and logs them at a bounded rate. Any thread; nothing raises.

    Of each operation ten records are logged at once, and ten a minute from then on; the next record tells how
    many were left out. The metric counts all of them.

    Args:
        logger: Gets the records; that of the global provider when omitted.
        meter: Has the counter; that of the global provider when omitted. One object per meter.
        correlation_id_of: Returns the correlation ID that a context carries; none is logged when omitted.
        clock: In seconds, monotonic.
    """

    def __init__(
        self,
        logger: Logger | None = None,
        meter: Meter | None = None,
        *,
        correlation_id_of: Callable[[Context], str | None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._logger = logger or get_logger(SCOPE)
        self._correlation_id_of = correlation_id_of
        self._clock = clock
        self._counter = (meter or get_meter(SCOPE)).create_counter(
            SLOW_OPERATIONS, unit="{operation}", description=_DESCRIPTION
        )
        self._budgets: dict[Operation, TokenBucket] = {}
        self._lock = threading.RLock()  # a signal handler may interrupt its holder
        renew_in_children(self, PerformanceAlerts._renew_lock)

    def alert(self, slow: SlowOperation) -> None:
        """Counts an operation, and logs it unless ten of its kind were logged within the last minute."""
        try:
            attributes = {OPERATION: slow.operation, **slow.metric_attributes}
            self._counter.add(1, attributes, context=slow.context)
            left_out = self._take(slow.operation)
            if left_out is not None:
                self._log(slow, left_out)
        except Exception as error:  # noqa: BLE001  a request must not fail for its telemetry
            report("performance_alerts", "could not alert of a slow operation", error=error)

    def alert_slow_request(
        self,
        *,
        duration_seconds: float,
        threshold_seconds: float,
        context: Context,
        method: str,
        route: str | None,
        status_code: int | None,
        correlation_id: str | None = None,
        more: Attributes | None = None,
    ) -> None:
        """Counts and logs a request that the caller has found slow; as `alert`.

        Args:
            duration_seconds: How long it took.
            threshold_seconds: How long it might have taken.
            context: Holds the span of the request.
            method: From the closed set of the conventions.
            route: The route template; None where no route matched.
            status_code: Of the answer; None without one.
            correlation_id: What the context carries when omitted.
            more: Further attributes of the record, such as what the event loop was doing.
        """

        def describe() -> tuple[str, Attributes]:
            known = {
                HTTP_REQUEST_METHOD: method,
                HTTP_ROUTE: route,
                HTTP_RESPONSE_STATUS_CODE: status_code,
                **(more or {}),
            }
            return f"{method} {route or ''}".rstrip(), {
                key: value for key, value in known.items() if value is not None
            }

        self.alert(
            SlowOperation(
                name="slow_request",
                operation="request",
                duration_seconds=duration_seconds,
                threshold_seconds=threshold_seconds,
                context=context,
                correlation_id=correlation_id,
                describe=describe,
            )
        )

    def _take(self, operation: Operation) -> int | None:
        with self._lock:
            budget = self._budgets.get(operation)
            if budget is None:
                budget = self._budgets[operation] = TokenBucket(ALERTS_PER_MINUTE, self._clock())
            return budget.take(self._clock())

    def _log(self, slow: SlowOperation, left_out: int) -> None:
        subject, further = slow.describe()
        attributes = {
            ALERT: slow.name,
            OPERATION: slow.operation,
            DURATION: slow.duration_seconds,
            THRESHOLD: slow.threshold_seconds,
            **further,
        }
        correlation_id = slow.correlation_id
        if correlation_id is None and self._correlation_id_of is not None:
            correlation_id = self._correlation_id_of(slow.context)
        if correlation_id is not None:
            attributes[CORRELATION_ID] = correlation_id
        if left_out:
            attributes[LEFT_OUT] = left_out
        now = time.time_ns()
        self._logger.emit(
            LogRecord(
                timestamp=now,
                observed_timestamp=now,
                context=slow.context,
                severity_number=SeverityNumber.WARN,
                severity_text="WARN",
                body=_body(slow, subject),
                attributes=attributes,
                event_name=EVENT_NAME,
            )
        )

    def _renew_lock(self) -> None:
        self._lock = threading.RLock()  # another thread may have held it at the fork


def _body(slow: SlowOperation, subject: str) -> str:
    what = f": {subject}" if subject else ""
    return (
        f"{slow.name}: {slow.operation} took {slow.duration_seconds:.3f} s, "
        f"more than {slow.threshold_seconds:g} s{what}"
    )
