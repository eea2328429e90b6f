"""Slow calls of real clients, as the stock instrumentors record them: counted once, told without literals."""

from collections.abc import Callable
from typing import Any, Final
from urllib.parse import quote

import pytest
from otlp_receiver import attributes
from tests.libraries.service import SLOW_SECONDS, Downstream, Service, eventually

QUERY_SECONDS: Final = 0.15
CALL_SECONDS: Final = 0.25
STATEMENTS: Final = ("asyncpg", "psycopg", "sqlalchemy")


@pytest.fixture(scope="module")
def slow(started: "Callable[..., Service]", called: Downstream) -> Service:
    """Returns the application after one slow and one quick operation of each client."""
    service = started(
        SIGHTLINE_SLOW_QUERY=f"{QUERY_SECONDS * 1000:g}ms",
        SIGHTLINE_SLOW_CALL=f"{CALL_SECONDS * 1000:g}ms",
        OTEL_METRIC_EXPORT_INTERVAL="250",
    )
    for driver in STATEMENTS:
        assert service.get(f"/slow-{driver}", f"slow-{driver}") == 42
    for client in ("httpx", "aiohttp"):
        service.get(f"/{client}?url={quote(called.slow_url())}", f"slow-{client}")
    for path in (
        "/asyncpg",
        "/psycopg",
        "/sqlalchemy-asyncpg",
        "/redis",
        f"/httpx?url={quote(called.url())}",
    ):
        service.get(path, f"quick-{path.split('?')[0].strip('/')}")
    return service


def alerts(service: Service, correlation_id: str) -> list[Any]:
    return [item.data for item in service.logs(correlation_id) if item.data.event_name == "performance_alert"]


@pytest.mark.parametrize("driver", STATEMENTS)
def test_a_slow_statement_is_told_once_with_its_operation_and_no_literal(slow: Service, driver: str) -> None:
    (alert,) = eventually(lambda: alerts(slow, f"slow-{driver}"))
    found = attributes(alert.attributes)
    assert (found["sightline.alert"], found["sightline.operation"]) == ("slow_query", "db")
    assert found["db.system.name"] == "postgresql"
    assert QUERY_SECONDS < found["sightline.duration_seconds"] < 10
    assert found["sightline.threshold_seconds"] == pytest.approx(QUERY_SECONDS)
    assert "SELECT" in alert.body.string_value
    assert b"hunter2" not in alert.SerializeToString()


@pytest.mark.parametrize("driver", STATEMENTS)
def test_the_alert_of_a_statement_is_in_the_trace_of_its_request(slow: Service, driver: str) -> None:
    (alert,) = eventually(lambda: alerts(slow, f"slow-{driver}"))
    spans = {item.data.span_id for item in slow.calls(f"slow-{driver}")}
    assert alert.trace_id == slow.request(f"slow-{driver}").trace_id
    assert alert.span_id in spans


@pytest.mark.parametrize("client", ["httpx", "aiohttp"])
def test_a_slow_outgoing_call_is_told_once_without_its_query(slow: Service, client: str) -> None:
    (alert,) = eventually(lambda: alerts(slow, f"slow-{client}"))
    found = attributes(alert.attributes)
    assert (found["sightline.alert"], found["sightline.operation"]) == ("slow_call", "http")
    assert SLOW_SECONDS <= found["sightline.duration_seconds"] < 10
    assert found["http.request.method"] == "GET"
    assert b"hunter2" not in alert.SerializeToString()


def test_quick_operations_are_not_told(slow: Service) -> None:
    slow.get("/log", "quick-last")
    assert eventually(lambda: slow.logs("quick-last"))
    told = [
        attributes(item.data.attributes).get("correlation_id")
        for item in list(slow.store.logs)
        if item.data.event_name == "performance_alert"
    ]
    assert [sent for sent in told if str(sent).startswith("quick-")] == []


def test_each_slow_operation_is_counted_once_whatever_the_layers(slow: Service, called: Downstream) -> None:
    def counted() -> dict[tuple[str, str], int]:
        points = [
            item.data.sum.data_points
            for item in list(slow.store.metrics)
            if item.data.name == "sightline.slow_operations"
        ]
        return {
            (found["sightline.operation"], found.get("db.system.name", "")): point.as_int
            for point in (points[-1] if points else ())
            if (found := attributes(point.attributes))["sightline.operation"] != "request"
        }

    expected = {("db", "postgresql"): 3, ("http", ""): 2}
    assert eventually(lambda: counted() == expected), counted()
