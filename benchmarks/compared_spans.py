"""What the processors of child spans and log records cost: rewriters, redaction, slow operations."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from benchmarks.compared_pipelines import CHILD_ATTRIBUTES, LogPipeline, MetricPipeline, SpanPipeline
from benchmarks.comparisons import Comparison, Part
from opentelemetry.trace import SpanKind

from sightline_processors.cardinality.span_processor import CardinalitySpanProcessor
from sightline_processors.redaction import REDACTED, Redactor
from sightline_processors.redaction.processor import RedactionProcessor, redact_logs_of
from sightline_processors.slow_operations import SlowOperationProcessor, SlowThresholds

SLOW_SECONDS: Final = 60
_SECRET: Final = "hunter2-of-the-benchmark"


def cardinality_rewriter() -> Comparison:
    """Compares exported child spans whose names are bounded with raw ones."""
    without, with_it = SpanPipeline(), SpanPipeline([CardinalitySpanProcessor()])

    def fault() -> str:
        is_bounded = b"/users/{id}" in with_it.exported_of("GET /users/4711")
        return "" if is_bounded else "an identifier is still in the name of an exported span"

    return _compared(without, with_it, fault)


def redaction_rewriter() -> Comparison:
    """Compares exported child spans that are redacted with raw ones."""
    without, with_it = SpanPipeline(), SpanPipeline([RedactionProcessor(Redactor())])

    def fault() -> str:
        sent = with_it.exported_of("login", password=_SECRET)
        is_redacted = REDACTED.encode() in sent and _SECRET.encode() not in sent
        return "" if is_redacted else "a password is still in an exported span"

    return _compared(without, with_it, fault)


def redaction_of_logs() -> Comparison:
    """Compares exported log records that are redacted with raw ones."""
    without, with_it = LogPipeline(), LogPipeline()
    redact_logs_of(with_it.provider, Redactor())

    def fault() -> str:
        sent = with_it.exported_of(f"refused password={_SECRET}")
        is_redacted = REDACTED.encode() in sent and _SECRET.encode() not in sent
        return "" if is_redacted else "a password is still in an exported log record"

    def settle() -> None:
        without.flush()
        with_it.flush()

    return Comparison(
        without=without.records,
        with_it=with_it.records,
        fault=fault,
        settle=settle,
        close=(without.close, with_it.close),
    )


def slow_operations() -> Comparison:
    """Compares fast child spans that are looked at with those that are not."""
    metrics, logs = MetricPipeline(), LogPipeline()
    processor = SlowOperationProcessor(
        SlowThresholds(), logs.provider.get_logger("benchmark"), metrics.provider.get_meter("benchmark")
    )
    without, with_it = SpanPipeline(), SpanPipeline(processors=[processor])

    def fault() -> str:
        if metrics.points("sightline.slow_operations"):
            return "a fast operation was counted as slow"
        started = time.time_ns() - SLOW_SECONDS * 1_000_000_000
        with_it.tracer.start_span(
            "SELECT", kind=SpanKind.CLIENT, attributes=CHILD_ATTRIBUTES, start_time=started
        ).end()
        return "" if metrics.points("sightline.slow_operations") else "a slow operation was not counted"

    compared = _compared(without, with_it, fault)
    return replace(compared, close=(*compared.close, logs.close))


def _compared(without: SpanPipeline, with_it: SpanPipeline, fault: Callable[[], str]) -> Comparison:
    def settle() -> None:
        without.flush()
        with_it.flush()

    def whole_fault() -> str:
        settle()
        if with_it.acknowledged() != without.acknowledged():
            return f"{with_it.acknowledged()} of {without.acknowledged()} spans were exported"
        return fault()

    return Comparison(
        without=without.children,
        with_it=with_it.children,
        fault=whole_fault,
        settle=settle,
        close=(without.close, with_it.close),
    )


PARTS: Final = (
    Part("bounded span names (`CardinalitySpanProcessor`)", "exported child span", cardinality_rewriter),
    Part("redaction (`RedactionProcessor`)", "exported child span, 6 attributes", redaction_rewriter),
    Part("redaction of logs (`RedactionLogProcessor`)", "exported log record", redaction_of_logs),
    Part("slow operations (`SlowOperationProcessor`)", "fast child span", slow_operations),
)
