"""What the receiver of the benchmark understands: it counts what arrives, by parsing it.

A request counts once it has been reported by one item that stands for it: an OTLP SERVER span or root, a
Datadog local root, an Elastic or Sentry transaction. Items have IDs: what is sent twice counts once.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from benchmarks import messagepack
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span

REQUEST_DURATION: Final = "http.server.request.duration"
_NEWRELIC_REQUESTS: Final = "HttpDispatcher"
_DATADOG_V05_SPAN_ID, _DATADOG_V05_PARENT_ID = 4, 5


@dataclass
class Intake:
    """Counts of what has arrived; used by one event loop.

    Attributes:
        posts: Deliveries by path.
        spans: Distinct spans and transactions, those within a request included.
        repeated: Items that arrived a second time.
        logs: Log records.
        exemplars: Exemplars in the histogram of request durations, over all exports.
        unreadable: Deliveries that could not be parsed.
    """

    posts: Counter[str] = field(default_factory=Counter)
    spans: int = 0
    repeated: int = 0
    logs: int = 0
    exemplars: int = 0
    unreadable: int = 0
    _requests: set[Any] = field(default_factory=set)
    _children: set[Any] = field(default_factory=set)
    _series: dict[bytes, int] = field(default_factory=dict)
    _newrelic_requests: int = 0

    def add(self, path: str, body: bytes) -> None:
        """Counts one delivery; a path that nobody reads is only counted as such."""
        self.posts[path] += 1
        read = next((read for prefix, read in _READERS.items() if path.startswith(prefix)), None)
        if read is not None:
            try:
                read(self, body)
            except (DecodeError, ValueError, LookupError, TypeError, AttributeError):
                self.unreadable += 1

    def item(self, identity: Any, *, stands_for_request: bool) -> None:
        """Counts one span or transaction."""
        known = self._requests if stands_for_request else self._children
        if identity in known:
            self.repeated += 1
            return
        known.add(identity)
        self.spans += 1

    def histogram(self, metric: Metric) -> None:
        """Keeps the newest count of each series of a histogram, its deltas summed."""
        data = metric.histogram if metric.HasField("histogram") else metric.exponential_histogram
        is_delta = data.aggregation_temporality == AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
        for point in data.data_points:
            series = b"".join(sorted(pair.SerializeToString() for pair in point.attributes))
            self._series[series] = point.count + (self._series.get(series, 0) if is_delta else 0)
            self.exemplars += len(point.exemplars)

    def newrelic(self, metrics: list[Any]) -> None:
        """Adds the requests that one delivery of New Relic's metrics counts."""
        for name, values in metrics:
            if name["name"] == _NEWRELIC_REQUESTS and not name.get("scope"):
                self._newrelic_requests += int(values[0])

    def counts(self) -> dict[str, Any]:
        """Returns what has arrived, for JSON."""
        return {
            "requests": len(self._requests) + self._newrelic_requests,
            "spans": self.spans,
            "repeated": self.repeated,
            "measured": sum(self._series.values()),
            "exemplars": self.exemplars,
            "logs": self.logs,
            "unreadable": self.unreadable,
            "posts": dict(self.posts),
        }


def _otlp_traces(intake: Intake, body: bytes) -> None:
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                is_first = span.kind == Span.SPAN_KIND_SERVER or not span.parent_span_id
                intake.item(span.span_id, stands_for_request=is_first)


def _otlp_metrics(intake: Intake, body: bytes) -> None:
    for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                if metric.name == REQUEST_DURATION:
                    intake.histogram(metric)


def _otlp_logs(intake: Intake, body: bytes) -> None:
    for resource in ExportLogsServiceRequest.FromString(body).resource_logs:
        intake.logs += sum(len(scope.log_records) for scope in resource.scope_logs)


def _datadog_v04(intake: Intake, body: bytes) -> None:
    for trace in messagepack.decode(body):
        for span in trace:
            intake.item(span[b"span_id"], stands_for_request=not span.get(b"parent_id"))


def _datadog_v05(intake: Intake, body: bytes) -> None:
    _, traces = messagepack.decode(body)
    for trace in traces:
        for span in trace:
            intake.item(span[_DATADOG_V05_SPAN_ID], stands_for_request=not span[_DATADOG_V05_PARENT_ID])


def _elastic(intake: Intake, body: bytes) -> None:
    for line in body.splitlines():
        if line.startswith((b'{"transaction"', b'{"span"')):
            ((kind, item),) = json.loads(line).items()
            intake.item(item["id"], stands_for_request=kind == "transaction")


def _sentry(intake: Intake, body: bytes) -> None:
    for kind, payload in _envelope(body):
        if kind == "transaction":
            transaction = json.loads(payload)
            intake.item(transaction["event_id"], stands_for_request=True)
            for span in transaction.get("spans", ()):
                intake.item(span["span_id"], stands_for_request=False)


def _envelope(body: bytes) -> Iterator[tuple[str, bytes]]:
    """Yields kind and payload of each item of an envelope.

    Source: https://develop.sentry.dev/sdk/data-model/envelopes/.
    """
    _, _, rest = body.partition(b"\n")
    while rest:
        header, _, rest = rest.partition(b"\n")
        if not header:
            continue
        described = json.loads(header)
        length = described.get("length", rest.find(b"\n") if b"\n" in rest else len(rest))
        yield described["type"], rest[:length]
        rest = rest[length:].removeprefix(b"\n")


def _newrelic(intake: Intake, body: bytes) -> None:
    intake.newrelic(json.loads(body)[3])


NEWRELIC_METRICS: Final = "/newrelic/metric_data"
"""The receiver's name for `method=metric_data` of New Relic's single path."""

_READERS: Final[dict[str, Callable[[Intake, bytes], None]]] = {
    "/v1/traces": _otlp_traces,
    "/v1/metrics": _otlp_metrics,
    "/v1/logs": _otlp_logs,
    "/v0.4/traces": _datadog_v04,
    "/v0.5/traces": _datadog_v05,
    "/intake/v2/events": _elastic,
    "/api/": _sentry,
    NEWRELIC_METRICS: _newrelic,
}
