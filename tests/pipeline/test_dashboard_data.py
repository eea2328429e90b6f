"""Every query of every dashboard finds what the shop did; links lead from one signal to the next."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import yaml

from .back_ends import BackEnds, asking
from .dashboard_files import BOARDS, GRAFANA, JAEGER, LOGQL, PROMQL, name_of, substituted, variables
from .shop_story import Story

pytestmark = pytest.mark.stack

OR_ZERO = " or on() vector(0)"
OF_THE_SECOND_SERVICE = "sightline_sampling_"  # the shop keeps all of its traces
EVERYTHING, SHOP = ".+", "shop"


@pytest.fixture(scope="module")
def back_ends(story: Story) -> Iterator[BackEnds]:
    with asking(story) as found:
        yield found


def values(story: Story, service: str = EVERYTHING) -> dict[str, str]:
    """Returns what a reader would choose."""
    return {"service": service, "entry": SHOP, "correlation_id": story.correlation_id, "text": ""}


def without_zero(expr: str) -> str:
    """Returns a query that finds nothing where nothing was counted; a sum of several counts what there is."""
    return expr.replace(OR_ZERO, "") if expr.count(OR_ZERO) == 1 else expr


def selectors() -> set[str]:
    return {found for case in PROMQL for found in re.findall(r"[\w:$]*\{[^}]*\}", case[2]["expr"])}


@pytest.mark.parametrize("service", [EVERYTHING, SHOP])
def test_every_promql_query_finds_data(story: Story, back_ends: BackEnds, service: str) -> None:
    asked = [case for case in PROMQL if service == EVERYTHING or OF_THE_SECOND_SERVICE not in case[2]["expr"]]
    empty = [
        name_of(case)
        for case in asked
        if not back_ends.samples(without_zero(substituted(case[2]["expr"], values(story, service))))
    ]

    assert len(asked) > 150
    assert empty == []


def test_every_selector_finds_series(story: Story, back_ends: BackEnds) -> None:
    """A query may have data although a part of it finds none: that part counts as 0."""
    asked = [substituted(selector, values(story)) for selector in selectors()]

    assert len(asked) > 80
    assert back_ends.without_series(asked) == []


def test_a_metric_that_nobody_emits_is_noticed(back_ends: BackEnds) -> None:
    wrong = [
        'sightline_no_such_total{service_name=~".+"}',
        "otelcol_no_such_spans",
        "otelcol_no_such_log_records",
    ]

    assert back_ends.without_series(["up", *wrong]) == [wrong[0], "otelcol_no_such_SIGNAL"]


def test_alerts_are_marked_on_the_graphs(story: Story, back_ends: BackEnds) -> None:
    for board in BOARDS.values():
        for annotation in board["annotations"]["list"]:
            expr = substituted(annotation["target"]["expr"], values(story, SHOP))
            assert back_ends.samples(expr), annotation["name"]


def test_numbers_are_those_of_the_shop(story: Story, back_ends: BackEnds) -> None:
    def number(uid: str, title: str, at: float, **more: str) -> float:
        expr = next(case[2]["expr"] for case in PROMQL if (case[0], case[1]["title"]) == (uid, title))
        (sample,) = back_ends.samples(substituted(expr, values(story, SHOP) | more), at)
        return float(sample["value"][1])

    whole = {"__rate_interval": f"{int(story.ended - story.began) + 5}s"}
    paid = number("sightline-route", "Within objective", story.ended, route="/payments", **whole)
    assert paid == pytest.approx(story.paid / (story.paid + story.unpaid), abs=0.005)
    assert number("sightline-saturation", "Processes", story.worst) == 1
    assert number("sightline-pipeline", "Programs down", story.worst) == 0
    assert number("sightline-dependencies", "Failed", story.worst, __rate_interval="4s") > 0.5


def test_variables_offer_values(story: Story, back_ends: BackEnds) -> None:
    offered = {}
    for uid, board in BOARDS.items():
        for name, variable in variables(board).items():
            if variable["type"] == "query":
                selector, label = re.fullmatch(
                    r"label_values\((.+), (\w+)\)", variable["definition"]
                ).groups()
                offered[uid, name] = back_ends.label_values(label, substituted(selector, values(story)))

    assert [place for place, found in offered.items() if not found] == []
    assert set(offered["sightline-overview", "service"]) == {"shop", "stock", "twins"}
    assert "/orders/{order_id}" in offered["sightline-route", "route"]


@pytest.mark.parametrize("service", [EVERYTHING, SHOP])
def test_every_logql_query_finds_data(story: Story, back_ends: BackEnds, service: str) -> None:
    empty = [
        name_of(case)
        for case in LOGQL
        if not back_ends.streams(substituted(case[2]["expr"], values(story, service)))
    ]

    assert LOGQL
    assert empty == []


def test_no_id_finds_no_record_under_one_id(story: Story, back_ends: BackEnds) -> None:
    (expr,) = (target["expr"] for _, panel, target in LOGQL if panel["title"] == "Its logs")

    assert back_ends.streams(substituted(expr, values(story) | {"correlation_id": ""})) == []


def test_every_search_for_traces_finds_one(story: Story, back_ends: BackEnds) -> None:
    searches = [case for case in JAEGER if case[2]["queryType"] == "search"]
    empty = [
        name_of(case)
        for case in searches
        if not back_ends.traces(
            *(substituted(case[2][key], values(story, SHOP)) for key in ("service", "tags"))
        )
    ]

    assert len(searches) == 3
    assert empty == []


def test_map_of_services_has_the_call_between_the_two(story: Story, back_ends: BackEnds) -> None:
    graphs = [case for case in JAEGER if case[2]["queryType"] == "dependencyGraph"]
    edges = {
        (sample["metric"]["client"], sample["metric"]["server"])
        for sample in back_ends.samples("traces_service_graph_request_total")
    }

    assert graphs
    assert ("shop", "stock") in back_ends.calls()
    assert {("shop", "stock"), ("shop", "postgresql"), ("shop", "redis")} <= edges


def test_points_of_graphs_lead_to_traces(story: Story, back_ends: BackEnds) -> None:
    with_points = [case for case in PROMQL if case[2]["exemplar"]]
    assert len(with_points) > 5
    for case in with_points:
        expr = substituted(case[2]["expr"], values(story, SHOP))
        found = back_ends.exemplars(expr, story.recovered, story.ended)
        assert found, name_of(case)
        trace_id = found[-1]["labels"]["trace_id"]
        spans = {span["spanID"] for span in back_ends.spans(trace_id)}
        assert found[-1]["labels"]["span_id"] in spans, name_of(case)


def test_one_correlation_id_leads_to_its_logs_and_these_to_its_trace(
    story: Story, back_ends: BackEnds
) -> None:
    logs = back_ends.streams(f'{{service_name=~".+"}} | correlation_id="{story.correlation_id}"')
    (trace,) = back_ends.traces(SHOP, f'sightline.correlation_id="{story.correlation_id}"')

    assert {stream["stream"]["trace_id"] for stream in logs} == {trace["traceID"]}
    assert "about to break" in {line for stream in logs for _, line in stream["values"]}
    assert {span["operationName"] for span in trace["spans"]} == {"GET /broken"}


def test_links_from_a_trace_find_metrics_and_logs(story: Story, back_ends: BackEnds) -> None:
    sources = yaml.safe_load((GRAFANA / "provisioning/datasources/sightline.yaml").read_text())["datasources"]
    jaeger = next(source["jsonData"] for source in sources if source["type"] == "jaeger")
    (trace,) = back_ends.traces(SHOP, f'sightline.correlation_id="{story.correlation_id}"')
    told = {tag["key"]: tag["value"] for tag in trace["spans"][0]["tags"]} | {"service.name": SHOP}
    labels = ",".join(f'{tag["value"]}="{told[tag["key"]]}"' for tag in jaeger["tracesToMetrics"]["tags"])

    for query in jaeger["tracesToMetrics"]["queries"]:
        expr = query["query"].replace("$$__tags", labels).replace("$$__rate_interval", "1m")
        assert back_ends.samples(expr), query["name"]
    logs = jaeger["tracesToLogsV2"]["query"].replace("$${__trace.traceId}", trace["traceID"])
    assert back_ends.streams(logs)
