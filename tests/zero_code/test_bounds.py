"""What an application tells by mistake is redacted and bounded on its way out, whatever way that is."""

import time
from collections.abc import Iterator
from typing import Any, Final

import pytest
from otlp_receiver import Item, attributes
from uvicorn_process import Setup, eventually, observed

SECRETS: Final = (b"hunter2", b"DE00")
LIMIT: Final = 20
SLOW_SECONDS: Final = 0.2

TELLING: Final = ("attributes", "event", "status", "name", "raises", "recorded", "child", "log")
"""Routes that tell secrets, each in another way."""

VARIABLES: Final = {
    "SIGHTLINE_ACCESS_LOG": "on",
    "SIGHTLINE_CARDINALITY_LIMIT": str(LIMIT),
    "SIGHTLINE_LIMIT_ALL_INSTRUMENTS": "on",
    "SIGHTLINE_REDACT": "iban",
    "SIGHTLINE_SLOW_REQUEST": "200ms",
    "SIGHTLINE_TRUSTED_PROXIES": "127.0.0.1",
    "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST": "authorization,iban,x-note,x-kept",
}
HEADERS: Final = (
    ("authorization", "Bearer hunter2hunter2hunter2"),
    ("iban", "DE00hunter2"),
    ("x-note", "password=hunter2 iban=DE00hunter2"),
    ("x-kept", "visible"),
)


@pytest.fixture(scope="module")
def bounded() -> Iterator[Setup]:
    """Yields a server with everything on, when the telemetry of all requests has arrived."""
    with observed("bounded:app", variables=VARIABLES) as setup:
        for route in TELLING:
            setup.server.get(f"/{route}", ("x-correlation-id", f"told-{route}"))
        setup.server.get("/ok?iban=DE00hunter2&token=hunter2&page=7", ("x-correlation-id", "told-query"))
        setup.server.get("/ok", ("x-correlation-id", "told-headers"), *HEADERS)
        for number in range(3 * LIMIT):
            setup.server.get(f"/user/user{number}")
        for number in range(30):
            setup.server.get(f"/customer/{number}")
        started = f"t={time.time() - 2:.3f}"
        setup.server.get("/block", ("x-correlation-id", "blocked"), ("x-request-start", started))
        setup.arrived.settle(setup.server)
        yield setup


@pytest.fixture(scope="module")
def redaction_off() -> Iterator[Setup]:
    """Yields the same with redaction switched off."""
    variables = {**VARIABLES, "SIGHTLINE_REDACT": "off"}
    with observed("bounded:app", variables=variables) as setup:
        setup.server.get("/attributes", ("x-correlation-id", "off-attributes"))
        setup.server.get("/log", ("x-correlation-id", "off-log"))
        setup.server.get("/ok?token=hunter2", ("x-correlation-id", "off-query"), *HEADERS)
        setup.arrived.settle(setup.server)
        yield setup


def raw(items: list[Item]) -> bytes:
    return b"\n".join(item.data.SerializeToString() for item in items)


def span_of(setup: Setup, correlation_id: str) -> dict[str, Any]:
    return attributes(setup.arrived.span(correlation_id).data.attributes)


# Redaction


@pytest.mark.parametrize("route", TELLING)
def test_no_secret_that_the_application_tells_leaves_the_process(bounded: Setup, route: str) -> None:
    trace_id = bounded.arrived.span(f"told-{route}").data.trace_id
    found = [
        item
        for item in (*bounded.store.spans, *bounded.store.logs)
        if getattr(item.data, "trace_id", b"") == trace_id
    ]
    sent = raw(found)
    assert b"REDACTED" in sent
    assert [secret for secret in SECRETS if secret in sent] == []


def test_no_secret_is_anywhere_in_what_was_exported(bounded: Setup) -> None:
    sent = bounded.arrived.raw()
    assert [secret for secret in SECRETS if secret in sent] == []


def test_what_is_no_secret_stays(bounded: Setup) -> None:
    assert span_of(bounded, "told-attributes")["kept"] == "visible"
    assert span_of(bounded, "told-headers")["http.request.header.x-kept"] == ["visible"]
    (event,) = bounded.arrived.span("told-event").data.events
    assert attributes(event.attributes)["kept"] == "visible"
    assert [
        attributes(item.data.attributes)["kept"]
        for item in bounded.arrived.logs("told-log")
        if item.data.body.string_value == "paid"
    ] == ["visible"]


def test_a_name_of_ones_own_is_redacted_in_every_place(bounded: Setup) -> None:
    assert span_of(bounded, "told-attributes")["user.iban"] == "REDACTED"
    assert "iban=REDACTED" in span_of(bounded, "told-attributes")["note"]
    assert span_of(bounded, "told-query")["url.query"] == "iban=REDACTED&token=REDACTED&page=7"
    assert span_of(bounded, "told-headers")["http.request.header.iban"] == ["[REDACTED]"]
    assert "iban=REDACTED" in bounded.arrived.span("told-status").data.status.message
    assert "iban=REDACTED" in bounded.arrived.span("told-raises").data.status.message
    bodies = [item.data.body.string_value for item in bounded.arrived.logs("told-log")]
    assert any("iban=REDACTED" in body for body in bodies)
    assert any("{'iban': REDACTED" in body for body in bodies)


def test_the_servers_access_record_is_redacted_and_has_the_verdict(bounded: Setup) -> None:
    (record,) = [
        item.data for item in bounded.arrived.logs("told-query") if "GET /ok" in item.data.body.string_value
    ]
    assert "?iban=REDACTED&token=REDACTED&page=7" in record.body.string_value
    assert attributes(record.attributes)["sightline.sla.outcome"] == "ok"


def test_redaction_that_is_off_still_hides_credentials_in_headers(redaction_off: Setup) -> None:
    found = span_of(redaction_off, "off-query")
    assert found["http.request.header.authorization"] == ["[REDACTED]"]
    assert found["http.request.header.iban"] == ["DE00hunter2"]


def test_redaction_that_is_off_leaves_everything_else(redaction_off: Setup) -> None:
    assert span_of(redaction_off, "off-query")["url.query"] == "token=hunter2"
    assert span_of(redaction_off, "off-attributes")["user.password"] == "hunter2"
    assert b"password=hunter2" in raw(redaction_off.arrived.logs("off-log"))


# Instruments of others


def test_the_limit_guards_the_instruments_of_the_application_where_asked_for(bounded: Setup) -> None:
    last = [item.data for item in bounded.store.metrics if item.data.name == "bounded.users"][-1]
    points = [(attributes(point.attributes), point.as_int) for point in last.sum.data_points]
    assert len(points) == LIMIT
    assert sum(count for _, count in points) == 3 * LIMIT
    assert [count for found, count in points if "otel.metric.overflow" in found] == [2 * LIMIT + 1]


def test_the_offender_is_named_and_no_value_of_its(bounded: Setup) -> None:
    told = bounded.arrived.points("sightline.cardinality.overflow")
    assert {"instrument": "bounded.users", "attribute": "user"} in told
    (line,) = [line for line in bounded.server.stderr.splitlines() if "bounded.users" in line]
    assert "by the values of user" in line
    assert "user59" not in line


# Spans of others


def test_names_of_spans_are_templates_without_a_setting(bounded: Setup) -> None:
    names = [item.data.name for item in bounded.store.spans if item.data.name.startswith("load ")]
    assert names == ["load /customers/{id}"] * 30


def test_a_rule_of_the_application_bounds_what_is_set_after_the_start(bounded: Setup) -> None:
    customers = [
        attributes(item.data.attributes)["customer"]
        for item in bounded.store.spans
        if item.data.name.startswith("load ")
    ]
    assert customers == [*(f"customer{number}" for number in range(10)), *["_other"] * 20]


# Saturation


def test_the_span_of_a_slow_request_says_how_busy_the_process_was(bounded: Setup) -> None:
    found = span_of(bounded, "blocked")
    assert SLOW_SECONDS * 0.5 < found["sightline.event_loop.lag"] < 5
    assert found["sightline.threads.waiting"] == 0
    assert 1.5 < found["sightline.request.queue_time"] < 60
    assert not any(name in span_of(bounded, "told-query") for name in found if "event_loop" in name)


def test_a_slow_request_is_told_once_with_its_ids(bounded: Setup) -> None:
    alerts = eventually(
        lambda: [
            item.data
            for item in bounded.arrived.logs("blocked")
            if item.data.event_name == "performance_alert"
        ]
    )
    (alert,) = alerts
    span, found = bounded.arrived.span("blocked").data, attributes(alert.attributes)
    assert (alert.trace_id, alert.span_id) == (span.trace_id, span.span_id)
    assert found["sightline.alert"] == "slow_request"
    assert found["sightline.threshold_seconds"] == SLOW_SECONDS
    assert found["sightline.duration_seconds"] >= 0.25
    assert (found["http.route"], found["http.response.status_code"]) == ("/block", 200)
    assert "sightline.event_loop.lag" in found
