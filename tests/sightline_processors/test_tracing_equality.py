"""Spans of `make_tracers_fast` against the SDK's: the same operations, the same answers, lines and bytes."""

import enum
import itertools
import logging
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    DEFAULT_OFF,
    DEFAULT_ON,
    AlwaysRecordSampler,
    Decision,
    ParentBased,
    ParentBasedTraceIdRatio,
    Sampler,
    SamplingResult,
    StaticSampler,
    TraceIdRatioBased,
)
from opentelemetry.trace import (
    INVALID_SPAN_CONTEXT,
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from sightline_processors.otlp.spans import encode_span
from sightline_processors.tracing.delivery import EncodedSpanProcessor
from sightline_processors.tracing.slotted_span import SlottedSpan
from sightline_processors.tracing.tracers import _ORIGINAL, start_span

sdk_start_span = _ORIGINAL["start_span"]


class Counting(IdGenerator):
    """Gives the same IDs for the same sequence of calls."""

    def __init__(self):
        self.numbers = itertools.count(1)

    def generate_span_id(self):
        return next(self.numbers)

    def generate_trace_id(self):
        return next(self.numbers) * 0x9E3779B97F4A7C15 % 2**128 or 1

    def is_trace_id_random(self):
        return True


class Plain(Counting):
    """Does not say whether its IDs are random, and makes some that are none."""

    def generate_span_id(self):
        return (next(self.numbers) - 2) * 2**62

    is_trace_id_random = IdGenerator.is_trace_id_random


class Watcher(SpanProcessor):
    """Keeps what it is told, and what the span looks like at that moment."""

    def __init__(self):
        self.told = []
        self.ended = []

    def on_start(self, span, parent_context=None):
        self.told.append(("start", isinstance(span, Span), readable(span), parent_context))
        span.set_attribute("watched", "yes")

    def _on_ending(self, span):
        self.told.append(("ending", isinstance(span, Span), readable(span)))

    def on_end(self, span):
        self.told.append(("end", type(span) is ReadableSpan, readable(span)))
        self.ended.append(span)


class Encoder(EncodedSpanProcessor):
    """Encodes at the end, as the exporter does."""

    def __init__(self):
        self.items = []

    def on_end(self, span):
        self.items.append(encode_span(span))


class Tagging(Sampler):
    """Changes attributes and trace state."""

    def should_sample(self, parent_context, trace_id, name, kind=None, attributes=None, links=None, *_):
        decision = (Decision.DROP, Decision.RECORD_ONLY, Decision.RECORD_AND_SAMPLE)[len(name) % 3]
        state = None if len(links or ()) else TraceState([("sampler", str(len(name)))])
        return SamplingResult(decision, {**(attributes or {}), "sampler": str(kind)}, state)

    def get_description(self):
        return "Tagging"


class World:
    """A provider with its processors, driven by one of the two ways to start a span."""

    def __init__(self, start, sampler=ALWAYS_ON, limits=None, ids=Counting, watched=True):
        self.start = start
        self.watcher, self.encoder = Watcher(), Encoder()
        self.provider = TracerProvider(
            sampler,
            Resource({"service.name": "shop"}),
            shutdown_on_exit=False,
            id_generator=ids(),
            span_limits=limits,
        )
        if watched:
            self.provider.add_span_processor(self.watcher)
        self.provider.add_span_processor(self.encoder)
        self.ids = ids
        self.tracer: Any = self.provider.get_tracer("shop", "1.2", "https://shop.example/schema", {"a": "b"})

    def reset(self):
        self.tracer.id_generator = self.ids()
        self.watcher.told, self.watcher.ended, self.encoder.items = [], [], []


def worlds(**options):
    return World(sdk_start_span, **options), World(start_span, **options)


def readable(span):
    """Returns all that can be read of a span, in an order and form that compare."""
    context = span.get_span_context()
    return (
        span.name,
        repr(context),
        context and (type(context.trace_flags), context.is_valid, context.trace_state),
        repr(span.parent),
        span.kind,
        span.start_time,
        span.end_time,
        span.status.status_code,
        span.status.description,
        repr(list(span.attributes.items())),
        [event_facts(event) for event in span.events],
        [(repr(link.context), repr(dict(link.attributes)), link.dropped_attributes) for link in span.links],
        (span.dropped_attributes, span.dropped_events, span.dropped_links),
        span.resource.attributes,
        span.instrumentation_scope,
        json(span),
    )


def event_facts(event):
    attributes = event.attributes or {}
    # Where an exception was recorded depends on the caller's lines.
    shown = [pair for pair in attributes.items() if pair[0] != "exception.stacktrace"]
    return event.name, event.timestamp, repr(shown), event.dropped_attributes


def json(span):
    try:
        return span.to_json(), span.to_json(indent=None)
    except Exception as error:
        return type(error)


class Number(enum.IntEnum):
    ONE = 1


class Named(str):
    __slots__ = ()


class Shown:
    def __str__(self):
        return "shown"


class Silent:
    pass


class Broken:
    def __str__(self):
        raise LookupError("no text")


class Listed(dict):
    """A mapping that is not exactly a dict."""


silent = Silent()
texts = st.sampled_from(["", "a", "b", "key", "aé€😀", "\ud800", "long " * 10]) | st.text(max_size=8)
odd = st.sampled_from([Number.ONE, Named("named"), Shown(), silent, Broken(), {1, 2}, object, 1j])
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts | st.binary(max_size=4)
)
values = (
    scalars
    | odd
    | st.lists(scalars | odd, max_size=3)
    | st.dictionaries(texts | st.just(7), scalars, max_size=2)
)
keys = texts | st.sampled_from([None, 7, 2.5, Named("key"), b"k", silent])
plain = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 9) | st.text("xyz", max_size=9), max_size=6)
mappings: Any = plain | st.dictionaries(keys, values, max_size=4)
wrapped = mappings | mappings.map(MappingProxyType) | mappings.map(Listed) | st.none()
odd_mappings = wrapped | st.sampled_from([[], [("a", 1)], 5, ""])
states = st.sampled_from([TraceState(), TraceState([("k", "v")])])
contexts = st.builds(
    SpanContext,
    st.integers(0, 2**128 - 1),
    st.integers(0, 2**64 - 1),
    is_remote=st.booleans(),
    trace_flags=st.integers(0, 255).map(TraceFlags),
    trace_state=states,
)
links = st.builds(Link, contexts, wrapped) | st.none()
times = st.none() | st.integers(0, 2**63)
fixed = st.integers(0, 2**62)
errors = st.sampled_from(
    [ValueError("wrong"), KeyError(), Broken, ExceptionGroup("several", [OSError(2, "no")])]
)
codes = st.sampled_from(
    [*StatusCode, Status(StatusCode.OK), Status(StatusCode.ERROR, "why"), Status(), None, 5]
)

operations = st.one_of(
    st.tuples(st.just("set_attribute"), keys, values),
    st.tuples(st.just("set_attribute"), st.sampled_from("abcdef"), st.integers(0, 9)),
    st.tuples(st.just("set_attributes"), odd_mappings),
    st.tuples(st.just("add_event"), texts, wrapped, fixed),
    st.tuples(st.just("add_link"), contexts | st.just(INVALID_SPAN_CONTEXT), wrapped),
    st.tuples(st.just("update_name"), texts),
    st.tuples(st.just("set_status"), codes, st.none() | texts),
    st.tuples(st.just("record_exception"), errors, wrapped, fixed),
    st.tuples(st.just("is_recording")),
    st.tuples(st.just("start")),
    st.tuples(st.just("read")),
    st.tuples(st.just("end"), fixed),
)


def starts(attributes):
    return st.fixed_dictionaries(
        {"name": texts, "start_time": fixed},
        optional={
            "kind": st.sampled_from(SpanKind),
            "attributes": attributes,
            "links": st.none() | st.lists(links, max_size=3),
            "record_exception": st.booleans(),
            "set_status_on_exception": st.booleans(),
        },
    )


parents = st.none() | contexts | st.just(INVALID_SPAN_CONTEXT)

LIMITS = [
    None,
    SpanLimits(max_attributes=2, max_events=1, max_links=1, max_event_attributes=1, max_link_attributes=1),
    SpanLimits(max_attributes=0, max_events=0, max_links=0, max_event_attributes=0),
    SpanLimits(max_attribute_length=3),
    SpanLimits(max_span_attributes=SpanLimits.UNSET, max_events=SpanLimits.UNSET, max_attribute_length=2),
]
LIMITED = [worlds(limits=limits, watched=watched) for limits in LIMITS for watched in (True, False)]
SAMPLERS = [
    ALWAYS_ON,
    ALWAYS_OFF,
    DEFAULT_ON,
    DEFAULT_OFF,
    StaticSampler(Decision.RECORD_ONLY),
    TraceIdRatioBased(0.5),
    TraceIdRatioBased(0),
    TraceIdRatioBased(1),
    ParentBasedTraceIdRatio(0.5),
    ParentBased(
        Tagging(),
        remote_parent_sampled=TraceIdRatioBased(0.5),
        remote_parent_not_sampled=ALWAYS_ON,
        local_parent_sampled=StaticSampler(Decision.RECORD_ONLY),
        local_parent_not_sampled=Tagging(),
    ),
    AlwaysRecordSampler(ALWAYS_OFF),
    Tagging(),
]
SAMPLED = [
    worlds(sampler=sampler, ids=ids, limits=SpanLimits()) for sampler in SAMPLERS for ids in (Counting, Plain)
]


class Lines(logging.Handler):
    """Keeps log lines with the logger that wrote them."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append((record.name, record.levelname, record.getMessage()))


@pytest.fixture(scope="module", autouse=True)
def quiet():
    """The SDK's own lines go nowhere but to the handlers of these tests."""
    logger = logging.getLogger("opentelemetry")
    before, logger.propagate = logger.propagate, False
    yield
    logger.propagate = before


def outcome(function, *arguments, **options):
    """Returns the answer, or the type of what was raised."""
    try:
        return function(*arguments, **options)
    except Exception as error:
        return type(error)


def run(world, start, context, done):
    """Returns all that can be seen of a span from its start to its end, and the log lines."""
    world.reset()
    lines = Lines()
    logger = logging.getLogger("opentelemetry")
    logger.addHandler(lines)
    try:
        span = outcome(world.start, world.tracer, context=context, **fresh(start))
        seen = [span if isinstance(span, type) else ""]
        if isinstance(span, Span):
            seen += [answer(span, operation) for operation in done]
            seen.append(answer(span, ("end", 5)))
            seen.append(readable(span))
        elif isinstance(span, NonRecordingSpan):
            seen.append(repr(span))
        return seen, world.watcher.told, world.encoder.items, lines.lines, world.watcher.ended
    finally:
        logger.removeHandler(lines)


def fresh(start):
    """Returns the arguments with links of their own: the SDK changes those that it gets."""
    given_links = start.get("links")
    if not given_links:
        return start
    return {**start, "links": [link and Link(link.context, link.attributes) for link in given_links]}


def answer(span, operation):
    name, *arguments = operation
    if name == "read":
        return readable(span)
    if name == "record_exception" and not isinstance(arguments[0], BaseException):
        arguments[0] = ValueError(arguments[0]())
    return outcome(getattr(span, name), *arguments)


def compare(pair, start, parent, done):
    context = None if parent is None else set_span_in_context(NonRecordingSpan(parent))
    plainly, told, items, lines, ended = run(pair[0], start, context, done)
    fast, fast_told, fast_items, fast_lines, fast_ended = run(pair[1], start, context, done)
    assert fast == plainly
    assert fast_told == told
    assert fast_lines == lines
    assert fast_items == items
    for ours, theirs in zip(fast_ended, ended, strict=True):
        assert outcome(encode_spans, [ours]) == outcome(encode_spans, [theirs])


@given(
    st.sampled_from(LIMITED),
    starts(odd_mappings),
    parents,
    st.lists(operations, max_size=12),
    st.none() | st.integers(1, 6),
)
@settings(max_examples=250, deadline=None)
def test_any_operations_leave_what_the_sdk_leaves(pair, start, parent, done, repeated):
    compare(pair, start, parent, done * (repeated or 1))


usual = st.one_of(
    st.tuples(st.just("set_attribute"), st.sampled_from(["", "a", "b", "c"]), st.integers(0, 9)),
    st.tuples(st.just("set_attributes"), plain),
    st.tuples(st.just("read")),
)


@given(
    st.sampled_from(LIMITED),
    st.dictionaries(st.sampled_from(["", "a", "b", "c", "d"]), st.integers(0, 9), max_size=5),
    st.lists(usual, max_size=8),
)
@settings(max_examples=250, deadline=None)
def test_attributes_of_the_usual_types_stay_in_the_order_and_number_of_the_sdk(pair, attributes, done):
    compare(pair, {"name": "name", "start_time": 1, "attributes": attributes}, None, done)


@given(st.sampled_from(SAMPLED), starts(wrapped), parents)
@settings(max_examples=250, deadline=None)
def test_any_sampler_and_parent_start_what_the_sdk_starts(pair, start, parent):
    compare(pair, start, parent, [])


def test_the_comparison_compares_a_slotted_span_with_one_of_the_sdk():
    plainly, fast = (world.start(world.tracer, "name") for world in LIMITED[0])

    assert isinstance(fast, SlottedSpan)
    assert not isinstance(plainly, SlottedSpan)
