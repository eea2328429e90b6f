"""Finds slow operations among ended spans: database, Redis, HTTP and messaging, of any instrumentation.

A span that was not slow costs a subtraction and a comparison. Only spans that are recorded are seen: below a
sampler that drops traces, those that it keeps.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import inf, isfinite
from typing import Final

from opentelemetry._logs import Logger
from opentelemetry.context import Context, get_current
from opentelemetry.metrics import Meter
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.semconv.attributes.db_attributes import DB_SYSTEM_NAME
from opentelemetry.semconv.attributes.server_attributes import SERVER_ADDRESS
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, set_span_in_context

from sightline_processors.bounded_names import BoundedNames
from sightline_processors.operations import address_of, describe, operation_of, system_of, waits
from sightline_processors.performance_alerts import Attributes, Operation, PerformanceAlerts, SlowOperation
from sightline_processors.report import report
from sightline_processors.tracing.delivery import ReadingSpanProcessor

MAX_ADDRESSES: Final = 50
"""Values of `server.address` in the metric: as many of HTTP calls, and of everything else; then `_other`."""
MAX_SYSTEMS: Final = 20
"""Values of `db.system.name` in the metric; further ones are `_other`."""
OTHER: Final = "_other"

MAX_REMEMBERED: Final = 64
"""Slow operations that are remembered, so that the layer around one does not count it again."""

_NS_PER_SECOND: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class SlowThresholds:
    """Durations in seconds that a thing may take without being slow; exactly as long is not slow.

    Attributes:
        request: Of a request that the application answers; not looked at here, but with the others.
        query: Of a database or Redis operation.
        call: Of an outgoing HTTP call, or of sending or processing a message.

    None means never slow.

    Raises:
        ValueError: When one is not above zero, or not finite.
    """

    request: float | None = 1.0
    query: float | None = 0.1
    call: float | None = 1.0

    def __post_init__(self) -> None:
        for name in ("request", "query", "call"):
            seconds = getattr(self, name)
            if seconds is not None and not (seconds > 0 and isfinite(seconds)):
                raise ValueError(f"slow {name} must be > 0 s, got {seconds}; for 250 ms write {name}=0.25")


class SlowOperationProcessor(ReadingSpanProcessor):
    """Counts slow operations and logs a bounded number of them; for any `TracerProvider`. Nothing raises.

    Metric and log record are those of `performance_alerts`. An operation that two layers record, such as
    SQLAlchemy and its driver, counts once: the inner one ends first, and what encloses it is passed over.
    What waits by design is never slow: receiving messages, Redis commands that block.

    Memory: 64 operations, 100 addresses, 20 systems. Any thread.

    Args:
        thresholds: What is slow.
        logger: Gets the records; that of the global provider when omitted.
        meter: Has the counter; that of the global provider when omitted.
        correlation_id_of: Returns the correlation ID that a context carries; none is logged when omitted.
        alerts: Takes the place of the three before, where requests are alerted of with the same object.

    Attributes:
        alerts: What counts and logs.
    """

    kinds = frozenset({SpanKind.CLIENT, SpanKind.INTERNAL, SpanKind.PRODUCER, SpanKind.CONSUMER})

    def __init__(
        self,
        thresholds: SlowThresholds | None = None,
        logger: Logger | None = None,
        meter: Meter | None = None,
        *,
        correlation_id_of: Callable[[Context], str | None] | None = None,
        alerts: PerformanceAlerts | None = None,
    ) -> None:
        thresholds = thresholds or SlowThresholds()
        self.alerts = alerts or PerformanceAlerts(logger, meter, correlation_id_of=correlation_id_of)
        query = inf if thresholds.query is None else thresholds.query
        call = inf if thresholds.call is None else thresholds.call
        self._thresholds: dict[Operation, float] = {
            "db": query,
            "redis": query,
            "http": call,
            "messaging": call,
        }
        self._least_ns = min(query, call) * _NS_PER_SECOND
        self._layers = _Layers()
        self._http_addresses = BoundedNames(MAX_ADDRESSES, OTHER)
        self._addresses = BoundedNames(MAX_ADDRESSES, OTHER)
        self._systems = BoundedNames(MAX_SYSTEMS, OTHER)

    def on_end(self, span: ReadableSpan) -> None:
        """Looks at a span that has ended."""
        try:
            if span.end_time - span.start_time > self._least_ns:  # type: ignore[operator]  # it has ended
                self._examine(span)
        except Exception as error:  # noqa: BLE001  a request must not fail for its telemetry
            report("slow_operations", "could not look at a span; it may have been slow", error=error)

    def _examine(self, span: ReadableSpan) -> None:
        identity: SpanContext | None = span.get_span_context()
        if identity is None or span.kind not in self.kinds:
            return
        attributes = span.attributes or {}
        operation = operation_of(attributes, span.kind)
        if operation is None:
            return
        duration = (span.end_time - span.start_time) / _NS_PER_SECOND  # type: ignore[operator]  # as above
        threshold = self._thresholds[operation]
        if duration <= threshold or waits(operation, attributes) or self._layers.encloses(span, operation):
            return
        self.alerts.alert(
            SlowOperation(
                name="slow_query" if operation in {"db", "redis"} else "slow_call",
                operation=operation,
                duration_seconds=duration,
                threshold_seconds=threshold,
                context=set_span_in_context(NonRecordingSpan(identity), get_current()),
                metric_attributes=self._metric_attributes(operation, attributes),
                describe=partial(describe, operation, attributes),
            )
        )

    def _metric_attributes(self, operation: Operation, attributes: Attributes) -> dict[str, str]:
        bounded: dict[str, str] = {}
        system = system_of(operation, attributes)
        if system:
            bounded[DB_SYSTEM_NAME] = self._systems.bounded(system)
        address = address_of(attributes)
        if address:
            addresses = self._http_addresses if operation == "http" else self._addresses
            bounded[SERVER_ADDRESS] = addresses.bounded(address)
        return bounded


@dataclass(frozen=True, slots=True)
class _Layer:
    """One slow operation as one instrumentation recorded it."""

    trace_id: int
    span_id: int
    parent_id: int
    scope: str
    operation: Operation
    start: int
    end: int

    def encloses(self, inner: "_Layer") -> bool:
        """Tells whether the other is the same operation, recorded nearer to the server.

        Its parent, or a sibling in time around it that another instrumentation made: SQLAlchemy's spans
        are not current while its driver works.
        """
        if inner.trace_id != self.trace_id or inner.operation != self.operation:
            return False
        if inner.parent_id == self.span_id:
            return True
        return (
            inner.parent_id == self.parent_id
            and inner.scope != self.scope
            and self.start <= inner.start
            and inner.end <= self.end
        )


class _Layers:
    """Remembers the last slow operations; any thread, of which one may lose what another adds meanwhile."""

    def __init__(self) -> None:
        self._last: tuple[_Layer, ...] = ()

    def encloses(self, span: ReadableSpan, operation: Operation) -> bool:
        """Tells whether a span encloses one that was slow already; remembers it."""
        layer, known = _layer(span, operation), self._last
        self._last = (*known[1 - MAX_REMEMBERED :], layer)
        # To process a message is another operation than to send one meanwhile.
        return span.kind is not SpanKind.CONSUMER and any(layer.encloses(inner) for inner in known)


def _layer(span: ReadableSpan, operation: Operation) -> _Layer:
    context, scope = span.get_span_context(), span.instrumentation_scope
    return _Layer(
        trace_id=context.trace_id if context else 0,
        span_id=context.span_id if context else 0,
        parent_id=span.parent.span_id if span.parent else 0,
        scope=scope.name if scope else "",
        operation=operation,
        start=span.start_time or 0,
        end=span.end_time or 0,
    )
