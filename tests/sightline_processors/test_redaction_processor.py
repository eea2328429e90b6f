"""Redaction in pipelines of the SDK: what exporters get, and what becomes of a part that cannot be judged."""

import logging
from contextlib import suppress
from typing import Any

import pytest
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.instrumentation.logging.handler import LoggingHandler
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Link, SpanContext, Status, StatusCode, TraceFlags
from tests.sightline_processors.export_support import RecordingTransport, engine_of, limits

from sightline_processors.export import OtlpSpanProcessor
from sightline_processors.redaction import Redactor
from sightline_processors.redaction.processor import (
    RedactionLogProcessor,
    RedactionProcessor,
    redact_logs_of,
)
from sightline_processors.report import reported
from sightline_processors.tracing.rewriting import RewritingSpanExporter

LINKED = SpanContext(5, 6, is_remote=True, trace_flags=TraceFlags(1))
SECRET = "hunter2sauce"


def attributes_of(part):
    return dict(part.attributes or {})


def provider_of(*processors, span_limits=None):
    provider = TracerProvider(span_limits=span_limits, shutdown_on_exit=False)
    for processor in processors:
        provider.add_span_processor(processor)
    return provider


def full_of_secrets(provider):
    """Ends a span that holds a secret in each of its parts."""
    tracer = provider.get_tracer("scope")
    links = [Link(LINKED, {"token": SECRET, "kind": "a"})]
    attributes = {"url.full": f"https://x/?token={SECRET}", "n": 1}
    with (
        suppress(ValueError),
        tracer.start_as_current_span("GET", attributes=attributes, links=links) as span,
    ):
        span.set_attribute("db.password", SECRET)
        span.update_name(f"GET ?token={SECRET}")
        span.add_event("kept", {"a": 1})
        raise ValueError(f"password={SECRET} is wrong")


# Spans


@pytest.mark.usefixtures("tracers")
def test_exporters_behind_the_seam_get_no_secret_in_any_part():
    memory = InMemorySpanExporter()
    exporter = RewritingSpanExporter(memory, [RedactionProcessor()])
    full_of_secrets(provider_of(SimpleSpanProcessor(exporter)))
    (span,) = memory.get_finished_spans()
    assert SECRET not in span.to_json()
    assert SECRET not in repr([attributes_of(link) for link in span.links])
    assert span.name == "GET ?token=REDACTED"
    assert attributes_of(span) == {
        "url.full": "https://x/?token=REDACTED",
        "n": 1,
        "db.password": "REDACTED",
    }
    assert attributes_of(span.links[0]) == {"token": "REDACTED", "kind": "a"}
    assert span.links[0].context == LINKED
    kept, event = span.events
    assert (kept.name, attributes_of(kept)) == ("kept", {"a": 1})
    assert attributes_of(event)["exception.message"] == "password=REDACTED is wrong"
    assert "ValueError: password=REDACTED is wrong" in str(attributes_of(event)["exception.stacktrace"])
    assert attributes_of(event)["exception.type"] == "ValueError"
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == "ValueError: password=REDACTED is wrong"


def test_the_otlp_processor_delivers_no_secret():
    transport = RecordingTransport()
    with engine_of() as engine:
        processor = OtlpSpanProcessor(transport, limits(), engine)
        processor.span_rewriters = (RedactionProcessor(),)
        full_of_secrets(provider_of(processor))
        assert processor.force_flush()
    (request,) = transport.requests
    assert SECRET.encode() not in request
    parsed = ExportTraceServiceRequest.FromString(request)
    assert parsed.resource_spans[0].scope_spans[0].spans[0].name == "GET ?token=REDACTED"


def test_a_span_without_secrets_is_the_same_object():
    memory = InMemorySpanExporter()
    tracer = provider_of(SimpleSpanProcessor(memory)).get_tracer("scope")
    with tracer.start_as_current_span("GET", attributes={"a": "b"}, links=[Link(LINKED, {"a": 1})]) as span:
        span.add_event("event", {"a": "b"})
        span.set_status(Status(StatusCode.ERROR, "wrong"))
    (ended,) = memory.get_finished_spans()
    assert RedactionProcessor().rewrite(ended) is ended


@pytest.mark.usefixtures("tracers")
def test_exporters_without_the_seam_get_no_secret_that_a_span_started_with():
    memory = InMemorySpanExporter()
    provider = provider_of(RedactionProcessor(), SimpleSpanProcessor(memory))
    attributes = {"db.password": SECRET, "note": f"token={SECRET}", "n": 1}
    provider.get_tracer("scope").start_span(f"GET ?token={SECRET}", attributes=attributes).end()
    (span,) = memory.get_finished_spans()
    assert span.name == "GET ?token=REDACTED"
    assert attributes_of(span) == {"db.password": "REDACTED", "note": "token=REDACTED", "n": 1}


def test_dropped_counts_of_events_stay():
    memory = InMemorySpanExporter()
    exporter = RewritingSpanExporter(memory, [RedactionProcessor()])
    provider = provider_of(
        SimpleSpanProcessor(exporter), span_limits=SpanLimits(max_event_attributes=2, max_events=1)
    )
    with provider.get_tracer("scope").start_as_current_span("a") as span:
        span.add_event("first")
        span.add_event("event", {"a": 1, "b": 2, "token": SECRET})
    (ended,) = memory.get_finished_spans()
    assert ended.dropped_events == 1
    assert ended.events[0].dropped_attributes == 1
    assert attributes_of(ended.events[0])["token"] == "REDACTED"


class Odd:
    """Stands for a span that raises whatever it is asked."""

    def __getattr__(self, name):
        raise RuntimeError(f"password={SECRET}")


def test_a_span_that_cannot_be_redacted_at_its_start_raises_nothing(caplog):
    before = reported("redaction")
    odd: Any = Odd()
    RedactionProcessor().on_start(odd)
    assert reported("redaction") == before + 1
    assert SECRET not in caplog.text


# Log records


@pytest.fixture
def logs():
    """A provider that had an exporter before it was redacted, and that exporter."""
    exporter = InMemoryLogRecordExporter()
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    redact_logs_of(provider)
    return provider, exporter


def records_of(exporter):
    return [each.log_record for each in exporter.get_finished_logs()]


def test_bodies_and_attributes_of_log_records_are_redacted_before_any_exporter(logs):
    provider, exporter = logs
    provider.get_logger("scope").emit(
        LogRecord(
            body={"note": f"token={SECRET}", "n": 1},
            attributes={"db.password": SECRET, "nested": {"list": [f"Bearer {SECRET}"]}, "n": 2},
            severity_number=SeverityNumber.INFO,
            event_name="event",
        )
    )
    (record,) = records_of(exporter)
    assert record.body == {"note": "token=REDACTED", "n": 1}
    assert dict(record.attributes) == {
        "db.password": "REDACTED",
        "nested": {"list": ("Bearer REDACTED",)},
        "n": 2,
    }
    assert (record.severity_number, record.event_name) == (SeverityNumber.INFO, "event")


def test_exceptions_in_log_records_are_redacted(logs):
    provider, exporter = logs
    logger = logging.getLogger("test_redaction")
    logger.propagate = False
    handler = LoggingHandler(logger_provider=provider)
    logger.addHandler(handler)
    try:
        raise ValueError(f"password={SECRET}")
    except ValueError:
        logger.exception("the token=%s is wrong", SECRET)
    finally:
        logger.removeHandler(handler)
    (record,) = records_of(exporter)
    assert record.body == "the token=REDACTED is wrong"
    assert record.attributes["exception.message"] == "password=REDACTED"
    # the frame's own line of source shows `{SECRET}`, not the value
    assert SECRET not in repr(dict(record.attributes))


class Raising(dict):
    """A mapping that raises when it is read."""

    def items(self):
        raise RuntimeError(f"password={SECRET}")

    __iter__ = items
    keys = items


def test_a_part_that_cannot_be_judged_is_left_out_and_the_rest_is_exported(logs, caplog):
    provider, exporter = logs
    before = reported("redaction")
    provider.get_logger("scope").emit(LogRecord(body=Raising(a=SECRET), attributes={"token": SECRET, "n": 1}))
    (record,) = records_of(exporter)
    assert record.body == "REDACTED"
    assert dict(record.attributes) == {"token": "REDACTED", "n": 1}
    assert reported("redaction") == before + 1
    assert SECRET not in caplog.text


def test_a_provider_is_redacted_once():
    provider = LoggerProvider(shutdown_on_exit=False)
    first = redact_logs_of(provider)
    assert redact_logs_of(provider, Redactor(extra_keys=("iban",))) is first
    assert provider._multi_log_record_processor._log_record_processors == (first,)


def test_another_sdk_is_redacted_from_here_on_and_says_so():
    class Provider:
        def __init__(self):
            self.registered = []
            self._multi_log_record_processor = object()

        def add_log_record_processor(self, processor):
            self.registered.append(processor)

    before = reported("redaction")
    provider: Any = Provider()
    processor = redact_logs_of(provider)
    assert provider.registered == [processor]
    assert reported("redaction") == before + 1


def test_the_log_processor_holds_nothing_back():
    processor = RedactionLogProcessor()
    assert processor.force_flush() is True
    processor.shutdown()
