"""What the tests of the export engine share: engines that do not wait long, spans with known IDs."""

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry._logs import LogRecord
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from tests.sightline_processors.faulty_collector import FaultyCollector

from sightline_processors.export import (
    Backoff,
    Delivered,
    Engine,
    Limits,
    OtlpLogRecordProcessor,
    OtlpMetricExporter,
    OtlpSpanProcessor,
    Signal,
    Verdict,
)
from sightline_processors.export.http_transport import HttpEndpoint, HttpTransport
from sightline_processors.export.verdicts import Destination

CONTENT_TYPE = ("content-type", "application/x-protobuf")
FAST = Backoff(0.01, 0.05)
PATHS: dict[Signal, str] = {"traces": "/v1/traces", "logs": "/v1/logs", "metrics": "/v1/metrics"}

made: list[HttpTransport] = []
"""What was made in a test; closed after it."""
_numbers = itertools.count(1)


class RecordingTransport:
    """Takes requests in memory and answers what it is told, in order; then acknowledges."""

    def __init__(self, *verdicts: Verdict, signal: Signal = "traces") -> None:
        self.destination = Destination(signal, "memory", "key", "otlp_http_span_exporter")
        self.verdicts = list(verdicts)
        self.requests: list[bytes] = []
        self.gate: Callable[[], Any] = lambda: None

    def post(self, request: bytes, seconds: float) -> Verdict:
        self.requests.append(request)
        self.gate()
        return self.verdicts.pop(0) if self.verdicts else Delivered()

    def abort(self) -> None:
        """Nothing is under way for long."""

    forget = close = abort


def http_transport(
    collector: FaultyCollector | str, signal: Signal = "traces", timeout_seconds: float = 5.0, **settings: Any
) -> HttpTransport:
    """Returns a transport to a collector, or to an endpoint of `http://host:port`."""
    base = collector if isinstance(collector, str) else collector.endpoint
    headers = (CONTENT_TYPE, *settings.pop("headers", ()))
    transport = HttpTransport(
        signal,
        HttpEndpoint(base + PATHS[signal], headers=headers, timeout_seconds=timeout_seconds, **settings),
    )
    made.append(transport)
    return transport


@contextmanager
def engine_of(**options: Any) -> Iterator[Engine]:
    """Makes an engine with short waits and ends it."""
    engine = Engine(**{"backoff": FAST, "shutdown_timeout_seconds": 1.0, **options})
    try:
        yield engine
    finally:
        engine.finish()


def limits(
    max_items: int = 100_000,
    max_batch_items: int = 64,
    schedule_delay_seconds: float = 0.02,
    export_timeout_seconds: float = 10.0,
    **more: Any,
) -> Limits:
    """Returns bounds that keep no test waiting."""
    return Limits(max_items, max_batch_items, schedule_delay_seconds, export_timeout_seconds, **more)


def span_source(processor: OtlpSpanProcessor) -> Callable[[], str]:
    """Returns a function that ends a span and returns its ID."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    tracer = provider.get_tracer("tests")

    def end_span() -> str:
        with tracer.start_as_current_span("span") as span:
            return f"{span.get_span_context().span_id:016x}"

    return end_span


def log_source(processor: OtlpLogRecordProcessor) -> Callable[[], str]:
    """Returns a function that emits a record and returns its body."""
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(processor)
    logger = provider.get_logger("tests")

    def emit() -> str:
        body = f"record {next(_numbers)}"
        logger.emit(LogRecord(timestamp=1, body=body))
        return body

    return emit


def meter_provider(exporter: OtlpMetricExporter) -> MeterProvider:
    """Returns a provider that collects when it is asked to."""
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)
    return MeterProvider([reader], shutdown_on_exit=False)


def until(condition: Callable[[], Any], seconds: float = 10.0) -> bool:
    """Waits until a condition holds, at most so long; returns whether it does."""
    ends_at = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > ends_at:
            return False
        time.sleep(0.005)
    return True
