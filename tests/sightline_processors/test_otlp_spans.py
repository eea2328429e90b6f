"""Spans in OTLP's wire format: equal to the stock encoder's, and never lost."""

import itertools
import string
import timeit
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span, Status
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)
from opentelemetry.trace import Status as SpanStatus
from tests.sightline_processors.otlp_support import same, texts, values

from sightline_processors.otlp.fields import join_readable
from sightline_processors.otlp.spans import _READERS, _usual, encode_span

numbers = itertools.count(1)
ended = InMemorySpanExporter()


class Ids(IdGenerator):
    """Counts, since hypothesis wants no randomness beside its own."""

    def generate_span_id(self):
        return next(numbers)

    def generate_trace_id(self):
        return next(numbers) << 64


def new_tracer(limits=None):
    provider = TracerProvider(
        sampler=ALWAYS_ON, span_limits=limits, shutdown_on_exit=False, id_generator=Ids()
    )
    provider.add_span_processor(SimpleSpanProcessor(ended))
    return provider.get_tracer("tests")


TRACERS = [
    new_tracer(),
    new_tracer(
        SpanLimits(
            max_attributes=2,
            max_events=1,
            max_links=1,
            max_event_attributes=1,
            max_link_attributes=1,
            max_attribute_length=5,
        )
    ),
]

attributes = st.none() | st.dictionaries(texts, values, max_size=5)
times = st.integers(1, 2**64 - 1)
trace_states = st.lists(
    st.tuples(st.text(string.ascii_lowercase, min_size=1, max_size=5), st.text(string.digits, min_size=1)),
    max_size=3,
).map(TraceState)
contexts = st.builds(
    SpanContext,
    st.integers(1, 2**128 - 1),
    st.integers(1, 2**64 - 1),
    is_remote=st.booleans(),
    trace_flags=st.integers(0, 3).map(TraceFlags),
    trace_state=trace_states,
)
statuses = (
    st.none()
    | st.builds(SpanStatus, st.just(StatusCode.ERROR), st.none() | texts)
    | st.builds(SpanStatus, st.sampled_from(StatusCode))
)


@st.composite
def sdk_spans(draw):
    """Returns a span as the SDK hands it to processors."""
    parent = draw(st.none() | contexts)
    span = draw(st.sampled_from(TRACERS)).start_span(
        draw(texts),
        context=set_span_in_context(NonRecordingSpan(parent)) if parent else None,
        kind=draw(st.sampled_from(SpanKind)),
        attributes=draw(attributes),
        links=draw(st.lists(st.builds(Link, contexts, attributes), max_size=2)),
        start_time=draw(times),
    )
    for name, event_attributes, time in draw(st.lists(st.tuples(texts, attributes, times), max_size=3)):
        span.add_event(name, event_attributes, time)
    if status := draw(statuses):
        span.set_status(status)
    span.end(draw(times))
    return finished()


def finished() -> ReadableSpan:
    (span,) = ended.get_finished_spans()
    ended.clear()
    return span


def ours(span) -> Span:
    scope_spans = ScopeSpans.FromString(encode_span(span))
    assert len(scope_spans.spans) == 1
    same(scope_spans, ScopeSpans(spans=scope_spans.spans))
    return scope_spans.spans[0]


def stock(span) -> Span:
    return encode_spans([span]).resource_spans[0].scope_spans[0].spans[0]


@given(sdk_spans())
@settings(max_examples=300, deadline=None)
def test_span_of_the_sdk_is_the_stock_encoders(span):
    same(ours(span), stock(span))


@given(sdk_spans())
@settings(max_examples=100, deadline=None)
def test_span_of_the_sdk_takes_the_short_way_and_the_long_one_agrees(span):
    same(Span.FromString(_usual(span)), Span.FromString(join_readable(_READERS, span)))


CONTEXT = SpanContext(
    0x0102030405060708090A0B0C0D0E0F10,
    0x1112131415161718,
    is_remote=False,
    trace_state=TraceState([("a", "1")]),
)
PARENT = SpanContext(CONTEXT.trace_id, 0x2122232425262728, is_remote=True)


def full_span(**overrides) -> ReadableSpan:
    """Returns a span in which every field is set; the overrides replace its properties and methods."""
    odd: Any = type(
        "OddSpan",
        (ReadableSpan,),
        {"dropped_attributes": 3, "dropped_events": 4, "dropped_links": 5} | overrides,
    )
    span: ReadableSpan = odd(
        "name",
        CONTEXT,
        PARENT,
        attributes={"text": "x", "number": 7, "flag": True},
        events=[sdk.Event("event", {"k": "v"}, 11)],
        links=[Link(PARENT, {"l": 1})],
        kind=SpanKind.CLIENT,
        status=SpanStatus(StatusCode.ERROR, "why"),
        start_time=12,
        end_time=13,
    )
    return span


FULL = Span(
    trace_id=bytes(range(0x01, 0x11)),
    span_id=bytes(range(0x11, 0x19)),
    trace_state="a=1",
    parent_span_id=bytes(range(0x21, 0x29)),
    flags=0x300,
    name="name",
    kind=Span.SPAN_KIND_CLIENT,
    start_time_unix_nano=12,
    end_time_unix_nano=13,
    attributes=[
        KeyValue(key="text", value=AnyValue(string_value="x")),
        KeyValue(key="number", value=AnyValue(int_value=7)),
        KeyValue(key="flag", value=AnyValue(bool_value=True)),
    ],
    dropped_attributes_count=3,
    events=[
        Span.Event(
            time_unix_nano=11, name="event", attributes=[KeyValue(key="k", value=AnyValue(string_value="v"))]
        )
    ],
    dropped_events_count=4,
    links=[
        Span.Link(
            trace_id=bytes(range(0x01, 0x11)),
            span_id=bytes(range(0x21, 0x29)),
            attributes=[KeyValue(key="l", value=AnyValue(int_value=1))],
            flags=0x300,
        )
    ],
    dropped_links_count=5,
    status=Status(code=Status.STATUS_CODE_ERROR, message="why"),
)


def full_without(*fields, **changes) -> Span:
    message = Span()
    message.CopyFrom(FULL)
    for name in (*fields, *changes):
        message.ClearField(name)
    message.MergeFrom(Span(**changes))
    return message


def test_every_field_of_a_full_span_is_written():
    assert {descriptor.name for descriptor, _ in FULL.ListFields()} == set(Span.DESCRIPTOR.fields_by_name)
    same(ours(full_span()), FULL)
    same(stock(full_span()), FULL)


def test_span_with_nothing_set_is_the_stock_encoders():
    bare = ReadableSpan("", SpanContext(0, 0, is_remote=False))
    same(ours(bare), stock(bare))
    for status in (None, SpanStatus(), SpanStatus(StatusCode.OK)):
        span = ReadableSpan("", CONTEXT, status=status)  # type: ignore[arg-type]  # the stock encoder takes None
        same(ours(span), stock(span))


def test_span_that_has_not_ended_is_written_as_it_is():
    span = TRACERS[0].start_span("live", attributes={"k": 1})
    same(ours(span), stock(span))
    assert ours(span).end_time_unix_nano == 0
    span.end()
    finished()


def test_dropped_counts_of_events_and_links_are_written():
    span = TRACERS[1].start_span("limited", links=[Link(PARENT, {"a": 1, "b": 2}) for _ in "ab"])
    span.add_event("e", {"a": 1, "b": 2})
    span.add_event("e", {"a": 1, "b": 2, "c": 3})
    span.set_attributes({"a": 1, "b": 2, "c": 3})
    span.end()
    message = ours(finished())
    assert (
        message.dropped_attributes_count == message.dropped_events_count == message.dropped_links_count == 1
    )
    assert message.events[0].dropped_attributes_count == 2
    assert message.links[0].dropped_attributes_count == 1


def raising(_):
    raise RuntimeError


class BrokenMapping(dict):
    def copy(self):
        raise RuntimeError

    items = copy


class SlowMapping(dict):
    """Has no `copy`, as a mapping need not."""

    copy = None  # type: ignore[assignment]


class Name(str):
    __slots__ = ()

    def encode(self, *_):
        return b"\xff"


MAX_64 = 2**64 - 1


@pytest.mark.parametrize(
    ("name", "value", "want"),
    [
        ("name", "a\ud800b", full_without(name="a?b")),
        ("name", Name("x"), full_without(name="x")),
        ("name", b"bytes", full_without(name="bytes")),
        ("name", None, full_without("name")),
        ("name", 5, full_without(name="5")),
        ("kind", None, full_without("kind")),
        ("kind", 2, full_without("kind")),
        ("start_time", None, full_without("start_time_unix_nano")),
        ("start_time", -1, full_without("start_time_unix_nano")),
        ("start_time", 2**64, full_without(start_time_unix_nano=MAX_64)),
        ("start_time", 1.5e9, full_without(start_time_unix_nano=1_500_000_000)),
        ("start_time", "soon", full_without("start_time_unix_nano")),
        ("end_time", None, full_without("end_time_unix_nano")),
        ("end_time", 2**80, full_without(end_time_unix_nano=MAX_64)),
        ("end_time", float("nan"), full_without("end_time_unix_nano")),
        ("status", None, full_without("status")),
        ("status", object(), full_without(status=Status())),
        (
            "status",
            SimpleNamespace(status_code=9, description="\ud800"),
            full_without(status=Status(message="?")),
        ),
        (
            "status",
            SimpleNamespace(status_code=StatusCode.UNSET, description="why"),
            full_without(status=Status(message="why")),
        ),
        ("parent", None, full_without("parent_span_id", flags=0x100)),
        ("parent", object(), full_without("parent_span_id", "flags")),
        ("attributes", None, full_without("attributes")),
        ("attributes", 5, full_without("attributes")),
        ("attributes", BrokenMapping(a=1), full_without("attributes")),
        ("attributes", SlowMapping(l=1), full_without(attributes=FULL.links[0].attributes)),
        (
            "attributes",
            {"l": 1, "k": "\ud800"},
            full_without(
                attributes=[*FULL.links[0].attributes, KeyValue(key="k", value=AnyValue(string_value="?"))]
            ),
        ),
        ("events", None, full_without("events")),
        ("events", [object()], full_without(events=[Span.Event()])),
        (
            "events",
            [sdk.Event("\ud800", {}, 5)],
            full_without(events=[Span.Event(name="?", time_unix_nano=5)]),
        ),
        ("links", None, full_without("links")),
        ("links", [object()], full_without(links=[Span.Link()])),
        ("dropped_attributes", -1, full_without("dropped_attributes_count")),
        ("dropped_attributes", 2**32, full_without(dropped_attributes_count=2**32 - 1)),
        ("dropped_events", "many", full_without("dropped_events_count")),
        ("dropped_links", 0, full_without("dropped_links_count")),
    ],
    ids=lambda value: type(value).__name__ if type(value) is not str else None,
)
def test_odd_property_leaves_the_rest_of_the_span_alone(name, value, want):
    same(ours(full_span(**{name: property(lambda _: value)})), want)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("name", ["name"]),
        ("kind", ["kind"]),
        ("start_time", ["start_time_unix_nano"]),
        ("end_time", ["end_time_unix_nano"]),
        ("status", ["status"]),
        ("parent", ["parent_span_id", "flags"]),
        ("attributes", ["attributes"]),
        ("events", ["events"]),
        ("links", ["links"]),
        ("dropped_attributes", ["dropped_attributes_count"]),
        ("dropped_events", ["dropped_events_count"]),
        ("dropped_links", ["dropped_links_count"]),
    ],
)
def test_property_that_raises_costs_its_own_field_only(name, fields):
    same(ours(full_span(**{name: property(raising)})), full_without(*fields))


@pytest.mark.parametrize(
    ("context", "trace_id", "span_id", "trace_state"),
    [
        (None, b"", b"", ""),
        (SpanContext(2**128 + 1, 2**64 + 2, is_remote=False), b"\0" * 15 + b"\1", b"\0" * 7 + b"\2", ""),
        (SpanContext(-1, 1, is_remote=False), b"\xff" * 16, b"\0" * 7 + b"\1", ""),
        (
            SimpleNamespace(trace_id=1, span_id="x", trace_state={"k": "\ud800"}),
            b"\0" * 15 + b"\1",
            b"",
            "k=?",
        ),
    ],
    ids=["none", "too long", "negative", "no context"],
)
def test_odd_context_leaves_the_rest_of_the_span_alone(context, trace_id, span_id, trace_state):
    want = full_without(trace_id=trace_id, span_id=span_id, trace_state=trace_state)
    same(ours(full_span(get_span_context=lambda _: context)), want)


def test_each_property_is_read_once():
    reads: list[str] = []

    class Counting(ReadableSpan):
        def __getattribute__(self, name):
            if not name.startswith("_"):
                reads.append(name)
            return super().__getattribute__(name)

    encode_span(Counting("name", CONTEXT, PARENT, kind=SpanKind.SERVER, start_time=1, end_time=2))
    assert len(reads) == len(set(reads)) == 13


def test_encoding_a_span_takes_less_than_half_of_the_stock_encoders_time():
    span = TRACERS[0].start_span("GET /orders/{order_id}", kind=SpanKind.SERVER)
    span.set_attributes({f"http.attribute.{number}": f"value {number}" for number in range(8)})
    span.set_attributes({f"http.number.{number}": number * 100 for number in range(4)})
    span.end()
    spans = [finished()] * 50

    # The best of several short runs: what else the machine does only adds to the others.
    stock_time = min(timeit.repeat(lambda: encode_spans(spans).SerializeToString(), number=1, repeat=15))
    our_time = min(timeit.repeat(lambda: [encode_span(span) for span in spans], number=1, repeat=15))
    assert our_time < stock_time / 2
