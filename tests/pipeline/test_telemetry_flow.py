"""What goes into the collector is found in the back ends, soon, whole and bounded."""

from __future__ import annotations

import gzip
import secrets
import time
from typing import Any

import httpx
import pytest

from .otlp_payloads import Json, histogram_request, log_request, resource, trace_request
from .stack_fixture import eventually

pytestmark = pytest.mark.stack

SOON_SECONDS = 5.0


def send(stack: dict[str, str], signal: str, request: Json) -> None:
    answer = httpx.post(f"{stack['otlp_http']}/v1/{signal}", json=request)
    assert (answer.status_code, answer.json()) == (200, {"partialSuccess": {}})


def get(url: str, **parameters: str) -> Any:
    answer = httpx.get(
        url, params=parameters, headers={"X-Loki-Response-Encoding-Flags": "categorize-labels"}
    )
    assert answer.status_code in (200, 404), answer.text
    return answer.json().get("data")


def loki_streams(stack: dict[str, str], service: str, pipeline: str = "") -> list[Json]:
    query = f'{{service_name="{service}"}} {pipeline}'
    found: list[Json] = get(f"{stack['loki']}/loki/api/v1/query_range", query=query, limit="1000")["result"]
    return found


def new_ids() -> tuple[str, str, str]:
    """Returns a service name, a trace ID and a span ID that no other test has."""
    return f"svc-{secrets.token_hex(4)}", secrets.token_hex(16), secrets.token_hex(8)


def test_span_is_found_in_jaeger_within_five_seconds(stack: dict[str, str]) -> None:
    service, trace_id, span_id = new_ids()
    send(
        stack,
        "traces",
        trace_request(resource(service), trace_id, span_id, **{"sightline.correlation_id": "abc-1"}),
    )

    found = eventually(lambda: get(f"{stack['jaeger']}/api/traces/{trace_id}"), SOON_SECONDS)

    assert found
    span = found[0]["spans"][0]
    assert (span["traceID"], span["spanID"], span["operationName"]) == (trace_id, span_id, "GET /orders/{id}")
    assert {"key": "sightline.correlation_id", "type": "string", "value": "abc-1"} in span["tags"]


def test_metric_is_found_in_prometheus_with_promoted_attributes(stack: dict[str, str]) -> None:
    service, trace_id, span_id = new_ids()
    origin = resource(
        service,
        service_namespace="shop",
        service_instance_id="i-1",
        service_version="1.2",
        deployment_environment_name="test",
    )
    send(stack, "metrics", histogram_request(origin, "http.server.request.duration", trace_id, span_id))
    query = f'http_server_request_duration_seconds_count{{service_name="{service}"}}'

    found = eventually(
        lambda: get(f"{stack['prometheus']}/api/v1/query", query=query)["result"], SOON_SECONDS
    )

    assert found[0]["metric"] == {
        "__name__": "http_server_request_duration_seconds_count",
        "job": f"shop/{service}",
        "instance": "i-1",
        "service_name": service,
        "service_namespace": "shop",
        "service_instance_id": "i-1",
        "service_version": "1.2",
        "deployment_environment_name": "test",
        "http_route": "/orders/{id}",
    }
    assert found[0]["value"][1] == "1"


def test_exemplar_keeps_trace_and_span_id(stack: dict[str, str]) -> None:
    service, trace_id, span_id = new_ids()
    send(
        stack,
        "metrics",
        histogram_request(resource(service), "http.server.request.duration", trace_id, span_id),
    )
    now = time.time()
    question = {
        "query": f'http_server_request_duration_seconds_bucket{{service_name="{service}"}}',
        "start": str(now - 60),
        "end": str(now + 60),
    }

    found = eventually(lambda: get(f"{stack['prometheus']}/api/v1/query_exemplars", **question), SOON_SECONDS)

    assert found[0]["exemplars"][0]["labels"] == {"trace_id": trace_id, "span_id": span_id}


def test_log_is_found_in_loki_by_its_correlation_id(stack: dict[str, str]) -> None:
    service, trace_id, _ = new_ids()
    send(
        stack,
        "logs",
        log_request(resource(service), [("order placed", {"correlation_id": "abc-2"})], trace_id),
    )

    found = eventually(lambda: loki_streams(stack, service, '| correlation_id="abc-2"'), SOON_SECONDS)

    (_, body, categories) = found[0]["values"][0]
    assert body == "order placed"
    assert categories["structuredMetadata"]["trace_id"] == trace_id


def test_fifty_correlation_ids_and_two_instances_are_one_loki_stream(stack: dict[str, str]) -> None:
    service, _, _ = new_ids()
    for instance in ("first", "second"):
        origin = resource(
            service,
            service_namespace="shop",
            deployment_environment_name="test",
            service_instance_id=instance,
            host_name=instance,
        )
        records = [(f"line {number}", {"correlation_id": f"{instance}-{number}"}) for number in range(25)]
        send(stack, "logs", log_request(origin, records))

    def values() -> list[list[Any]]:
        return [value for stream in loki_streams(stack, service) for value in stream["values"]]

    assert eventually(lambda: len(values()) == 50, SOON_SECONDS)
    assert len({value[2]["structuredMetadata"]["correlation_id"] for value in values()}) == 50
    assert get(f"{stack['loki']}/loki/api/v1/series", **{"match[]": f'{{service_name="{service}"}}'}) == [
        {"service_name": service, "service_namespace": "shop", "deployment_environment_name": "test"}
    ]


def test_prometheus_scrapes_every_program_of_the_pipeline(stack: dict[str, str]) -> None:
    def jobs_up() -> set[str]:
        found = get(f"{stack['prometheus']}/api/v1/query", query="up == 1")["result"]
        return {series["metric"]["job"] for series in found}

    expected = {"otelcol", "jaeger", "loki", "prometheus", "alertmanager"}
    assert eventually(lambda: jobs_up() == expected, 40), jobs_up()


def test_prometheus_knows_the_alertmanager(stack: dict[str, str]) -> None:
    def active() -> list[Json]:
        found: list[Json] = get(f"{stack['prometheus']}/api/v1/alertmanagers")["activeAlertmanagers"]
        return found

    assert eventually(active, 20) == [{"url": f"{stack['alertmanager']}/api/v2/alerts"}]


@pytest.mark.parametrize("compressed", [False, True])
def test_request_above_the_body_limit_is_refused(stack: dict[str, str], compressed: bool) -> None:
    body = b'{"resourceSpans": []' + b" " * 9_000_000 + b"}"
    headers = {"Content-Type": "application/json"} | ({"Content-Encoding": "gzip"} if compressed else {})
    content = gzip.compress(body) if compressed else body

    answer = httpx.post(f"{stack['otlp_http']}/v1/traces", content=content, headers=headers)

    assert (answer.status_code, answer.json()["message"]) == (400, "http: request body too large")
