"""Every query of every dashboard finds data in the real back ends; known values are right."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from functools import partial
from typing import Any

import httpx
import pytest
import yaml

from .dashboard_feed import CONNECTORS, GRAPH, OURS, metrics_request
from .dashboard_files import (
    BOARDS,
    GRAFANA,
    JAEGER,
    LOGQL,
    ON_FIRST_EVENT,
    PROMQL,
    name_of,
    substituted,
    variables,
    without_rules,
)
from .otlp_payloads import log_request, resource, trace_request
from .stack_fixture import eventually

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def fed(stack: dict[str, str]) -> dict[str, str]:
    """Sends one service's telemetry of every kind; returns the values that its reader would choose."""
    service, trace_id, span_id = f"shop-{secrets.token_hex(3)}", secrets.token_hex(16), secrets.token_hex(8)
    origin = resource(
        service,
        service_namespace="market",
        service_instance_id="i-1",
        service_version="1.2",
        deployment_environment_name="test",
    )
    log_attributes = {"correlation_id": "abc-7", "sightline.alert": "slow_query"}
    judged = [
        trace_request(
            origin, trace, span_id, **{"sightline.correlation_id": "abc-7", "sightline.sla.outcome": outcome}
        )
        for trace, outcome in ((trace_id, "failed"), (secrets.token_hex(16), "slow"))
    ]
    logged = log_request(origin, [("query was slow", log_attributes), ("started", {})], trace_id)
    for record in logged["resourceLogs"][0]["scopeLogs"][0]["logRecords"]:
        record |= {"severityNumber": 17, "severityText": "ERROR"}
    for signal, request in (
        *(("traces", request) for request in judged),
        ("logs", logged),
        ("metrics", metrics_request(origin, OURS + CONNECTORS)),
        ("metrics", metrics_request(resource("servicegraph"), GRAPH, {"client": service})),
    ):
        answer = httpx.post(f"{stack['otlp_http']}/v1/{signal}", json=request)
        assert (answer.status_code, answer.json()) == (200, {"partialSuccess": {}})
    return {"service": service, "entry": service, "correlation_id": "abc-7", "text": "", "trace_id": trace_id}


CLIENT = httpx.Client(timeout=30)  # one for all: making one takes longer than a query


@pytest.fixture(scope="module", autouse=True)
def closed_client() -> Iterator[None]:
    yield
    CLIENT.close()


def get(url: str, **parameters: str) -> Any:
    answer = CLIENT.get(url, params=parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


def prometheus_finds(stack: dict[str, str], expr: str) -> bool:
    return bool(get(f"{stack['prometheus']}/api/v1/query", query=expr)["result"])


@pytest.mark.parametrize(
    ("uid", "title", "value"),
    [
        ("sightline-overview", "Failed", 1 / 3),  # a client that went away is no failure
        ("sightline-overview", "Within objective", 1 / 3),  # excluded does not count
        ("sightline-overview", "Alerts", 0),
        ("sightline-slo", "Fastest burn, availability", (1 / 3) / 0.01),  # the target of the feed is 99 %
        ("sightline-slo", "Fastest burn, latency", (1 / 2) / 0.01),  # failed does not count
        ("sightline-slo", "Least budget, availability", 1 - (1 / 3) / 0.01),
        ("sightline-websocket", "Abnormal", 0.25),
        ("sightline-background", "Failed", 0.5),
        ("sightline-dependencies", "Failed", 0.5),  # of client spans only
        ("sightline-dependencies", "Slow queries", 60 * 2 * 60 / 15),  # two series, 60 in 15 s
        ("sightline-saturation", "Processes", 1),
    ],
)
def test_number_is_right(
    stack: dict[str, str], fed: dict[str, str], uid: str, title: str, value: float
) -> None:
    expr = next(case[2]["expr"] for case in PROMQL if (case[0], case[1]["title"]) == (uid, title))
    query = without_rules(substituted(expr, fed))

    assert eventually(lambda: prometheus_finds(stack, query), 20)
    assert float(
        get(f"{stack['prometheus']}/api/v1/query", query=query)["result"][0]["value"][1]
    ) == pytest.approx(value, rel=0.05)


def is_of_programs(expr: str) -> bool:
    return "$program" in expr


def test_every_promql_query_about_services_finds_data(stack: dict[str, str], fed: dict[str, str]) -> None:
    wanting = {
        name_of(case): without_rules(substituted(case[2]["expr"], fed)).replace(" or on() vector(0)", "")
        for case in PROMQL
        if not is_of_programs(case[2]["expr"]) and "ALERTS{" not in case[2]["expr"]
    }

    def still_empty() -> list[str]:
        for name in [name for name, expr in wanting.items() if prometheus_finds(stack, expr)]:
            del wanting[name]
        return list(wanting)

    eventually(lambda: not still_empty(), 10)
    assert len(wanting) == 0, wanting


def test_every_selector_of_a_service_finds_series(stack: dict[str, str], fed: dict[str, str]) -> None:
    """A query may have data although a part of it finds none: that part counts as 0."""
    selectors = {
        selector
        for case in PROMQL
        for selector in re.findall(r"[\w:$]*\{[^}]*\}", case[2]["expr"])
        if not is_of_programs(selector) and not selector.startswith("ALERTS")
    }

    assert len(selectors) > 80
    for selector in selectors:
        expr = without_rules(substituted(selector, fed))
        assert eventually(partial(prometheus_finds, stack, expr), 10), selector


def test_every_promql_query_about_programs_finds_data(stack: dict[str, str], fed: dict[str, str]) -> None:
    """A counter needs two scrapes, 15 s apart, for a rate: here its value is enough."""
    wanting = {}
    for case in PROMQL:
        expr = case[2]["expr"]
        if is_of_programs(expr):
            if not any(pattern in expr for pattern in ON_FIRST_EVENT):
                expr = expr.replace(" or on() vector(0)", "")
            expr = re.sub(r"\b(?:rate|increase)\(", "last_over_time(", expr)
            wanting[name_of(case)] = substituted(expr, fed | {"__rate_interval": "5m"})

    def still_empty() -> list[str]:
        for name in [name for name, expr in wanting.items() if prometheus_finds(stack, expr)]:
            del wanting[name]
        return list(wanting)

    eventually(lambda: not still_empty(), 40)
    assert len(wanting) == 0, wanting


def test_alerts_and_their_marks_are_queries_that_prometheus_understands(stack: dict[str, str]) -> None:
    marks = [
        annotation["target"]["expr"]
        for board in BOARDS.values()
        for annotation in board["annotations"]["list"]
    ]
    counts = [target["expr"] for _, _, target in PROMQL if "ALERTS{" in target["expr"]]

    assert counts
    for expr in (*marks, *counts):
        get(f"{stack['prometheus']}/api/v1/query", query=substituted(expr, {"service": ".+"}))


def test_links_from_a_trace_find_metrics_and_logs(stack: dict[str, str], fed: dict[str, str]) -> None:
    sources = yaml.safe_load((GRAFANA / "provisioning/datasources/sightline.yaml").read_text())["datasources"]
    jaeger = next(source["jsonData"] for source in sources if source["type"] == "jaeger")
    labels = ",".join(
        f'{tag["value"]}="{value}"'
        for tag, value in zip(
            jaeger["tracesToMetrics"]["tags"], (fed["service"], "/orders/{id}"), strict=True
        )
    )
    for query in jaeger["tracesToMetrics"]["queries"]:
        expr = query["query"].replace("$$__tags", labels).replace("$$__rate_interval", "1m")
        assert eventually(partial(prometheus_finds, stack, expr), 10), query["name"]
    logs = jaeger["tracesToLogsV2"]["query"].replace("$${__trace.traceId}", fed["trace_id"])
    assert get(f"{stack['loki']}/loki/api/v1/query_range", query=logs, since="10m")["result"]


def test_variables_offer_values(stack: dict[str, str], fed: dict[str, str]) -> None:
    def missing() -> list[tuple[str, str]]:
        found = []
        for uid, board in BOARDS.items():
            for name, variable in variables(board).items():
                if variable["type"] == "query":
                    selector, label = re.fullmatch(
                        r"label_values\((.+), (\w+)\)", variable["definition"]
                    ).groups()
                    match = {"match[]": substituted(selector, fed | {"service": ".+"})}
                    if not get(f"{stack['prometheus']}/api/v1/label/{label}/values", **match):
                        found.append((uid, name))
        return found

    assert eventually(lambda: not missing(), 20), missing()


def test_every_logql_query_finds_data(stack: dict[str, str], fed: dict[str, str]) -> None:
    def finds(expr: str) -> bool:
        return bool(get(f"{stack['loki']}/loki/api/v1/query_range", query=expr, since="10m")["result"])

    for case in LOGQL:
        assert eventually(partial(finds, substituted(case[2]["expr"], fed)), 10), name_of(case)


def test_no_id_finds_no_record_under_one_id(stack: dict[str, str], fed: dict[str, str]) -> None:
    (expr,) = (target["expr"] for _, panel, target in LOGQL if panel["title"] == "Its logs")
    query = substituted(expr, fed | {"correlation_id": ""})

    assert get(f"{stack['loki']}/loki/api/v1/query_range", query=query, since="10m")["result"] == []


def test_every_search_for_traces_finds_one(stack: dict[str, str], fed: dict[str, str]) -> None:
    def finds(service: str, tags: str) -> bool:
        question = {"service": service, "tags": json.dumps(dict(re.findall(r'([\w.]+)="([^"]*)"', tags)))}
        return bool(get(f"{stack['jaeger']}/api/traces", **question))

    searches = [case for case in JAEGER if case[2]["queryType"] == "search"]
    assert searches
    for case in searches:
        service, tags = (substituted(case[2][field], fed) for field in ("service", "tags"))
        assert eventually(partial(finds, service, tags), 10), name_of(case)
