"""The seam for rewriting ended spans: what changes, what stays, and what a failing rewriter costs."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags
from tests.sightline_processors.export_support import RecordingTransport, engine_of, limits

from sightline_processors.export import OtlpSpanProcessor
from sightline_processors.otlp.spans import encode_span
from sightline_processors.report import reported
from sightline_processors.tracing.rewriting import RewritingSpanExporter, changed, rewritten

LINKED = SpanContext(5, 6, is_remote=True, trace_flags=TraceFlags(1))
POISON = "poison"


def attributes_of(part):
    return dict(part.attributes or {})


def ended_span(
    attributes=None, events=(), links=(), description=None, name="name", exporters=(), span_limits=None
):
    """Returns a span that has ended, after other exporters have seen it."""
    memory = InMemorySpanExporter()
    provider = TracerProvider(
        resource=Resource({"service.name": "tests"}), span_limits=span_limits, shutdown_on_exit=False
    )
    for each in (*exporters, memory):
        provider.add_span_processor(SimpleSpanProcessor(each))
    tracer = provider.get_tracer("scope", "1.0")
    with tracer.start_as_current_span("parent"):
        span = tracer.start_span(
            name, kind=SpanKind.CLIENT, attributes={"a": 1, "b": "x"} if attributes is None else attributes
        )
        for event in events:
            span.add_event(event, {"key": event})
        for link in links:
            span.add_link(LINKED, {"key": link})
        span.set_status(Status(StatusCode.ERROR, description))
        span.end()
    return memory.get_finished_spans()[0]


def full_span(**more):
    few = SpanLimits(max_span_attributes=2, max_events=1, max_links=1)
    return ended_span({"a": 1, "b": "x", "c": 2}, ["e", "f"], ["l", "m"], "text", span_limits=few, **more)


class Refusing:
    """Raises for every part that holds the poison, and marks what it has judged."""

    def rewrite(self, span):
        told = [span.name, span.status.description, *map(repr, (span.attributes or {}).items())]
        for part in (*span.events, *span.links):
            told += map(repr, (part.attributes or {}).items())
        if any(POISON in text for text in told if text):
            raise ValueError(POISON)
        marked = dict.fromkeys(span.attributes or {}, "judged")
        return changed(span, attributes=marked) if marked else span


class Renaming:
    def __init__(self, addition):
        self.addition = addition

    def rewrite(self, span):
        return changed(span, name=span.name + self.addition)


class Broken:
    def rewrite(self, span):
        raise RuntimeError(span.name)


class Forgetful:
    def rewrite(self, span):
        return None


def test_a_change_keeps_everything_else_to_the_byte(tracers):
    span = full_span()
    same = changed(span)
    assert same is not span
    assert encode_span(same) == encode_span(span)
    assert encode_spans([same]) == encode_spans([span])
    assert (same.dropped_attributes, same.dropped_events, same.dropped_links) == (1, 1, 1)
    assert same.to_json() == span.to_json()


def test_a_change_leaves_the_original_as_it_was(tracers):
    span = full_span()
    before = encode_span(span)
    other = changed(
        span,
        name="new",
        attributes={"z": 1},
        events=(),
        links=(),
        status=Status(StatusCode.OK),
        left_out=(2, 3, 4),
    )
    assert (other.name, attributes_of(other), other.events, other.links) == ("new", {"z": 1}, (), ())
    assert other.status.status_code is StatusCode.OK
    assert (other.dropped_attributes, other.dropped_events, other.dropped_links) == (3, 4, 5)
    assert changed(other).dropped_links == 5
    assert encode_span(span) == before


def test_rewriters_apply_one_after_the_other():
    assert rewritten(ended_span(), (Renaming("1"), Renaming("2"))).name == "name12"


def test_without_rewriters_an_exporter_gets_the_very_same_list():
    given_lists = []

    class Keeping(SpanExporter):
        def export(self, spans):
            given_lists.append(spans)
            return SpanExportResult.SUCCESS

    spans = [ended_span()]
    assert RewritingSpanExporter(Keeping(), ()).export(spans) is SpanExportResult.SUCCESS
    assert given_lists[0] is spans


def test_only_the_attribute_that_a_rewriter_cannot_judge_is_left_out(tracers, caplog):
    span = rewritten(ended_span({"a": "fine", "b": POISON, "c": 3}, ["e"], ["l"], "text"), [Refusing()])
    assert attributes_of(span) == {"a": "judged", "c": "judged"}
    assert (span.dropped_attributes, span.dropped_events, span.dropped_links) == (1, 0, 0)
    assert [event.name for event in span.events] == ["e"]
    assert [attributes_of(link)["key"] for link in span.links] == ["l"]
    assert (span.name, span.status.description) == ("name", "text")
    assert reported("rewriting") == 1
    assert POISON not in caplog.text


def test_what_a_rewriter_adds_to_every_span_is_there_when_it_cannot_judge_a_part():
    class Adding(Refusing):
        def rewrite(self, span):
            return changed(super().rewrite(span), attributes={**(span.attributes or {}), "added": 1})

    assert attributes_of(rewritten(ended_span({"b": POISON}), [Adding()])) == {"added": 1}


def test_only_the_event_and_the_link_that_cannot_be_judged_are_left_out(tracers):
    span = rewritten(ended_span(None, ["e", POISON], [POISON, "l"]), [Refusing()])
    assert [event.name for event in span.events] == ["e"]
    assert [attributes_of(link)["key"] for link in span.links] == ["l"]
    assert (span.dropped_attributes, span.dropped_events, span.dropped_links) == (0, 1, 1)
    assert attributes_of(span) == {"a": "judged", "b": "judged"}


def test_a_description_that_cannot_be_judged_leaves_the_code_of_the_status(tracers):
    span = rewritten(ended_span(description=POISON), [Refusing()])
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, None)
    assert span.name == "name"


def test_a_name_that_cannot_be_judged_is_replaced(tracers):
    span = rewritten(ended_span(name=f"GET {POISON}"), [Refusing()])
    assert span.name == "_other"
    assert attributes_of(span) == {"a": "judged", "b": "judged"}


@pytest.mark.parametrize("rewriter", [Broken(), Forgetful()])
def test_a_rewriter_that_never_answers_leaves_identity_times_and_status_code(rewriter):
    original = ended_span(None, ["e"], ["l"], "text")
    span = rewritten(original, [rewriter, Renaming("!")])
    assert span.name == "_other!"
    assert (attributes_of(span), span.events, span.links) == ({}, (), ())
    assert (span.dropped_attributes, span.dropped_events, span.dropped_links) == (2, 1, 1)
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description is None
    kept = "context", "parent", "kind", "start_time", "end_time", "resource", "instrumentation_scope"
    assert [getattr(span, each) for each in kept] == [getattr(original, each) for each in kept]


words = st.sampled_from(["fine", POISON, f"a {POISON} b", "other"])


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.sampled_from("abcd") | words, words | st.lists(words, max_size=2), max_size=4),
    st.lists(words, max_size=3),
    st.lists(words, max_size=3),
    words | st.none(),
    words,
)
def test_what_a_rewriter_refuses_is_never_exported_and_everything_is_accounted(
    attributes, events, links, description, name
):
    original = ended_span(attributes, events, links, description, name)
    span = rewritten(original, [Refusing()])
    assert POISON.encode() not in encode_span(span)
    for kind in ("attributes", "events", "links"):
        assert len(getattr(span, kind)) + getattr(span, f"dropped_{kind}") == len(getattr(original, kind))


def test_what_cannot_be_read_is_left_out_and_the_rest_of_the_batch_exported():
    memory = InMemorySpanExporter()
    spans = [ended_span(), object(), ended_span()]
    assert RewritingSpanExporter(memory, [Renaming("!")]).export(spans) is SpanExportResult.SUCCESS
    assert [span.name for span in memory.get_finished_spans()] == ["name!", "name!"]
    assert reported("rewriting") == 2  # the rewriter raised, and the object could not be read


def test_other_exporters_see_the_original(tracers):
    rewriting, untouched = InMemorySpanExporter(), InMemorySpanExporter()
    ended_span(exporters=[RewritingSpanExporter(rewriting, [Renaming("!")]), untouched])
    assert [span.name for span in rewriting.get_finished_spans()] == ["name!", "parent!"]
    assert [span.name for span in untouched.get_finished_spans()] == ["name", "parent"]


def test_a_flush_and_a_shutdown_reach_the_exporter_inside():
    told = []

    class Told(InMemorySpanExporter):
        def force_flush(self, timeout_millis=30_000):
            told.append(timeout_millis)
            return False

        def shutdown(self):
            told.append("shutdown")

    exporter = RewritingSpanExporter(Told(), [])
    assert exporter.force_flush(5) is False
    exporter.shutdown()
    assert told == [5, "shutdown"]


def exported(*rewriters):
    """Returns the spans that the export engine sends, of one with a poisoned attribute."""
    transport = RecordingTransport()
    with engine_of() as engine:
        processor = OtlpSpanProcessor(transport, limits(), engine)
        processor.span_rewriters = rewriters
        processor.on_end(ended_span({"a": "fine", "b": POISON}))
        assert processor.force_flush(5_000)
        assert engine.ledger("traces").acknowledged == 1
    request = ExportTraceServiceRequest.FromString(transport.requests[0])
    return request.resource_spans[0].scope_spans[0].spans


def test_the_export_engine_sends_what_rewriters_make_of_a_span():
    span = exported(Refusing(), Renaming("!"))[0]
    assert span.name == "name!"
    assert {each.key: each.value.string_value for each in span.attributes} == {"a": "judged"}
    assert span.dropped_attributes_count == 1


def test_the_export_engine_without_rewriters_sends_a_span_as_it_is():
    span = exported()[0]
    assert span.name == "name"
    assert {each.key: each.value.string_value for each in span.attributes} == {"a": "fine", "b": POISON}
