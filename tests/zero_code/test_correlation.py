"""Correlation IDs that clients send over real sockets: taken when valid, else replaced and found nowhere."""

import re
from collections.abc import Iterator

import pytest
from otlp_receiver import attributes
from uvicorn_process import Response, Setup, observed

MARK = b"hostile"
"""Is part of every value that must not be found anywhere."""

REPLACED = {
    "129 characters": [MARK + b"a" * 122],
    "5000 characters": [MARK + b"a" * 4993],
    "a space": [b"hostile value"],
    "a tab": [b"hostile\tvalue"],
    "bytes that are not UTF-8": [b"hostile\xff\xfe"],
    "UTF-8 beyond ASCII": ["hostilé".encode() + MARK],
    "double quotes": [b'hostile"value"'],
    "single quotes": [b"hostile'value'"],
    "percent-encoded line break": [b"hostile%0d%0aset-cookie:%20a=1"],
    "format directives": [b"hostile%s%n{0}"],
    "a look-up expression": [b"${jndi:ldap://hostile}"],
    "markup": [b"<script>hostile</script>"],
    "a comma": [b"hostile,value"],
    "empty": [b""],
    "two different values": [b"hostile1", b"hostile2"],
    "a valid and an invalid value": [b"hostile1", b"hostile 2"],
}
TAKEN = {
    "one character": [b"a"],
    "128 characters": [b"a" * 128],
    "every allowed character": [b"AZaz09._:/+=@-"],
    "white space before the value": [b" \tpadded-left"],
    "white space after the value": [b"padded-right \t"],
    "the same value twice": [b"same", b"same"],
}
REFUSED_OR_SPLIT = {
    "bare CR": b"hostile\rset-cookie: a=1",
    "CR and LF": b"split-crlf\r\nset-cookie: a=1",
    "bare LF": b"split-lf\nset-cookie: a=1",
    "folded line": b"hostile\r\n set-cookie: a=1",
    "NUL": b"hostile\0set-cookie: a=1",
    "vertical tab": b"hostile\x0bset-cookie: a=1",
    "escape sequence": b"hostile\x1b[31mset-cookie: a=1",
}


@pytest.fixture(scope="module")
def answers(shop: Setup) -> dict[str, Response]:
    """Returns the response to each case, when all their telemetry has arrived."""
    answers = {
        name: shop.server.get("/ok", *(("X-Correlation-ID", value) for value in values))
        for name, values in {**REPLACED, **TAKEN}.items()
    }
    answers |= {
        name: shop.server.get("/ok", ("x-correlation-id", raw)) for name, raw in REFUSED_OR_SPLIT.items()
    }
    shop.arrived.settle(shop.server)
    return answers


@pytest.mark.parametrize("case", REPLACED)
def test_invalid_id_is_replaced_by_the_trace_id(shop: Setup, answers: dict[str, Response], case: str) -> None:
    response = answers[case]
    assert response.status == 200
    assert re.fullmatch("[0-9a-f]{32}", response.correlation_id)
    (span,) = shop.arrived.spans(response.correlation_id)
    (log,) = shop.arrived.logs(response.correlation_id)
    assert span.data.trace_id.hex() == log.data.trace_id.hex() == response.correlation_id
    assert log.data.span_id == span.data.span_id


@pytest.mark.parametrize("case", TAKEN)
def test_valid_id_is_taken(shop: Setup, answers: dict[str, Response], case: str) -> None:
    response, expected = answers[case], TAKEN[case][0].strip().decode()
    assert response.status == 200
    assert response.correlation_id == expected
    (span,) = shop.arrived.spans(expected)
    (log,) = shop.arrived.logs(expected)
    assert log.data.trace_id == span.data.trace_id
    assert log.data.span_id == span.data.span_id


@pytest.mark.parametrize("case", REFUSED_OR_SPLIT)
def test_control_characters_inject_no_header(answers: dict[str, Response], case: str) -> None:
    response = answers[case]
    assert response.values("set-cookie") == []
    if response.status == 400:  # uvicorn's parser refused it; the application never ran
        assert response.values("x-correlation-id") == []
    else:
        assert response.status == 200
        assert re.fullmatch("[0-9a-f]{32}|split-crlf|split-lf", response.correlation_id)


def test_raw_value_of_an_invalid_id_is_nowhere(shop: Setup, answers: dict[str, Response]) -> None:
    assert MARK not in shop.arrived.raw()
    assert MARK.decode() not in shop.server.stdout + shop.server.stderr
    assert all(MARK not in value for response in answers.values() for _, value in response.headers)


def test_valid_ids_are_in_no_metric_attribute(shop: Setup, answers: dict[str, Response]) -> None:
    names = {
        name
        for metric in shop.arrived.metric_names()
        for point in shop.arrived.points(metric)
        for name in point
    }
    assert names <= {
        "http.request.method",
        "http.response.status_code",
        "http.route",
        "url.scheme",
        "network.protocol.version",
        "error.type",
        "sightline.sla.objective",
        "sightline.sla.outcome",
        "sightline.sla.kind",
        "sightline.sla.latency_eligible",
        "window",
        "quantile",
    }


def test_invalid_ids_are_counted_and_warned_of_once_a_minute(
    shop: Setup, answers: dict[str, Response]
) -> None:
    assert shop.server.stderr.count("replaced a correlation ID that is not valid") == 1
    counts = [
        point.as_int
        for item in shop.store.metrics
        if item.data.name == "sightline.correlation.rejected"
        for point in item.data.sum.data_points
    ]
    assert max(counts) >= len(REPLACED)


def test_valid_second_header_wins_over_an_invalid_first(shop: Setup) -> None:
    response = shop.server.get("/ok", ("x-correlation-id", "not valid"), ("x-request-id", "second-wins"))
    assert response.correlation_id == "second-wins"
    assert response.values("x-request-id") == []
    assert attributes(shop.arrived.span("second-wins").data.attributes)["http.response.status_code"] == 200


def test_order_is_that_of_the_setting_not_of_the_request(shop: Setup) -> None:
    response = shop.server.get("/ok", ("x-request-id", "second"), ("x-correlation-id", "first"))
    assert response.correlation_id == "first"


def test_invalid_values_of_both_headers_are_replaced(shop: Setup) -> None:
    response = shop.server.get("/ok", ("x-correlation-id", "not valid"), ("x-request-id", "nor this"))
    assert re.fullmatch("[0-9a-f]{32}", response.correlation_id)


@pytest.mark.parametrize(
    ("path", "status"),
    [("/ok", 200), ("/nowhere", 404), ("/number/x", 422), ("/fail", 500), ("/stream", 200)],
)
def test_every_kind_of_response_carries_the_id_once(shop: Setup, path: str, status: int) -> None:
    sent = f"kind{status}{path.replace('/', '-')}"
    response = shop.server.get(path, ("x-correlation-id", sent))
    assert (response.status, response.correlation_id) == (status, sent)
    assert attributes(shop.arrived.span(sent).data.attributes)["http.response.status_code"] == status


def test_wrong_method_carries_the_id(shop: Setup) -> None:
    response = shop.server.send(b"/ok", [b"host: h", b"x-correlation-id: wrong-method"], method=b"DELETE")
    assert (response.status, response.correlation_id) == (405, "wrong-method")


@pytest.fixture(scope="module")
def renamed() -> Iterator[Setup]:
    """Yields a server whose headers were configured."""
    with observed(variables={"SIGHTLINE_CORRELATION_HEADERS": "X-Trace-Me, x-other"}) as setup:
        yield setup


def test_configured_headers_replace_the_built_in_ones(renamed: Setup) -> None:
    response = renamed.server.get("/ok", ("x-other", "by-other"), ("x-correlation-id", "ignored"))
    assert response.values("x-trace-me") == [b"by-other"]
    assert response.values("x-correlation-id") == []
    assert renamed.server.stderr.count("SIGHTLINE") == 0
