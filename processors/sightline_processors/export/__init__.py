"""The export engine: OTLP over HTTP or gRPC, bounded, accounted, and out of the way of requests.

    from opentelemetry.sdk.trace import TracerProvider
    from sightline_processors.export import OtlpSpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(OtlpSpanProcessor())

Items are encoded in the process and queued; one thread joins them and posts. Start at `engine`, then `lane`
(what waits), `courier` (what one batch lives through), `answers` (what is delivery and what is not).
"""

from sightline_processors.export.backoff import Backoff
from sightline_processors.export.engine import Engine, process_engine
from sightline_processors.export.ledger import Ledger
from sightline_processors.export.limits import Limits
from sightline_processors.export.metric_exporter import OtlpMetricExporter
from sightline_processors.export.processors import OtlpLogRecordProcessor, OtlpSpanProcessor
from sightline_processors.export.reasons import REASONS, SIGNALS, Signal
from sightline_processors.export.spool import Spool, SpooledRequest, open_spool
from sightline_processors.export.verdicts import Delivered, Drop, Retry, Transport, Verdict

__all__ = [
    "REASONS",
    "SIGNALS",
    "Backoff",
    "Delivered",
    "Drop",
    "Engine",
    "Ledger",
    "Limits",
    "OtlpLogRecordProcessor",
    "OtlpMetricExporter",
    "OtlpSpanProcessor",
    "Retry",
    "Signal",
    "Spool",
    "SpooledRequest",
    "Transport",
    "Verdict",
    "open_spool",
    "process_engine",
]
