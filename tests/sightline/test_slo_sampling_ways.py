"""A request that is sampled by objectives gives the same spans in the short way and in the SDK's."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from asgi import call, http_scope
from fastapi import FastAPI, HTTPException
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.trace import Status, StatusCode
from tests.sightline_processors.export_support import RecordingTransport, engine_of, limits

from sightline import SightlineInstrumentor
from sightline.server_span import ServerSpan
from sightline_processors.export import OtlpSpanProcessor
from sightline_processors.report import reported
from sightline_processors.slo_sampling import SloSampler, install_slo_sampling
from sightline_processors.slo_sampling.processor import misses_objective
from sightline_processors.tracing import make_tracers_fast, restore_tracers

CALLER = "b" * 16
KEEPS = {"all": 1e6, "nothing": 0.0}


@pytest.fixture(autouse=True)
def _stock_tracers() -> Iterator[None]:
    yield
    restore_tracers()


def make_app(tracer: trace.Tracer, roots: list[Any]) -> FastAPI:
    app = FastAPI()

    @app.get("/{kind}/{children}/{failing}")
    async def answer(kind: str, children: int, failing: int) -> dict[str, str]:
        roots.append(trace.get_current_span())
        for number in range(children):
            with tracer.start_as_current_span("SELECT", attributes={"number": number}) as child:
                if number == failing:
                    child.set_status(Status(StatusCode.ERROR, "no luck"))
                    child.add_event("failed", {"n": 1})
        if kind == "named":
            roots[-1].set_attribute("shop.tenant", "acme")
        if kind == "renamed":
            roots[-1].update_name("other")
        if kind == "odd":
            roots[-1].correlation_bytes = None
        if kind == "raises":
            raise RuntimeError("no luck")
        if kind.isdecimal():
            raise HTTPException(int(kind))
        return {}

    return app


def traceparent(number: int, flags: int, state: str) -> list[tuple[bytes, bytes]]:
    header = f"00-{number + 1:032x}-{CALLER}-{flags:02x}".encode()
    return (
        [(b"traceparent", header), (b"tracestate", state.encode())] if state else [(b"traceparent", header)]
    )


def judge(span: ReadableSpan) -> bool:
    return misses_objective(span)


class Served:
    """What became of some requests, in one of the two ways."""

    def __init__(self, rate: float, requests: list[tuple[str, list[Any]]], *, is_short: bool) -> None:
        (make_tracers_fast if is_short else restore_tracers)()
        self.sampler, self.roots, transport = SloSampler(rate, clock=lambda: 0.0), [], RecordingTransport()
        with engine_of() as engine:
            provider = TracerProvider(sampler=self.sampler, shutdown_on_exit=False)
            provider.add_span_processor(OtlpSpanProcessor(transport, limits(), engine))
            # A judge of one's own wants to see the attributes.
            install_slo_sampling(provider, None if is_short else judge)
            app = make_app(provider.get_tracer("tests"), self.roots)
            SightlineInstrumentor.instrument_app(
                app, tracer_provider=provider, meter_provider=MeterProvider(shutdown_on_exit=False)
            )
            asyncio.run(call(app, http_scope("/nowhere")))  # makes the facts of the connection
            self.roots.clear()
            self.sampler.set_boundaries(())  # no request is the first of its bucket for its duration
            for path, headers in requests:
                with contextlib.suppress(RuntimeError):
                    asyncio.run(call(app, http_scope(path, headers=headers)))
            assert provider.force_flush(5_000)
        self.spans = sorted(
            described(span)
            for request in transport.requests
            for resource in ExportTraceServiceRequest.FromString(request).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        )


def described(span: Any) -> tuple[Any, ...]:
    """Returns what a span says, but for what differs between any two requests."""
    attributes = {each.key: str(each.value) for each in span.attributes}
    attributes.pop("sightline.correlation_id", None)
    parent = "caller" if span.parent_span_id.hex() == CALLER else "ours" if span.parent_span_id else ""
    given_id = span.trace_id.hex() if span.trace_id.startswith(bytes(8)) else ""
    events = [(event.name, len(event.attributes)) for event in span.events]
    return (
        *(given_id, span.name, parent, span.kind, span.trace_state, span.flags, str(span.status)),
        *(sorted(attributes.items()), events, span.dropped_attributes_count, span.dropped_events_count),
    )


paths = st.builds(
    "/{}/{}/{}".format,
    st.sampled_from(["ok", "named", "renamed", "raises", "404", "503", "429"]),
    st.integers(0, 3),
    st.sampled_from([-1, -1, 0, 1]),
)
states = st.sampled_from(["", "", "vendor=a", "ot=th:8", "ot=th:0;x:1,vendor=a", "ot=rv:ffffffffffffff"])
parents = st.one_of(
    st.none(), st.tuples(st.sampled_from([0, 7, (1 << 56) - 1]), st.sampled_from([0, 1, 2, 3]), states)
)


@pytest.mark.parametrize("keeps", KEEPS)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(wanted=st.lists(st.tuples(paths, parents), min_size=1, max_size=6))
def test_both_ways_give_the_same_spans(keeps: str, wanted: list[tuple[str, Any]]) -> None:
    requests = [(path, [] if parent is None else traceparent(*parent)) for path, parent in wanted]
    short, stock = (Served(KEEPS[keeps], requests, is_short=each) for each in (True, False))
    assert short.spans == stock.spans
    assert short.sampler.kept() == stock.sampler.kept()
    assert short.sampler.buffer.not_kept() == stock.sampler.buffer.not_kept()
    for served in (short, stock):
        assert not served.sampler.buffer.open
        assert (served.sampler.buffer.held_spans, served.sampler.buffer.held_bytes) == (0, 0)


def test_a_root_that_cannot_be_encoded_keeps_nobody_from_the_others() -> None:
    served = Served(1e6, [("/odd/2/-1", []), ("/ok/0/-1", [])], is_short=True)
    assert [span[1] for span in served.spans].count("SELECT") == 2
    assert len(served.spans) == 4  # the first request's own is lost
    assert served.sampler.buffer.held_spans == 0
    assert reported("encoding") == 1


def test_the_short_way_makes_no_attributes_and_the_other_one_does() -> None:
    for is_short in (True, False):
        (root,) = Served(1e6, [("/ok/1/-1", [])], is_short=is_short).roots
        assert type(root) is ServerSpan
        assert (root._built is None) is is_short
        assert (root._undecided is not None) is is_short
