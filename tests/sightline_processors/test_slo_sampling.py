"""Sampling by objectives through the SDK: what is kept, what it says of itself, what callees are told."""

import os
import threading
from collections import Counter
from typing import Any

import pytest
from opentelemetry import trace as trace_api
from opentelemetry.propagate import inject
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)
from tests.sightline_processors.export_support import RecordingTransport, engine_of, limits

from sightline_processors.export import OtlpSpanProcessor
from sightline_processors.report import reported
from sightline_processors.slo_sampling import (
    PROBABILITY,
    REASON,
    EncodedSloSamplingProcessor,
    RootFacts,
    SloSampler,
    SloSamplingProcessor,
    install_slo_sampling,
    observe_sampling,
    slo_sampler,
    slo_sampling_processor,
)
from sightline_processors.slo_sampling.buffer import Limits
from sightline_processors.slo_sampling.encoded import EncodedRoot, with_fields
from sightline_processors.tracing.delivery import EncodedSpanProcessor


class Encoded(EncodedSpanProcessor):
    """Takes spans as `OtlpSpanProcessor` does, and parses what it gets."""

    def __init__(self):
        self.items = []
        self.spans = []
        self.sources = []
        self.is_shut_down = False

    def on_end(self, span):
        if span.context.trace_flags.sampled:
            self.spans.append(span)

    def put_encoded(self, resource, scope, item):
        self.items.append(ScopeSpans.FromString(item).spans[0])

    def draw_from(self, source):
        self.sources.append(source)
        return list

    def shutdown(self):
        self.is_shut_down = True


class Pipeline:
    """A provider that samples by objectives and exports to memory."""

    def __init__(self, spans_per_second=0.0, **options):
        self.sampler = SloSampler(spans_per_second, **options)
        self.provider = TracerProvider(sampler=self.sampler, shutdown_on_exit=False)
        self.exporter = InMemorySpanExporter()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.processor = install_slo_sampling(self.provider)
        self.tracer = self.provider.get_tracer("tests")

    def warm(self, *names):
        """Takes the exemplars of these names, so that nothing speaks for the next spans."""
        for name in names:
            self.tracer.start_span(name, trace_api.set_span_in_context(trace_api.INVALID_SPAN)).end()
        self.exporter.clear()

    @property
    def spans(self) -> list[Any]:
        return list(self.exporter.get_finished_spans())

    @property
    def reasons(self):
        return {span.name: span.attributes[REASON] for span in self.spans}


@pytest.fixture
def pipeline():
    made = Pipeline()
    made.warm("GET /", "inner")
    return made


def remote(flags, state=None, trace_id=0x1234):
    context = SpanContext(trace_id, 7, is_remote=True, trace_flags=TraceFlags(flags), trace_state=state)
    return set_span_in_context(NonRecordingSpan(context))


def test_nothing_is_exported_of_a_request_that_nothing_speaks_for(pipeline):
    with pipeline.tracer.start_as_current_span("GET /"), pipeline.tracer.start_as_current_span("SELECT"):
        pass
    assert pipeline.spans == []
    assert pipeline.sampler.buffer.not_kept() == {"not_sampled": 2}


@pytest.mark.parametrize("outcome", ["slow", "failed"])
def test_a_violation_is_kept_with_its_children(pipeline, outcome):
    with pipeline.tracer.start_as_current_span("GET /") as root:
        with pipeline.tracer.start_as_current_span("SELECT"):
            pass
        root.set_attribute("sightline.sla.outcome", outcome)
    assert pipeline.reasons == {"SELECT": "violation", "GET /": "violation"}
    for span in pipeline.spans:
        assert span.attributes[PROBABILITY] == 1.0
        assert span.context.trace_state["ot"] == "th:0"
        assert span.context.trace_flags.sampled


@pytest.mark.parametrize("outcome", ["ok", "excluded"])
def test_no_violation_is_no_reason(pipeline, outcome):
    with pipeline.tracer.start_as_current_span("GET /") as root:
        root.set_attribute("sightline.sla.outcome", outcome)
    assert pipeline.reasons == {}


@pytest.mark.parametrize("failing", ["GET /", "SELECT"])
def test_an_error_anywhere_in_the_process_keeps_the_trace(pipeline, failing):
    with pipeline.tracer.start_as_current_span("GET /") as root:
        with pipeline.tracer.start_as_current_span("SELECT") as child:
            {"GET /": root, "SELECT": child}[failing].set_status(Status(StatusCode.ERROR))
        with pipeline.tracer.start_as_current_span("after"):
            pass
    assert pipeline.reasons == {"SELECT": "error", "after": "error", "GET /": "error"}


def test_the_first_request_of_each_bucket_is_kept_until_metrics_are_collected(pipeline):
    def request(name, milliseconds):
        pipeline.tracer.start_span(name, start_time=1).end(1 + milliseconds * 1_000_000)

    for name, milliseconds in (("a", 1), ("a", 2), ("a", 60), ("b", 1)):
        request(name, milliseconds)
    assert pipeline.sampler.kept() == Counter(exemplar=5)  # two of the warming
    pipeline.sampler.renew_exemplars()
    request("a", 3)
    assert pipeline.sampler.kept() == Counter(exemplar=6)


def test_a_late_child_of_a_kept_trace_is_exported_and_flagged(pipeline):
    root = pipeline.tracer.start_span("GET /")
    context = set_span_in_context(root)
    begun_before = pipeline.tracer.start_span("before", context)
    root.set_status(Status(StatusCode.ERROR))
    root.end()
    begun_after = pipeline.tracer.start_span("after", context)
    assert begun_after.get_span_context().trace_flags.sampled
    begun_before.end()
    begun_after.end()
    assert pipeline.reasons == {"GET /": "error", "before": "error", "after": "error"}


def test_of_a_trace_that_was_dropped_only_a_late_error_is_exported(pipeline):
    root = pipeline.tracer.start_span("GET /")
    root.end()
    context = set_span_in_context(root)
    pipeline.tracer.start_span("late", context).end()
    failed = pipeline.tracer.start_span("failed", context)
    failed.set_status(Status(StatusCode.ERROR))
    failed.end()
    assert pipeline.reasons == {"failed": "error"}


def test_below_an_excluded_request_nothing_is_recorded(pipeline):
    excluded = NonRecordingSpan(SpanContext(5, 5, is_remote=False))
    assert not pipeline.tracer.start_span("child", set_span_in_context(excluded)).is_recording()


def test_what_a_callee_is_told_to_sample_is_kept():
    pipeline = Pipeline(1_000.0)
    pipeline.warm("GET /")
    carrier = {}
    with pipeline.tracer.start_as_current_span("GET /"):
        inject(carrier)
    assert carrier["traceparent"].endswith("-03")
    assert carrier["tracestate"] == "ot=th:0"
    assert pipeline.reasons == {"GET /": "budget"}


def test_over_the_budget_the_flag_follows_the_random_bits_and_is_always_honest():
    pipeline = Pipeline(20.0, clock=lambda: 0.0)
    pipeline.warm("GET /")
    flagged = 0
    for _ in range(300):
        with pipeline.tracer.start_as_current_span("GET /") as root:
            context = root.get_span_context()
        told = context.trace_state.get("ot")
        assert (told is not None) == context.trace_flags.sampled
        if told is not None:
            flagged += 1
            assert context.trace_id % (1 << 56) >= int(told.removeprefix("th:").ljust(14, "0"), 16)
            assert pipeline.spans[-1].context.span_id == context.span_id
    assert 19 <= flagged <= len(pipeline.spans) < 150
    assert all(0 < span.attributes[PROBABILITY] <= 1 for span in pipeline.spans)
    assert {span.attributes[PROBABILITY] for span in pipeline.spans} > {1.0}


def test_a_callee_is_promised_nothing_where_the_flag_is_not_set(pipeline):
    carrier = {}
    with pipeline.tracer.start_as_current_span("GET /") as root:
        inject(carrier)
        root.set_status(Status(StatusCode.ERROR))
    assert carrier["traceparent"].endswith("-02")
    assert "tracestate" not in carrier
    assert pipeline.reasons == {"GET /": "error"}


def test_a_sampled_caller_stays_sampled_with_the_probability_that_it_told(pipeline):
    state = TraceState([("ot", "th:8;x:1"), ("vendor", "a")])
    span = pipeline.tracer.start_span("GET /", remote(1, state, trace_id=(1 << 55) | (1 << 100)))
    assert span.get_span_context().trace_flags.sampled
    assert span.get_span_context().trace_state == state
    span.end()
    (exported,) = pipeline.spans
    assert exported.attributes[REASON] == "parent"
    assert exported.attributes[PROBABILITY] == 0.5
    assert exported.context.trace_state.to_header() == "ot=th:8;x:1,vendor=a"


@pytest.mark.parametrize("state", [None, TraceState([("ot", "th:8")]), TraceState([("ot", "th:xyz")])])
def test_a_caller_who_tells_no_probability_or_a_wrong_one_leaves_it_unknown(pipeline, state):
    pipeline.tracer.start_span("GET /", remote(1, state, trace_id=5)).end()
    (exported,) = pipeline.spans
    assert exported.attributes[REASON] == "parent"
    assert PROBABILITY not in exported.attributes
    assert "ot" not in exported.context.trace_state


def test_below_an_unsampled_caller_only_what_must_be_kept_is():
    pipeline = Pipeline(1_000.0)
    pipeline.warm("GET /", "POST /")
    span = pipeline.tracer.start_span("GET /", remote(0))
    assert span.is_recording()
    assert not span.get_span_context().trace_flags.sampled
    span.end()
    assert pipeline.reasons == {}
    failed = pipeline.tracer.start_span("POST /", remote(0, trace_id=9))
    failed.set_status(Status(StatusCode.ERROR))
    failed.end()
    assert pipeline.reasons == {"POST /": "error"}


@pytest.mark.parametrize("failing", ["outer", "inner", None])
def test_a_process_that_calls_itself_keeps_the_whole_trace_or_nothing(pipeline, failing):
    pipeline.warm("outer", "inner")
    with pipeline.tracer.start_as_current_span("outer") as outer:
        sent = outer.get_span_context()
        received = SpanContext(sent.trace_id, sent.span_id, is_remote=True, trace_flags=sent.trace_flags)
        inner = pipeline.tracer.start_span("inner", set_span_in_context(NonRecordingSpan(received)))
        pipeline.tracer.start_span("SELECT", set_span_in_context(inner)).end()
        for span, name in ((inner, "inner"), (outer, "outer")):
            if name == failing:
                span.set_status(Status(StatusCode.ERROR))
        inner.end()
    assert set(pipeline.reasons) == ({"outer", "inner", "SELECT"} if failing else set())
    assert not pipeline.sampler.buffer.open


def test_the_original_span_and_other_processors_see_nothing_of_it():
    class Seeing(SpanProcessor):
        def __init__(self):
            self.ended = []

        def on_end(self, span):
            self.ended.append(span)

    sampler, seeing = SloSampler(0), Seeing()
    provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    exporters = [InMemorySpanExporter(), InMemorySpanExporter()]
    provider.add_span_processor(SimpleSpanProcessor(exporters[0]))
    provider.add_span_processor(seeing)
    provider.add_span_processor(SimpleSpanProcessor(exporters[1]))
    install_slo_sampling(provider)
    assert install_slo_sampling(provider) is None

    for _ in range(2):
        provider.get_tracer("tests").start_span("GET /", attributes={"a": 1}).end()

    assert [dict(span.attributes) for span in seeing.ended] == [{"a": 1}, {"a": 1}]
    assert not any(span.context.trace_flags.sampled for span in seeing.ended)
    for exporter in exporters:
        (span,) = exporter.get_finished_spans()
        assert span.attributes == {"a": 1, REASON: "exemplar", PROBABILITY: 1.0}
        assert span.context.span_id == seeing.ended[0].context.span_id


def encoded_pipeline(**options):
    sampler, target = SloSampler(0, **options), Encoded()
    provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    processor = slo_sampling_processor(sampler, [target])
    provider.add_span_processor(processor)
    return sampler, target, provider, processor


def test_a_root_that_comes_encoded_is_kept_with_its_children_or_not_at_all():
    sampler, target, provider, processor = encoded_pipeline()
    assert isinstance(processor, EncodedSloSamplingProcessor)
    tracer = provider.get_tracer("tests")
    for is_violation in (True, False):
        trace, is_flagged, state = sampler.begin(42 + is_violation, None)
        assert (is_flagged, state) == (False, None)
        root = SpanContext(trace.trace_id, 7, is_remote=False)
        tracer.start_span("SELECT", set_span_in_context(NonRecordingSpan(root))).end()
        assert target.spans == ([] if is_violation else target.spans[:1])
        facts = RootFacts("GET /", 0.01, is_violation=is_violation, series="GET /")
        assert sampler.decide(trace, facts, None) is is_violation
        if is_violation:
            item = with_fields(b"\x12\x00", b"\x2a\x05GET /" + b"\x1a\x06ot=x:1")
            scoped = EncodedRoot(
                provider.resource, tracer._instrumentation_scope, item, TraceState([("ot", "x:1")])
            )
            processor.put_root(root, scoped)
    (item,) = target.items
    assert item.name == "GET /"
    assert item.trace_state == "ot=th:0;x:1"
    attributes = {each.key: each.value for each in item.attributes}
    assert attributes[REASON].string_value == "violation"
    assert attributes[PROBABILITY].double_value == 1.0
    assert [span.name for span in target.spans] == ["SELECT"]
    assert sampler.buffer.not_kept() == {"not_sampled": 2}


def test_spans_that_await_their_root_are_held_until_it_comes_and_leave_with_it():
    sampler, target, provider, processor = encoded_pipeline()
    tracer = provider.get_tracer("tests")
    trace, *_ = sampler.begin(42, None)
    root = SpanContext(42, 7, is_remote=False)
    tracer.start_span("SELECT", set_span_in_context(NonRecordingSpan(root))).end()
    facts = RootFacts("GET /", 0.01, is_violation=True)
    assert sampler.decide(trace, facts, None, awaits_root=True)
    assert (target.spans, sampler.buffer.held_spans, sampler.kept()) == ([], 1, {})
    item = with_fields(b"\x12\x00", b"\x2a\x05GET /")
    encoded = EncodedRoot(provider.resource, tracer._instrumentation_scope, item, None)
    processor.put_root(root, encoded, trace=trace)
    assert [span.name for span in target.spans] == ["SELECT"]
    assert [item.name for item in target.items] == ["GET /"]
    assert (sampler.buffer.held_spans, sampler.buffer.held_bytes) == (0, 0)
    assert sampler.kept() == {"violation": 2}


def test_a_root_that_ends_in_a_forked_child_takes_nothing_of_its_parent_along():
    sampler, target, provider, _ = encoded_pipeline()
    trace, *_ = sampler.begin(42, None)
    root = set_span_in_context(NonRecordingSpan(SpanContext(42, 7, is_remote=False)))
    provider.get_tracer("tests").start_span("SELECT", root).end()
    child = os.fork()
    if child == 0:
        sampler.decide(trace, RootFacts("GET /", 0.01, is_violation=True), None)
        os._exit(len(target.spans) + sampler.buffer.held_spans)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_otlp_spans_carry_threshold_and_reason():
    with engine_of() as engine:
        transport = RecordingTransport()
        sampler = SloSampler(0)
        provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        provider.add_span_processor(OtlpSpanProcessor(transport, limits(), engine))
        assert isinstance(install_slo_sampling(provider), EncodedSloSamplingProcessor)
        with provider.get_tracer("tests").start_as_current_span("GET /"):
            provider.get_tracer("tests").start_span("SELECT").end()
        assert provider.force_flush(5_000)
    spans = [
        span
        for request in transport.requests
        for resource in ExportTraceServiceRequest.FromString(request).resource_spans
        for span in resource.scope_spans[0].spans
    ]
    assert {span.name: span.trace_state for span in spans} == {"GET /": "ot=th:0", "SELECT": "ot=th:0"}
    for span in spans:
        assert {each.key for each in span.attributes} == {REASON, PROBABILITY}


def test_fields_are_appended_to_items_of_any_length():
    for size in (0, 100, 127, 128, 16_383, 16_384):
        item = with_fields(with_fields(b"\x12\x00", b"\x2a" + _length(size) + b"n" * size), b"\x1a\x01s")
        (span,) = ScopeSpans.FromString(item).spans
        assert (len(span.name), span.trace_state) == (size, "s")


def _length(size):
    out = b""
    while size >= 128:
        out += bytes([size & 127 | 128])
        size >>= 7
    return out + bytes([size])


def test_what_sources_hold_back_is_decided_before_the_end():
    sampler, target, _, processor = encoded_pipeline()
    trace, *_ = sampler.begin(42, None)

    def source():
        assert not target.is_shut_down
        sampler.decide(trace, RootFacts("GET /", 0.01), None)

    assert processor.draw_from(source) is not None
    assert target.sources == [source]
    processor.shutdown()
    assert target.is_shut_down
    assert sampler.kept() == {}
    assert trace.choice.reason == "exemplar"


def test_the_memory_of_held_spans_is_bounded_and_every_span_is_counted():
    pipeline = Pipeline(limits=Limits(held_bytes=50_000, trace_spans=10))
    pipeline.warm("GET /")
    with pipeline.tracer.start_as_current_span("GET /") as root:
        for _ in range(50):
            pipeline.tracer.start_span("SELECT", attributes={"db.query.text": "x" * 10_000}).end()
            assert pipeline.sampler.buffer.held_bytes <= 50_000
        root.set_status(Status(StatusCode.ERROR))
    exported = [span.name for span in pipeline.spans]
    assert exported[-1] == "GET /"
    assert 3 <= len(exported) <= 6
    assert pipeline.sampler.buffer.not_kept() == {"buffer_full": 51 - len(exported)}


def test_a_root_whose_trace_had_to_make_room_is_decided_all_the_same():
    pipeline = Pipeline(limits=Limits(open_traces=2))
    pipeline.warm("GET /")
    outside = set_span_in_context(trace_api.INVALID_SPAN)
    roots = [pipeline.tracer.start_span("GET /", outside) for _ in range(5)]
    for root in roots:
        root.set_status(Status(StatusCode.ERROR))
        root.end()
    assert len(pipeline.spans) == 5


def test_requests_in_threads_are_all_accounted_for():
    pipeline = Pipeline(50.0)

    def work():
        for number in range(100):
            with pipeline.tracer.start_as_current_span(f"GET /{number % 5}") as root:
                pipeline.tracer.start_span("SELECT").end()
                if number % 10 == 0:
                    root.set_status(Status(StatusCode.ERROR))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spans = pipeline.spans
    kept, not_kept = pipeline.sampler.kept(), pipeline.sampler.buffer.not_kept()
    assert len(spans) == sum(kept.values())
    assert sum(kept.values()) + sum(not_kept.values()) == 800
    assert kept["error"] == 80
    by_trace = Counter(span.context.trace_id for span in spans)
    assert set(by_trace.values()) == {2}


def test_a_forked_child_exports_nothing_that_its_parent_holds(pipeline):
    root = pipeline.tracer.start_span("GET /")
    pipeline.tracer.start_span("SELECT", set_span_in_context(root)).end()
    child = os.fork()
    if child == 0:
        os._exit(len(pipeline.sampler.buffer.open) + pipeline.sampler.buffer.held_spans)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert pipeline.sampler.buffer.held_spans == 1


def test_an_exporter_that_raises_and_a_span_that_is_none_reach_nobody(pipeline):
    class Raising(SpanProcessor):
        def on_end(self, span):
            raise RuntimeError("bang")

    pipeline.processor.targets = (Raising(), *pipeline.processor.targets)
    root = pipeline.tracer.start_span("GET /")
    root.set_status(Status(StatusCode.ERROR))
    root.end()
    assert pipeline.reasons == {"GET /": "error"}
    assert reported("span_processor") == 1
    pipeline.processor.on_end(object())
    assert reported("sampling") == 1


def test_metrics_tell_what_was_kept_and_what_was_not(pipeline):
    reader = InMemoryMetricReader()
    observe_sampling(MeterProvider([reader], shutdown_on_exit=False).get_meter("sightline"), pipeline.sampler)
    pipeline.tracer.start_span("GET /").end()
    held = pipeline.tracer.start_span("GET /")
    pipeline.tracer.start_span("SELECT", set_span_in_context(held)).end()
    (resource,) = reader.get_metrics_data().resource_metrics
    metrics = {metric.name: metric for metric in resource.scope_metrics[0].metrics}
    spans = metrics["sightline.sampling.spans"]
    points: list[Any] = list(spans.data.data_points)
    assert spans.unit == "{span}"
    assert {point.attributes[REASON]: point.value for point in points} == {
        "exemplar": 2,
        "not_sampled": 1,
    }
    (point,) = metrics["sightline.sampling.held"].data.data_points
    assert metrics["sightline.sampling.held"].unit == "By"
    assert 500 < point.value < 3_000


def test_a_sampler_has_one_processor_and_another_sampler_none(pipeline):
    with pytest.raises(ValueError, match="one processor"):
        SloSamplingProcessor(pipeline.sampler, ())
    assert install_slo_sampling(TracerProvider(shutdown_on_exit=False)) is None
    assert install_slo_sampling(object()) is None
    bare = TracerProvider(sampler=SloSampler(), shutdown_on_exit=False)
    assert install_slo_sampling(bare) is None


@pytest.mark.parametrize(
    ("argument", "expected"), [(None, 100), ("", 100), ("50", 50), ("0", 0), ("0.5", 0.5), ("1e6", 1e6)]
)
def test_the_argument_is_spans_per_second(argument, expected, caplog):
    sampler = slo_sampler(argument)
    assert sampler.spans_per_second == expected
    assert sampler.get_description() == f"SightlineSlo{{{expected:g}}}"
    assert not caplog.records


@pytest.mark.parametrize("argument", ["-1", "nan", "inf", "2e6", "many", "50/s"])
def test_a_wrong_argument_is_one_line_and_the_default_holds(argument, caplog):
    assert slo_sampler(argument).spans_per_second == 100
    (record,) = caplog.records
    assert "OTEL_TRACES_SAMPLER_ARG" in record.getMessage()
    assert argument in record.getMessage()


@pytest.mark.parametrize(("millis", "seconds"), [("15000", 15), ("", 60), ("soon", 60), ("-1", 60)])
def test_exemplars_are_wanted_as_often_as_metrics_are_exported(millis, seconds, monkeypatch):
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", millis)
    assert slo_sampler()._exemplars._interval == seconds


def test_the_sampler_of_the_environment_finds_its_exporter_at_the_first_trace(monkeypatch):
    sampler = slo_sampler("0")
    provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace_api, "_TRACER_PROVIDER", provider)
    for _ in range(2):
        provider.get_tracer("tests").start_span("GET /").end()
    (span,) = exporter.get_finished_spans()
    assert (span.attributes or {})[REASON] == "exemplar"


def test_without_an_exporter_of_its_own_the_sampler_says_so_once(monkeypatch, caplog):
    monkeypatch.setattr(trace_api, "_TRACER_PROVIDER", TracerProvider(shutdown_on_exit=False))
    provider = TracerProvider(sampler=slo_sampler("0"), shutdown_on_exit=False)
    for _ in range(2):
        provider.get_tracer("tests").start_span("GET /").end()
    (record,) = caplog.records
    assert "install_slo_sampling(provider)" in record.getMessage()
