"""OTLP requests in the JSON encoding, as small as the protocol allows."""

from __future__ import annotations

import time
from typing import Any

Json = dict[str, Any]


def attributes(values: dict[str, str]) -> list[Json]:
    """Returns string attributes in the form of the protocol."""
    return [{"key": key, "value": {"stringValue": value}} for key, value in values.items()]


def resource(service: str, **more: str) -> Json:
    """Returns a resource; in further names `_` stands for `.`."""
    values = {"service.name": service} | {name.replace("_", "."): value for name, value in more.items()}
    return {"attributes": attributes(values)}


def trace_request(origin: Json, trace_id: str, span_id: str, **span_attributes: str) -> Json:
    """Returns one finished SERVER span of 20 ms."""
    now = time.time_ns()
    span = {
        "traceId": trace_id,
        "spanId": span_id,
        "name": "GET /orders/{id}",
        "kind": 2,
        "startTimeUnixNano": str(now - 20_000_000),
        "endTimeUnixNano": str(now),
        "attributes": attributes(span_attributes),
    }
    return {
        "resourceSpans": [{"resource": origin, "scopeSpans": [{"scope": {"name": "test"}, "spans": [span]}]}]
    }


def histogram_request(origin: Json, name: str, trace_id: str, span_id: str) -> Json:
    """Returns a cumulative histogram of one measurement, 20 ms, with an exemplar."""
    now = time.time_ns()
    point = {
        "startTimeUnixNano": str(now - 1_000_000_000),
        "timeUnixNano": str(now),
        "count": "1",
        "sum": 0.02,
        "explicitBounds": [0.01, 0.1],
        "bucketCounts": ["0", "1", "0"],
        "attributes": attributes({"http.route": "/orders/{id}"}),
        "exemplars": [{"timeUnixNano": str(now), "asDouble": 0.02, "traceId": trace_id, "spanId": span_id}],
    }
    metric = {"name": name, "unit": "s", "histogram": {"aggregationTemporality": 2, "dataPoints": [point]}}
    return {
        "resourceMetrics": [
            {"resource": origin, "scopeMetrics": [{"scope": {"name": "test"}, "metrics": [metric]}]}
        ]
    }


def log_request(origin: Json, records: list[tuple[str, dict[str, str]]], trace_id: str = "") -> Json:
    """Returns log records of severity INFO from (body, attributes) pairs."""
    now = time.time_ns()
    items = [
        {
            "timeUnixNano": str(now + position),
            "severityNumber": 9,
            "severityText": "INFO",
            "body": {"stringValue": body},
            "attributes": attributes(values),
            "traceId": trace_id,
        }
        for position, (body, values) in enumerate(records)
    ]
    return {
        "resourceLogs": [
            {"resource": origin, "scopeLogs": [{"scope": {"name": "test"}, "logRecords": items}]}
        ]
    }
