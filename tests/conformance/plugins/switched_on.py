"""A pytest plugin that runs a suite with Sightline switched on for every FastAPI application.

Loaded with `-p switched_on`. The providers are the SDK's and global, as an operator has them; what they
export is counted and forgotten. The count goes to a file of this process beside `CONFORMANCE_OUTCOMES`: a run
in which Sightline captured nothing proves nothing.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from opentelemetry import _logs, metrics, trace
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

from sightline import SightlineInstrumentor


class _Counter(SpanExporter):
    """Counts the SERVER spans of Sightline."""

    count = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Counts and forgets."""
        self.count += sum(span.kind is trace.SpanKind.SERVER for span in spans)
        return SpanExportResult.SUCCESS


_counter = _Counter()
_tracer_provider = TracerProvider(shutdown_on_exit=False)
_tracer_provider.add_span_processor(SimpleSpanProcessor(_counter))
_meter_provider = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)
_logger_provider = LoggerProvider(shutdown_on_exit=False)
_logger_provider.add_log_record_processor(SimpleLogRecordProcessor(InMemoryLogRecordExporter()))
trace.set_tracer_provider(_tracer_provider)
metrics.set_meter_provider(_meter_provider)
_logs.set_logger_provider(_logger_provider)
SightlineInstrumentor().instrument(tracer_provider=_tracer_provider, meter_provider=_meter_provider)


def pytest_sessionfinish() -> None:
    """Writes the count."""
    outcomes = Path(os.environ["CONFORMANCE_OUTCOMES"])
    outcomes.with_suffix(f".{os.getpid()}.spans").write_text(str(_counter.count), encoding="utf-8")
