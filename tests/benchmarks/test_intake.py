"""What the receiver counts is what was sent, in the protocol of each variant."""

import json
import struct

import pytest
from benchmarks import messagepack
from benchmarks.intake import NEWRELIC_METRICS, REQUEST_DURATION, Intake
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

ROOT = Span.SPAN_KIND_UNSPECIFIED
"""The kind of those spans of `traces` that have no parent."""


@pytest.fixture
def intake():
    return Intake()


def traces(*spans):
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for span_id, kind in spans:
        scope.spans.add(span_id=span_id, kind=kind, parent_span_id=b"" if kind == ROOT else b"p")
    return request.SerializeToString()


def durations(temporality, *counts):
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name=REQUEST_DURATION)
    metric.histogram.aggregation_temporality = temporality
    for route, count in enumerate(counts):
        point = metric.histogram.data_points.add(count=count)
        point.attributes.add(key="http.route").value.string_value = str(route)
        point.exemplars.add(as_double=1.0)
    return request.SerializeToString()


def test_otlp_server_spans_and_roots_are_requests_and_the_others_are_not(intake):
    intake.add(
        "/v1/traces", traces((b"a", Span.SPAN_KIND_SERVER), (b"b", Span.SPAN_KIND_CLIENT), (b"c", ROOT))
    )
    assert (intake.counts()["requests"], intake.counts()["spans"]) == (2, 3)


def test_a_span_that_arrives_twice_counts_once_and_as_repeated(intake):
    for _ in range(2):
        intake.add("/v1/traces", traces((b"a", Span.SPAN_KIND_SERVER)))
    assert (intake.counts()["requests"], intake.repeated) == (1, 1)


def test_cumulative_histograms_count_once_and_deltas_add_up(intake):
    intake.add("/v1/metrics", durations(2, 3, 1))
    intake.add("/v1/metrics", durations(2, 5, 1))
    assert intake.counts()["measured"] == 6
    intake.add("/v1/metrics", durations(1, 10))
    assert intake.counts()["measured"] == 16
    assert intake.exemplars == 5


def test_otlp_logs_are_counted(intake):
    request = ExportLogsServiceRequest()
    request.resource_logs.add().scope_logs.add().log_records.add()
    intake.add("/v1/logs", request.SerializeToString())
    assert intake.logs == 1


@pytest.mark.parametrize(
    ("path", "payload"),
    [
        ("/v0.4/traces", [[{"span_id": 1, "parent_id": 0}, {"span_id": 2, "parent_id": 1}]]),
        ("/v0.5/traces", [["", "x"], [[[0, 0, 0, 9, 1, 0, 0, 0], [0, 0, 0, 9, 2, 1, 0, 0]]]]),
    ],
)
def test_datadog_local_roots_are_requests(intake, path, payload):
    intake.add(path, encode(payload))
    assert (intake.counts()["requests"], intake.counts()["spans"], intake.unreadable) == (1, 2, 0)


def test_elastic_transactions_are_requests(intake):
    lines = [{"metadata": {}}, {"transaction": {"id": "a"}}, {"span": {"id": "b"}}]
    body = "\n".join(json.dumps(line, separators=(",", ":")) for line in lines).encode()
    intake.add("/intake/v2/events", body)
    assert (intake.counts()["requests"], intake.counts()["spans"]) == (1, 2)


@pytest.mark.parametrize("has_length", [True, False])
def test_sentry_transactions_are_requests(intake, has_length):
    payload = json.dumps({"event_id": "a", "spans": [{"span_id": "b"}]}).encode()
    header = {"type": "transaction", **({"length": len(payload)} if has_length else {})}
    body = b"{}\n" + json.dumps(header).encode() + b"\n" + payload + b'\n{"type":"session"}\n{}'
    intake.add("/api/1/envelope/", body)
    assert (intake.counts()["requests"], intake.counts()["spans"], intake.unreadable) == (1, 2, 0)


def test_newrelic_requests_are_those_of_its_dispatcher_metric(intake):
    metrics = [[{"name": "HttpDispatcher", "scope": ""}, [7, 0.1]], [{"name": "Other"}, [9, 0.1]]]
    intake.add(NEWRELIC_METRICS, json.dumps(["1", 0, 1, metrics]).encode())
    assert intake.counts()["requests"] == 7


@given(
    st.sampled_from(["/v1/traces", "/v0.5/traces", "/intake/v2/events", "/api/1/", NEWRELIC_METRICS]),
    st.binary(),
)
def test_no_delivery_raises(path, body):
    Intake().add(path, body)


def test_a_delivery_that_cannot_be_parsed_is_counted(intake):
    intake.add("/v1/traces", b"\xff")
    assert intake.unreadable == 1


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.binary(max_size=300),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.binary(max_size=40), inner, max_size=20),
    max_leaves=40,
)


@settings(max_examples=40)
@given(VALUES)
def test_messagepack_reads_what_was_written(value):
    assert messagepack.decode(encode(value)) == value


@settings(max_examples=40)
@given(VALUES, st.integers(min_value=1))
def test_messagepack_that_is_cut_short_is_refused(value, cut):
    written = encode(value)
    with pytest.raises(ValueError, match="end within"):
        messagepack.decode(written[: len(written) - 1 - cut % len(written)])


def encode(value):
    """Writes MessagePack, each value in the smallest form; text as bytes."""
    if value is None or isinstance(value, bool):
        return {None: b"\xc0", False: b"\xc2", True: b"\xc3"}[value]
    if isinstance(value, float):
        return struct.pack(">Bd", 0xCB, value)
    if isinstance(value, int):
        return _integer(value)
    if isinstance(value, str | bytes):
        data = value.encode() if isinstance(value, str) else value
        return _head(len(data), 0xA0, 32, {0xD9: ">BB", 0xDA: ">BH", 0xDB: ">BI"}) + data
    if isinstance(value, dict):
        parts = [part for pair in value.items() for part in pair]
        return _head(len(value), 0x80, 16, {0xDE: ">BH", 0xDF: ">BI"}) + b"".join(map(encode, parts))
    return _head(len(value), 0x90, 16, {0xDC: ">BH", 0xDD: ">BI"}) + b"".join(map(encode, value))


def _head(length, fixed, below, larger):
    if length < below:
        return bytes([fixed | length])
    return next(packed for kind, layout in larger.items() if (packed := _packed(layout, kind, length)))


def _integer(value):
    if -32 <= value < 128:
        return struct.pack(">b" if value < 0 else ">B", value)
    kinds = {0xCC: ">BB", 0xCD: ">BH", 0xCE: ">BI", 0xCF: ">BQ"}
    signed = {0xD0: ">Bb", 0xD1: ">Bh", 0xD2: ">Bi", 0xD3: ">Bq"}
    chosen = signed if value < 0 else kinds
    return next(packed for kind, layout in chosen.items() if (packed := _packed(layout, kind, value)))


def _packed(layout, kind, value):
    try:
        return struct.pack(layout, kind, value)
    except struct.error:
        return b""
