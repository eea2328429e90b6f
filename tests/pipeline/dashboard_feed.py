"""Every metric that dashboards ask for, as one service and the collector's connectors send it.

Values are made up; names, units, kinds and attributes are those of the telemetry reference. Each series has
seven points of the last 90 seconds, so that rates have something to look at as soon as Prometheus has them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

from .otlp_payloads import Json, attributes

STEP_SECONDS = 15
POINTS = 7
BOUNDS = (0.005, 0.05, 0.5, 5.0)


@dataclass(frozen=True)
class Metric:
    """One metric: its kind is `histogram`, `counter`, `gauge` or `up_down`; each attribute has its values."""

    name: str
    kind: str
    unit: str
    attributes: Mapping[str, tuple[str, ...]]

    def series(self) -> list[dict[str, str]]:
        """Returns all combinations of the attributes' values; an empty value is an absent attribute."""
        return [
            {key: value for key, value in zip(self.attributes, values, strict=True) if value}
            for values in product(*self.attributes.values())
        ]


ROUTE = {"http.request.method": ("GET",), "http.route": ("/orders/{id}",)}
ANSWER = {
    **ROUTE,
    "http.response.status_code": ("200", "500"),
    "error.type": ("", "ValueError", "client_disconnect"),
}
OBJECTIVE = {"sightline.sla.objective": ("checkout",)}
KIND = {**OBJECTIVE, "sightline.sla.kind": ("availability", "latency")}
OF_WINDOW = {**KIND, "window": ("5m", "1h", "6h", "3d")}
SOCKET = {"http.route": ("/ws",)}
DIRECTION = {**SOCKET, "network.io.direction": ("receive", "transmit")}
CALL = {
    "span.name": ("SELECT orders",),
    "span.kind": ("SPAN_KIND_CLIENT", "SPAN_KIND_SERVER"),
    "status.code": ("STATUS_CODE_UNSET", "STATUS_CODE_ERROR"),
}
FATE = {"error.type": ("", "unreachable")}

OURS = (
    Metric("http.server.request.duration", "histogram", "s", ANSWER),
    Metric("http.server.active_requests", "up_down", "{request}", {"http.request.method": ("GET",)}),
    Metric("http.server.request.body.size", "histogram", "By", ANSWER),
    Metric("http.server.response.body.size", "histogram", "By", ANSWER),
    Metric(
        "sightline.sla.requests",
        "counter",
        "{request}",
        {**ROUTE, **OBJECTIVE, "sightline.sla.outcome": ("ok", "slow", "failed", "excluded")},
    ),
    Metric("sightline.sla.target", "gauge", "1", KIND),
    Metric("sightline.sla.threshold", "gauge", "s", OBJECTIVE),
    Metric("sightline.sla.latency", "gauge", "s", {**ROUTE, "quantile": ("0.5", "0.95", "0.99")}),
    Metric("sightline.sla.budget_remaining", "gauge", "1", OF_WINDOW),
    Metric("sightline.websocket.active", "up_down", "{connection}", SOCKET),
    Metric(
        "sightline.websocket.duration",
        "histogram",
        "s",
        {**SOCKET, "sightline.websocket.close_class": ("normal", "abnormal", "application", "refused")},
    ),
    Metric("sightline.websocket.messages", "counter", "{message}", DIRECTION),
    Metric("sightline.websocket.io", "counter", "By", DIRECTION),
    Metric(
        "sightline.stream.first_byte",
        "histogram",
        "s",
        {"http.route": ("/events",), "sightline.end_reason": ("completed", "client_disconnect")},
    ),
    Metric(
        "sightline.background.duration",
        "histogram",
        "s",
        {"code.function.name": ("shop.mail.send",), "error.type": ("", "ConnectionError")},
    ),
    Metric(
        "sightline.slow_operations",
        "counter",
        "{operation}",
        {
            "sightline.operation": ("db", "http", "redis", "messaging"),
            "db.system.name": ("postgresql",),
            "server.address": ("db",),
        },
    ),
    Metric("sightline.event_loop.lag", "histogram", "s", {}),
    Metric("sightline.threads.waiting", "gauge", "{task}", {}),
    Metric("sightline.request.queue_time", "histogram", "s", {}),
    Metric("sightline.telemetry.errors", "counter", "{error}", {"kind": ("hook",)}),
    Metric("sightline.correlation.rejected", "counter", "{request}", {}),
    Metric(
        "sightline.cardinality.overflow",
        "counter",
        "{measurement}",
        {"instrument": ("orders.placed",), "attribute": ("user.id",)},
    ),
    Metric(
        "sightline.telemetry.dropped", "counter", "{item}", {"signal": ("traces",), "reason": ("queue_full",)}
    ),
    Metric(
        "sightline.sampling.spans",
        "counter",
        "{span}",
        {"sightline.sampling.reason": ("violation", "not_sampled")},
    ),
    Metric("sightline.sampling.held", "up_down", "By", {}),
    Metric("otel.sdk.exporter.span.inflight", "up_down", "{span}", {}),
    Metric("otel.sdk.exporter.log.inflight", "up_down", "{log_record}", {}),
    Metric("otel.sdk.exporter.metric_data_point.inflight", "up_down", "{data_point}", {}),
    Metric("otel.sdk.processor.span.queue.size", "up_down", "{span}", {}),
    Metric("otel.sdk.processor.span.queue.capacity", "up_down", "{span}", {}),
    Metric("otel.sdk.processor.log.queue.size", "up_down", "{log_record}", {}),
    Metric("otel.sdk.processor.log.queue.capacity", "up_down", "{log_record}", {}),
    Metric("otel.sdk.exporter.span.exported", "counter", "{span}", FATE),
    Metric("otel.sdk.exporter.log.exported", "counter", "{log_record}", FATE),
    Metric("otel.sdk.exporter.metric_data_point.exported", "counter", "{data_point}", FATE),
    Metric("otel.sdk.exporter.operation.duration", "histogram", "s", FATE),
)

CONNECTORS = (
    Metric("traces.span.metrics.calls", "counter", "", CALL),
    Metric("traces.span.metrics.duration", "histogram", "ms", CALL),
)
"""Of the collector's spanmetrics connector: about spans of services, with their resource."""

EDGE = {"server": ("postgresql",), "connection_type": ("virtual_node",), "failed": ("false", "true")}
GRAPH = (
    Metric("traces_service_graph_request_total", "counter", "", EDGE),
    Metric("traces_service_graph_request_failed_total", "counter", "", EDGE),
    Metric("traces_service_graph_request_client", "histogram", "s", EDGE),
)
"""Of the collector's servicegraph connector: about pairs of services, `client` is the caller's name."""


def prometheus_names(metrics: tuple[Metric, ...]) -> set[str]:
    """Returns the names of the series that Prometheus makes of metrics."""
    units = {"s": "_seconds", "ms": "_milliseconds", "By": "_bytes"}
    found = set()
    for metric in metrics:
        name = metric.name.replace(".", "_") + units.get(metric.unit, "")
        if metric.kind == "histogram":
            found |= {f"{name}_{part}" for part in ("bucket", "count", "sum")}
        elif metric.kind == "counter":
            found.add(name if name.endswith("_total") else f"{name}_total")
        else:
            found.add(f"{name}_ratio" if metric.unit == "1" else name)
    return found


def metrics_request(origin: Json, metrics: tuple[Metric, ...], more: dict[str, str] | None = None) -> Json:
    """Returns an OTLP request with all series of metrics; `more` are attributes of each point."""
    items = [_metric(metric, more or {}) for metric in metrics]
    scope = {"scope": {"name": "sightline"}, "metrics": items}
    return {"resourceMetrics": [{"resource": origin, "scopeMetrics": [scope]}]}


def _metric(metric: Metric, more: dict[str, str]) -> Json:
    now = time.time_ns()
    start = now - (POINTS + 1) * STEP_SECONDS * 10**9
    points = []
    for values, number in product(metric.series(), range(POINTS)):
        point = {
            "attributes": attributes(values | more),
            "startTimeUnixNano": str(start),
            "timeUnixNano": str(now - (POINTS - 1 - number) * STEP_SECONDS * 10**9),
        }
        points.append(point | _value(metric, number + 1))
    body: Json = {"dataPoints": points}
    if metric.kind != "gauge":
        body["aggregationTemporality"] = 2
    if metric.kind in ("counter", "up_down"):
        body["isMonotonic"] = metric.kind == "counter"
    kind = {"histogram": "histogram", "gauge": "gauge"}.get(metric.kind, "sum")
    return {"name": metric.name, "unit": metric.unit, kind: body}


def _value(metric: Metric, number: int) -> Json:
    if metric.kind == "histogram":
        buckets = [str(number)] * (len(BOUNDS) + 1)
        count = number * len(buckets)
        return {"count": str(count), "sum": count / 10, "explicitBounds": BOUNDS, "bucketCounts": buckets}
    return {"asDouble": 0.99} if metric.kind == "gauge" else {"asInt": str(number * 60)}
