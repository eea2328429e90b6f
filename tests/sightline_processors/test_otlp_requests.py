"""Requests joined from encoded items: grouped as the stock encoder groups them."""

from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry._logs import LogRecord
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope as ScopeMessage
from opentelemetry.proto.resource.v1.resource_pb2 import Resource as ResourceMessage
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext

from sightline_processors.otlp import requests
from sightline_processors.otlp.logs import encode_log_record
from sightline_processors.otlp.requests import MAX_KEPT, join_request
from sightline_processors.otlp.spans import encode_span

RESOURCES = [
    Resource({"service.name": "shop", "process.pid": 7}, "https://example.com/resource"),
    Resource({"service.name": "shop", "process.pid": 7}, "https://example.com/resource"),
    Resource({"service.name": "shop", "process.pid": 7}),
    Resource({"service.name": "shop", "list": ["a", "b"], "long": "x" * 500}),
    Resource({}),
]
SCOPES = [
    InstrumentationScope("library", "1.0", "https://example.com/scope", {"k": True}),
    InstrumentationScope("library", "1.0", "https://example.com/scope", {"k": True}),
    InstrumentationScope("library", "1.0", "https://example.com/scope", {"k": 1.5}),
    InstrumentationScope("library", "1.0"),
    InstrumentationScope("library"),
    InstrumentationScope("", None, None, {"long": "y" * 500}),
    None,
]

places = st.lists(st.tuples(st.sampled_from(RESOURCES), st.sampled_from(SCOPES)), max_size=30)


def span_of(resource, scope, number) -> ReadableSpan:
    context = SpanContext(1, number, is_remote=False)
    return ReadableSpan("n" * number, context, resource=resource, instrumentation_scope=scope)


@given(places)
@settings(max_examples=150, deadline=None)
def test_spans_are_grouped_as_the_stock_encoder_groups_them(pairs):
    spans = [span_of(resource, scope, number) for number, (resource, scope) in enumerate(pairs)]
    request = join_request((span.resource, span.instrumentation_scope, encode_span(span)) for span in spans)
    assert ExportTraceServiceRequest.FromString(request) == encode_spans(spans)


@given(places)
@settings(max_examples=50, deadline=None)
def test_log_records_are_grouped_as_the_stock_encoder_groups_them(pairs):
    records = [
        ReadableLogRecord(LogRecord(body=number, observed_timestamp=number), resource, scope)
        for number, (resource, scope) in enumerate(pairs)
    ]
    request = join_request(
        (record.resource, record.instrumentation_scope, encode_log_record(record)) for record in records
    )
    assert ExportLogsServiceRequest.FromString(request) == encode_logs(records)


def test_full_request_has_every_field():
    request = join_request([(RESOURCES[0], SCOPES[0], encode_span(span_of(None, None, 1)))])
    (resource_spans,) = ExportTraceServiceRequest.FromString(request).resource_spans
    assert resource_spans.resource == ResourceMessage(
        attributes=[
            KeyValue(key="service.name", value=AnyValue(string_value="shop")),
            KeyValue(key="process.pid", value=AnyValue(int_value=7)),
        ]
    )
    assert resource_spans.schema_url == "https://example.com/resource"
    (scope_spans,) = resource_spans.scope_spans
    assert scope_spans.scope == ScopeMessage(
        name="library", version="1.0", attributes=[KeyValue(key="k", value=AnyValue(bool_value=True))]
    )
    assert scope_spans.schema_url == "https://example.com/scope"
    assert [span.name for span in scope_spans.spans] == ["n"]


def test_no_items_make_an_empty_request():
    assert join_request([]) == b""


def test_large_request_carries_its_lengths():
    spans = [span_of(RESOURCES[number // 400], SCOPES[number % 3], number) for number in range(1000)]
    spans += [span_of(RESOURCES[3], SCOPES[5], 3_000_000)]
    request = join_request([(span.resource, span.instrumentation_scope, encode_span(span)) for span in spans])
    assert ExportTraceServiceRequest.FromString(request) == encode_spans(spans)


def test_items_keep_their_order_inside_a_group():
    order = [5, 3, 8, 1, 9, 2]
    items = [(RESOURCES[0], SCOPES[number % 2], encode_span(span_of(None, None, number))) for number in order]
    (resource_spans,) = ExportTraceServiceRequest.FromString(join_request(items)).resource_spans
    # The two scopes are equal, so the items are of one group.
    (scope_spans,) = resource_spans.scope_spans
    assert [len(span.name) for span in scope_spans.spans] == order


def test_missing_resource_and_scope_are_empty_ones():
    request = ExportTraceServiceRequest.FromString(
        join_request([(None, None, encode_span(span_of(None, None, 1)))])
    )
    assert request.resource_spans[0].HasField("resource")
    assert request.resource_spans[0].scope_spans[0].HasField("scope")
    assert request.resource_spans[0].resource == ResourceMessage()
    assert request.resource_spans[0].scope_spans[0].scope == ScopeMessage()


class OddResource:
    attributes = {"k": "\ud800", 5: {1}}  # noqa: RUF012  it is never changed

    @property
    def schema_url(self):
        raise RuntimeError


class OddScope:
    name = None
    version = 3
    schema_url = "\ud800"

    @property
    def attributes(self):
        raise RuntimeError


def test_odd_resource_and_scope_lose_no_item():
    items = [(OddResource(), OddScope(), encode_span(span_of(None, None, 1)))]
    request = ExportTraceServiceRequest.FromString(join_request(items))  # type: ignore[arg-type]  # that is the point
    (resource_spans,) = request.resource_spans
    assert resource_spans.resource.attributes[0].value.string_value == "?"
    assert resource_spans.resource.attributes[1] == KeyValue(key="5", value=AnyValue(string_value="{1}"))
    assert resource_spans.scope_spans[0].scope == ScopeMessage(version="3")
    assert resource_spans.scope_spans[0].schema_url == "?"
    assert [span.name for span in resource_spans.scope_spans[0].spans] == ["n"]


def test_kept_bytes_are_bounded_and_never_those_of_an_object_that_is_gone():
    item = encode_span(span_of(None, None, 1))
    for number in range(MAX_KEPT * 3):
        # Neither object outlives its turn, so their addresses come back.
        request = join_request([(Resource({"n": number}), InstrumentationScope(str(number)), item)])
        (resource_spans,) = ExportTraceServiceRequest.FromString(request).resource_spans
        assert resource_spans.resource.attributes[0].value.int_value == number
        assert resource_spans.scope_spans[0].scope.name == str(number)
        assert len(requests._RESOURCES) <= MAX_KEPT
        assert len(requests._SCOPES) <= MAX_KEPT


def test_resources_are_encoded_once_each():
    class Counting(Resource):
        reads = 0

        @property
        def attributes(self):
            Counting.reads += 1
            return super().attributes

    both = Counting({"k": 1}), Counting({"k": 2})
    items = [(resource, scope, b"") for resource in both for scope in SCOPES] * 20
    assert join_request(items) == join_request(items)
    assert Counting.reads == 2
