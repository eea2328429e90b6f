"""OTLP over gRPC: the same items, the same rules, on a real server."""

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc  # type: ignore[import-untyped]  # its authors publish no types
import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, RetryInfo  # type: ignore[import-untyped]  # no types
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # no types
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from tests.servers.relay import pump
from tests.sightline_processors.certificates import make_certificates
from tests.sightline_processors.export_support import engine_of, limits, span_source, until
from tests.sightline_processors.faulty_collector import partial_success

from sightline_processors.export import Delivered, Drop, OtlpSpanProcessor, Retry
from sightline_processors.export.grpc_transport import GrpcEndpoint, GrpcTransport

METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


class Collector(grpc.GenericRpcHandler):  # type: ignore[misc]  # its base is untyped
    """Answers calls by a script, then acknowledges."""

    def __init__(self):
        self.script = []
        self.stored = {}
        self.metadata = []
        self.calls = 0

    def service(self, details):
        if details.method == METHOD:
            return grpc.unary_unary_rpc_method_handler(self.export)
        return None

    def export(self, request, context):
        self.calls += 1
        self.metadata.append(dict(context.invocation_metadata()))
        if self.script and (answer := self.script.pop(0)) is not None:
            return answer(context)
        for resource in ExportTraceServiceRequest.FromString(request).resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.stored[span.span_id.hex()] = self.stored.get(span.span_id.hex(), 0) + 1
        return b""


def fail(code, *trailers):
    def answer(context):
        context.set_trailing_metadata(trailers)
        context.abort(code, "SECRET")

    return answer


def details(*messages):
    status = Status(code=8)
    for message in messages:
        packed = Any()
        packed.Pack(message)
        status.details.append(packed)
    return ("grpc-status-details-bin", status.SerializeToString())


@contextmanager
def serving(credentials=None):
    collector = Collector()
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((collector,))
    if credentials is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield collector, f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


@pytest.fixture
def pair():
    with serving() as (collector, target):
        transport = GrpcTransport("traces", GrpcEndpoint(target))
        yield collector, transport
        transport.close()


def test_items_arrive_with_the_headers():
    with serving() as (collector, target), engine_of() as engine:
        transport = GrpcTransport("traces", GrpcEndpoint(target, metadata=(("x-tenant", "a"),)))
        processor = OtlpSpanProcessor(transport, limits(), engine)
        source = span_source(processor)
        items = [source() for _ in range(100)]
        assert processor.force_flush(5_000)
        assert collector.stored == dict.fromkeys(items, 1)
        assert collector.metadata[0]["x-tenant"] == "a"
        assert engine.ledger("traces").acknowledged == 100


WAIT = RetryInfo(retry_delay=Duration(seconds=2, nanos=500_000_000))


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (fail(grpc.StatusCode.CANCELLED), Retry("unavailable", 0.0, "status CANCELLED")),
        (fail(grpc.StatusCode.DEADLINE_EXCEEDED), Retry("timeout", 0.0, "status DEADLINE_EXCEEDED")),
        (fail(grpc.StatusCode.ABORTED), Retry("unavailable", 0.0, "status ABORTED")),
        (fail(grpc.StatusCode.OUT_OF_RANGE), Retry("unavailable", 0.0, "status OUT_OF_RANGE")),
        (fail(grpc.StatusCode.DATA_LOSS), Retry("unavailable", 0.0, "status DATA_LOSS")),
        (fail(grpc.StatusCode.UNAVAILABLE), Retry("unreachable", 0.0, "status UNAVAILABLE")),
        (
            fail(grpc.StatusCode.UNAVAILABLE, details(WAIT)),
            Retry("unavailable", 2.5, "status UNAVAILABLE"),
        ),
        (
            fail(grpc.StatusCode.UNAVAILABLE, ("google.rpc.retryinfo-bin", WAIT.SerializeToString())),
            Retry("unavailable", 2.5, "status UNAVAILABLE"),
        ),
        (fail(grpc.StatusCode.RESOURCE_EXHAUSTED), Drop("refused", "status RESOURCE_EXHAUSTED")),
        (
            fail(grpc.StatusCode.RESOURCE_EXHAUSTED, details(BadRequest())),
            Drop("refused", "status RESOURCE_EXHAUSTED"),
        ),
        (
            fail(grpc.StatusCode.RESOURCE_EXHAUSTED, details(BadRequest(), WAIT)),
            Retry("unavailable", 2.5, "status RESOURCE_EXHAUSTED"),
        ),
        (
            fail(grpc.StatusCode.RESOURCE_EXHAUSTED, ("grpc-status-details-bin", b"\xff\xff")),
            Drop("refused", "status RESOURCE_EXHAUSTED"),
        ),
        (fail(grpc.StatusCode.UNAUTHENTICATED), Drop("refused", "status UNAUTHENTICATED")),
        (fail(grpc.StatusCode.PERMISSION_DENIED), Drop("refused", "status PERMISSION_DENIED")),
        (fail(grpc.StatusCode.INVALID_ARGUMENT), Drop("refused", "status INVALID_ARGUMENT")),
        (fail(grpc.StatusCode.INTERNAL), Drop("refused", "status INTERNAL")),
        (lambda _: partial_success("/v1/traces", 4), Delivered(4)),
        (lambda _: b"\xff\xff\xff", Drop("not_otlp", "status OK")),
    ],
)  # fmt: skip
def test_each_status_means_what_the_specification_says(pair, answer, verdict):
    collector, transport = pair
    collector.script = [answer]
    assert transport.post(b"", 5) == verdict


def test_a_service_that_is_not_there_refuses(pair):
    _, transport = pair
    logs = GrpcTransport("logs", transport._settings)
    assert logs.post(b"", 5) == Drop("refused", "status UNIMPLEMENTED")
    logs.close()


def test_a_call_ends_by_its_deadline(pair):
    collector, transport = pair
    collector.script = [lambda _: time.sleep(1)]
    started = time.monotonic()
    assert transport.post(b"", 0.3).reason == "timeout"
    assert time.monotonic() - started < 0.9


def test_a_server_that_comes_back_gets_what_waited():
    with serving() as (_, target):
        pass
    transport = GrpcTransport("traces", GrpcEndpoint(target))
    with engine_of() as engine:
        processor = OtlpSpanProcessor(transport, limits(), engine)
        source = span_source(processor)
        item = source()
        assert processor.force_flush(300) is False
        collector = Collector()
        server = grpc.server(ThreadPoolExecutor(2))
        server.add_generic_rpc_handlers((collector,))
        server.add_insecure_port(target)
        server.start()
        assert until(lambda: collector.stored == {item: 1})
        assert until(lambda: engine.ledger("traces").acknowledged == 1)
        server.stop(None).wait()


def test_tls_with_an_authority(tmp_path):
    certificates = make_certificates(tmp_path)
    certificate, key = (path.read_bytes() for path in certificates.server)
    with serving(grpc.ssl_server_credentials([(key, certificate)])) as (_, target):
        trusted = grpc.ssl_channel_credentials(certificates.authority.read_bytes())
        transport = GrpcTransport("traces", GrpcEndpoint(target, credentials=trusted))
        assert transport.post(b"", 5) == Delivered(0)
        transport.close()
        stranger = GrpcTransport("traces", GrpcEndpoint(target, credentials=grpc.ssl_channel_credentials()))
        assert stranger.post(b"", 2).reason in ("unreachable", "timeout")
        stranger.close()


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_compression_is_the_channels(compression):
    sent = []

    with serving() as (collector, target), socket.create_server(("127.0.0.1", 0)) as listener:
        collector.script = [lambda _: b""]

        def relay():
            client, _ = listener.accept()
            host, _, port = target.partition(":")
            server = socket.create_connection((host, int(port)))
            with client, server:
                back = threading.Thread(target=pump, args=(server, client))
                back.start()
                pump(client, server, sent.append)
                back.join()

        thread = threading.Thread(target=relay)
        thread.start()
        endpoint = GrpcEndpoint(f"127.0.0.1:{listener.getsockname()[1]}", compression=compression)
        transport = GrpcTransport("traces", endpoint)
        assert transport.post(bytes(50_000), 5) == Delivered(0)
        transport.close()
        thread.join()
    assert (sum(sent) < 10_000) == (compression is grpc.Compression.Gzip)


def test_what_grpc_refuses_to_send_is_no_delivery(pair):
    _, transport = pair
    odd = GrpcTransport("traces", GrpcEndpoint(transport._settings.target, metadata=(("Not Allowed", "x"),)))
    assert odd.post(b"", 2).reason in ("unreachable", "refused")
    odd.close()


def test_no_secret_is_shown():
    endpoint = GrpcEndpoint("user:secret@host:4317", metadata=(("authorization", "secret"),))
    transport = GrpcTransport("traces", endpoint)
    assert transport.destination.endpoint == "grpc://host:4317"
    assert transport.destination.server_address == "host"
    assert transport.destination.server_port == 4317
    assert "secret" not in repr(transport.destination)
