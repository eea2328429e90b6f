"""The limit on the SDK's instruments: after Views, for each reader, and with every total kept."""

import gc
import itertools
import subprocess
import sys
import threading
import weakref
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry import metrics
from opentelemetry.context import Context
from opentelemetry.metrics import NoOpMeterProvider, Observation
from opentelemetry.sdk.metrics import (
    AlwaysOnExemplarFilter,
    Histogram,
    MeterProvider,
    ObservableCounter,
    UpDownCounter,
)
from opentelemetry.sdk.metrics import Counter as SdkCounter
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.metrics.view import (
    DropAggregation,
    ExponentialBucketHistogramAggregation,
    SumAggregation,
    View,
)
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from sightline_processors.cardinality import (
    AttributeSetLimiter,
    ReservedRoutes,
    guard_instruments,
    observe_overflow,
    release_instruments,
    streams,
)
from sightline_processors.histograms import HistogramBuffers
from sightline_processors.report import reported

DELTA: dict[type, AggregationTemporality] = dict.fromkeys(
    (SdkCounter, UpDownCounter, Histogram, ObservableCounter), AggregationTemporality.DELTA
)
OVERFLOW = {"otel.metric.overflow": True}
OVERFLOW_COUNTER = "sightline.cardinality.overflow"
ALL = None


def cumulative():
    return InMemoryMetricReader()


def delta():
    return InMemoryMetricReader(DELTA)


def provider_of(*readers, **options):
    return MeterProvider(readers, shutdown_on_exit=False, **options)


def storage_of(provider, reader):
    return provider._measurement_consumer._reader_storages[reader]


def points(reader, name="shop.sales"):
    """Returns the points of one metric."""
    data = reader.get_metrics_data()
    return [
        point
        for resource in (data.resource_metrics if data else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == name
        for point in metric.data.data_points
    ]


def named(attributes):
    return repr(sorted(attributes.items()))


def by_set(found):
    """Returns the count and amount of each attribute set."""
    return {named(point.attributes): (getattr(point, "count", None), amount(point)) for point in found}


def amount(point):
    return point.sum if hasattr(point, "sum") else point.value


def recorder(meter, kind):
    """Returns what measures with an instrument of a kind."""
    if kind == "histogram":
        return meter.create_histogram("shop.sales").record
    if kind == "counter":
        return meter.create_counter("shop.sales").add
    return meter.create_up_down_counter("shop.sales").add


VIEWS = {
    "none": [],
    "filtered": [View(instrument_name="shop.sales", attribute_keys={"item", "method"})],
    "renamed": [View(instrument_name="shop.sales", name="shop.sales", description="Renamed.")],
    "sum": [View(instrument_name="shop.sales", aggregation=SumAggregation())],
}
attribute_sets = st.fixed_dictionaries(
    {"item": st.integers(0, 8)}, optional={"user": st.integers(0, 3), "method": st.sampled_from([1, True])}
)
steps = st.lists(
    st.one_of(st.tuples(attribute_sets, st.integers(1, 9)), st.just("collect")), min_size=1, max_size=40
)


@given(
    st.sampled_from(["histogram", "counter", "up_down_counter"]),
    st.sampled_from(sorted(VIEWS)),
    st.integers(1, 8),
    steps,
)
@settings(max_examples=120, deadline=None)
def test_every_reader_gets_the_model_of_each_set(kind, view, limit, done):
    readers = [cumulative(), delta()]
    provider = provider_of(*readers, views=VIEWS[view])
    assert guard_instruments(provider, limit=limit, scopes=ALL)
    record = recorder(provider.get_meter("shop"), kind)
    model = AttributeSetLimiter(limit)
    expected: Counter[str] = Counter()
    seen = [Counter(), Counter()]

    def collect():
        seen[0] = Counter({name: value for name, (_, value) in by_set(points(readers[0])).items()})
        for name, (_, value) in by_set(points(readers[1])).items():
            seen[1][name] += value

    for step in done:
        if step == "collect":
            collect()
            continue
        attributes, value = step
        record(value, attributes)
        kept = {key: item for key, item in attributes.items() if view != "filtered" or key != "user"}
        expected[named(model.limited(kept))] += value
    collect()

    assert seen == [expected, expected]
    assert len(expected) <= limit
    assert expected.total() == sum(step[1] for step in done if step != "collect")
    assert reported("cardinality") == 0


def span_of(number):
    return set_span_in_context(
        NonRecordingSpan(SpanContext(number, number, False, TraceFlags(TraceFlags.SAMPLED))), Context()
    )


class Recorded:
    """Records each measurement with a limited histogram."""

    def __init__(self, limit, views):
        self.readers = [cumulative(), delta()]
        self.provider = provider_of(*self.readers, views=views)
        self.meter = self.provider.get_meter("sightline")
        guard_instruments(self.provider, limit=limit)
        observe_overflow(self.meter)
        self.histogram = self.meter.create_histogram(
            "shop.sales", explicit_bucket_boundaries_advisory=[1.0, 4.0]
        )

    def record(self, attributes, value, number):
        self.histogram.record(value, attributes, span_of(number))

    def collect(self):
        return [
            sorted(
                (
                    named(point.attributes),
                    point.count,
                    point.sum,
                    point.bucket_counts,
                    point.min,
                    point.max,
                    [(each.value, each.trace_id, each.filtered_attributes) for each in point.exemplars],
                )
                for point in points(reader)
            )
            for reader in self.readers
        ]

    def overflowed(self):
        return sum(amount(point) for point in points(self.readers[0], OVERFLOW_COUNTER))


class Buffered(Recorded):
    """Adds them to buffers, which are flushed as the SDK collects."""

    def __init__(self, limit, views):
        super().__init__(limit, views)
        self.buffers = HistogramBuffers()
        self.meter.create_observable_gauge("flush", [self._flush])

    def _flush(self, _):
        self.buffers.flush()
        return []

    def record(self, attributes, value, number):
        buffer = self.buffers.buffer(self.histogram, attributes)
        buffer.add([value], [(number, number, number, 1)])


@given(st.sampled_from(["none", "filtered"]), st.integers(1, 6), steps)
@settings(max_examples=100, deadline=None)
def test_histograms_beside_the_requests_are_limited_as_recorded_ones_are(view, limit, done):
    recorded, buffered = Recorded(limit, VIEWS[view]), Buffered(limit, VIEWS[view])
    for number, step in enumerate([*done, "collect"], 1):
        if step == "collect":
            assert buffered.collect() == recorded.collect()
            continue
        for world in (recorded, buffered):
            world.record(step[0], float(step[1]), number)

    assert buffered.overflowed() == recorded.overflowed()
    assert reported("histograms") == reported("cardinality") == 0


def test_an_overflowing_measurement_is_counted_once_whatever_the_readers_and_views():
    readers = [cumulative(), delta(), cumulative()]
    views = [View(instrument_name="shop.sales"), View(instrument_name="shop.sales", name="again")]
    provider = provider_of(*readers, views=views)
    guard_instruments(provider, limit=3, scopes=ALL)
    meter = provider.get_meter("shop")
    observe_overflow(meter)
    observe_overflow(meter)
    counter = meter.create_counter("shop.sales")
    for user in range(10):
        counter.add(5, {"user": user, "method": "GET"})

    for reader in readers[::2]:
        [point] = points(reader, OVERFLOW_COUNTER)
        assert (point.value, point.attributes) == (8, {"instrument": "shop.sales", "attribute": "user"})
    assert type(point.value) is int


def test_the_counter_has_its_unit():
    reader = cumulative()
    provider = provider_of(reader)
    guard_instruments(provider, limit=1)
    meter = provider.get_meter("sightline")
    observe_overflow(meter)
    meter.create_counter("shop.sales").add(1)
    [scope] = reader.get_metrics_data().resource_metrics[0].scope_metrics
    [metric] = [metric for metric in scope.metrics if metric.name == OVERFLOW_COUNTER]

    assert (metric.unit, metric.data.is_monotonic) == ("{measurement}", True)


def test_the_counter_observes_a_provider_that_is_guarded_later():
    reader = cumulative()
    provider = provider_of(reader)
    meter = provider.get_meter("sightline")
    observe_overflow(meter)
    assert points(reader, OVERFLOW_COUNTER) == []
    guard_instruments(provider, limit=1)
    meter.create_counter("shop.sales").add(1, {"user": 1})

    assert [point.value for point in points(reader, OVERFLOW_COUNTER)] == [1]


@pytest.mark.parametrize("make", ["create_observable_counter", "create_observable_up_down_counter"])
def test_totals_of_observable_instruments_are_conserved_in_both_temporalities(make):
    readers = [cumulative(), delta()]
    provider = provider_of(*readers)
    guard_instruments(provider, limit=4, scopes=ALL)
    scale = 1

    def observe(_):
        return [Observation(scale * (number + 1), {"user": number}) for number in range(10)]

    getattr(provider.get_meter("shop"), make)("shop.sales", [observe])
    first = [by_set(points(reader)) for reader in readers]
    scale = 3
    second = [by_set(points(reader)) for reader in readers]

    assert first[0] == first[1]
    assert first[0][named({"user": 2})] == (None, 3)
    assert first[0][named(OVERFLOW)] == (None, sum(range(4, 11)))
    assert second[0][named(OVERFLOW)] == (None, 3 * sum(range(4, 11)))
    is_counter = make == "create_observable_counter"
    assert second[1][named(OVERFLOW)] == (None, (2 if is_counter else 3) * sum(range(4, 11)))
    assert {len(each) for each in first + second} == {4}


def test_gauges_are_bounded_too():
    reader = cumulative()
    provider = provider_of(reader)
    guard_instruments(provider, limit=4, scopes=ALL)
    meter = provider.get_meter("shop")
    gauge = meter.create_gauge("shop.sales")
    meter.create_observable_gauge(
        "shop.stock", [lambda _: [Observation(user, {"user": user}) for user in range(10)]]
    )
    for user in range(10):
        gauge.set(user, {"user": user})

    assert by_set(points(reader))[named(OVERFLOW)] == (None, 9)
    assert len(points(reader)) == len(points(reader, "shop.stock")) == 4


def test_exponential_histograms_are_limited():
    reader = InMemoryMetricReader(preferred_aggregation={Histogram: ExponentialBucketHistogramAggregation()})
    provider = provider_of(reader)
    guard_instruments(provider, limit=3, scopes=ALL)
    histogram = provider.get_meter("shop").create_histogram("shop.sales")
    for user in range(10):
        histogram.record(2.0, {"user": user})

    assert by_set(points(reader))[named(OVERFLOW)] == (8, 16.0)


def test_the_exemplar_of_the_overflow_set_has_its_trace_and_no_raw_value():
    reader = cumulative()
    provider = provider_of(reader, exemplar_filter=AlwaysOnExemplarFilter())
    guard_instruments(provider, limit=1, scopes=ALL)
    counter = provider.get_meter("shop").create_counter("shop.sales")
    counter.add(7, {"user": "secret"}, span_of(12))
    [point] = points(reader)
    [exemplar] = point.exemplars

    assert (exemplar.value, exemplar.trace_id, exemplar.span_id) == (7, 12, 12)
    assert not exemplar.filtered_attributes


def test_sets_from_before_keep_counting_and_are_part_of_the_limit():
    reader = cumulative()
    provider = provider_of(reader)
    counter = provider.get_meter("shop").create_counter("shop.sales")
    for user in range(3):
        counter.add(1, {"user": user})
    guard_instruments(provider, limit=5, scopes=ALL)
    for user in range(10):
        counter.add(1, {"user": user})

    found = by_set(points(reader))
    assert found.pop(named(OVERFLOW)) == (None, 6)
    assert found == {named({"user": user}): (None, 2 if user < 3 else 1) for user in range(4)}


def test_histograms_beside_the_requests_keep_the_sets_from_before():
    reader = cumulative()
    provider = provider_of(reader)
    histogram = provider.get_meter("sightline").create_histogram("shop.sales")
    buffers = HistogramBuffers()

    def measure(users):
        for user in range(users):
            buffers.buffer(histogram, {"user": user}).add([1.0], [(0, 0, user + 1, 0)])
        buffers.flush()

    measure(5)
    guard_instruments(provider, limit=3)
    measure(7)

    found = by_set(points(reader))
    assert found.pop(named(OVERFLOW)) == (2, 2.0)
    assert found == {named({"user": user}): (2, 2.0) for user in range(5)}


def test_a_reader_that_comes_later_is_limited():
    first, late = cumulative(), cumulative()
    provider = provider_of(first)
    guard_instruments(provider, limit=4, scopes=ALL)
    counter = provider.get_meter("shop").create_counter("shop.sales")
    counter.add(1, {"user": 99})
    provider.add_metric_reader(late)
    for user in range(10):
        counter.add(1, {"user": user})

    assert by_set(points(first))[named(OVERFLOW)] == (None, 8)
    assert by_set(points(late))[named(OVERFLOW)] == (None, 7)
    provider.remove_metric_reader(late)
    counter.add(1, {"user": 11})
    assert by_set(points(first))[named(OVERFLOW)] == (None, 9)


def test_other_libraries_are_limited_where_asked_for_only():
    reader = cumulative()
    provider = provider_of(reader)
    other, own = (
        provider.get_meter(scope).create_counter(f"{scope}.sales") for scope in ("other", "sightline")
    )

    def measure():
        for user in range(10):
            other.add(1, {"user": user})
            own.add(1, {"user": user})
        return len(points(reader, "other.sales")), len(points(reader, "sightline.sales"))

    guard_instruments(provider, limit=4)
    assert measure() == (10, 4)
    guard_instruments(provider, limit=7, scopes=ALL)
    for user in range(10, 20):
        other.add(1, {"user": user})
    assert measure() == (11, 4)


def test_guarding_twice_limits_once():
    readers = [cumulative()]
    provider = provider_of(*readers)
    for _ in range(3):
        assert guard_instruments(provider, limit=4, scopes=ALL)
    counter = provider.get_meter("shop").create_counter("shop.sales")
    for user in range(10):
        counter.add(1, {"user": user})

    assert by_set(points(readers[0]))[named(OVERFLOW)] == (None, 7)
    [[match]] = storage_of(provider, readers[0])._instrument_view_instrument_matches.values()
    guard = match.consume_measurement
    assert guard_instruments(provider, limit=100, scopes=ALL)
    assert match.consume_measurement == guard
    for user in range(10):
        counter.add(1, {"user": user})
    assert by_set(points(readers[0]))[named(OVERFLOW)] == (None, 14)


def test_a_guarded_provider_goes_when_nobody_needs_it():
    provider = provider_of(cumulative())
    guard_instruments(provider, limit=4, scopes=ALL)
    observe_overflow(provider.get_meter("shop"))
    provider.get_meter("shop").create_counter("shop.sales").add(1)
    consumer = weakref.ref(provider._measurement_consumer)
    del provider
    gc.collect()

    assert consumer() is None


def test_a_released_provider_is_as_it_was():
    reader = cumulative()
    provider = provider_of(reader)
    consumer = provider._measurement_consumer
    before = set(vars(consumer))
    guard_instruments(provider, limit=2, scopes=ALL)
    counter = provider.get_meter("shop").create_counter("shop.sales")
    counter.add(1, {"user": 1})
    counter.add(1, {"user": 2})
    release_instruments()
    for user in range(10):
        counter.add(1, {"user": user})

    storage = storage_of(provider, reader)
    [[match]] = storage._instrument_view_instrument_matches.values()
    assert set(vars(consumer)) == before
    assert "_get_or_init_view_instrument_match" not in vars(storage)
    assert "consume_measurement" not in vars(match)
    assert len(points(reader)) == 11
    assert guard_instruments(provider, limit=2, scopes=ALL)
    counter.add(1, {"user": 11})
    assert by_set(points(reader))[named(OVERFLOW)] == (None, 2)


def test_real_routes_have_their_own_series_after_an_attack():
    reader = cumulative()
    provider = provider_of(reader)
    routes = ReservedRoutes()
    routes.reserve("/early")
    guard_instruments(provider, limit=20, routes=routes)
    counter = provider.get_meter("sightline").create_counter("shop.sales")
    for number in range(500):
        counter.add(1, {"http.route": f"/random/{number}"})
    routes.reserve("/late")
    for route in ("/early", "/late", "/never"):
        counter.add(1, {"http.route": route, "http.response.status_code": 200})

    found = by_set(points(reader))
    assert found[named(OVERFLOW)] == (None, 500 - 19 + 1)
    assert len(found) == 22
    for route in ("/early", "/late"):
        assert found[named({"http.route": route, "http.response.status_code": 200})] == (None, 1)


def test_a_dropped_instrument_is_bounded_in_memory_and_not_reported():
    readers = [cumulative()]
    provider = provider_of(
        *readers, views=[View(instrument_name="shop.sales", aggregation=DropAggregation())]
    )
    guard_instruments(provider, limit=4, scopes=ALL)
    meter = provider.get_meter("shop")
    observe_overflow(meter)
    counter = meter.create_counter("shop.sales")
    for user in range(100):
        counter.add(1, {"user": user})

    storage = storage_of(provider, readers[0])
    [match] = storage._instrument_view_instrument_matches[counter]
    assert len(match._attributes_aggregation) == 4
    assert points(readers[0], OVERFLOW_COUNTER) == points(readers[0]) == []


def test_the_line_names_the_attribute_and_no_value(caplog):
    provider = provider_of(cumulative())
    guard_instruments(provider, limit=10, scopes=ALL)
    counter = provider.get_meter("shop").create_counter("shop.sales")
    for number in range(500):
        counter.add(1, {"user": f"secret-{number}", "method": "GET"})

    [line] = [record.getMessage() for record in caplog.records]
    assert "shop.sales has more than 10 attribute sets, most of them by the values of user" in line
    assert "secret" not in caplog.text


@pytest.mark.parametrize("provider", [NoOpMeterProvider(), metrics.get_meter_provider(), object()])
def test_a_provider_that_is_not_the_sdks_is_left_alone(provider):
    assert guard_instruments(provider) is False
    assert reported("cardinality") == 0


def test_a_wrong_limit_is_refused_before_anything_is_changed():
    provider = provider_of(cumulative())
    with pytest.raises(ValueError, match="must be >= 1"):
        guard_instruments(provider, limit=0)

    assert "add_metric_reader" not in vars(provider._measurement_consumer)


def test_another_sdk_is_measured_without_a_limit_and_says_so(monkeypatch):
    monkeypatch.setattr(streams, "hash_attributes", None)  # as where the SDK has none of that name
    reader = cumulative()
    provider = provider_of(reader)
    guard_instruments(provider, limit=2, scopes=ALL)
    counter = provider.get_meter("shop").create_counter("shop.sales")
    for user in range(10):
        counter.add(1, {"user": user})

    assert len(points(reader)) == 10
    assert reported("cardinality") == 1


def test_a_storage_of_another_make_is_not_touched():
    class Storage:
        def _get_or_init_view_instrument_match(self, instrument):
            pass

    class Consumer:
        def __init__(self):
            self._reader_storages = {"reader": Storage()}

        def add_metric_reader(self, metric_reader):
            pass

    class Provider:
        def __init__(self):
            self._measurement_consumer = Consumer()

    provider = Provider()
    assert guard_instruments(provider) is False  # type: ignore[arg-type]  # another SDK's
    assert vars(provider._measurement_consumer._reader_storages["reader"]) == {}
    assert reported("cardinality") == 1


def test_a_failure_of_the_limit_loses_no_measurement():
    class Broken(ReservedRoutes):
        def reserved_route(self, attributes):
            raise RuntimeError

    reader = cumulative()
    provider = provider_of(reader)
    guard_instruments(provider, limit=2, scopes=ALL, routes=Broken())
    counter = provider.get_meter("shop").create_counter("shop.sales")
    for user in range(10):
        counter.add(1, {"user": user})

    assert sum(amount(point) for point in points(reader)) == 10
    assert reported("cardinality") == 10


def test_nothing_is_lost_or_doubled_while_threads_measure_and_readers_collect():
    readers = [cumulative(), delta()]
    provider = provider_of(*readers)
    meter = provider.get_meter("sightline")
    observe_overflow(meter)
    counter = meter.create_counter("shop.sales")
    histogram = meter.create_histogram("shop.duration")
    buffers = HistogramBuffers()

    def flush(_):
        buffers.flush()
        return []

    meter.create_observable_gauge("flush", [flush])
    over = threading.Event()
    seen: Counter[str] = Counter()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)

    def measure(thread):
        for number in range(400):
            attributes = {"user": (number * 7 + thread) % 100}
            counter.add(1, attributes)
            buffers.buffer(histogram, attributes).add([1.0], [(1, 1, number + 1, 1)])

    def guard():
        for _ in range(20):
            guard_instruments(provider, limit=30)
            over.wait(0.001)

    def collect():
        is_last = False
        while not is_last:
            is_last = over.is_set()
            seen["sales"] += sum(point.value for point in points(readers[1]))

    guard_instruments(provider, limit=30)
    try:
        with ThreadPoolExecutor(6) as pool:
            collecting, guarding = pool.submit(collect), pool.submit(guard)
            for done in [pool.submit(measure, thread) for thread in range(4)]:
                done.result()
            over.set()
            collecting.result()
            guarding.result()
    finally:
        sys.setswitchinterval(interval)

    sales, durations = points(readers[0]), points(readers[0], "shop.duration")
    assert sum(point.value for point in sales) == seen["sales"] == 1600
    assert sum(point.count for point in durations) == 1600
    assert len(sales) <= 30
    assert len(durations) <= 30
    counted = {point.attributes["instrument"]: point.value for point in points(readers[0], OVERFLOW_COUNTER)}
    # Of the readers, each may have admitted other sets: a measurement may overflow in one of them only.
    for name, found in (("shop.sales", sales), ("shop.duration", durations)):
        [overflow] = [point for point in found if point.attributes == OVERFLOW]
        assert getattr(overflow, "count", None) or overflow.value <= counted[name] <= 1600
    assert reported("cardinality") == reported("histograms") == 0


FORKING = """
import os, sys, threading
from sightline_processors.cardinality.overflow import Overflows

overflows = Overflows()
overflows.note("shop.sales", 10, [("user", 1)])
held, over = threading.Event(), threading.Event()


def hold():
    with overflows._tallies["shop.sales"]._lock:
        held.set()
        over.wait()


threading.Thread(target=hold).start()
held.wait()
child = os.fork()
if child == 0:
    overflows.note("shop.sales", 10, [("user", 2)])
    print(overflows.observations()[0].value, flush=True)
    os._exit(0)
os.waitpid(child, 0)
over.set()
"""


def test_a_forked_process_does_not_wait_for_a_lock_of_its_parent():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKING],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )

    assert done.stdout.split() == ["2"]


def test_the_buffers_of_histograms_are_bounded(monkeypatch):
    monkeypatch.setattr("sightline_processors.histograms.MAX_BUFFERS", 5)
    histogram = provider_of(cumulative()).get_meter("shop").create_histogram("shop.sales")
    buffers = HistogramBuffers()
    made = [buffers.buffer(histogram, {"user": user}) for user in range(7)]

    assert [each is None for each in made] == [False] * 5 + [True] * 2
    assert buffers.buffer(histogram, {"user": 0}) is made[0]
    assert len({id(each) for each in itertools.islice(made, 5)}) == 5


def test_a_consumer_of_another_make_is_not_touched():
    class Consumer:
        __slots__ = ("add_metric_reader",)

    class Provider:
        _measurement_consumer = Consumer()

    assert guard_instruments(Provider()) is False  # type: ignore[arg-type]  # another SDK's
    assert reported("cardinality") == 1
