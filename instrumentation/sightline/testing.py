"""Capture of telemetry in memory, for the tests of applications that use Sightline.

    def test_checkout_is_traced(telemetry):
        telemetry.instrument(app)
        TestClient(app).post("/orders")
        assert telemetry.span("POST /orders").attributes["http.response.status_code"] == 201

The fixture `telemetry` comes with the package (a pytest plugin); `capture()` is the same without pytest.
Nothing global is replaced: providers made for the capture are handed to the application that it
instruments. Not for production: everything is kept until the capture ends.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.sdk._logs import LoggerProvider, ReadableLogRecord
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import DataPointT, InMemoryMetricReader, Metric
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from sightline.instrumentor import SightlineInstrumentor
from sightline.logs import RecordBridge, is_logging_wrapped, pop_bridge, push_bridge, restore_logging
from sightline.middleware import UNDECIDED
from sightline.structured_logs import release_structured_logs


@dataclass(frozen=True)
class CapturedTelemetry:
    """Holds what applications emitted since the capture began.

    Attributes:
        tracer_provider: Pass it to other instrumentations whose spans shall be captured too.
        meter_provider: The same for metrics.
        logger_provider: The same for logs.
    """

    tracer_provider: TracerProvider
    meter_provider: MeterProvider
    logger_provider: LoggerProvider
    _spans: InMemorySpanExporter
    _reader: InMemoryMetricReader
    _logs: InMemoryLogRecordExporter
    _instrumented: list[Any] = field(default_factory=list)

    def instrument(self, app: Any, **options: Any) -> None:
        """Captures one application; takes the options of `SightlineInstrumentor.instrument_app`."""
        before = getattr(app, "_sightline", UNDECIDED)
        SightlineInstrumentor.instrument_app(
            app,
            tracer_provider=self.tracer_provider,
            meter_provider=self.meter_provider,
            logger_provider=self.logger_provider,
            **options,
        )
        self._instrumented.append((app, before))

    @property
    def spans(self) -> list[ReadableSpan]:
        """Finished spans, in the order in which they ended."""
        return list(self._spans.get_finished_spans())

    def span(self, name: str) -> ReadableSpan:
        """Returns the one span of that name.

        Raises:
            AssertionError: When there is none or more than one; the message lists the names.
        """
        found = [span for span in self.spans if span.name == name]
        assert len(found) == 1, f"expected one span {name!r}, got {[span.name for span in self.spans]}"  # noqa: S101
        return found[0]

    @property
    def logs(self) -> list[ReadableLogRecord]:
        """Exported log records, in order."""
        return list(self._logs.get_finished_logs())

    @property
    def metrics(self) -> dict[str, Metric]:
        """The metrics collected now, by name; cumulative since the capture began."""
        data = self._reader.get_metrics_data()
        return {
            metric.name: metric
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def points(self, metric: str, **attributes: Any) -> list[DataPointT]:
        """Returns the data points of a metric that carry all the given attributes.

        Args:
            metric: Name, for example `http.server.request.duration`.
            **attributes: Names with `_` for `.`, for example `http_route="/orders"`.
        """
        found = self.metrics.get(metric)
        points = found.data.data_points if found else ()
        return [point for point in points if _carries(point.attributes or {}, attributes)]


def _carries(attributes: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    by_identifier = {name.replace(".", "_"): value for name, value in attributes.items()}
    return all(by_identifier.get(name) == value for name, value in wanted.items())


def _log_exporter() -> InMemoryLogRecordExporter:
    return InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]


@contextmanager
def capture() -> Iterator[CapturedTelemetry]:
    """Captures spans, metrics and stdlib log records until the block ends."""
    spans, reader, logs = InMemorySpanExporter(), InMemoryMetricReader(), _log_exporter()
    tracer_provider = TracerProvider(shutdown_on_exit=False)
    tracer_provider.add_span_processor(SimpleSpanProcessor(spans))
    logger_provider = LoggerProvider(shutdown_on_exit=False)
    logger_provider.add_log_record_processor(SimpleLogRecordProcessor(logs))
    meter_provider = MeterProvider([reader], shutdown_on_exit=False)
    captured = CapturedTelemetry(tracer_provider, meter_provider, logger_provider, spans, reader, logs)
    was_instrumented = is_logging_wrapped()
    push_bridge(RecordBridge(access_log=True, logger_provider=logger_provider))
    try:
        yield captured
    finally:
        for app, before in reversed(captured._instrumented):  # noqa: SLF001  this module's own class
            app._sightline = before  # noqa: SLF001  what captured it before, if anything
        pop_bridge()
        if not was_instrumented:
            release_structured_logs()
            restore_logging()
        tracer_provider.shutdown()
        meter_provider.shutdown()
        logger_provider.shutdown()
