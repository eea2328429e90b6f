"""Variables of the specification that Sightline hands on: resource, samplers, propagators, limits."""

import re
from collections.abc import Iterator

import pytest
from otlp_receiver import attributes
from uvicorn_process import Setup, eventually, observed

DURATION = "http.server.request.duration"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture(
    scope="module",
    params=[("always_off", ""), ("traceidratio", "0"), ("parentbased_always_off", "")],
    ids=lambda p: p[0],
)
def unsampled(request: pytest.FixtureRequest) -> Iterator[Setup]:
    """Yields a server that samples no trace, with a resource of its own."""
    sampler, argument = request.param
    variables = {
        "OTEL_TRACES_SAMPLER": sampler,
        "OTEL_TRACES_SAMPLER_ARG": argument,
        "OTEL_SERVICE_NAME": "checkout",
        "OTEL_RESOURCE_ATTRIBUTES": "service.name=loses,service.namespace=shop,team.name=a%20team",
    }
    with observed(variables=variables) as setup:
        yield setup


def test_unsampled_requests_have_header_metrics_and_correlated_logs_but_no_span(unsampled: Setup) -> None:
    response = unsampled.server.get("/ok")
    assert re.fullmatch("[0-9a-f]{32}", response.correlation_id)
    assert eventually(lambda: unsampled.arrived.logs(response.correlation_id))
    (log,) = unsampled.arrived.logs(response.correlation_id)
    assert log.data.trace_id.hex() == response.correlation_id
    assert eventually(lambda: unsampled.arrived.points(DURATION))
    assert list(unsampled.store.spans) == []
    assert unsampled.arrived.points(DURATION)[0] == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "http.route": "/ok",
        "network.protocol.version": "1.1",
        "url.scheme": "http",
    }
    assert "Traceback" not in unsampled.server.stderr


def test_resource_attributes_are_on_every_signal(unsampled: Setup) -> None:
    unsampled.server.get("/ok")
    assert eventually(lambda: unsampled.store.logs and unsampled.store.metrics)
    for item in [*unsampled.store.logs, *unsampled.store.metrics]:
        assert item.resource["service.name"] == "checkout"
        assert item.resource["service.namespace"] == "shop"
        assert item.resource["team.name"] == "a team"


@pytest.fixture(scope="module")
def variety() -> Iterator[Setup]:
    """Yields a server with several standard variables at once."""
    variables = {
        "OTEL_SERVICE_NAME": "",
        "OTEL_RESOURCE_ATTRIBUTES": "service.name=from-attributes",
        "OTEL_PROPAGATORS": "baggage",
        "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "100",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
        "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "DELTA",
        "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST": "x-tenant,authorization",
        "OTEL_PYTHON_FASTAPI_EXCLUDED_URLS": "sync$",
    }
    with observed(variables=variables) as setup:
        yield setup


def test_standard_variables_are_honoured_together(variety: Setup) -> None:
    headers = [
        ("traceparent", f"00-{TRACE}-00f067aa0ba902b7-01"),
        ("x-tenant", "t" * 150),
        ("authorization", "s3cret"),
    ]
    variety.server.get("/sync", ("x-correlation-id", "excl"))
    variety.server.get("/ok", *headers, ("x-correlation-id", "taken"))
    item = variety.arrived.span("taken")
    variety.arrived.settle(variety.server)
    found = attributes(item.data.attributes)
    assert item.resource["service.name"] == "from-attributes"
    assert item.data.trace_id.hex() != TRACE
    assert found["http.request.header.x-tenant"] == ["t" * 100]
    assert "s3cret" not in str(found)
    assert variety.arrived.spans("excl") == []
    assert {
        metric.data.histogram.aggregation_temporality
        for metric in variety.store.metrics
        if metric.data.name == DURATION
    } == {1}
    assert "OTEL_" not in variety.server.stderr
