"""What one server sends to a collector, on every supported version and with every other instrumentation.

Each case is one server process; `runs.py` says what it is asked for and `app.py` how it is instrumented.
"""

import re
from collections import Counter

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from otlp_receiver import Item, attributes
from tests.matrix.runs import CASES, DURATION, ERROR, REQUESTS, STOCK_FIRST, Request

pytestmark = [pytest.mark.matrix, pytest.mark.parametrize("case", CASES, ids=str)]

TRACEBACK = re.compile(r"Traceback \(most recent call last\):\n(?:  .*\n)+app\.ShopError: .*\n")
GRPC_NOTICE = re.compile(
    r"OTLP over gRPC was asked for, but its exporter is not installed: exporting over http/protobuf to "
    r"http://127\.0\.0\.1:\d+; set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf, "
    r"or pip install 'sightline\[grpc\]'"
)
NO_REQUEST = "-"
"""What formats print outside a request; the stock handler exports it, Sightline leaves the attribute out."""
UNREMARKABLE = (
    "INFO: ",
    "ERROR:    Exception in ASGI application",
    "Configuration of ",
    "Cannot call collect on a MetricReader until it is registered",
)
"""Starts of lines of uvicorn, and of the SDK: about a second configurator that is installed, and about a
reader whose interval of 300 ms ends before its provider is made."""


def span_name(request: Request) -> str:
    return f"{request.method} {request.route}" if request.route else request.method


def error_type(request: Request) -> str | None:
    return ERROR if request.raises else None


def metric_key(metric: Item) -> tuple[str, str]:
    return metric.scope, metric.data.name


def test_every_response_is_the_application_s_own(run):
    assert [exchange.status for exchange in run.exchanges] == [request.status for request in REQUESTS]


def test_every_response_carries_its_correlation_id_once(run):
    for exchange in run.exchanges:
        expected = exchange.request.correlation_id
        generated = run.trace_id(exchange.correlation_id) or b""
        assert exchange.headers == [expected or generated.hex()], exchange.request


def test_each_request_is_one_server_span_and_nothing_else(run):
    spans = [(item.data, attributes(item.data.attributes)) for item in run.store.spans]
    assert Counter(
        (
            item.kind,
            item.name,
            named.get("http.request.method"),
            named.get("http.route"),
            named.get("http.response.status_code"),
            named.get("error.type"),
            named.get("sightline.correlation_id"),
        )
        for item, named in spans
    ) == Counter(
        (
            Span.SPAN_KIND_SERVER,
            span_name(exchange.request),
            exchange.request.method,
            exchange.request.route,
            exchange.request.status,
            error_type(exchange.request),
            exchange.correlation_id,
        )
        for exchange in run.exchanges
    )


def test_each_span_arrives_once(run):
    arrivals = Counter(item.data.span_id for item in run.store.spans)
    assert sorted(arrivals.values()) == [1] * len(REQUESTS)


def test_each_outcome_is_one_duration_series(run):
    series = [
        (
            named.get("http.request.method"),
            named.get("http.route"),
            named.get("http.response.status_code"),
            named.get("error.type"),
            point.count,
        )
        for named, point in run.series(DURATION)
    ]
    outcomes = Counter((each.method, each.route, each.status, error_type(each)) for each in REQUESTS)
    assert sorted(series, key=repr) == sorted(((*key, count) for key, count in outcomes.items()), key=repr)


def test_only_sightline_measures_requests(run):
    measured = {metric_key(item) for item in run.store.metrics if item.data.name.startswith("http.server.")}
    assert measured == {
        ("sightline", DURATION),
        ("sightline", "http.server.active_requests"),
        ("sightline", "http.server.request.body.size"),
        ("sightline", "http.server.response.body.size"),
    }


def test_every_series_is_exported_by_one_reader(run):
    # Each reader of a provider counts from a time of its own.
    started = {
        (*metric_key(item), repr(point.attributes), point.start_time_unix_nano)
        for item in run.store.metrics
        for point in getattr(item.data, item.data.WhichOneof("data")).data_points
    }
    readers = Counter((scope, name, named) for scope, name, named, _ in started)
    assert set(readers.values()) == {1}


def test_an_unhandled_error_is_one_event_on_its_span(run):
    events = Counter(
        (
            attributes(item.data.attributes).get("sightline.correlation_id"),
            event.name,
            attributes(event.attributes).get("exception.type"),
        )
        for item in run.store.spans
        for event in item.data.events
    )
    assert events == {
        (request.correlation_id, "exception", ERROR): 1 for request in REQUESTS if request.raises
    }


def test_an_unhandled_error_is_one_log_record_with_its_ids(run):
    records = Counter(
        (attributes(item.data.attributes).get("correlation_id"), item.data.trace_id)
        for item in run.error_records()
    )
    assert records == {
        (request.correlation_id, run.trace_id(request.correlation_id)): 1
        for request in REQUESTS
        if request.raises
    }


def test_an_unhandled_error_has_one_name_in_every_signal(run):
    spans = {attributes(item.data.attributes).get("error.type") for item in run.store.spans}
    series = {named.get("error.type") for named, _ in run.series(DURATION)}
    records = {attributes(item.data.attributes)["exception.type"] for item in run.error_records()}
    assert (spans, series, records) == ({None, ERROR}, {None, ERROR}, {ERROR})


def test_every_record_of_the_application_arrives_once_with_its_ids(run):
    records = Counter(
        (
            item.data.body.string_value,
            attributes(item.data.attributes).get("correlation_id", NO_REQUEST),
            item.data.trace_id,
        )
        for item in run.records("shop")
    )
    in_requests = {
        (body, exchange.correlation_id, run.trace_id(exchange.correlation_id)): 1
        for exchange in run.exchanges
        for body in exchange.request.logs
    }
    assert records == {("opened", NO_REQUEST, b""): 1, **in_requests}


def test_no_record_of_any_logger_arrives_twice(run):
    arrivals = Counter(item.data.SerializeToString() for item in run.store.logs)
    assert set(arrivals.values()) == {1}


@pytest.mark.parametrize("signal", ["spans", "metrics", "logs"])
def test_resource_names_the_service(run, signal):
    services = {item.resource.get("service.name") for item in getattr(run.store, signal)}
    assert services == {run.service}


def test_server_writes_of_no_trouble(case, run):
    lines = TRACEBACK.sub("", run.stderr).splitlines()
    remarkable = [line for line in lines if not line.startswith(UNREMARKABLE)]
    notices = [line for line in remarkable if GRPC_NOTICE.fullmatch(line)]
    assert remarkable == notices
    assert len(notices) == (case.distro == STOCK_FIRST)
