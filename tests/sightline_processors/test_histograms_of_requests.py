"""The histograms of captured requests: what every reader gets, against the spans of the same requests."""

import asyncio
import threading
from typing import Any

import pytest
from asgi import call, http_scope
from fastapi import FastAPI
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import (
    AlwaysOffExemplarFilter,
    AlwaysOnExemplarFilter,
    Histogram,
    MeterProvider,
)
from opentelemetry.sdk.metrics._internal import _disable_meter_configurator
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    ExponentialHistogram,
    InMemoryMetricReader,
)
from opentelemetry.sdk.metrics.export import Histogram as HistogramData
from opentelemetry.sdk.metrics.view import DropAggregation, ExplicitBucketHistogramAggregation, View
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON

from sightline import SightlineInstrumentor
from sightline_processors.report import reported

DURATION = "http.server.request.duration"
SIZES = ("http.server.request.body.size", "http.server.response.body.size")
PATHS = ("/items/1", "/items/2", "/missing", "/items/3?x=1")


def seconds_of(span):
    return (span.end_time - span.start_time) / 1e9


class Shop:
    """An application that is captured into memory."""

    def __init__(self, *readers, sampler=ALWAYS_ON, **metric_options):
        self.exporter = InMemorySpanExporter()
        tracer_provider = TracerProvider(sampler, shutdown_on_exit=False)
        tracer_provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.meter_provider = MeterProvider(readers, shutdown_on_exit=False, **metric_options)
        self.app = FastAPI()

        @self.app.get("/items/{item_id}")
        async def item(item_id: int):
            return {"item": item_id}

        SightlineInstrumentor.instrument_app(
            self.app, tracer_provider=tracer_provider, meter_provider=self.meter_provider
        )

    def serve(self, times=1):
        asyncio.run(self._serve(times))

    async def _serve(self, times):
        for _ in range(times):
            for path in PATHS:
                answer = await call(self.app, http_scope(path.partition("?")[0]))
                assert answer.error is None

    def seconds(self):
        """Returns how long the requests took, by status code."""
        taken: dict[Any, list[float]] = {}
        for span in self.exporter.get_finished_spans():
            attributes: Any = span.attributes
            taken.setdefault(attributes["http.response.status_code"], []).append(seconds_of(span))
        return taken


def delta():
    return InMemoryMetricReader({Histogram: AggregationTemporality.DELTA})


def metrics(reader) -> dict[str, Any]:
    data = reader.get_metrics_data()
    return {
        metric.name: metric.data
        for resource in (data.resource_metrics if data else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


def points(reader, name=DURATION):
    found = metrics(reader).get(name)
    return found.data_points if found else ()


def test_readers_of_both_temporalities_get_every_request_of_every_round():
    readers = (InMemoryMetricReader(), delta(), InMemoryMetricReader())
    shop = Shop(*readers)
    parts: dict[Any, list[Any]] = {200: [], 404: []}
    for _ in range(3):
        shop.serve()
        for point in points(readers[1]):
            parts[point.attributes["http.response.status_code"]].append(point)

    taken = shop.seconds()
    for status, times in taken.items():
        for reader in (readers[0], readers[2]):
            (point,) = [
                each for each in points(reader) if each.attributes["http.response.status_code"] == status
            ]
            assert point.count == sum(point.bucket_counts) == len(times)
            assert point.sum == pytest.approx(sum(times))
            assert (point.min, point.max) == pytest.approx((min(times), max(times)))
        assert [part.count for part in parts[status]] == [len(times) // 3] * 3
        assert sum(part.sum for part in parts[status]) == pytest.approx(sum(times))
        assert [part.start_time_unix_nano for part in parts[status]][1:] == [
            part.time_unix_nano for part in parts[status]
        ][:-1]


def test_exemplars_name_the_span_of_a_request_with_its_time_and_duration():
    reader = InMemoryMetricReader()
    shop = Shop(reader)
    shop.serve(3)

    spans = {span.context.span_id: span for span in shop.exporter.get_finished_spans()}
    exemplars = [exemplar for point in points(reader) for exemplar in point.exemplars]
    assert exemplars
    for exemplar in exemplars:
        span = spans[exemplar.span_id]
        assert exemplar.trace_id == span.context.trace_id
        assert exemplar.time_unix_nano == span.end_time
        assert exemplar.value == pytest.approx(seconds_of(span))
        assert exemplar.filtered_attributes == {"sightline.sla.outcome": "ok"}


@pytest.mark.parametrize(
    ("exemplar_filter", "sampler", "are_there"),
    [
        (AlwaysOffExemplarFilter(), ALWAYS_ON, False),
        (AlwaysOnExemplarFilter(), ALWAYS_ON, True),
        (AlwaysOnExemplarFilter(), ALWAYS_OFF, True),
        (None, ALWAYS_OFF, False),
    ],
)
def test_the_exemplar_filter_decides(exemplar_filter, sampler, are_there):
    reader = InMemoryMetricReader()
    shop = Shop(reader, sampler=sampler, exemplar_filter=exemplar_filter)
    shop.serve()

    exemplars = [exemplar for point in points(reader) for exemplar in point.exemplars]
    assert bool(exemplars) == are_there
    assert all(exemplar.trace_id and exemplar.span_id for exemplar in exemplars)


def test_views_rename_filter_bound_and_drop():
    views = [
        View(instrument_name=DURATION, name="renamed", attribute_keys={"http.request.method"}),
        View(instrument_name=SIZES[0], aggregation=DropAggregation()),
        View(instrument_name=SIZES[1], aggregation=ExplicitBucketHistogramAggregation([10.0, 20.0])),
    ]
    reader = InMemoryMetricReader()
    Shop(reader, views=views).serve(2)

    found = metrics(reader)
    assert not {DURATION, SIZES[0]} & found.keys()
    (duration,) = found["renamed"].data_points
    assert (dict(duration.attributes), duration.count) == ({"http.request.method": "GET"}, 2 * len(PATHS))
    assert all({"http.response.status_code"} < each.filtered_attributes.keys() for each in duration.exemplars)
    assert {point.explicit_bounds for point in found[SIZES[1]].data_points} == {(10.0, 20.0)}
    assert sum(point.count for point in found[SIZES[1]].data_points) == 2 * len(PATHS)


def test_a_view_that_aggregates_otherwise_is_recorded_one_by_one():
    views = [
        View(instrument_name=DURATION),
        View(instrument_name=DURATION, name="coarse", aggregation=ExplicitBucketHistogramAggregation([1.0])),
    ]
    reader = InMemoryMetricReader()
    shop = Shop(reader, views=views)
    shop.serve()

    found = metrics(reader)
    spans = {span.context.span_id for span in shop.exporter.get_finished_spans()}
    for name in (DURATION, "coarse"):
        assert sum(point.count for point in found[name].data_points) == len(PATHS)
        assert {each.span_id for point in found[name].data_points for each in point.exemplars} <= spans


def test_exponential_histograms_of_the_environment_win(monkeypatch):
    monkeypatch.setenv(
        "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "base2_exponential_bucket_histogram"
    )
    readers = (
        InMemoryMetricReader(preferred_aggregation=OTLPMetricExporter()._preferred_aggregation),
        InMemoryMetricReader(),
    )
    shop = Shop(*readers)
    shop.serve(2)

    times = shop.seconds()
    kinds: tuple[Any, Any] = (ExponentialHistogram, HistogramData)
    for reader, kind in zip(readers, kinds, strict=True):
        found = metrics(reader)[DURATION]
        assert isinstance(found, kind)
        counts = {each.attributes["http.response.status_code"]: each.count for each in found.data_points}
        assert counts == {status: len(taken) for status, taken in times.items()}


def test_a_reader_added_later_gets_the_requests_from_then_on():
    first, later = InMemoryMetricReader(), InMemoryMetricReader()
    shop = Shop(first)
    shop.serve(2)
    assert sum(point.count for point in points(first)) == 2 * len(PATHS)

    shop.meter_provider.add_metric_reader(later)
    shop.serve(3)

    assert sum(point.count for point in points(later)) == 3 * len(PATHS)
    assert sum(point.count for point in points(first)) == 5 * len(PATHS)
    shop.meter_provider.remove_metric_reader(later)
    shop.serve()
    assert sum(point.count for point in points(first)) == 6 * len(PATHS)


def test_a_disabled_meter_records_nothing_and_serves_everything():
    reader = InMemoryMetricReader()
    shop = Shop(reader, _meter_configurator=_disable_meter_configurator)
    shop.serve()

    assert metrics(reader) == {}
    assert len(shop.exporter.get_finished_spans()) == len(PATHS)


def test_no_request_is_lost_or_doubled_while_readers_collect_in_threads():
    readers = (InMemoryMetricReader(), delta(), delta())
    shop = Shop(*readers)
    shop.serve()
    counts = [0, 0]
    over = threading.Event()

    def collect(number):
        is_last = False
        while not is_last:
            is_last = over.is_set()
            counts[number] += sum(point.count for point in points(readers[1 + number]))

    threads = [threading.Thread(target=collect, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    shop.serve(150)
    over.set()
    for thread in threads:
        thread.join()

    assert counts == [151 * len(PATHS)] * 2
    assert sum(point.count for point in points(readers[0])) == 151 * len(PATHS)
    assert reported("histograms") == 0
