"""One attempt over HTTP: what goes out, what is a delivery, and an end in time whatever happens."""

import socket
import threading
import time
from contextlib import contextmanager, suppress

import pytest
from tests.servers.relay import pump
from tests.sightline_processors.certificates import make_certificates
from tests.sightline_processors.export_support import http_transport
from tests.sightline_processors.faulty_collector import (
    PROTOBUF,
    FaultyCollector,
    accept,
    answer,
    drip,
    hang_up,
    raw,
    reset,
    silent,
    status,
)

from sightline_processors.export import Delivered, Drop, Retry
from sightline_processors.export.http_transport import HttpEndpoint, HttpTransport
from sightline_processors.export.tls import tls_context

SECONDS = 0.4
SLACK_SECONDS = 0.4
BODY = b""


@pytest.fixture
def collector():
    with FaultyCollector() as each:
        yield each


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def refused_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_request_is_what_a_collector_expects(collector):
    transport = http_transport(collector, headers=(("x-tenant", "a"), ("authorization", "Bearer b")))
    assert transport.post(BODY, 5) == Delivered(0)
    (request,) = collector.requests
    assert request.path == "/v1/traces"
    assert request.headers == {
        "host": f"127.0.0.1:{collector.port}",
        "content-type": "application/x-protobuf",
        "x-tenant": "a",
        "authorization": "Bearer b",
        "content-length": "0",
    }


def test_a_connection_is_kept(collector):
    transport = http_transport(collector)
    for _ in range(5):
        assert transport.post(BODY, 5) == Delivered(0)
    assert collector.connections == 1


def test_a_connection_that_the_server_has_closed_meanwhile_costs_no_attempt(collector):
    def close_after(server, connection, request):
        accept(server, connection, request)
        connection.close()

    collector.then = close_after
    transport = http_transport(collector)
    for _ in range(3):
        assert transport.post(BODY, 5) == Delivered(0)
        time.sleep(0.02)
    assert collector.connections == 3


def test_a_kept_connection_that_breaks_is_replaced_within_the_attempt(collector):
    transport = http_transport(collector)
    assert transport.post(BODY, 5) == Delivered(0)
    collector.script = [reset]
    assert transport.post(BODY, 5) == Delivered(0)
    assert collector.connections == 2


def test_a_server_that_closes_each_connection_gets_new_ones(collector):
    collector.then = status(200, ("connection", "close"))
    transport = http_transport(collector)
    assert [transport.post(BODY, 5) for _ in range(3)] == [Delivered(0)] * 3
    assert collector.connections == 3


@pytest.mark.parametrize("compression", ["none", "gzip", "deflate"])
def test_a_body_is_compressed_as_asked(collector, compression):
    encoding = () if compression == "none" else (("content-encoding", compression),)
    transport = http_transport(collector, compression=compression, headers=encoding)
    body = bytes.fromhex("0a00") * 2000
    assert transport.post(body, 5) == Delivered(0)
    (request,) = collector.requests
    assert request.body == body
    assert (int(request.headers["content-length"]) < len(body)) == (compression != "none")


@pytest.mark.parametrize(
    "behaviour",
    [
        silent,
        drip(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n", 0.05),
        drip(b"HTTP/1.1 100 Continue\r\n\r\n" * 50, 0.01),
        lambda _, connection, __: answer(connection, 200, PROTOBUF, length=10),
        drip(b"\x0a" * 100, 0.05, head=b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n"),
        drip(b"1\r\na\r\n" * 50, 0.03, head=b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"),
    ],
    ids=["silent", "head", "informational", "body-missing", "body", "chunks"],
)  # fmt: skip
def test_an_attempt_ends_by_its_deadline(collector, behaviour):
    collector.then = behaviour
    started = time.monotonic()
    verdict = http_transport(collector).post(BODY, SECONDS)
    assert verdict == Retry("timeout", detail=f"{SECONDS:.3g} s")
    assert SECONDS <= time.monotonic() - started < SECONDS + SLACK_SECONDS


def test_an_attempt_ends_by_its_deadline_where_nobody_reads():
    with socket.create_server(("127.0.0.1", 0), backlog=1) as listener:
        started = time.monotonic()
        transport = http_transport(f"http://127.0.0.1:{listener.getsockname()[1]}")
        assert transport.post(b"x" * 20_000_000, SECONDS).reason == "timeout"
        assert time.monotonic() - started < SECONDS + SLACK_SECONDS
        transport.close()


def test_an_attempt_ends_by_its_deadline_where_nobody_accepts():
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        port = listener.getsockname()[1]
        fillers = []
        for _ in range(8):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
            fillers.append(filler)
        started = time.monotonic()
        assert http_transport(f"http://127.0.0.1:{port}").post(BODY, SECONDS).reason == "timeout"
        assert time.monotonic() - started < SECONDS + SLACK_SECONDS
        for filler in fillers:
            filler.close()


@pytest.mark.parametrize(
    "behaviour",
    [
        reset,
        hang_up,
        raw(b""),
        raw(b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n"),
        raw(b"\x00" * 100),
        raw(b"HTTP/1.1 abc OK\r\n\r\n"),
        raw(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 500 + b"\r\n"),
        raw(b"HTTP/1.1 200 OK\r\na: " + b"b" * 100_000 + b"\r\n\r\n"),
        raw(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab"),
        raw(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"),
        raw(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab"),
    ],
    ids=str,
)
def test_a_broken_answer_is_no_delivery(collector, behaviour):
    collector.then = behaviour
    verdict = http_transport(collector).post(BODY, 5)
    assert isinstance(verdict, Retry)
    assert verdict.reason == "unreachable"


def test_an_answer_that_comes_before_the_whole_request_was_read_counts(collector):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def refuse_early():
            connection, _ = listener.accept()
            connection.recv(1000)
            connection.sendall(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            connection.shutdown(socket.SHUT_WR)
            time.sleep(0.2)
            connection.close()

        thread = threading.Thread(target=refuse_early)
        thread.start()
        transport = http_transport(f"http://127.0.0.1:{listener.getsockname()[1]}")
        assert transport.post(b"x" * 20_000_000, 5) == Drop("refused", "status 413")
        thread.join()


def test_a_redirect_is_not_followed(collector):
    with FaultyCollector() as elsewhere:
        collector.then = status(307, ("location", f"{elsewhere.endpoint}/v1/traces"))
        assert http_transport(collector).post(BODY, 5).reason == "redirected"
        assert not elsewhere.requests


def test_a_huge_answer_is_not_read_and_no_delivery(collector):
    collector.then = status(200, PROTOBUF, body=b"\x00" * 5_000_000)
    assert http_transport(collector).post(BODY, 5) == Drop("not_otlp", "status 200")


def test_an_endpoint_where_nobody_listens_is_unreachable():
    verdict = http_transport(f"http://127.0.0.1:{refused_port()}").post(BODY, 5)
    assert verdict == Retry("unreachable", detail="ConnectionRefusedError: Connection refused")


def test_a_name_without_an_address_is_unreachable():
    assert http_transport("http://no-such-host.invalid:4318").post(BODY, 5).reason == "unreachable"


def test_an_attempt_can_be_ended_from_another_thread(collector):
    collector.then = silent
    transport = http_transport(collector)
    threading.Timer(0.1, transport.abort).start()
    started = time.monotonic()
    assert transport.post(BODY, 5).reason == "unreachable"
    assert time.monotonic() - started < 2


def test_an_attempt_that_was_ended_on_a_kept_connection_is_not_made_again(collector):
    transport = http_transport(collector)
    assert transport.post(BODY, 5) == Delivered(0)
    collector.script = [silent]
    threading.Timer(0.1, transport.abort).start()
    assert transport.post(BODY, 5).reason == "unreachable"
    assert (collector.connections, len(collector.requests)) == (1, 2)


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("at", [17, 40, 60, -1])
def test_an_answer_in_two_parts_is_read_as_a_whole(certificates, secure, at):
    whole = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\ndate: Sun, 22 Nov 2026 00:00:00 GMT\r\n\r\n"

    def halting(server, connection, request):
        server.store([str(len(server.requests))])
        connection.sendall(whole[:at])
        time.sleep(0.03)
        connection.sendall(whole[at:])

    with FaultyCollector(then=halting, context=certificates.context() if secure else None) as collector:
        transport = http_transport(collector, verify=str(certificates.authority))
        assert [transport.post(BODY, 5) for _ in range(4)] == [Delivered(0)] * 4
        assert (collector.connections, len(collector.requests)) == (1, 4)
        transport.close()


def test_tls_trusts_the_authority_that_is_named(certificates):
    with FaultyCollector(context=certificates.context()) as collector:
        transport = http_transport(collector, verify=str(certificates.authority))
        assert [transport.post(BODY, 5) for _ in range(2)] == [Delivered(0)] * 2
        assert collector.connections == 1
        transport.close()


def test_tls_trusts_no_other_authority(certificates):
    with FaultyCollector(context=certificates.context()) as collector:
        verdict = http_transport(collector).post(BODY, 5)
        assert verdict.reason == "unreachable"
        assert "SSLCertVerificationError" in verdict.detail
        assert not collector.requests


def test_tls_shows_the_clients_certificate(certificates):
    with FaultyCollector(context=certificates.context(asks_client=True)) as collector:
        own = tuple(map(str, certificates.client))
        trusted = str(certificates.authority)
        transport = http_transport(collector, verify=trusted, client_certificate=own)
        assert transport.post(BODY, 5) == Delivered(0)
        transport.close()
        assert http_transport(collector, verify=trusted).post(BODY, 5).reason == "unreachable"


def test_a_certificate_that_cannot_be_read_is_unreachable(certificates, tmp_path):
    tls_context.cache_clear()
    with FaultyCollector(context=certificates.context()) as collector:
        verdict = http_transport(collector, verify=str(tmp_path / "missing.pem")).post(BODY, 5)
        assert verdict.reason == "unreachable"


@pytest.mark.parametrize("behaviour", [silent, drip(b"\x16\x03\x03" * 50, 0.05)], ids=["silent", "drip"])
def test_a_handshake_ends_by_the_deadline(behaviour):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ended = threading.Event()

        def serve():
            connection, _ = listener.accept()
            with connection, suppress(OSError):  # the transport may have closed before `ended`
                while not ended.wait(0.05):
                    if behaviour is not silent:
                        connection.sendall(b"\x16")

        thread = threading.Thread(target=serve)
        thread.start()
        started = time.monotonic()
        transport = http_transport(f"https://127.0.0.1:{listener.getsockname()[1]}")
        verdict = transport.post(BODY, SECONDS)
        assert verdict.reason in ("timeout", "unreachable")  # a wrong record ends it at once
        assert time.monotonic() - started < SECONDS + SLACK_SECONDS
        ended.set()
        thread.join()


def test_a_proxy_gets_the_whole_address(collector):
    endpoint = HttpEndpoint(
        "http://collector.invalid:4318/v1/traces",
        proxy=collector.endpoint,
        proxy_headers=(("proxy-authorization", "Basic dTpw"),),
    )
    transport = HttpTransport("traces", endpoint)
    assert transport.post(BODY, 5) == Delivered(0)
    transport.close()
    (request,) = collector.requests
    assert request.target == "http://collector.invalid:4318/v1/traces"
    assert request.headers["host"] == "collector.invalid:4318"
    assert request.headers["proxy-authorization"] == "Basic dTpw"


@contextmanager
def tunnel(asked, destination, code=200):
    """Serves one CONNECT and passes bytes on; is over when both sides have closed."""

    def serve():
        connection, _ = listener.accept()
        with connection:
            asked.append(connection.recv(65536))
            connection.sendall(b"HTTP/1.1 %d Whatever\r\n\r\n" % code)
            if code == 200:
                with socket.create_connection(("127.0.0.1", destination)) as upstream:
                    back = threading.Thread(target=pump, args=(upstream, connection))
                    back.start()
                    pump(connection, upstream)
                    back.join()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


def test_a_proxy_opens_a_tunnel_for_https(certificates):
    asked = []
    with (
        FaultyCollector(context=certificates.context()) as collector,
        tunnel(asked, collector.port) as proxy,
    ):
        transport = http_transport(
            collector,
            verify=str(certificates.authority),
            proxy=proxy,
            proxy_headers=(("proxy-authorization", "Basic dTpw"),),
        )
        assert transport.post(BODY, 5) == Delivered(0)
        transport.close()
    assert asked[0].startswith(f"CONNECT 127.0.0.1:{collector.port} HTTP/1.1\r\n".encode())
    assert b"proxy-authorization: Basic dTpw\r\n" in asked[0]


def test_a_proxy_that_refuses_is_no_delivery(certificates):
    with tunnel([], 0, code=407) as proxy:
        verdict = http_transport("https://127.0.0.1:1", proxy=proxy).post(BODY, 5)
    assert verdict.reason == "unreachable"


@pytest.mark.parametrize(
    ("url", "header"),
    [
        ("ftp://127.0.0.1/", "x"),
        ("http:///v1/traces", "x"),
        ("http://127.0.0.1/", "a\r\nb"),
        ("http://127.0.0.1/", "\N{SNOWMAN}"),
    ],
)
def test_what_cannot_be_sent_is_refused_at_once(url, header):
    with pytest.raises(ValueError):
        HttpTransport("traces", HttpEndpoint(url, (("x-tenant", header),)))


def test_no_secret_is_shown():
    endpoint = HttpEndpoint(
        "http://127.0.0.1/v1/traces?token=secret",
        (("authorization", "secret"),),
        proxy="http://user:secret@127.0.0.1/",
        proxy_headers=(("proxy-authorization", "secret"),),
    )
    transport = HttpTransport("traces", endpoint)
    assert transport.destination.endpoint == "http://127.0.0.1/v1/traces"
    assert "secret" not in repr(endpoint).replace("token=secret", "")
    assert "secret" not in repr(transport.destination)
