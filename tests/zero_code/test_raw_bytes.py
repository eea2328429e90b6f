"""Bytes that are no text: headers, percent-encoded and raw paths, queries."""

import pytest
from otlp_receiver import attributes
from uvicorn_process import Setup

PATHS = {
    "not-utf8": "%ff%fe",
    "latin1": "%E9",
    "surrogate": "%ed%a0%80",
    "nul": "%00",
    "slash": "a%2fb",
    "no-escape": "%zz",
    "cut-escape": "a%",
    "dots": "..%2f..%2fetc",
    "line-break": "a%0d%0ab",
    "utf8": "%C3%A9",
}


@pytest.mark.parametrize("case", PATHS)
def test_percent_encoded_path_is_recorded_as_sent(shop: Setup, case: str) -> None:
    response = shop.server.get(f"/items/{PATHS[case]}", ("x-correlation-id", f"path-{case}"))
    span = attributes(shop.arrived.span(f"path-{case}").data.attributes)
    assert response.correlation_id == f"path-{case}"
    assert span["url.path"] == f"/items/{PATHS[case]}"
    # Starlette's pattern for {name:path} stops at a line break.
    assert response.status == (404 if case == "line-break" else 200)
    assert span.get("http.route") == (None if case == "line-break" else "/items/{name}")


def test_long_path_and_query_are_cut(shop: Setup) -> None:
    shop.server.get(f"/items/{'p' * 5000}?{'q' * 5000}", ("x-correlation-id", "long-path"))
    span = attributes(shop.arrived.span("long-path").data.attributes)
    assert span["url.path"] == ("/items/" + "p" * 5000)[:2048]
    assert span["url.query"] == "q" * 2048


def test_secrets_of_a_query_are_redacted_in_the_span(shop: Setup) -> None:
    shop.server.get("/items/a?q=%ff&token=s3cret-value&sig=s3cret-value", ("x-correlation-id", "query"))
    span = attributes(shop.arrived.span("query").data.attributes)
    shop.arrived.settle(shop.server)
    assert span["url.query"] == "q=%ff&token=REDACTED&sig=REDACTED"
    assert b"s3cret-value" not in shop.arrived.raw()


@pytest.mark.parametrize("raw", [b"/items/\xff\xfe", b"/items/\xc3\xa9", b"/items/a?\xff=1", b"/items/a b"])
def test_raw_bytes_in_the_request_line_are_refused_by_the_server_alone(shop: Setup, raw: bytes) -> None:
    assert shop.server.send(raw, [b"host: h"]).status == 400
    assert shop.server.get("/ok", ("x-correlation-id", "after-raw-bytes")).status == 200


def test_header_bytes_that_are_not_utf8_are_served_and_read_as_latin_1(shop: Setup) -> None:
    response = shop.server.get(
        "/items/a",
        ("x-bytes", b"\xff\xfe\x80"),
        ("user-agent", b"agent\xff\xc3\xa9"),
        ("x-correlation-id", "bytes"),
    )
    assert response.status == 200
    assert attributes(shop.arrived.span("bytes").data.attributes)["user_agent.original"] == "agentÿÃ©"


def test_unknown_method_is_served_and_bounded(shop: Setup) -> None:
    response = shop.server.send(b"/ok", [b"host: h", b"x-correlation-id: unknown-method"], method=b"PROPFIND")
    span = shop.arrived.span("unknown-method").data
    assert response.status == 405
    assert span.name == "HTTP /ok"
    assert attributes(span.attributes)["http.request.method"] == "_OTHER"
    assert attributes(span.attributes)["http.request.method_original"] == "PROPFIND"


def test_sightline_reports_no_trouble_of_its_own(shop: Setup) -> None:
    shop.arrived.settle(shop.server)
    assert "Traceback" not in shop.server.stderr.split("Exception in ASGI application")[0]
    assert "it is served without telemetry" not in shop.server.stderr
    assert "could not" not in shop.server.stderr
