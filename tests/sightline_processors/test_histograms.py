"""Histograms aggregated in batches: every reader gets what `Histogram.record` would have given it."""

import itertools
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics._internal import (
    _MeterConfig,
    _view_instrument_match,
    instrument,
    measurement_consumer,
    metric_reader_storage,
)
from opentelemetry.sdk.metrics._internal.exemplar import (
    AlwaysOffExemplarFilter,
    AlwaysOnExemplarFilter,
    SimpleFixedSizeExemplarReservoir,
    TraceBasedExemplarFilter,
    exemplar_reservoir,
)
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.metrics.view import (
    DropAggregation,
    ExplicitBucketHistogramAggregation,
    ExponentialBucketHistogramAggregation,
    SumAggregation,
    View,
)
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from sightline_processors.histograms import HistogramBuffers
from sightline_processors.report import reported

BOUNDARIES = [0.0, 0.25, 1.0, 4.0, 64.0]
NAME = "shop.duration"


class Clock:
    """Gives the SDK and these tests the same time."""

    now = 0

    def time_ns(self):
        return self.now


clock = Clock()


@pytest.fixture(scope="module", autouse=True)
def stopped_clock():
    """No randomness either: the reservoir of a sum keeps what it draws."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (instrument, _view_instrument_match, metric_reader_storage, measurement_consumer):
            patch.setattr(module, "time_ns", clock.time_ns)
        patch.setattr(exemplar_reservoir, "randrange", lambda low, high: high // 2)
        yield


def cumulative(aggregation=None):
    return InMemoryMetricReader(preferred_aggregation=preferred(aggregation))


def delta(aggregation=None):
    return InMemoryMetricReader({Histogram: AggregationTemporality.DELTA}, preferred(aggregation))


def preferred(aggregation) -> Any:
    return None if aggregation is None else {Histogram: aggregation}


def exponential():
    return delta(ExponentialBucketHistogramAggregation())


def otherwise_bounded():
    return cumulative(ExplicitBucketHistogramAggregation([1.0, 2.0]))


READERS = {
    "cumulative": [cumulative],
    "delta": [delta],
    "both": [cumulative, delta, cumulative],
    "exponential": [exponential],
    "mixed": [cumulative, exponential],
    "other boundaries": [delta, otherwise_bounded],
    "none": [],
}
VIEWS = {
    "none": [],
    "renamed": [View(instrument_name=NAME, name="renamed", description="Renamed.")],
    "filtered": [View(instrument_name=NAME, attribute_keys={"route"})],
    "no attributes": [View(instrument_name=NAME, attribute_keys=set())],
    "dropped": [View(instrument_name=NAME, aggregation=DropAggregation())],
    "boundaries": [
        View(
            instrument_name=NAME, aggregation=ExplicitBucketHistogramAggregation([2.0], record_min_max=False)
        )
    ],
    "two alike": [
        View(instrument_name=NAME, name="first"),
        View(instrument_name=NAME, name="second", attribute_keys={"method"}),
    ],
    "two unlike": [
        View(instrument_name=NAME, name="first"),
        View(
            instrument_name=NAME,
            name="second",
            aggregation=ExplicitBucketHistogramAggregation(boundaries=[3.0]),
        ),
    ],
    "one dropped": [
        View(instrument_name=NAME, name="first", aggregation=DropAggregation()),
        View(instrument_name=NAME, name="second"),
    ],
    "sum": [View(instrument_name=NAME, aggregation=SumAggregation())],
    "reservoir": [
        View(
            instrument_name=NAME,
            exemplar_reservoir_factory=lambda _: lambda **_: SimpleFixedSizeExemplarReservoir(size=1000),
        )
    ],
}
FILTERS = [TraceBasedExemplarFilter, AlwaysOnExemplarFilter, AlwaysOffExemplarFilter]
ONE_BY_ONE = {"two unlike", "sum", "reservoir"}


class World:
    """A MeterProvider with its readers and one histogram."""

    def __init__(self, views, readers, exemplar_filter, boundaries):
        self.readers = [make() for make in readers]
        self.provider = MeterProvider(
            self.readers, exemplar_filter=exemplar_filter(), shutdown_on_exit=False, views=views
        )
        meter = self.provider.get_meter("shop", "1.2", "https://shop.example/schema")
        self.histogram = meter.create_histogram(
            NAME, "s", "A duration.", explicit_bucket_boundaries_advisory=boundaries
        )

    def collect(self, number):
        return points(self.readers[number]) if number < len(self.readers) else []

    def add_reader(self, make):
        self.readers.append(make())
        self.provider.add_metric_reader(self.readers[-1])

    def remove_reader(self, number):
        if number < len(self.readers):
            self.provider.remove_metric_reader(self.readers.pop(number))

    def enable(self, is_enabled):
        self.provider._set_meter_configurator(
            meter_configurator=lambda scope: _MeterConfig(is_enabled or scope.name != "shop")
        )


class Recorded(World):
    """Records each measurement with the instrument."""

    def record(self, attributes, batch):
        for value, exemplar in batch:
            clock.now = exemplar[2]
            self.histogram.record(value, attributes, context_of(exemplar))


class Buffered(World):
    """Adds them to buffers, which are flushed as the SDK collects."""

    def __init__(self, *options):
        super().__init__(*options)
        self.buffers = HistogramBuffers()
        self.provider.get_meter("flush").create_observable_gauge("flush", [self._flush])

    def _flush(self, _):
        self.buffers.flush()
        return []

    def record(self, attributes, batch):
        clock.now = batch[0][1][2]
        buffer = self.buffers.buffer(self.histogram, attributes)
        if buffer is None:
            for value, exemplar in batch:
                clock.now = exemplar[2]
                self.histogram.record(value, attributes, context_of(exemplar))
        else:
            values, exemplars = zip(*batch, strict=True)
            buffer.add(values, exemplars)


def context_of(exemplar):
    trace_id, span_id, _, is_sampled = exemplar
    if not trace_id:
        return Context()
    span = NonRecordingSpan(SpanContext(trace_id, span_id, False, TraceFlags(is_sampled)))
    return set_span_in_context(span, Context())


def points(reader):
    """Returns everything that a reader collects, in an order and form that compare."""
    data = reader.get_metrics_data()
    return [
        (
            scope.scope,
            metric.name,
            metric.description,
            metric.unit,
            type(metric.data),
            getattr(metric.data, "aggregation_temporality", None),
            sorted(map(shown, metric.data.data_points)),
        )
        for resource in (data.resource_metrics if data else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
    ]


def shown(point):
    """Returns the whole point as text, its attributes in an order that compares."""
    exemplars = [
        replace(each, filtered_attributes=dict(sorted((each.filtered_attributes or {}).items())))
        for each in point.exemplars
    ]
    return repr(replace(point, attributes=dict(sorted(point.attributes.items())), exemplars=exemplars))


attribute_sets = st.sampled_from(
    [
        {"route": "/a", "method": "GET"},
        {"route": "/b", "method": "GET"},
        {"method": "GET", "route": "/a"},
        {"route": "/a", "odd": [1, True, "x"]},
        {},
    ]
)
# Sums of these are exact in any order.
amounts = (
    st.sampled_from([0.5, 2.0, 99.0])
    | st.integers(0, 2**16).map(lambda number: number / 1024)
    | st.integers(0, 70).map(float)
)
exemplar_facts = st.tuples(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.integers(0, 1))
batches = st.lists(st.tuples(amounts, exemplar_facts), min_size=1, max_size=6)
steps = st.one_of(
    st.tuples(st.just("record"), attribute_sets, batches),
    st.tuples(st.just("record"), attribute_sets, batches),
    st.tuples(st.just("collect"), st.integers(0, 2)),
    st.tuples(st.just("add_reader"), st.sampled_from([cumulative, delta, exponential])),
    st.tuples(st.just("remove_reader"), st.integers(0, 2)),
    st.tuples(st.just("enable"), st.booleans()),
)


def apply(world, step, now):
    clock.now = now
    name, *arguments = step
    if name == "record":
        attributes, batch = arguments
        world.record(
            attributes,
            [
                (value, (trace, span, now + number, sampled))
                for number, (value, (trace, span, sampled)) in enumerate(batch)
            ],
        )
        return None
    return getattr(world, name)(*arguments)


def agree(view, readers, exemplar_filter, boundaries, done):
    options = (VIEWS[view], READERS[readers], exemplar_filter, boundaries)
    recorded, buffered = Recorded(*options), Buffered(*options)
    now = itertools.count(1000, 100)
    for step in [*done, *(("collect", number) for number in range(4))]:
        at = next(now)
        assert apply(buffered, step, at) == apply(recorded, step, at)
    assert reported("histograms") == 0


@given(
    st.sampled_from(sorted(VIEWS)),
    st.sampled_from(sorted(READERS)),
    st.sampled_from(FILTERS),
    st.sampled_from([BOUNDARIES, [], None]),
    st.lists(steps, max_size=12),
)
@settings(max_examples=300, deadline=None)
def test_every_reader_gets_what_record_would_have_given_it(view, readers, exemplar_filter, boundaries, done):
    agree(view, readers, exemplar_filter, boundaries, done)


FIRST = ("record", {"route": "/a", "method": "GET"}, [(2.0, (1, 1, 1))])
SECOND = ("record", {"route": "/a", "method": "PUT"}, [(2.0, (2, 2, 1))])


@pytest.mark.parametrize(
    "done",
    [
        [("enable", False), FIRST, ("enable", True), SECOND, FIRST],
        [FIRST, SECOND, FIRST],
        [FIRST, SECOND, ("add_reader", delta), SECOND],
        [FIRST, SECOND, ("add_reader", exponential), SECOND],
    ],
)
def test_attribute_sets_that_a_view_makes_one_keep_their_order(done):
    agree("filtered", "cumulative", TraceBasedExemplarFilter, BOUNDARIES, done)


BAD = [float("nan"), float("inf"), -1.0, -0.5]


@pytest.mark.parametrize("bad", BAD)
def test_a_value_that_record_ignores_is_ignored_with_the_same_line(bad, caplog):
    options = (VIEWS["none"], READERS["both"], TraceBasedExemplarFilter, BOUNDARIES)
    recorded, buffered = Recorded(*options), Buffered(*options)
    batch = [(1.0, (1, 1, 5, 1)), (bad, (2, 2, 6, 1)), (3.0, (3, 3, 7, 1))]
    lines = []
    for world in (recorded, buffered):
        world.record({"route": "/a"}, [(1.0, (9, 9, 3, 1))])
        caplog.clear()
        world.record({"route": "/a"}, batch)
        lines.append([(record.name, record.getMessage()) for record in caplog.records])
        world.record({"route": "/a"}, [(2.0, (4, 4, 8, 0))])

    assert len(lines[0]) == 1
    assert lines[1] == lines[0]
    assert [buffered.collect(number) for number in range(3)] == [
        recorded.collect(number) for number in range(3)
    ]


@pytest.mark.parametrize("exemplar_filter", FILTERS)
def test_a_measurement_outside_of_a_trace_has_no_ids(exemplar_filter):
    options = (VIEWS["none"], READERS["both"], exemplar_filter, BOUNDARIES)
    recorded, buffered = Recorded(*options), Buffered(*options)
    for world in (recorded, buffered):
        world.record({"route": "/a"}, [(1.0, (0, 0, 5, 0)), (3.0, (0, 0, 6, 0))])
        clock.now = 10

    assert [buffered.collect(number) for number in range(3)] == [
        recorded.collect(number) for number in range(3)
    ]


def test_an_attribute_set_has_one_buffer_however_often_it_is_asked_for():
    world = Buffered(VIEWS["none"], READERS["both"], TraceBasedExemplarFilter, BOUNDARIES)
    first = world.buffers.buffer(world.histogram, {"route": "/a", "method": "GET"})

    assert world.buffers.buffer(world.histogram, {"method": "GET", "route": "/a"}) is first
    assert world.buffers.buffer(world.histogram, {"route": "/a"}) is not first


@pytest.mark.parametrize("view", sorted(VIEWS))
def test_what_cannot_be_aggregated_alike_is_recorded_one_by_one(view):
    world = Buffered(VIEWS[view], READERS["both"], TraceBasedExemplarFilter, BOUNDARIES)

    assert (world.buffers.buffer(world.histogram, {}) is None) == (view in ONE_BY_ONE)


def test_the_variable_for_exponential_histograms_wins(monkeypatch):
    monkeypatch.setenv(
        "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "base2_exponential_bucket_histogram"
    )
    exporter = OTLPMetricExporter()
    reader = InMemoryMetricReader(preferred_aggregation=exporter._preferred_aggregation)
    world = Buffered([], [lambda: reader], TraceBasedExemplarFilter, BOUNDARIES)

    assert world.buffers.buffer(world.histogram, {}) is None


def total(reader):
    """Returns the count and the sum over all points."""
    data = reader.get_metrics_data()
    found = [
        point
        for resource in (data.resource_metrics if data else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
    ]
    return sum(point.count for point in found), sum(point.sum for point in found)


def test_nothing_is_lost_or_doubled_while_threads_record_and_readers_come_and_collect():
    world = Buffered([], [cumulative, delta, delta], TraceBasedExemplarFilter, BOUNDARIES)
    whole, *parts = world.readers
    seen = [[0, 0.0] for _ in parts]
    over = threading.Event()

    def record(thread):
        for number in range(300):
            batch = [(1.0, (1, 1, number + 1, 1))] * (1 + number % 3)
            buffer = world.buffers.buffer(world.histogram, {"route": f"/{(thread + number) % 5}"})
            values, exemplars = zip(*batch, strict=True)
            buffer.add(values, exemplars)

    def collect(number):
        is_last = False
        while not is_last:
            is_last = over.is_set()
            count, amount = total(parts[number])
            seen[number][0] += count
            seen[number][1] += amount

    def come_and_go():
        while not over.wait(0.005):
            world.add_reader(cumulative)
            world.remove_reader(3)

    with ThreadPoolExecutor(7) as pool:
        others = [pool.submit(collect, 0), pool.submit(collect, 1), pool.submit(come_and_go)]
        for done in [pool.submit(record, thread) for thread in range(4)]:
            done.result()
        over.set()
        for done in others:
            done.result()

    expected = 4 * (100 + 200 + 300)
    assert total(whole) == (expected, expected)
    assert [tuple(each) for each in seen] == [(expected, expected)] * 2
    assert reported("histograms") == 0


FORKING = """
import os
from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from sightline_processors.histograms import HistogramBuffers

reader = InMemoryMetricReader({Histogram: AggregationTemporality.DELTA})
histogram = MeterProvider([reader], shutdown_on_exit=False).get_meter("shop").create_histogram("duration")
buffers = HistogramBuffers()
buffer = buffers.buffer(histogram, {})


def shown():
    buffers.flush()
    data = reader.get_metrics_data()
    point = data and data.resource_metrics[0].scope_metrics[0].metrics[0].data.data_points[0]
    print(point and point.sum, flush=True)


buffer.add([1.0, 2.0], [(1, 1, 1, 1)] * 2)
child = os.fork()
if child:
    os.waitpid(child, 0)
    shown()
else:
    shown()
    buffer.add([5.0], [(1, 1, 1, 1)])
    shown()
    os._exit(0)
"""


def test_a_forked_process_hands_over_nothing_of_its_parent():
    done = subprocess.run([sys.executable, "-c", FORKING], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["None", "5.0", "3.0"]
