"""What the SDK hands spans and log records to: they are encoded and queued, and that is all."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from opentelemetry.sdk._logs import LogRecordProcessor, ReadWriteLogRecord
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from sightline_processors.export.engine import Engine, process_engine
from sightline_processors.export.faults import report_defect
from sightline_processors.export.limits import MAX_REQUEST_BYTES, Limits
from sightline_processors.export.reasons import ENCODING, Signal
from sightline_processors.export.verdicts import Transport
from sightline_processors.forked_processes import renew_in_children
from sightline_processors.held_back import HeldBack
from sightline_processors.otlp.logs import encode_log_record
from sightline_processors.otlp.spans import encode_span
from sightline_processors.tracing.delivery import EncodedSpanProcessor
from sightline_processors.tracing.rewriting import SpanRewriter, rewritten

_FLUSH_MILLIS = 30_000

ENCODED_AT_ONCE: Final = 32
"""Spans that wait for each other at most, in number; fewer where a batch is smaller."""

MIN_ENTRIES: Final = 8
"""Spans are queued as one entry where the queue, and a request, hold so many of its size at least."""


class _Delivery:
    """A lane of the engine for the items of one signal, as the SDK's processors have it.

    Args:
        transport: Where the items go; what `OTEL_EXPORTER_OTLP_*` say when omitted.
        limits: Bounds of the queue; what the signal's `OTEL_B*_` variables say when omitted.
        engine: Delivers the items; the one of the process when omitted.
    """

    _signal: Signal

    def __init__(
        self,
        transport: Transport | None = None,
        limits: Limits | None = None,
        engine: Engine | None = None,
    ) -> None:
        if transport is None:
            from sightline_processors.export.stock import (  # noqa: PLC0415  imports much
                transport_of_environment,
            )

            transport = transport_of_environment(self._signal)
        self._engine = engine or process_engine()
        self.courier = self._engine.add(transport, limits)
        self._lane = self.courier.lane

    def force_flush(self, timeout_millis: int | None = None) -> bool:
        """Sends what came before the call; tells whether all of it was delivered in time.

        Args:
            timeout_millis: 30 seconds when omitted.
        """
        return self.courier.flush(
            (_FLUSH_MILLIS if timeout_millis is None else max(0, timeout_millis)) / 1000
        )

    def shutdown(self) -> None:
        """Flushes within the engine's time, spools or drops the rest; later items are dropped."""
        self._engine.shut_down(self.courier)


class OtlpSpanProcessor(_Delivery, EncodedSpanProcessor):
    """Exports sampled spans over OTLP; for any `TracerProvider`, and in place of `BatchSpanProcessor`.

    Any method may be called from any thread, and nothing raises.

    Args:
        transport: Where the spans go; what `OTEL_EXPORTER_OTLP_*` say when omitted.
        limits: Bounds of the queue; what `OTEL_BSP_*` say when omitted.
        engine: Delivers the spans; the one of the process when omitted.
    """

    _signal: Signal = "traces"

    span_rewriters: tuple[SpanRewriter, ...] = ()
    """Say in this order what becomes of each span that comes to `on_end`.

    They are called when spans are encoded, in any thread, without the context in which the span ended. May be
    replaced at any time; what waits then is for the new ones. A span that comes encoded, `put_encoded`, is
    not rewritten: who encodes it has bounded and redacted it.
    """

    def __init__(
        self,
        transport: Transport | None = None,
        limits: Limits | None = None,
        engine: Engine | None = None,
    ) -> None:
        super().__init__(transport, limits, engine)
        enough = min(ENCODED_AT_ONCE, self._lane.limits.batch_items)
        self._ended: HeldBack[ReadableSpan] = HeldBack(self._encode, self._lane.wake, enough)
        self.draw_from(self._ended.drain)
        renew_in_children(self._ended, HeldBack.forget)

    def on_end(self, span: ReadableSpan) -> None:
        """Takes a span that is sampled; it is encoded, as the rewriters want it, and queued with others."""
        try:
            context = span.context
            if context is None or not context.trace_flags & 1:
                return
            ended = self._ended
            ended.items.append(span)
            if not ended.is_told or len(ended.items) >= ended.enough:
                ended.attend()
        except Exception as error:  # noqa: BLE001  an object that only looks like a span
            self._refuse(error)

    def _encode(self, span: ReadableSpan) -> None:
        try:
            if self.span_rewriters:
                span = rewritten(span, self.span_rewriters)
            item = encode_span(span)
            resource, scope = span.resource, span.instrumentation_scope
        except Exception as error:  # noqa: BLE001  likewise
            self._refuse(error)
            return
        self.put_encoded(resource, scope, item)

    def _refuse(self, error: Exception) -> None:
        self._lane.count_drop(ENCODING)
        report_defect(error)

    def put_encoded(self, resource: Any, scope: Any, item: bytes) -> None:
        """Queues a span that is encoded already; never blocks, never raises.

        Args:
            resource: The span's `Resource`.
            scope: Its `InstrumentationScope`; None for none.
            item: One element of `ScopeSpans.spans` with its tag and length.
        """
        try:  # the lines of `Lane.put`, without its call
            lane = self._lane
            size = len(item)
            lane.queued_bytes += size
            lane.queued_items += 1
            entry = (resource, scope, item, 1)
            lane.append(entry)
            if lane.queued_bytes > lane.byte_limit or lane.queued_items >= lane.attention:
                lane.attend(entry)
        except Exception as error:  # noqa: BLE001  a request must not fail for its telemetry
            report_defect(error)

    def put_all(self, resource: Any, scope: Any, items: Sequence[bytes]) -> None:
        """Queues spans of one tracer that are encoded already; see `put_encoded`.

        As one entry, while that is a small part of what the queue holds: they are sent, or dropped, together.
        """
        limits, count = self._lane.limits, len(items)
        try:
            if 0 < count <= limits.batch_items and count * MIN_ENTRIES <= limits.max_items:
                together = b"".join(items)
                if len(together) * MIN_ENTRIES <= min(limits.max_bytes, MAX_REQUEST_BYTES):
                    self._lane.put((resource, scope, together, count))
                    return
            super().put_all(resource, scope, items)
        except Exception as error:  # noqa: BLE001  as above
            self._lane.count_drop(ENCODING, count)
            report_defect(error)

    def draw_from(self, source: Callable[[], None]) -> Callable[[], None] | None:
        """Asks a source for what it holds back, whenever spans are sent; see the base class."""
        lane = self._lane
        if source not in lane.sources:
            # It may end spans, which wait in our own list: that is asked last.
            lane.sources = (source, *lane.sources)
        return lane.wake


class OtlpLogRecordProcessor(_Delivery, LogRecordProcessor):
    """Exports log records over OTLP; for any `LoggerProvider`, and in place of `BatchLogRecordProcessor`.

    Any method may be called from any thread, and nothing raises.

    Args:
        transport: Where the records go; what `OTEL_EXPORTER_OTLP_*` say when omitted.
        limits: Bounds of the queue; what `OTEL_BLRP_*` say when omitted.
        engine: Delivers the records; the one of the process when omitted.
    """

    _signal: Signal = "logs"

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        """Encodes a record as it is now, and queues it."""
        try:
            item = encode_log_record(log_record)
            resource = log_record.resource or Resource.create({})
            scope: InstrumentationScope | None = log_record.instrumentation_scope
        except Exception as error:  # noqa: BLE001  an object that only looks like a record
            self._lane.count_drop(ENCODING)
            report_defect(error)
            return
        self._lane.put((resource, scope, item, 1))
