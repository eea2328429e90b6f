"""The SERVER span: a span of the SDK to whoever asks, and the same bytes whoever encodes it."""

import asyncio
import threading
from typing import Any

import pytest
from asgi import call, http_scope
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler, TraceIdRatioBased
from starlette.responses import StreamingResponse

from sightline import SightlineInstrumentor
from sightline.server_span import ServerSpan
from sightline_processors.otlp.spans import encode_span
from sightline_processors.report import totals
from sightline_processors.tracing.delivery import EncodedSpanProcessor


class Sink(EncodedSpanProcessor):
    """Keeps encoded spans."""

    def __init__(self):
        self.items = []

    def put_encoded(self, resource, scope, item):
        self.items.append((resource, scope, item))

    def on_end(self, span):
        if span.context.trace_flags.sampled:
            self.put_encoded(span.resource, span.instrumentation_scope, encode_span(span))

    @property
    def spans(self):
        return [span for *_, item in self.items for span in ScopeSpans.FromString(item).spans]


class Seen(SpanProcessor):
    """Keeps the readable spans."""

    def __init__(self, *, reads_at_start=False):
        self.started, self.ended, self._reads = [], [], reads_at_start

    def on_start(self, span, parent_context=None):
        self.started.append(dict(span.attributes) if self._reads else span)

    def on_end(self, span):
        self.ended.append(span)


def make_app():
    app = FastAPI()

    @app.get("/items/{item_id}")
    async def read_item(item_id: int):
        return {"item_id": item_id}

    @app.get("/touch")
    async def touch():
        span = trace.get_current_span()
        span.set_attribute("shop.tenant", "acme")
        span.set_attribute("shop.lines", 3)
        return {}

    @app.get("/replace")
    async def replace():
        span = trace.get_current_span()
        span.set_attribute("http.route", "/replaced")
        span.add_event("looked", {"n": 1})
        span.update_name("renamed")
        return {}

    @app.get("/fail")
    async def fail():
        raise RuntimeError("no luck")

    @app.get("/stream")
    async def stream():
        async def parts():
            yield b"a"
            yield b"b"

        return StreamingResponse(parts())

    return app


def instrumented(*processors, app=None, **options):
    """Returns an application and the reader of its metrics."""
    reader = InMemoryMetricReader()
    provider = TracerProvider(shutdown_on_exit=False, **options)
    for processor in processors:
        provider.add_span_processor(processor)
    app = app or make_app()
    meter_provider = MeterProvider([reader], shutdown_on_exit=False)
    SightlineInstrumentor.instrument_app(app, tracer_provider=provider, meter_provider=meter_provider)
    return app, reader


def serve(app, path="/items/7", **changes):
    return asyncio.run(call(app, http_scope(path, **changes)))


def plain(span):
    """Returns an OTLP span with its attributes in one order."""
    copy = type(span)()
    copy.CopyFrom(span)
    attributes = sorted(copy.attributes, key=lambda attribute: attribute.key)
    del copy.attributes[:]
    copy.attributes.extend(attributes)
    return copy


REQUESTS = [
    {},
    {"path": "/nowhere"},
    {"path": "/touch"},
    {"path": "/replace"},
    {"path": "/fail"},
    {"path": "/stream"},
    {"path": "/items/x"},
    {"query_string": b"a=1&token=secret"},
    {"headers": [(b"host", b"a"), (b"host", b"b")]},
    {"headers": []},
    {"headers": [(b"traceparent", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"), (b"tracestate", b"x=1")]},
    {"headers": [(b"user-agent", b"x" * 5000), (b"x-correlation-id", b"order-7")]},
    {"method": "BREW"},
    {"client": None, "server": None},
    {"client": ["192.0.2.1", 1], "server": ["h", None]},
    {"raw_path": None, "path": "/items/é☃"},
    {"raw_path": b"/items/7?x=1"},
    {"raw_path": b"/" + b"p" * 4000},
    {"http_version": "2", "scheme": "https"},
    {"root_path": "/api"},
]


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda changes: ",".join(changes) or "plain")
def test_the_bytes_say_what_the_readable_span_says(request_):
    sink, seen = Sink(), Seen()
    app, _ = instrumented(sink, seen)
    serve(app, **{"path": "/items/7", **request_})
    (span,) = seen.ended
    assert type(seen.started[0]) is ServerSpan
    (expected,) = ScopeSpans.FromString(encode_span(span)).spans
    assert plain(sink.spans[0]) == plain(expected)


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda changes: ",".join(changes) or "plain")
def test_what_others_read_does_not_change_what_is_exported(request_):
    alone, beside = Sink(), Sink()
    path = {"path": "/items/7", **request_}
    serve(instrumented(alone)[0], **path)
    serve(instrumented(Seen(reads_at_start=True), beside)[0], **path)

    def comparable(span):
        span = plain(span)
        for field in ("trace_id", "span_id", "start_time_unix_nano", "end_time_unix_nano", "events"):
            span.ClearField(field)
        generated = [a for a in span.attributes if a.key == "sightline.correlation_id"]
        for attribute in generated:
            if len(attribute.value.string_value) == 32:
                attribute.value.string_value = "generated"
        return span

    assert comparable(alone.spans[0]) == comparable(beside.spans[0])


@given(path=st.binary(max_size=400), query=st.binary(max_size=200), agent=st.binary(max_size=600))
def test_any_bytes_of_a_client_arrive_as_the_sdk_would_send_them(path, query, agent):
    sink, seen = Sink(), Seen()
    app, _ = instrumented(sink, seen)
    serve(app, raw_path=path, query_string=query, headers=[(b"user-agent", agent)])
    (expected,) = ScopeSpans.FromString(encode_span(seen.ended[0])).spans
    assert plain(sink.spans[0]) == plain(expected)


def test_the_span_is_the_sdks_to_whoever_asks():
    seen = Seen()
    app, _ = instrumented(seen)
    serve(app)
    (started,), (span,) = seen.started, seen.ended
    assert isinstance(started, Span)
    assert isinstance(span, ReadableSpan)
    assert span.kind is trace.SpanKind.SERVER
    assert (span.parent, span.events, span.links, span.dropped_attributes) == (None, (), (), 0)
    assert dict(span.attributes or {})["http.route"] == "/items/{item_id}"
    assert '"http.route": "/items/{item_id}"' in span.to_json()
    assert not started.is_recording()


def test_a_processor_sees_the_attributes_when_the_span_starts():
    seen = Seen(reads_at_start=True)
    app, _ = instrumented(seen)
    serve(app)
    assert {"url.path", "http.request.method", "server.address", "network.peer.address"} <= set(
        seen.started[0]
    )


def test_attributes_that_the_application_sets_are_there_beside_ours():
    sink = Sink()
    app, _ = instrumented(sink)
    serve(app, "/touch")
    values = {attribute.key: attribute.value for attribute in sink.spans[0].attributes}
    assert values["shop.tenant"].string_value == "acme"
    assert values["shop.lines"].int_value == 3
    assert values["url.path"].string_value == "/touch"


def test_no_attribute_is_there_twice_when_the_application_replaces_one():
    sink = Sink()
    app, _ = instrumented(sink)
    serve(app, "/replace")
    (span,) = sink.spans
    keys = [attribute.key for attribute in span.attributes]
    assert len(keys) == len(set(keys))
    assert (span.name, [event.name for event in span.events]) == ("renamed", ["looked"])


def test_limits_of_the_sdk_hold():
    sink, seen = Sink(), Seen()
    app, _ = instrumented(sink, seen, span_limits=SpanLimits(max_span_attribute_length=4))
    serve(app, raw_path=b"/items/7")
    assert seen.ended[0].attributes["url.path"] == "/ite"
    paths = [a.value.string_value for a in sink.spans[0].attributes if a.key == "url.path"]
    assert paths == ["/ite"]


def test_a_processor_that_comes_later_sees_the_next_request():
    sink, seen = Sink(), Seen()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(sink)
    app = make_app()
    SightlineInstrumentor.instrument_app(app, tracer_provider=provider)
    serve(app)
    provider.add_span_processor(seen)
    serve(app)
    assert (len(sink.spans), len(seen.ended)) == (2, 1)


@pytest.mark.parametrize(
    ("sampler", "sampled"),
    [
        (ALWAYS_ON, True),
        (ALWAYS_OFF, False),
        (ParentBased(ALWAYS_OFF), False),
        (TraceIdRatioBased(1.0), True),
        (TraceIdRatioBased(0.0), False),
    ],
)
def test_the_samplers_of_the_sdk_decide(sampler, sampled):
    sink = Sink()
    app, reader = instrumented(sink, sampler=sampler)
    answer = serve(app)
    assert len(sink.spans) == sampled
    assert len(answer.header("x-correlation-id")) == 32
    point = duration(reader)
    assert (point.count, bool(point.exemplars)) == (1, sampled)


def test_a_ratio_is_decided_by_the_trace_as_the_sdk_does():
    sampler, sink = TraceIdRatioBased(0.5), Sink()
    app, _ = instrumented(sink, sampler=sampler)
    for number in range(40):
        trace_id = b"%032x" % (number * (1 << 64) // 40 or 1)
        serve(app, headers=[(b"traceparent", b"00-" + trace_id + b"-" + b"b" * 16 + b"-01")])
    expected = {
        number * (1 << 64) // 40 or 1
        for number in range(40)
        if sampler.should_sample(None, number * (1 << 64) // 40 or 1, "GET").decision.is_sampled()
    }
    assert {int.from_bytes(span.trace_id, "big") for span in sink.spans} == expected


class Raising(SpanProcessor, SpanExporter, Sampler, RandomIdGenerator):
    """Raises wherever the SDK calls it."""

    def fail(self, *_args, **_options):
        raise RuntimeError("not today")

    on_start = _on_ending = on_end = export = should_sample = fail
    generate_span_id = generate_trace_id = is_trace_id_random = fail

    def shutdown(self):
        return None

    def force_flush(self, timeout_millis=0):
        return True

    def get_description(self):
        return "raises"


@pytest.mark.parametrize(
    ("kind", "processors", "options"),
    [
        ("span_processor", [Raising()], {}),
        ("exporter", [SimpleSpanProcessor(Raising())], {}),
        ("sampler", [], {"sampler": Raising()}),
        ("id_generator", [], {"id_generator": Raising()}),
    ],
    ids=["processor", "exporter", "sampler", "ID generator"],
)
def test_parts_of_the_user_that_raise_are_counted_and_the_request_is_untouched(kind, processors, options):
    sink = Sink()
    app, reader = instrumented(*processors, sink, **options)
    bare = serve(make_app())
    answer = serve(app)
    assert (answer.status, answer.body, answer.error) == (bare.status, bare.body, None)
    assert len(sink.spans) == (kind != "sampler")
    assert totals()[kind] >= 1
    points = metrics(reader)["sightline.telemetry.errors"].data.data_points
    assert {point.attributes["kind"] for point in points if point.value} == {kind}


@pytest.mark.parametrize("hook", ["server_request_hook", "client_request_hook", "client_response_hook"])
def test_a_hook_that_raises_is_counted_and_the_request_is_untouched(hook):
    app = make_app()
    options: dict[str, Any] = {hook: lambda *_: 1 // 0}
    SightlineInstrumentor.instrument_app(app, **options)
    answer = serve(app)
    assert (answer.status, answer.body) == (200, b'{"item_id":7}')
    assert hook == "client_request_hook" or totals()["hook"] >= 1  # nobody reads the body of a GET


def test_spans_ended_by_the_application_stay_as_they_are():
    sink = Sink()
    app = make_app()

    @app.get("/ended")
    async def ended():
        trace.get_current_span().end()
        return {}

    app, _ = instrumented(sink, app=app)
    serve(app, "/ended")
    assert [span.name for span in sink.spans] == ["GET"]


def test_threads_that_touch_the_span_lose_nothing():
    sink = Sink()
    app = make_app()

    @app.get("/threads")
    async def threads():
        span = trace.get_current_span()

        def touch(number):
            for each in range(8):
                span.set_attribute(f"own.{number}.{each}", each)

        workers = [threading.Thread(target=touch, args=(number,)) for number in range(8)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return {}

    app, _ = instrumented(sink, app=app)
    serve(app, "/threads")
    own = [attribute.key for attribute in sink.spans[0].attributes if attribute.key.startswith("own.")]
    assert len(own) == len(set(own)) == 64


def test_what_is_remembered_of_clients_is_bounded(telemetry):
    app = make_app()
    telemetry.instrument(app)
    for number in range(2500):
        serve(app, headers=[(b"user-agent", b"a%d" % number)], client=("192.0.2.1", number + 1))
    recorder = app._sightline[1]._recorder
    assert 0 < len(recorder.facts) <= 1024
    assert len(telemetry.spans) == 2500


def metrics(reader):
    data = reader.get_metrics_data()
    return {m.name: m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics}


def duration(reader):
    (point,) = metrics(reader)["http.server.request.duration"].data.data_points
    return point
