"""The correlation ID leaves the process for the hosts that the operator names, and for no other."""

import asyncio

import pytest
from asgi import call, http_scope
from fastapi import FastAPI
from opentelemetry import baggage, propagate
from opentelemetry.trace import SpanKind, set_span_in_context

from sightline.propagation import CorrelationPropagator, release_propagation


@pytest.fixture
def inject(telemetry, monkeypatch):
    """Returns what an outgoing call to a host would carry, from inside a request."""
    monkeypatch.setenv("SIGHTLINE_CORRELATION_PROPAGATE", "orders, *.internal")
    app = FastAPI()
    calls = []

    @app.get("/")
    async def outgoing():
        headers, attributes = calls.pop()
        span = telemetry.tracer_provider.get_tracer("client").start_span(
            "GET", kind=SpanKind.CLIENT, attributes=attributes
        )
        propagate.inject(headers, set_span_in_context(span))
        span.end()
        calls.append(headers)

    telemetry.instrument(app)

    def run(headers, attributes):
        calls[:] = [(headers, attributes)]
        asyncio.run(call(app, http_scope(headers=[(b"x-correlation-id", b"abc")])))
        return calls[0]

    yield run
    release_propagation()


@pytest.mark.parametrize(
    ("headers", "attributes"),
    [
        ({"host": "orders:8000"}, {}),
        ({"Host": "stock.internal"}, {}),
        ({}, {"server.address": "orders"}),
        ({}, {"url.full": "https://stock.internal/items?x=1"}),
        ({}, {"http.url": "http://orders:8000/"}),
    ],
)
def test_a_call_to_a_named_host_carries_the_id_as_header_and_as_baggage(inject, headers, attributes):
    sent = inject(headers, attributes)
    assert sent["x-correlation-id"] == "abc"
    assert sent["baggage"] == "sightline.correlation_id=abc"
    assert sent["traceparent"]


@pytest.mark.parametrize(
    ("headers", "attributes"),
    [
        ({"host": "orders.evil.example"}, {}),
        ({"host": "internal"}, {}),
        ({}, {"url.full": "https://api.example/orders"}),
        ({}, {}),
    ],
)
def test_any_other_call_carries_the_trace_context_alone(inject, headers, attributes):
    sent = inject(headers, attributes)
    assert "x-correlation-id" not in sent
    assert "baggage" not in sent
    assert sent["traceparent"]


def test_baggage_of_the_application_stays(inject, telemetry):
    propagator = propagate.get_global_textmap()
    assert isinstance(propagator, CorrelationPropagator)
    assert propagator.fields >= {"traceparent", "baggage", "x-correlation-id"}
    context = propagator.extract({"baggage": "customer=7"})
    assert baggage.get_baggage("customer", context) == "7"


def test_nothing_is_carried_by_default(telemetry):
    telemetry.instrument(FastAPI())
    assert not isinstance(propagate.get_global_textmap(), CorrelationPropagator)
