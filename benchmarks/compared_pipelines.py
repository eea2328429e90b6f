"""Pipelines of the SDK as Sightline's distribution makes them, whose items are encoded and reach nobody."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import Sampler
from opentelemetry.trace import SpanKind
from opentelemetry.util.types import AnyValue

from sightline_processors.export import OtlpLogRecordProcessor, OtlpSpanProcessor
from sightline_processors.export.engine import Engine
from sightline_processors.export.limits import Limits
from sightline_processors.export.reasons import Signal
from sightline_processors.export.verdicts import Delivered, Destination, Verdict
from sightline_processors.tracing import make_tracers_fast
from sightline_processors.tracing.rewriting import SpanRewriter

LIMITS: Final = Limits(max_items=20_000, schedule_delay_seconds=600.0)
"""More than a block makes, and no export while one is measured but those of full batches."""

CHILD_NAME: Final = "SELECT shop.orders"
CHILD_ATTRIBUTES: Final = {
    "db.system.name": "postgresql",
    "db.namespace": "shop",
    "db.operation.name": "SELECT",
    "db.collection.name": "orders",
    "db.query.text": "SELECT id, state, total FROM orders WHERE customer_id = $1 LIMIT 20",
    "server.address": "orders-db.internal",
}
LOG_BODY: Final = "order 1042 of customer 77 was accepted after 38 ms"
LOG_ATTRIBUTES: Final[Mapping[str, AnyValue]] = {
    "order.id": 1042,
    "code.function.name": "shop.orders.accept",
    "state": "accepted",
}


class Discarding:
    """A transport that acknowledges everything.

    Attributes:
        last: The last request.
    """

    def __init__(self, signal: Signal) -> None:
        self.destination = Destination(signal, "nowhere", "bench", "otlp_http_span_exporter")
        self.last = b""

    def post(self, request: bytes, seconds: float) -> Verdict:
        """Takes a request."""
        del seconds
        self.last = request
        return Delivered()

    def abort(self) -> None:
        """Nothing is under way."""

    forget = close = abort


class SpanPipeline:
    """A TracerProvider whose spans are encoded.

    Args:
        rewriters: Of the exporting processor.
        processors: Registered after it.
        sampler: The SDK's default when omitted.

    Attributes:
        provider: The TracerProvider.
        tracer: One of its tracers.
        exported: What takes the requests.
    """

    def __init__(
        self,
        rewriters: Iterable[SpanRewriter] = (),
        processors: Iterable[SpanProcessor] = (),
        sampler: Sampler | None = None,
    ) -> None:
        make_tracers_fast()
        self._engine = Engine()
        self.exported = Discarding("traces")
        exporting = OtlpSpanProcessor(self.exported, LIMITS, self._engine)
        exporting.span_rewriters = tuple(rewriters)
        self.provider = TracerProvider(sampler, Resource({}), shutdown_on_exit=False)
        for processor in (exporting, *processors):
            self.provider.add_span_processor(processor)
        self.tracer = self.provider.get_tracer("benchmark")

    def children(self, count: int) -> None:
        """Makes so many child spans, each with six attributes."""
        start = self.tracer.start_as_current_span
        for _ in range(count):
            with start(CHILD_NAME, kind=SpanKind.CLIENT, attributes=CHILD_ATTRIBUTES):
                pass

    def exported_of(self, name: str, **attributes: str) -> bytes:
        """Returns the request that one more span becomes."""
        self.flush()
        with self.tracer.start_as_current_span(name, kind=SpanKind.CLIENT, attributes=attributes):
            pass
        self.flush()
        return self.exported.last

    def flush(self) -> None:
        """Exports what waits."""
        self.provider.force_flush()

    def close(self) -> None:
        """Ends the thread that exports."""
        self._engine.finish()

    def acknowledged(self) -> int:
        """Returns how many spans were exported.

        Raises:
            RuntimeError: When some were dropped: then their encoding was not measured either.
        """
        ledger = self._engine.ledger("traces")
        if any(ledger.dropped.values()):
            raise RuntimeError(f"spans were dropped: {dict(ledger.dropped)}")
        return ledger.acknowledged


class LogPipeline:
    """A LoggerProvider whose records are encoded.

    Attributes:
        provider: The LoggerProvider.
        exported: What takes the requests.
    """

    def __init__(self) -> None:
        self.exported = Discarding("logs")
        self.provider = LoggerProvider(Resource({}), shutdown_on_exit=False)
        self._engine = Engine()
        self.provider.add_log_record_processor(OtlpLogRecordProcessor(self.exported, LIMITS, self._engine))
        self._logger = self.provider.get_logger("benchmark")

    def records(self, count: int) -> None:
        """Emits so many log records, each with a sentence and three attributes."""
        for _ in range(count):
            self._emit(LOG_BODY)

    def exported_of(self, body: str) -> bytes:
        """Returns the request that one more record becomes."""
        self.flush()
        self._emit(body)
        self.flush()
        return self.exported.last

    def flush(self) -> None:
        """Exports what waits."""
        self.provider.force_flush()

    def close(self) -> None:
        """Ends the thread that exports."""
        self._engine.finish()

    def _emit(self, body: str) -> None:
        record = LogRecord(severity_number=SeverityNumber.INFO, body=body, attributes=dict(LOG_ATTRIBUTES))
        self._logger.emit(record)


class MetricPipeline:
    """A MeterProvider with one reader, which collects when it is asked.

    Attributes:
        provider: The MeterProvider.
    """

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self.provider = MeterProvider([self._reader], Resource({}), shutdown_on_exit=False)

    def points(self, name: str) -> Sequence[Any]:
        """Returns the data points of a metric, collected now."""
        data = self._reader.get_metrics_data()
        return [
            point
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]
