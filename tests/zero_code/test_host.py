"""Host headers: well-formed ones become server address and port, others fall back to the bound address."""

import pytest
from otlp_receiver import attributes
from uvicorn_process import Response, Setup

WELL_FORMED = {
    "name": (b"shop.example", "shop.example", 80),
    "name-and-port": (b"shop.example:8443", "shop.example", 8443),
    "ipv4": (b"192.0.2.1:81", "192.0.2.1", 81),
    "ipv6": (b"[::1]", "::1", 80),
    "ipv6-and-port": (b"[::1]:8000", "::1", 8000),
}
BROKEN = {
    "empty": b"",
    "open-bracket": b"[::1",
    "space": b"brokenhost b",
    "utf8": "brokenhosté".encode(),
    "not-utf8": b"brokenhost\xff",
    "5000-characters": b"brokenhost" * 500,
    "port-beyond-65535": b"brokenhost:99999",
    "port-just-beyond": b"brokenhost:65536",
    "negative-port": b"brokenhost:-1",
    "empty-port": b"brokenhost:",
    "two-ports": b"brokenhost:80:80",
    "port-of-other-digits": "brokenhost:٨٠".encode(),
    "user-information": b"brokenhost@shop.example",
    "two-in-one": b"brokenhost,shop.example",
    "no-ipv6": b"[::g]",
    "markup": b"<brokenhost>",
}
ID = b"x-correlation-id: host-"


@pytest.fixture(scope="module")
def answers(shop: Setup) -> dict[str, Response]:
    """Returns the response to each case, when all their telemetry has arrived."""
    hosts = {**{name: value for name, (value, _, _) in WELL_FORMED.items()}, **BROKEN}
    answers = {
        name: shop.server.send(b"/ok", [b"host: " + value, ID + name.encode()])
        for name, value in hosts.items()
    }
    shop.arrived.settle(shop.server)
    return answers


def _server_of(shop: Setup, correlation_id: str) -> tuple[str, int]:
    found = attributes(shop.arrived.span(correlation_id).data.attributes)
    return found["server.address"], found["server.port"]


@pytest.mark.parametrize("case", WELL_FORMED)
def test_well_formed_host_becomes_address_and_port(
    shop: Setup, answers: dict[str, Response], case: str
) -> None:
    assert answers[case].status == 200
    assert _server_of(shop, f"host-{case}") == WELL_FORMED[case][1:]


@pytest.mark.parametrize("case", BROKEN)
def test_broken_host_falls_back_to_the_bound_address(
    shop: Setup, answers: dict[str, Response], case: str
) -> None:
    assert (answers[case].status, answers[case].correlation_id) == (200, f"host-{case}")
    assert _server_of(shop, f"host-{case}") == ("127.0.0.1", shop.server.port)


def test_raw_value_of_a_broken_host_is_nowhere(shop: Setup, answers: dict[str, Response]) -> None:
    assert b"brokenhost" not in shop.arrived.raw()
    assert "brokenhost" not in shop.server.stdout + shop.server.stderr


def test_host_is_in_no_metric_attribute(shop: Setup, answers: dict[str, Response]) -> None:
    points = [point for metric in shop.arrived.metric_names() for point in shop.arrived.points(metric)]
    assert len(points) > 0
    assert not any(
        "shop.example" in map(str, point.values()) or "server.address" in point for point in points
    )


def test_http_1_0_without_host_is_served(shop: Setup) -> None:
    response = shop.server.send(b"/ok", [ID + b"none"], version=b"HTTP/1.0")
    assert (response.status, response.correlation_id) == (200, "host-none")
    assert _server_of(shop, "host-none") == ("127.0.0.1", shop.server.port)
    assert attributes(shop.arrived.span("host-none").data.attributes)["network.protocol.version"] == "1.0"


@pytest.mark.parametrize("second", [b"shop.example", b"other.example"])
def test_duplicate_host_falls_back_or_is_refused_by_the_server(shop: Setup, second: bytes) -> None:
    response = shop.server.send(b"/ok", [b"host: shop.example", b"host: " + second, ID + second])
    if response.status == 400:  # h11 refuses it before the application runs
        assert response.values("x-correlation-id") == []
        return
    assert response.status == 200
    assert _server_of(shop, f"host-{second.decode()}") == ("127.0.0.1", shop.server.port)
