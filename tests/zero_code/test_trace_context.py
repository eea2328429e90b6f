"""W3C trace context that clients send: continued when valid, restarted otherwise, and always served."""

import re

import pytest
from uvicorn_process import Response, Setup, eventually

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
VALID = f"00-{TRACE}-{PARENT}-01"

CONTINUED: dict[str, list[str | bytes]] = {
    "valid": [VALID],
    "white space around it": [f"  {VALID} "],
    "unknown flags": [f"00-{TRACE}-{PARENT}-ff"],
    "a later version": [f"01-{TRACE}-{PARENT}-01"],
    "a later version with more fields": [f"01-{TRACE}-{PARENT}-01-more"],
}
RESTARTED: dict[str, list[str | bytes]] = {
    "missing": [],
    "empty": [""],
    "capital letters": [f"00-{TRACE.upper()}-{PARENT}-01"],
    "version ff": [f"ff-{TRACE}-{PARENT}-01"],
    "version 00 with more fields": [f"{VALID}-more"],
    "all-zero trace ID": [f"00-{'0' * 32}-{PARENT}-01"],
    "all-zero parent ID": [f"00-{TRACE}-{'0' * 16}-01"],
    "all zero": [f"00-{'0' * 32}-{'0' * 16}-00"],
    "too short": ["00-abc-def-01"],
    "trace ID one digit short": [f"00-{TRACE[1:]}-{PARENT}-01"],
    "trace ID one digit long": [f"00-{TRACE}0-{PARENT}-01"],
    "no hexadecimal digits": [f"00-{'g' * 32}-{PARENT}-01"],
    "no flags": [f"00-{TRACE}-{PARENT}"],
    "flags that are no digits": [f"00-{TRACE}-{PARENT}-zz"],
    "a space inside": [f"00-{TRACE} -{PARENT}-01"],
    "another separator": [VALID.replace("-", "_")],
    "two in one header": [f"{VALID},{VALID}"],
    "two headers": [VALID, f"00-{'a' * 32}-{PARENT}-01"],
    "two equal headers": [VALID, VALID],
    "bytes beyond ASCII": [b"\xff\xfe\xfd"],
    "10000 characters": ["0" * 10_000],
}


@pytest.fixture(scope="module")
def answers(shop: Setup) -> dict[str, Response]:
    """Returns the response to each case, when all their telemetry has arrived."""
    answers = {
        name: shop.server.get(
            "/ok", *(("traceparent", value) for value in values), ("x-correlation-id", _id(name))
        )
        for name, values in {**CONTINUED, **RESTARTED}.items()
    }
    shop.arrived.settle(shop.server)
    return answers


def _id(case: str) -> str:
    return "tp-" + case.replace(" ", "-")


@pytest.mark.parametrize("case", CONTINUED)
def test_valid_traceparent_is_continued(shop: Setup, answers: dict[str, Response], case: str) -> None:
    assert answers[case].status == 200
    (span,) = shop.arrived.spans(_id(case))
    (log,) = shop.arrived.logs(_id(case))
    assert (span.data.trace_id.hex(), span.data.parent_span_id.hex()) == (TRACE, PARENT)
    assert (log.data.trace_id, log.data.span_id) == (span.data.trace_id, span.data.span_id)


@pytest.mark.parametrize("case", RESTARTED)
def test_missing_or_malformed_traceparent_restarts_the_trace(
    shop: Setup, answers: dict[str, Response], case: str
) -> None:
    assert (answers[case].status, answers[case].correlation_id) == (200, _id(case))
    (span,) = shop.arrived.spans(_id(case))
    assert span.data.parent_span_id == b""
    assert re.fullmatch("[0-9a-f]{32}", span.data.trace_id.hex())
    assert span.data.trace_id.hex() not in (TRACE, "0" * 32)


def test_each_restarted_trace_has_an_id_of_its_own(shop: Setup, answers: dict[str, Response]) -> None:
    ids = [shop.arrived.span(_id(case)).data.trace_id for case in RESTARTED]
    assert len(set(ids)) == len(RESTARTED)


def test_trace_of_an_unsampled_parent_is_not_recorded_but_correlated(shop: Setup) -> None:
    response = shop.server.get(
        "/ok", ("traceparent", f"00-{TRACE}-{PARENT}-00"), ("x-correlation-id", "unsampled")
    )
    shop.arrived.settle(shop.server)
    assert response.correlation_id == "unsampled"
    assert shop.arrived.spans("unsampled") == []
    (log,) = shop.arrived.logs("unsampled")
    assert log.data.trace_id.hex() == TRACE


def test_tracestate_of_several_headers_is_combined_in_order(shop: Setup) -> None:
    shop.server.get(
        "/ok",
        ("traceparent", VALID),
        ("tracestate", "first=1"),
        ("tracestate", "second=2"),
        ("x-correlation-id", "tracestate"),
    )
    assert shop.arrived.span("tracestate").data.trace_state == "first=1,second=2"


MALFORMED_COMPANIONS = {
    "state-without-key": ("tracestate", b"=MARK"),
    "state-not-utf8": ("tracestate", b"a=MARK\xff"),
    "state-of-5000-characters": ("tracestate", b"a=MARK" + b"x" * 5000),
    "baggage-without-key": ("baggage", b"=MARK"),
    "baggage-not-utf8": ("baggage", b"MARK\xff=1"),
    "baggage-without-value": ("baggage", b"MARK,,;="),
    "baggage-bad-escape": ("baggage", b"a=%zzMARK"),
    "baggage-of-20000-characters": ("baggage", b"a=MARK" + b"x" * 20_000),
    "baggage-of-2000-members": ("baggage", b",".join(b"MARK%d=1" % number for number in range(2000))),
}


@pytest.mark.parametrize("case", MALFORMED_COMPANIONS)
def test_malformed_tracestate_or_baggage_is_served_and_never_logged(shop: Setup, case: str) -> None:
    name, value = MALFORMED_COMPANIONS[case]
    mark = f"raw-{case}"
    headers = (("traceparent", VALID), (name, value.replace(b"MARK", mark.encode())))
    response = shop.server.get("/ok", *headers, ("x-correlation-id", case))
    assert (response.status, response.correlation_id) == (200, case)
    assert shop.arrived.span(case).data.trace_id.hex() == TRACE
    assert eventually(lambda: len(shop.arrived.logs(case))) == 1
    assert mark not in shop.server.stderr + shop.server.stdout
    assert mark.encode() not in b"".join(item.data.SerializeToString() for item in list(shop.store.logs))
