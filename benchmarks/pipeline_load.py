"""Spans, series and log records of a service, as Sightline sends them, for the benchmark of the pipeline.

A request is a SERVER span with two queries and a call below it, and two log records with its trace ID. Half a
percent of the requests fail, and half a percent take 2 s: what tail sampling keeps whatever its budget.
Series are those of one process with 20 routes that answer with two statuses each.
"""

import http.client
import random
import time
from collections.abc import Iterator, Sequence
from typing import Final

from benchmarks.collector_load import attributes_of
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import SEVERITY_NUMBER_INFO
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_CUMULATIVE, HistogramDataPoint
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from sightline.boundaries import BODY_SIZE_BOUNDARIES_BYTES, DURATION_BOUNDARIES_SECONDS

SPANS_PER_TRACE: Final = 4
ITEMS_PER_POST: Final = 512
ROUTES: Final = 20
INTERVAL_SECONDS: Final = 15
"""Between two collections of a process's metrics, Sightline's default."""

_STATUSES: Final = (200, 404)
_HISTOGRAMS: Final = (
    ("http.server.request.duration", "s", DURATION_BOUNDARIES_SECONDS),
    ("http.server.request.body.size", "By", BODY_SIZE_BOUNDARIES_BYTES),
    ("http.server.response.body.size", "By", BODY_SIZE_BOUNDARIES_BYTES),
)
_EVENTFUL: Final = 200
"""One request of so many fails, and one is slow."""

_PATIENCE_SECONDS: Final = 30
_HTTP_OK: Final = 200
_Value = str | int


def series_per_process() -> int:
    """Returns how many series Prometheus makes of one process: a bucket, a sum and a count are one each."""
    of_histograms = sum(len(bounds) + 1 + 2 for _, _, bounds in _HISTOGRAMS)
    return ROUTES * len(_STATUSES) * (of_histograms + 1)


def points_per_process() -> int:
    """Returns how many points of OTLP the same are."""
    return ROUTES * len(_STATUSES) * (len(_HISTOGRAMS) + 1)


def post(address: str, signal: str, bodies: Sequence[bytes], pause_seconds: float = 0.0) -> None:
    """Posts requests one after the other, each again while it is refused for a while.

    Raises:
        RuntimeError: When one is refused for good, or for half a minute.
    """
    connection = http.client.HTTPConnection(address)
    for body in bodies:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while (status := _status(connection, signal, body)) != _HTTP_OK:
            if status not in {429, 503} or time.monotonic() > deadline:
                raise RuntimeError(f"{signal} were refused with {status}")
            time.sleep(0.1)
        time.sleep(pause_seconds)
    connection.close()


def _status(connection: http.client.HTTPConnection, signal: str, body: bytes) -> int:
    connection.request("POST", f"/v1/{signal}", body, {"content-type": "application/x-protobuf"})
    answer = connection.getresponse()
    answer.read()
    return answer.status


def span_posts(posts: int) -> list[bytes]:
    """Returns requests of 512 spans, in whole traces."""
    return [_spans().SerializeToString() for _ in range(posts)]


def log_posts(posts: int) -> list[bytes]:
    """Returns requests of 512 log records, two for each trace."""
    return [_records().SerializeToString() for _ in range(posts)]


class Processes:
    """So many processes of a service, whose counters rise from collection to collection.

    Args:
        count: How many; each is a resource of its own.
        start: Unix time of the first collection; the next are 15 s apart.
    """

    def __init__(self, count: int, start: float) -> None:
        self._requests = [_metrics(number, start) for number in range(count)]
        self._at_ns = int(start * 1e9)

    def collections(self, count: int) -> list[bytes]:
        """Returns the next requests: of each process one, and that so many times."""
        bodies = []
        for _ in range(count):
            self._at_ns += INTERVAL_SECONDS * 1_000_000_000
            for request in self._requests:
                _advance(request, self._at_ns)
                bodies.append(request.SerializeToString())
        return bodies


def _metrics(number: int, start: float) -> ExportMetricsServiceRequest:
    request = ExportMetricsServiceRequest()
    resource_metrics = request.resource_metrics.add(resource=_resource(f"instance-{number}"))
    scope_metrics = resource_metrics.scope_metrics.add()
    scope_metrics.scope.name = "sightline"
    start_ns = int(start * 1e9)
    for name, unit, bounds in _HISTOGRAMS:
        metric = scope_metrics.metrics.add(name=name, unit=unit)
        metric.histogram.aggregation_temporality = AGGREGATION_TEMPORALITY_CUMULATIVE
        for attributes in _sets():
            point = metric.histogram.data_points.add(attributes=attributes, start_time_unix_nano=start_ns)
            point.explicit_bounds.extend(bounds)
            point.bucket_counts.extend([0] * (len(bounds) + 1))
    counter = scope_metrics.metrics.add(name="sightline.sla.requests", unit="{request}").sum
    counter.is_monotonic, counter.aggregation_temporality = True, AGGREGATION_TEMPORALITY_CUMULATIVE
    for attributes in _sets():
        counter.data_points.add(attributes=attributes, start_time_unix_nano=start_ns, as_int=0)
    return request


def _sets() -> Iterator[list[KeyValue]]:
    for route in range(ROUTES):
        for status in _STATUSES:
            yield attributes_of(
                {
                    "http.request.method": "GET",
                    "url.scheme": "http",
                    "http.route": f"/orders/{{id}}/part-{route}",
                    "http.response.status_code": status,
                    "network.protocol.version": "1.1",
                }
            )


def _advance(request: ExportMetricsServiceRequest, at_ns: int) -> None:
    for metric in request.resource_metrics[0].scope_metrics[0].metrics:
        for point in metric.histogram.data_points:
            _add_requests(point, at_ns)
        for counted in metric.sum.data_points:
            counted.time_unix_nano = at_ns
            counted.as_int += random.randrange(100)


def _add_requests(point: HistogramDataPoint, at_ns: int) -> None:
    """Adds a collection's worth of measurements, most in a few buckets, with an exemplar."""
    point.time_unix_nano = at_ns
    buckets = len(point.bucket_counts)
    for bucket in range(3, min(buckets, 8)):
        new = random.randrange(30 >> (bucket - 3))
        point.bucket_counts[bucket] += new
        point.count += new
        point.sum += new * point.explicit_bounds[bucket]
    del point.exemplars[:]
    point.exemplars.add(
        time_unix_nano=at_ns,
        as_double=point.explicit_bounds[4],
        trace_id=random.randbytes(16),
        span_id=random.randbytes(8),
    )


def _spans() -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    resource_spans = request.resource_spans.add(resource=_resource("instance-0"))
    scope_spans = resource_spans.scope_spans.add()
    scope_spans.scope.name = "sightline"
    for _ in range(ITEMS_PER_POST // SPANS_PER_TRACE):
        scope_spans.spans.extend(_trace())
    return request


def _trace() -> list[Span]:
    trace_id, end = random.randbytes(16), time.time_ns()
    correlation = random.randbytes(8).hex()
    event = random.randrange(_EVENTFUL)
    root = Span(trace_id=trace_id, span_id=random.randbytes(8), kind=Span.SPAN_KIND_SERVER, flags=256)
    route = f"/orders/{{id}}/part-{random.randrange(ROUTES)}"
    root.name, root.end_time_unix_nano = f"GET {route}", end
    root.start_time_unix_nano = end - (2_000_000_000 if event == 1 else random.randrange(1, 90) * 1_000_000)
    root.attributes.extend(attributes_of(_server(route, correlation, failed=event == 0, slow=event == 1)))
    if event == 0:
        root.status.code = Status.STATUS_CODE_ERROR
    return [root, *(_child(root, number, correlation) for number in range(SPANS_PER_TRACE - 1))]


def _server(route: str, correlation: str, *, failed: bool, slow: bool) -> dict[str, _Value]:
    return {
        "http.request.method": "GET",
        "url.scheme": "http",
        "http.route": route,
        "http.response.status_code": 500 if failed else 200,
        "network.protocol.version": "1.1",
        "server.address": "shop",
        "sightline.end_reason": "completed",
        "sightline.sla.outcome": "failed" if failed else "slow" if slow else "ok",
        "sightline.sla.objective": "default",
        "network.peer.address": "10.0.0.7",
        "client.address": f"10.0.{random.randrange(256)}.{random.randrange(256)}",
        "url.path": f"/orders/{random.randrange(100_000)}/part",
        "sightline.correlation_id": correlation,
    }


def _child(root: Span, number: int, correlation: str) -> Span:
    span = Span(trace_id=root.trace_id, span_id=random.randbytes(8), parent_span_id=root.span_id, flags=256)
    span.kind = Span.SPAN_KIND_CLIENT
    span.start_time_unix_nano = root.start_time_unix_nano + number * 100_000
    span.end_time_unix_nano = span.start_time_unix_nano + random.randrange(1, 900) * 1_000
    query = number < SPANS_PER_TRACE - 2
    span.name = "SELECT orders" if query else "GET /prices/{id}"
    span.attributes.extend(attributes_of(_query() if query else _call()))
    span.attributes.extend(attributes_of({"sightline.correlation_id": correlation}))
    return span


def _query() -> dict[str, _Value]:
    return {
        "db.system.name": "postgresql",
        "db.namespace": "orders",
        "db.operation.name": "SELECT",
        "db.query.text": "SELECT id, state, total FROM orders WHERE id = %s",
        "server.address": "db.internal",
        "server.port": 5432,
    }


def _call() -> dict[str, _Value]:
    return {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "url.full": f"http://prices.internal/prices/{random.randrange(100_000)}",
        "server.address": "prices.internal",
        "server.port": 80,
    }


def _records() -> ExportLogsServiceRequest:
    request = ExportLogsServiceRequest()
    resource_logs = request.resource_logs.add(resource=_resource("instance-0"))
    scope_logs = resource_logs.scope_logs.add()
    scope_logs.scope.name = "shop.orders"
    for _ in range(ITEMS_PER_POST // 2):
        trace_id, span_id, correlation = random.randbytes(16), random.randbytes(8), random.randbytes(8).hex()
        for text in ("order %d is looked up", "order %d was found, its state is paid, 3 items in 1 parcel"):
            record = scope_logs.log_records.add(trace_id=trace_id, span_id=span_id, flags=1)
            record.time_unix_nano = record.observed_time_unix_nano = time.time_ns()
            record.severity_number, record.severity_text = SEVERITY_NUMBER_INFO, "INFO"
            record.body.string_value = text % random.randrange(100_000)
            record.attributes.extend(attributes_of(_place(correlation)))
    return request


def _place(correlation: str) -> dict[str, _Value]:
    return {
        "code.file.path": "/srv/shop/orders.py",
        "code.function.name": "find",
        "code.line.number": 118,
        "correlation_id": correlation,
    }


def _resource(instance: str) -> Resource:
    values: dict[str, _Value] = {
        "telemetry.sdk.language": "python",
        "telemetry.sdk.name": "opentelemetry",
        "telemetry.sdk.version": "1.45.1",
        "service.instance.id": instance,
        "service.namespace": "store",
        "deployment.environment.name": "production",
        "service.version": "1.4.2",
        "service.name": "shop",
    }
    return Resource(attributes=attributes_of(values))
