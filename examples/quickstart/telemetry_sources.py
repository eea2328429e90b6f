"""Where the demo finds one request's telemetry again: the three back ends, or the in-memory receiver."""

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import httpx
from otlp_receiver import Store, attributes

CORRELATION_ID = "sightline.correlation_id"
DURATION = "http.server.request.duration"
DURATION_IN_PROMETHEUS = "http_server_request_duration_seconds"


@dataclass(frozen=True, slots=True)
class FoundSpan:
    """One span: its parent's ID is empty for the root; the duration is in milliseconds."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    kind: str
    duration_ms: float
    started_ns: int


@dataclass(frozen=True, slots=True)
class FoundLog:
    """One log record."""

    time_ns: int
    logger: str
    body: str
    trace_id: str


@dataclass(frozen=True, slots=True)
class FoundPoint:
    """The duration series of the request's route: how many requests, and the traces of its exemplars."""

    route: str
    status_code: str
    count: int
    exemplar_trace_ids: frozenset[str]


class TelemetrySource(Protocol):
    """Finds telemetry by correlation ID and route; empty until it has arrived."""

    def spans(self, correlation_id: str) -> list[FoundSpan]:
        """Returns all spans of the traces whose SERVER span carries the ID."""

    def logs(self, correlation_id: str) -> list[FoundLog]:
        """Returns the log records that carry the ID, oldest first."""

    def point(self, route: str, method: str) -> FoundPoint | None:
        """Returns the duration series of a route."""


class ReceiverSource:
    """Reads from the in-memory OTLP receiver."""

    def __init__(self, store: Store, service: str) -> None:
        self._store = store
        self._service = service

    def spans(self, correlation_id: str) -> list[FoundSpan]:
        """Returns all spans of the traces whose SERVER span carries the ID."""
        spans = [item.data for item in self._mine(list(self._store.spans))]
        traces = {
            span.trace_id
            for span in spans
            if attributes(span.attributes).get(CORRELATION_ID) == correlation_id
        }
        return [_from_otlp(span) for span in spans if span.trace_id in traces]

    def logs(self, correlation_id: str) -> list[FoundLog]:
        """Returns the log records that carry the ID, oldest first."""
        found = [
            FoundLog(
                item.data.time_unix_nano,
                item.scope,
                item.data.body.string_value,
                item.data.trace_id.hex(),
            )
            for item in self._mine(list(self._store.logs))
            if attributes(item.data.attributes).get("correlation_id") == correlation_id
        ]
        return sorted(found, key=lambda log: log.time_ns)

    def point(self, route: str, method: str) -> FoundPoint | None:
        """Returns the duration series of a route, from the newest export; exemplars from all exports."""
        newest: Any = None
        exemplars: set[str] = set()
        for item in self._mine(list(self._store.metrics)):
            if item.data.name != DURATION:
                continue
            for point in item.data.histogram.data_points:
                labels = attributes(point.attributes)
                if labels.get("http.route") == route and labels.get("http.request.method") == method:
                    newest = point
                    exemplars.update(exemplar.trace_id.hex() for exemplar in point.exemplars)
        if newest is None:
            return None
        status = str(attributes(newest.attributes).get("http.response.status_code"))
        return FoundPoint(route, status, newest.count, frozenset(exemplars))

    def _mine(self, items: Iterable[Any]) -> list[Any]:
        return [item for item in items if item.resource.get("service.name") == self._service]


def _from_otlp(span: Any) -> FoundSpan:
    return FoundSpan(
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.name,
        ("unspecified", "internal", "server", "client", "producer", "consumer")[span.kind],
        (span.end_time_unix_nano - span.start_time_unix_nano) / 1e6,
        span.start_time_unix_nano,
    )


class StackSource:
    """Reads from Jaeger, Loki and Prometheus over their HTTP APIs.

    Args:
        endpoints: Base URLs under `jaeger`, `loki` and `prometheus`.
        service: The value of `service.name`.
        since: Unix time in seconds before which nothing is looked for.
    """

    def __init__(self, endpoints: Mapping[str, str], service: str, since: float) -> None:
        self._endpoints = endpoints
        self._service = service
        self._since = since
        self._client = httpx.Client(timeout=10)

    def __enter__(self) -> "StackSource":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def spans(self, correlation_id: str) -> list[FoundSpan]:
        """Returns all spans of the traces whose SERVER span carries the ID, from Jaeger's query API."""
        found = self.jaeger(
            "/api/traces",
            service=self._service,
            tags=json.dumps({CORRELATION_ID: correlation_id}),
            start=str(int(self._since * 1e6)),
            end=str(int(time.time() * 1e6)),
            limit="20",
        )
        return [_from_jaeger(span) for trace in found.get("data") or () for span in trace["spans"]]

    def logs(self, correlation_id: str) -> list[FoundLog]:
        """Returns the log records that carry the ID as structured metadata, from Loki."""
        found = self.loki(
            "/loki/api/v1/query_range",
            query=f'{{service_name="{self._service}"}} | correlation_id="{correlation_id}"',
            start=str(int(self._since * 1e9)),
            end=str(time.time_ns() + 10**9),
            direction="forward",
        )
        logs = [
            FoundLog(
                int(value[0]),
                stream["stream"].get("scope_name", ""),
                value[1],
                stream["stream"].get("trace_id", ""),
            )
            for stream in found["data"]["result"]
            for value in stream["values"]
        ]
        return sorted(logs, key=lambda log: log.time_ns)

    def point(self, route: str, method: str) -> FoundPoint | None:
        """Returns the duration series of a route and its exemplars, from Prometheus."""
        series = f'{DURATION_IN_PROMETHEUS}_bucket{{http_route="{route}",http_request_method="{method}"}}'
        counts = self.prometheus("/api/v1/query", query=series.replace("_bucket", "_count"))["data"]["result"]
        if not counts:
            return None
        exemplars = self.prometheus(
            "/api/v1/query_exemplars", query=series, start=str(self._since - 60), end=str(time.time() + 60)
        )["data"]
        return FoundPoint(
            route,
            counts[0]["metric"]["http_response_status_code"],
            int(float(counts[0]["value"][1])),
            frozenset(
                exemplar["labels"]["trace_id"] for found in exemplars for exemplar in found["exemplars"]
            ),
        )

    def jaeger(self, path: str, **query: str) -> dict[str, Any]:
        """Asks Jaeger."""
        return self._get("jaeger", path, query)

    def loki(self, path: str, **query: str) -> dict[str, Any]:
        """Asks Loki."""
        return self._get("loki", path, query)

    def prometheus(self, path: str, **query: str) -> dict[str, Any]:
        """Asks Prometheus."""
        return self._get("prometheus", path, query)

    def _get(self, backend: str, path: str, query: Mapping[str, str]) -> dict[str, Any]:
        response = self._client.get(self._endpoints[backend] + path, params=dict(query))
        response.raise_for_status()
        answer: dict[str, Any] = response.json()
        return answer


def _from_jaeger(span: Mapping[str, Any]) -> FoundSpan:
    kinds = [tag["value"] for tag in span["tags"] if tag["key"] == "span.kind"]
    parents = [reference["spanID"] for reference in span["references"] if reference["refType"] == "CHILD_OF"]
    return FoundSpan(
        span["traceID"],
        span["spanID"],
        parents[0] if parents else "",
        span["operationName"],
        kinds[0] if kinds else "internal",
        span["duration"] / 1e3,
        span["startTime"] * 1000,
    )
