"""Whatever is sent to the collector's port is refused or dropped, and counted; the honest do not notice."""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc  # type: ignore[import-untyped]  # its authors publish no types
import httpx
import pytest

from . import attacks
from .attack_cases import (
    JSON,
    LARGEST_BODY,
    LONG,
    ODD_LOGS,
    ODD_METRICS,
    ODD_SPANS,
    REFUSED,
    REFUSED_LOGS,
    REFUSED_METRICS,
    UNSTORABLE_SPANS,
    deep_span,
    from_attacker,
    many_attributes,
)
from .attacked_stack import (
    CONTAINER_LIMIT_BYTES,
    SIGNALS,
    HonestClient,
    Target,
    counting,
    measure_cost,
)
from .stack_fixture import eventually, running_stack

pytestmark = pytest.mark.stack

HTTP_ANSWERS = "http_server_request_duration_count"
GRPC_ANSWERS = "rpc_server_call_duration_count"
ALL_SERVED = dict.fromkeys(SIGNALS, True)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A stack of its own: an attack fills it with what no other test wants to find."""
    state = tmp_path_factory.mktemp("attacked") / "stack"
    with running_stack(state) as told:
        yield Target(told)


@pytest.fixture(scope="module")
def honest(target: Target) -> Iterator[HonestClient]:
    """Sends all signals while the attacks run."""
    with HonestClient(target) as client:
        yield client


@pytest.fixture(scope="module")
def usual_cost(target: Target, honest: HonestClient) -> float:
    """CPU per span before the first attack."""
    return measure_cost(target)


@pytest.fixture(autouse=True)
def survival(target: Target, honest: HonestClient, usual_cost: float) -> Iterator[None]:
    """Asserts after each attack that nobody died, memory stayed in its limit and all signals are taken."""
    target.forget_peak()
    yield
    assert target.is_running()
    assert target.peak_bytes() < CONTAINER_LIMIT_BYTES
    assert honest.is_acknowledged(), honest.refusals


@pytest.mark.parametrize("attack", REFUSED)
def test_bad_request_is_refused_and_counted_by_status(attack: str, target: Target) -> None:
    path, body, headers, status = REFUSED[attack]

    with counting(target, HTTP_ANSWERS, 1, http_response_status_code=str(status)):
        assert target.post(path, body(), **headers).status_code == status


def test_other_methods_are_refused_and_counted(target: Target) -> None:
    with counting(target, HTTP_ANSWERS, 4, http_response_status_code="405"):
        for method in ("GET", "PUT", "DELETE", "PATCH"):
            answer = httpx.request(method, f"{target.url}/v1/traces")
            assert answer.status_code == httpx.codes.METHOD_NOT_ALLOWED


def test_host_and_method_of_a_client_are_no_labels_of_the_collectors_own_metrics(target: Target) -> None:
    for number in range(10):
        target.post("traces", b"", Host=f"host-{number}", User_Agent=f"agent-{number}")
    metrics = int(target.endpoints["port_offset"]) + 8888

    text = httpx.get(f"http://127.0.0.1:{metrics}/metrics").text

    assert not re.findall(r"host-\d|agent-\d", text)


@pytest.mark.parametrize(
    ("body", "compression", "code"),
    [
        (lambda: bytes(range(255, 0, -1)), None, "INTERNAL"),
        (lambda: from_attacker(attacks.span())[:-3], None, "INTERNAL"),
        (lambda: bytes(LARGEST_BODY + 1), None, "RESOURCE_EXHAUSTED"),
        (lambda: bytes(50_000_000), grpc.Compression.Gzip, "RESOURCE_EXHAUSTED"),
    ],
    ids=["garbage", "truncated", "too large", "gzip bomb"],
)
def test_bad_call_is_refused_and_counted_by_code(
    body: Callable[[], bytes], compression: grpc.Compression | None, code: str, target: Target
) -> None:
    address = "{}:{}".format(*target.grpc_address)
    unlimited = [("grpc.max_send_message_length", -1)]

    with (
        counting(target, GRPC_ANSWERS, 1, rpc_response_status_code=code),
        grpc.insecure_channel(address, options=unlimited) as channel,
        pytest.raises(grpc.RpcError) as error,
    ):
        channel.unary_unary(attacks.TRACE_EXPORT)(body(), timeout=60, compression=compression)

    assert error.value.code().name == code


def test_span_that_jaeger_cannot_store_is_dropped_counted_and_blocks_nobody(
    target: Target, honest: HonestClient
) -> None:
    filtered = "otelcol_processor_filter_spans_filtered_total"

    with counting(target, filtered, len(UNSTORABLE_SPANS), "jaeger"):
        for body in UNSTORABLE_SPANS.values():
            assert target.post("traces", body()).status_code == httpx.codes.OK
    assert honest.is_served() == ALL_SERVED


def test_long_event_is_dropped_and_its_span_kept(target: Target) -> None:
    trace_id = b"\x01" * 16
    event = attacks.field(11, attacks.fixed(1, 1) + attacks.field(3, attacks.attribute("stack", LONG)))
    target.post("traces", from_attacker(attacks.span(event, trace_id=trace_id)))
    url = f"{target.endpoints['jaeger']}/api/traces/{trace_id.hex()}"

    assert eventually(lambda: httpx.get(url).status_code == httpx.codes.OK, 10)
    assert httpx.get(url).json()["data"][0]["spans"][0]["logs"] == []


def test_deep_json_is_survived(target: Target, honest: HonestClient) -> None:
    assert target.post("traces", deep_span("json"), **JSON).status_code == httpx.codes.OK
    assert honest.is_served() == ALL_SERVED


def test_odd_spans_are_stored_or_dropped_and_block_nobody(target: Target, honest: HonestClient) -> None:
    with counting(target, "otelcol_exporter_sent_spans", len(ODD_SPANS), exporter="otlp_grpc/jaeger"):
        for item in ODD_SPANS.values():
            assert target.post("traces", from_attacker(item)).status_code == httpx.codes.OK
    assert honest.is_served() == ALL_SERVED


def test_metric_that_prometheus_refuses_is_dropped_counted_and_takes_nothing_along(
    target: Target, honest: HonestClient
) -> None:
    failed, count = "otelcol_exporter_send_failed_metric_points", len(REFUSED_METRICS)

    with counting(target, failed, count, exporter="otlp_http/prometheus"):
        for metric in REFUSED_METRICS.values():
            assert target.post("metrics", from_attacker(metric)).status_code == httpx.codes.OK
    assert honest.is_served() == ALL_SERVED


def test_odd_metrics_block_nobody(target: Target, honest: HonestClient) -> None:
    for metric in ODD_METRICS.values():
        assert target.post("metrics", from_attacker(metric)).status_code == httpx.codes.OK
    assert honest.is_served() == ALL_SERVED


def test_log_record_that_loki_refuses_is_dropped_counted_and_takes_nothing_along(
    target: Target, honest: HonestClient
) -> None:
    failed, count = "otelcol_exporter_send_failed_log_records", len(REFUSED_LOGS)

    with counting(target, failed, count, exporter="otlp_http/loki"):
        for record in REFUSED_LOGS.values():
            assert target.post("logs", from_attacker(record)).status_code == httpx.codes.OK
    assert honest.is_served() == ALL_SERVED


def test_odd_log_records_block_nobody(target: Target, honest: HonestClient) -> None:
    for record in ODD_LOGS.values():
        assert target.post("logs", from_attacker(record)).status_code == httpx.codes.OK
    assert honest.is_served() == ALL_SERVED


def test_zstd_over_grpc_is_not_decompressed_beyond_the_limit(target: Target) -> None:
    with counting(target, GRPC_ANSWERS, 1, rpc_response_status_code="RESOURCE_EXHAUSTED"):
        target.call(attacks.zstd_frame(100_000_000, 17), "zstd")


def test_clients_that_send_slowly_are_let_go(target: Target) -> None:
    head = b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\n"
    with target.connect(http=True) as in_head, target.connect(http=True) as in_body:
        in_head.sendall(head)
        in_body.sendall(head + b"Content-Length: 1000000\r\n\r\n")
        began = time.monotonic()
        drip(in_head)
        waited_for_head = time.monotonic() - began
        drip(in_body)
        waited_for_body = time.monotonic() - began

    assert waited_for_head < 8
    assert waited_for_body < 20


def drip(connection: socket.socket) -> None:
    """Sends a byte now and then until the other side has had enough."""
    connection.settimeout(0.5)
    for _ in range(50):
        try:
            connection.sendall(b"x")
            if not connection.recv(4096):
                return
        except TimeoutError:
            continue
        except OSError:
            return


def test_a_thousand_silent_connections_keep_nobody_out(target: Target, honest: HonestClient) -> None:
    silent = [target.connect(http=number % 2 == 0) for number in range(1000)]
    try:
        for connection in silent[1::2]:
            connection.sendall(attacks.http2_opening())
        assert honest.is_served() == ALL_SERVED
    finally:
        for connection in silent:
            connection.close()


def test_rapid_resets_keep_nobody_out(target: Target, honest: HonestClient) -> None:
    with target.connect() as connection:
        connection.sendall(attacks.http2_opening())
        with contextlib.suppress(OSError):  # the server may have had enough
            for call in attacks.rapid_resets(20_000):
                connection.sendall(call)
        assert honest.is_served() == ALL_SERVED


def test_open_calls_are_limited_per_connection(target: Target, honest: HonestClient) -> None:
    with target.connect() as connection:
        connection.sendall(attacks.http2_opening())
        for number in range(10_000):
            connection.sendall(attacks.http2_headers(2 * number + 1))
        assert honest.is_served() == ALL_SERVED


def test_large_requests_side_by_side_are_refused_for_a_while_at_most(target: Target) -> None:
    body = many_attributes(100_000)
    with ThreadPoolExecutor(8) as clients:
        statuses = {
            answer.status_code for answer in clients.map(lambda _: target.post("traces", body), range(16))
        }

    assert statuses <= {200, 503}


def test_a_span_costs_after_the_attacks_what_it_did_before(target: Target, usual_cost: float) -> None:
    assert measure_cost(target) < usual_cost * 2


@pytest.mark.parametrize("signal", SIGNALS)
def test_everything_that_was_acknowledged_to_the_honest_is_found(signal: str, honest: HonestClient) -> None:
    acknowledged = set(honest.acknowledged[signal])

    assert len(acknowledged) > 50
    assert eventually(lambda: acknowledged <= honest.found(signal), 10)
