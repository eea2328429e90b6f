"""What the engine tells about itself, by the conventions."""

import re
from pathlib import Path

import pytest
from opentelemetry.metrics import NoOpMeter, NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.semconv._incubating.metrics import otel_metrics
from tests.sightline_processors.export_support import (
    RecordingTransport,
    engine_of,
    limits,
    span_source,
    until,
)

from sightline_processors.export import (
    REASONS,
    SIGNALS,
    Delivered,
    Drop,
    OtlpLogRecordProcessor,
    OtlpMetricExporter,
    OtlpSpanProcessor,
    Retry,
)
from sightline_processors.export.self_metrics import DROPPED, observe_engine

PROCESSOR = {
    "otel.component.type": "batching_span_processor",
    "otel.component.name": "sightline_batching_span_processor/0",
}
EXPORTER = {
    "otel.component.type": "otlp_http_span_exporter",
    "otel.component.name": "sightline_otlp_http_span_exporter/0",
}


@pytest.fixture
def observed(monkeypatch):
    monkeypatch.setenv("OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED", "true")
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)

    def points(name):
        data = reader.get_metrics_data()
        return {
            tuple(sorted(point.attributes.items())): getattr(point, "value", point)
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        }

    with engine_of() as engine:
        observe_engine(engine, provider)
        yield engine, points
    provider.shutdown()


def key(attributes, **more):
    return tuple(
        sorted({**attributes, **{name.replace("_", "."): value for name, value in more.items()}}.items())
    )


def test_queue_processed_and_exported_are_told_by_the_conventions(observed):
    engine, points = observed
    transport = RecordingTransport(Delivered(2), Drop("refused", "status 400"))
    processor = OtlpSpanProcessor(transport, limits(max_items=50, max_batch_items=5), engine)
    source = span_source(processor)
    for _ in range(10):
        source()
    processor.force_flush(2_000)
    assert points(otel_metrics.OTEL_SDK_PROCESSOR_SPAN_QUEUE_CAPACITY) == {key(PROCESSOR): 50}
    assert points(otel_metrics.OTEL_SDK_PROCESSOR_SPAN_QUEUE_SIZE) == {key(PROCESSOR): 0}
    assert points(otel_metrics.OTEL_SDK_PROCESSOR_SPAN_PROCESSED) == {key(PROCESSOR): 10}
    assert points(otel_metrics.OTEL_SDK_EXPORTER_SPAN_INFLIGHT) == {key(EXPORTER): 0}
    assert points(otel_metrics.OTEL_SDK_EXPORTER_SPAN_EXPORTED) == {
        key(EXPORTER): 3,
        key(EXPORTER, error_type="rejected"): 2,
        key(EXPORTER, error_type="refused"): 5,
    }
    assert points(DROPPED) == {
        (("reason", "refused"), ("signal", "traces")): 5,
        (("reason", "rejected"), ("signal", "traces")): 2,
    }


def test_what_waits_and_what_is_under_way_are_told_apart(observed):
    engine, points = observed
    transport = RecordingTransport(*[Retry("unavailable", 60.0)] * 9)
    processor = OtlpSpanProcessor(transport, limits(max_items=20, max_batch_items=5), engine)
    source = span_source(processor)
    for _ in range(5):
        source()
    assert until(lambda: transport.requests and not engine.couriers[0].lane.batch.is_on_wire)
    for _ in range(4):
        source()
    assert points(otel_metrics.OTEL_SDK_PROCESSOR_SPAN_QUEUE_SIZE) == {key(PROCESSOR): 4}
    assert points(otel_metrics.OTEL_SDK_EXPORTER_SPAN_INFLIGHT) == {key(EXPORTER): 5}


def test_drops_of_the_processor_have_the_names_of_the_conventions(observed):
    engine, points = observed
    engine._starting.acquire()  # nothing is sent
    processor = OtlpSpanProcessor(RecordingTransport(), limits(max_items=10), engine)
    source = span_source(processor)
    for _ in range(13):
        source()
    processor._lane.draw()
    processor._lane.close()
    source()
    assert points(otel_metrics.OTEL_SDK_PROCESSOR_SPAN_PROCESSED) == {
        key(PROCESSOR): 0,
        key(PROCESSOR, error_type="queue_full"): 3,
        key(PROCESSOR, error_type="already_shutdown"): 1,
    }


def test_an_export_is_one_duration_retries_included(observed):
    engine, points = observed
    transport = RecordingTransport(Retry("unavailable"), Retry("unreachable"), Delivered(), Drop("refused"))
    processor = OtlpSpanProcessor(transport, limits(), engine)
    source = span_source(processor)
    for _ in range(2):
        source()
        processor.force_flush(2_000)
    durations = points(otel_metrics.OTEL_SDK_EXPORTER_OPERATION_DURATION)
    assert {name: point.count for name, point in durations.items()} == {
        key(EXPORTER): 1,
        key(EXPORTER, error_type="refused"): 1,
    }


def test_all_signals_are_told(observed):
    engine, points = observed
    OtlpSpanProcessor(RecordingTransport(), limits(), engine)
    OtlpLogRecordProcessor(RecordingTransport(signal="logs"), limits(), engine)
    OtlpMetricExporter(RecordingTransport(signal="metrics"), limits(), engine)
    for name in (
        otel_metrics.OTEL_SDK_PROCESSOR_SPAN_QUEUE_SIZE,
        otel_metrics.OTEL_SDK_PROCESSOR_LOG_QUEUE_SIZE,
        otel_metrics.OTEL_SDK_PROCESSOR_LOG_QUEUE_CAPACITY,
        otel_metrics.OTEL_SDK_PROCESSOR_LOG_PROCESSED,
        otel_metrics.OTEL_SDK_EXPORTER_SPAN_EXPORTED,
        otel_metrics.OTEL_SDK_EXPORTER_LOG_INFLIGHT,
        otel_metrics.OTEL_SDK_EXPORTER_LOG_EXPORTED,
        otel_metrics.OTEL_SDK_EXPORTER_METRIC_DATA_POINT_INFLIGHT,
        otel_metrics.OTEL_SDK_EXPORTER_METRIC_DATA_POINT_EXPORTED,
    ):
        assert len(points(name)) == 1, name


def test_one_exporter_of_a_signal_needs_no_name_and_two_do(observed, monkeypatch):
    monkeypatch.delenv("OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED")
    engine, points = observed
    OtlpSpanProcessor(RecordingTransport(), limits(), engine)
    assert set(points(otel_metrics.OTEL_SDK_EXPORTER_SPAN_EXPORTED)) == {()}
    assert set(points(otel_metrics.OTEL_SDK_PROCESSOR_SPAN_QUEUE_SIZE)) == {()}
    OtlpSpanProcessor(RecordingTransport(), limits(), engine)
    assert set(points(otel_metrics.OTEL_SDK_EXPORTER_SPAN_EXPORTED)) == {
        key(EXPORTER),
        key({**EXPORTER, "otel.component.name": "sightline_otlp_http_span_exporter/1"}),
    }


def documented(heading):
    page = (Path(__file__).parents[2] / "docs" / "reference" / "telemetry.md").read_text()
    section = page.split("\n## What the export tells about itself\n", 1)[1].split("\n## ")[0]
    table = section.split(f"\n| {heading} |", 1)[1].split("\n\n")[0]
    return re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)


def test_the_telemetry_page_lists_every_metric_and_every_reason(observed):
    engine, _ = observed
    created = []

    class Meter(NoOpMeter):
        def create_observable_counter(self, name, *arguments, **options):
            created.append(name)

        create_observable_up_down_counter = create_histogram = create_observable_counter

    class Provider(NoOpMeterProvider):
        def get_meter(self, *arguments, **options):
            return Meter("tests")

    observe_engine(engine, Provider())
    assert sorted(documented("Metric")) == sorted(created)
    assert set(documented("Reason")) == REASONS


def test_reasons_and_signals_are_closed_sets():
    assert set(SIGNALS) == {"traces", "metrics", "logs"}
    assert set(REASONS) == {
        "queue_full", "too_large", "encoding", "rejected", "refused", "not_otlp", "redirected", "unavailable",
        "unreachable", "timeout", "shutdown", "spool_full", "spool_corrupt",
    }  # fmt: skip
