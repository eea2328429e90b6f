"""Slow operations: found in spans of any instrumentation, all counted, some logged, no literal told."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from opentelemetry._logs import SeverityNumber
from opentelemetry.context import Context, attach, create_key, detach, get_current
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import AlwaysOnExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, Sum
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.trace import SpanKind, set_span_in_context

from sightline_processors import forked_processes
from sightline_processors.performance_alerts import ALERTS_PER_MINUTE, PerformanceAlerts
from sightline_processors.report import reported
from sightline_processors.slow_operations import (
    MAX_ADDRESSES,
    OTHER,
    SlowOperationProcessor,
    SlowThresholds,
)
from sightline_processors.tracing import make_tracers_fast, restore_tracers
from sightline_processors.tracing.delivery import EncodedSpanProcessor, processors_for

CORRELATION = create_key("correlation")
MS = 1_000_000
START = 1_700_000_000_000_000_000
POSTGRESQL = {"db.system.name": "postgresql", "server.address": "db.internal"}


def correlation_id_of(context):
    return context.get(CORRELATION)


class Bench:
    """A tracer whose slow operations are alerted of, and what came of it."""

    def __init__(self, thresholds=None):
        self.now = 0.0
        self.logs = InMemoryLogRecordExporter()
        self.reader = InMemoryMetricReader()
        logs = LoggerProvider(shutdown_on_exit=False)
        logs.add_log_record_processor(SimpleLogRecordProcessor(self.logs))
        metrics = MeterProvider(
            [self.reader], exemplar_filter=AlwaysOnExemplarFilter(), shutdown_on_exit=False
        )
        self.alerts = PerformanceAlerts(
            logs.get_logger("sightline"),
            metrics.get_meter("sightline"),
            correlation_id_of=correlation_id_of,
            clock=lambda: self.now,
        )
        self.processor = SlowOperationProcessor(thresholds, alerts=self.alerts)
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(self.processor)

    def span(
        self,
        attributes,
        milliseconds,
        kind=SpanKind.CLIENT,
        context=None,
        scope="tests",
        start=START,
        name="x",
    ):
        """Ends a span that took so long; returns it."""
        tracer = self.provider.get_tracer(scope)
        span = tracer.start_span(name, context, kind, attributes, start_time=start)
        span.end(start + round(milliseconds * MS))
        return span

    @property
    def records(self):
        return [each.log_record for each in self.logs.get_finished_logs()]

    def points(self):
        """Returns the counter's points as `(attributes, value)`."""
        data = self.reader.get_metrics_data()
        metrics = data.resource_metrics[0].scope_metrics[0].metrics if data else []
        points = [point for each in metrics for point in each.data.data_points]
        return [(dict(point.attributes or {}), point.value) for point in points]


@pytest.fixture
def bench():
    return Bench()


def test_a_slow_query_is_counted_and_logged_with_its_summary_and_its_ids(bench):
    token = attach(Context({**get_current(), CORRELATION: "order-1"}))
    try:
        text = "SELECT name FROM users WHERE mail = 'a@example.org'"
        span = bench.span(
            {**POSTGRESQL, "db.query.text": text, "db.namespace": "shop", "server.port": 5432}, 250
        )
    finally:
        detach(token)

    (record,) = bench.records
    assert record.event_name == "performance_alert"
    assert record.severity_number is SeverityNumber.WARN
    assert record.severity_text == "WARN"
    assert record.body == "slow_query: db took 0.250 s, more than 0.1 s: SELECT users"
    assert dict(record.attributes) == {
        "sightline.alert": "slow_query",
        "sightline.operation": "db",
        "sightline.duration_seconds": 0.25,
        "sightline.threshold_seconds": 0.1,
        "correlation_id": "order-1",
        "db.system.name": "postgresql",
        "db.namespace": "shop",
        "db.query.summary": "SELECT users",
        "server.address": "db.internal",
        "server.port": 5432,
    }
    context = span.get_span_context()
    assert (record.trace_id, record.span_id, record.trace_flags) == (
        context.trace_id,
        context.span_id,
        context.trace_flags,
    )
    assert record.timestamp
    expected = {"sightline.operation": "db", **POSTGRESQL}
    assert bench.points() == [(expected, 1)]


def test_the_counter_has_its_unit_and_an_exemplar_of_the_slow_span(bench):
    span = bench.span(POSTGRESQL, 250)
    (metric,) = bench.reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics
    assert (metric.name, metric.unit, type(metric.data)) == (
        "sightline.slow_operations",
        "{operation}",
        Sum,
    )
    assert metric.data.is_monotonic
    (exemplar,) = metric.data.data_points[0].exemplars
    assert exemplar.span_id == span.get_span_context().span_id


CASES: dict[str, tuple[dict[str, Any], SpanKind, str, dict[str, Any], dict[str, str]]] = {
    "old database": (
        {"db.system": "mysql", "db.statement": "SELECT 1 FROM a", "db.name": "shop", "net.peer.name": "h"},
        SpanKind.CLIENT,
        "db",
        {"db.system.name": "mysql", "db.query.summary": "SELECT a", "db.namespace": "shop"},
        {"db.system.name": "mysql", "server.address": "h"},
    ),
    "summary of the instrumentation": (
        {"db.system.name": "postgresql", "db.query.summary": "get user by id", "db.query.text": "SELECT 1"},
        SpanKind.CLIENT,
        "db",
        {"db.query.summary": "get user by id"},
        {"db.system.name": "postgresql"},
    ),
    "no text": (
        {"db.system": "mongodb", "db.operation": "find", "db.mongodb.collection": "orders"},
        SpanKind.CLIENT,
        "db",
        {"db.query.summary": "find orders"},
        {"db.system.name": "mongodb"},
    ),
    "database in process": (
        {"db.system.name": "sqlite", "db.query.text": "DELETE FROM a"},
        SpanKind.INTERNAL,
        "db",
        {"db.query.summary": "DELETE a"},
        {"db.system.name": "sqlite"},
    ),
    "redis": (
        {"db.system": "redis", "db.statement": "SET user:17 s3cret", "net.peer.name": "cache"},
        SpanKind.CLIENT,
        "redis",
        {"db.query.summary": "SET", "server.address": "cache"},
        {"db.system.name": "redis", "server.address": "cache"},
    ),
    "pipeline": (
        {"db.system.name": "redis", "db.query.text": "SET ? ?\nGET ?", "db.redis.pipeline_length": 2},
        SpanKind.CLIENT,
        "redis",
        {"db.query.summary": "PIPELINE"},
        {"db.system.name": "redis"},
    ),
    "http": (
        {
            "http.request.method": "GET",
            "url.full": "https://user:word@api.example.org:8443/users/17?token=s3cret",
            "http.response.status_code": 503,
            "error.type": "503",
        },
        SpanKind.CLIENT,
        "http",
        {"http.request.method": "GET", "http.response.status_code": 503, "error.type": "503"},
        {"server.address": "api.example.org"},
    ),
    "old http": (
        {"http.method": "POST", "http.url": "http://[::1]:80/s3cret", "http.status_code": 200},
        SpanKind.CLIENT,
        "http",
        {"http.request.method": "POST", "http.response.status_code": 200, "server.address": "::1"},
        {"server.address": "::1"},
    ),
    "sent message": (
        {
            "messaging.system": "kafka",
            "messaging.operation.name": "send",
            "messaging.destination.name": "orders",
            "server.address": "broker",
        },
        SpanKind.PRODUCER,
        "messaging",
        {"messaging.system": "kafka", "messaging.destination.name": "orders"},
        {"server.address": "broker"},
    ),
    "processed message": (
        {
            "messaging.system": "rabbitmq",
            "messaging.operation.type": "process",
            "messaging.destination.name": "amq.gen-s3cret",
            "messaging.destination.temporary": True,
        },
        SpanKind.CONSUMER,
        "messaging",
        {"messaging.system": "rabbitmq", "messaging.operation.type": "process"},
        {},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_operations_of_both_conventions_are_recognised(case, bench):
    attributes, kind, operation, logged, counted = CASES[case]
    bench.span(attributes, 1500, kind)

    (record,) = bench.records
    assert logged.items() <= record.attributes.items()
    assert record.attributes["sightline.operation"] == operation
    is_query = operation in {"db", "redis"}
    assert record.attributes["sightline.alert"] == ("slow_query" if is_query else "slow_call")
    assert "s3cret" not in f"{record.body} {dict(record.attributes)}"
    assert bench.points() == [({"sightline.operation": operation, **counted}, 1)]


@pytest.mark.parametrize(
    ("attributes", "kind"),
    [
        ({"db.system": "redis", "db.statement": "BLPOP ? ?"}, SpanKind.CLIENT),
        ({"messaging.system": "kafka", "messaging.operation.type": "receive"}, SpanKind.CONSUMER),
        ({"messaging.system": "kafka", "messaging.operation": "receive"}, SpanKind.CONSUMER),
    ],
)
def test_what_waits_by_design_is_not_slow(attributes, kind, bench):
    bench.span(attributes, 60_000, kind)
    assert bench.points() == []


@pytest.mark.parametrize(
    ("attributes", "kind"),
    [
        (POSTGRESQL, SpanKind.SERVER),
        ({"http.request.method": "GET"}, SpanKind.SERVER),
        ({"http.request.method": "GET"}, SpanKind.INTERNAL),
        ({}, SpanKind.INTERNAL),
        ({"rpc.system": "grpc"}, SpanKind.CLIENT),
    ],
)
def test_spans_of_other_work_are_passed_over(attributes, kind, bench):
    bench.span(attributes, 60_000, kind)
    assert bench.points() == []


@pytest.mark.parametrize(
    ("attributes", "milliseconds", "count"),
    [
        (POSTGRESQL, 100, 0),
        (POSTGRESQL, 100.000001, 1),
        (POSTGRESQL, -5000, 0),
        ({"http.request.method": "GET"}, 999, 0),
        ({"http.request.method": "GET"}, 1000, 0),
        ({"http.request.method": "GET"}, 1000.000001, 1),
    ],
)
def test_exactly_as_long_as_the_threshold_is_not_slow(attributes, milliseconds, count, bench):
    bench.span(attributes, milliseconds)
    assert sum(value for _, value in bench.points()) == count


@pytest.mark.parametrize("thousandths", range(1, 1000, 37))
def test_every_threshold_is_exact_to_the_nanosecond(thousandths):
    bench = Bench(SlowThresholds(query=thousandths / 1000))
    bench.span(POSTGRESQL, thousandths)
    assert bench.points() == []
    bench.span(POSTGRESQL, thousandths + 0.000001)
    assert [value for _, value in bench.points()] == [1]


def test_a_threshold_of_none_is_never_exceeded():
    bench = Bench(SlowThresholds(query=None))
    bench.span(POSTGRESQL, 3_600_000)
    bench.span({"http.request.method": "GET"}, 1500)
    assert [attributes["sightline.operation"] for attributes, _ in bench.points()] == ["http"]


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_a_wrong_threshold_is_refused_with_its_cure(seconds):
    with pytest.raises(ValueError, match=r"slow query must be > 0 s, got .*; for 250 ms write query=0\.25"):
        SlowThresholds(query=seconds)


def test_an_operation_that_its_parent_records_too_counts_once(bench):
    tracer = bench.provider.get_tracer("outer")
    outer = tracer.start_span("outer", None, SpanKind.CLIENT, POSTGRESQL, start_time=START)
    bench.span(POSTGRESQL, 300, context=set_span_in_context(outer), scope="driver")
    outer.end(START + 301 * MS)
    assert [value for _, value in bench.points()] == [1]


def test_an_operation_that_a_sibling_of_another_instrumentation_encloses_counts_once(bench):
    request = bench.provider.get_tracer("server").start_span("request", kind=SpanKind.SERVER)
    within = set_span_in_context(request)
    bench.span(POSTGRESQL, 300, context=within, scope="driver", start=START + MS)
    bench.span(POSTGRESQL, 302, context=within, scope="sqlalchemy")
    assert [value for _, value in bench.points()] == [1]


@pytest.mark.parametrize(
    ("scope", "start", "attributes"),
    [
        ("driver", START, POSTGRESQL),  # the same layer: two queries at once
        ("sqlalchemy", START + 2 * MS, POSTGRESQL),  # begun within
        ("sqlalchemy", START, {"db.system.name": "redis"}),  # another operation
    ],
)
def test_two_operations_at_once_count_twice(scope, start, attributes, bench):
    request = bench.provider.get_tracer("server").start_span("request", kind=SpanKind.SERVER)
    within = set_span_in_context(request)
    bench.span(POSTGRESQL, 300, context=within, scope="driver", start=START + MS)
    bench.span(attributes, 302, context=within, scope=scope, start=start)
    assert sum(value for _, value in bench.points()) == 2


def test_processing_a_message_and_sending_one_meanwhile_are_two_operations(bench):
    tracer = bench.provider.get_tracer("tests")
    kafka = {"messaging.system": "kafka"}
    outer = tracer.start_span("process", None, SpanKind.CONSUMER, kafka, start_time=START)
    bench.span(kafka, 1500, SpanKind.PRODUCER, context=set_span_in_context(outer))
    outer.end(START + 5000 * MS)
    assert [value for _, value in bench.points()] == [2]


def test_addresses_are_bounded_and_calls_leave_those_of_databases_alone(bench):
    for number in range(4 * MAX_ADDRESSES):
        bench.span({"http.request.method": "GET", "server.address": f"host-{number}"}, 1500)
    for address in ("db.internal", "bad\naddress", "x" * 300):
        bench.span({"db.system.name": "postgresql", "server.address": address}, 1500)

    points = bench.points()
    calls = {each.get("server.address"): n for each, n in points if each["sightline.operation"] == "http"}
    assert len(calls) == MAX_ADDRESSES + 1
    assert calls[OTHER] == 3 * MAX_ADDRESSES
    queries = {each.get("server.address"): n for each, n in points if each["sightline.operation"] == "db"}
    assert queries == {"db.internal": 1, None: 2}


def test_ten_records_of_an_operation_a_minute_and_the_next_says_how_many_were_left_out(bench):
    for _ in range(25):
        bench.span(POSTGRESQL, 200)
    assert len(bench.records) == ALERTS_PER_MINUTE == 10
    bench.span({"http.request.method": "GET"}, 1500)
    assert len(bench.records) == 11  # another operation has its own budget

    bench.now += 5.9
    bench.span(POSTGRESQL, 200)
    assert len(bench.records) == 11
    bench.now += 0.2
    bench.span(POSTGRESQL, 200)
    assert bench.records[-1].attributes["sightline.alerts_left_out"] == 16
    bench.now += 3600
    for _ in range(20):
        bench.span(POSTGRESQL, 200)
    assert len(bench.records) == 12 + 10
    assert sum("sightline.alerts_left_out" in each.attributes for each in bench.records) == 1
    assert sum(value for _, value in bench.points()) == 25 + 1 + 2 + 20


def test_a_clock_that_steps_back_gives_no_records_away(bench):
    for _ in range(12):
        bench.span(POSTGRESQL, 200)
        bench.now -= 100
    assert len(bench.records) == 10


def test_threads_lose_no_operation_and_the_bound_holds(bench):
    def work(thread):
        for number in range(200):
            bench.span({"http.request.method": "GET", "server.address": f"h{thread}-{number % 9}"}, 1500)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))

    points = bench.points()
    assert sum(value for _, value in points) == 1600
    assert len(points) <= MAX_ADDRESSES + 1 + 8
    assert len(bench.records) == ALERTS_PER_MINUTE


def test_text_of_a_span_is_bounded_and_printable_in_a_record(bench):
    odd = "line\nbreak\x1b[31m\ud800" + "x" * 1000
    bench.span({"db.system.name": odd, "db.namespace": odd, "db.query.summary": odd, "error.type": odd}, 200)
    (record,) = bench.records
    texts = [record.body, *(each for each in record.attributes.values() if isinstance(each, str))]
    assert all(len(text) <= 400 and text.isprintable() for text in texts)
    assert len(record.attributes["db.namespace"]) == 255
    assert len(record.attributes["db.query.summary"]) == 120


def test_a_slow_request_is_the_same_record_under_its_own_name(bench):
    request = bench.provider.get_tracer("server").start_span("GET /orders", kind=SpanKind.SERVER)
    context = Context({**set_span_in_context(request), CORRELATION: "order-1"})
    bench.alerts.alert_slow_request(
        duration_seconds=2.5,
        threshold_seconds=1.0,
        context=context,
        method="GET",
        route="/orders",
        status_code=200,
        more={"sightline.event_loop.lag": 0.7},
    )

    (record,) = bench.records
    assert record.event_name == "performance_alert"
    assert record.body == "slow_request: request took 2.500 s, more than 1 s: GET /orders"
    assert dict(record.attributes) == {
        "sightline.alert": "slow_request",
        "sightline.operation": "request",
        "sightline.duration_seconds": 2.5,
        "sightline.threshold_seconds": 1.0,
        "correlation_id": "order-1",
        "http.request.method": "GET",
        "http.route": "/orders",
        "http.response.status_code": 200,
        "sightline.event_loop.lag": 0.7,
    }
    assert record.span_id == request.get_span_context().span_id
    assert bench.points() == [({"sightline.operation": "request"}, 1)]


def test_a_request_without_route_and_answer_is_told_of_without_them(bench):
    bench.alerts.alert_slow_request(
        duration_seconds=2.5,
        threshold_seconds=1.0,
        context=Context(),
        method="_OTHER",
        route=None,
        status_code=None,
        correlation_id="given",
    )
    (record,) = bench.records
    assert record.body == "slow_request: request took 2.500 s, more than 1 s: _OTHER"
    assert record.attributes["correlation_id"] == "given"
    assert not {"http.route", "http.response.status_code"} & set(record.attributes)


def test_what_the_logger_raises_is_reported_and_the_count_stays(bench):
    class Raising:
        def emit(self, record):
            raise RuntimeError("no")

    bench.alerts._logger = Raising()
    bench.span(POSTGRESQL, 200)
    assert reported("performance_alerts") == 1
    assert [value for _, value in bench.points()] == [1]


@pytest.mark.parametrize("odd", [object(), ReadableSpan("never started")])
def test_what_only_looks_like_a_span_is_reported(odd, bench):
    bench.processor.on_end(odd)
    assert reported("slow_operations") == 1


@pytest.mark.parametrize("value", [17, True, 1.5, (), ("a", "b"), "", "x" * 5000, "http://[bad"])
def test_no_value_of_an_attribute_raises(value, bench):
    for case in CASES.values():
        for key in case[0]:
            bench.span({**case[0], key: value}, 1500, case[1])
    assert reported("slow_operations") == reported("performance_alerts") == 0


def test_a_fork_while_another_thread_alerts_leaves_the_child_alerting(bench):
    holds, done = threading.Event(), threading.Event()

    def hold(lock=bench.alerts._lock):
        with lock:
            holds.set()
            done.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    holds.wait(10)
    forked_processes._renew_all()  # as in the child
    bench.span(POSTGRESQL, 200)
    done.set()
    thread.join()
    assert len(bench.records) == 1


class Encoder(EncodedSpanProcessor):
    pass


class Keeping(SpanProcessor):
    pass


def test_spans_of_requests_are_none_of_its_business(bench):
    own, encoder, other = bench.processor, Encoder(), Keeping()
    for each in (encoder, other):
        bench.provider.add_span_processor(each)
    registered = bench.provider._active_span_processor
    assert processors_for(registered, SpanKind.SERVER) == (encoder, other)
    assert processors_for(registered, SpanKind.CLIENT) == (own, encoder, other)


def test_fast_tracers_give_it_the_span_itself(bench, monkeypatch):
    given = []
    monkeypatch.setattr(bench.processor, "on_end", given.append)
    make_tracers_fast()
    try:
        span = bench.span(POSTGRESQL, 200)
    finally:
        restore_tracers()
    assert given == [span]


def test_a_fast_span_costs_three_calls(bench):
    make_tracers_fast()
    try:
        span = bench.span(POSTGRESQL, 1)
    finally:
        restore_tracers()
    calls = []

    def profile(frame, event, argument):
        if event == "call":
            calls.append(frame.f_code.co_name)

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        bench.processor.on_end(span)
    finally:
        sys.setprofile(before)
    assert calls == ["on_end", "end_time", "start_time"]
