"""Dashboards are built from their source, alike, follow their variables and name only what is emitted."""

from __future__ import annotations

import json
import re
from pathlib import Path

import opentelemetry.semconv
import pytest
import yaml

from .dashboard_files import (
    BOARDS,
    DASHBOARDS,
    FOLDER,
    GRAFANA,
    JAEGER,
    LOGQL,
    PROMQL,
    Case,
    name_of,
    panels,
    recorded,
    stale_files,
    variables,
)
from .emitted_metrics import of_connectors, of_services, prometheus_names
from .stack_fixture import CONFIG, ROOT

UIDS = {
    f"sightline-{name}"
    for name in (
        "overview",
        "route",
        "slo",
        "websocket",
        "background",
        "dependencies",
        "saturation",
        "logs",
        "pipeline",
    )
}
OF_GRAFANA = {"__rate_interval", "__range", "__auto", "__all", "__data", "__url_time_range"}
UNITS = {"reqps", "ops", "cps", "s", "ms", "percentunit", "short", "bytes", "Bps"}


def test_json_is_what_the_source_makes() -> None:
    assert stale_files() == []


def test_uids_are_the_fixed_ones_and_name_their_files() -> None:
    assert set(BOARDS) == UIDS == {board["uid"] for board in BOARDS.values()}
    assert [each.uid for each in DASHBOARDS] == list(dict.fromkeys(each.uid for each in DASHBOARDS))
    assert len({board["title"] for board in BOARDS.values()}) == len(UIDS)


def test_grafana_finds_the_files_where_compose_mounts_them() -> None:
    provider = yaml.safe_load((FOLDER.parent / "sightline.yaml").read_text())["providers"][0]
    mounts = yaml.safe_load((CONFIG / "compose.yaml").read_text())["services"]["grafana"]["volumes"]

    assert "./grafana/provisioning:/etc/grafana/provisioning:ro" in mounts
    inside = FOLDER.relative_to(GRAFANA / "provisioning")
    assert provider["options"]["path"] == f"/etc/grafana/provisioning/{inside}"


@pytest.mark.parametrize("uid", BOARDS)
def test_panels_have_title_description_unit_and_a_place_of_their_own(uid: str) -> None:
    taken: set[tuple[int, int]] = set()
    shown = panels(BOARDS[uid])

    assert len({panel["id"] for panel in BOARDS[uid]["panels"]}) == len(BOARDS[uid]["panels"])
    for panel in shown:
        assert panel["title"], panel
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, panel["title"]
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24, panel["title"]
        assert not cells & taken, panel["title"]
        taken |= cells


def test_columns_of_tables_have_units() -> None:
    for uid, board in BOARDS.items():
        for table in (panel for panel in panels(board) if panel.get("transformations")):
            units = [
                each["value"]
                for override in table["fieldConfig"]["overrides"]
                for each in override["properties"]
                if each["id"] == "unit"
            ]
            assert len(units) == len(table["targets"]), (uid, table["title"])
            assert set(units) <= UNITS, (uid, table["title"])


@pytest.mark.parametrize("uid", BOARDS)
def test_every_variable_is_defined_and_used(uid: str) -> None:
    board = BOARDS[uid]
    text = json.dumps(board["panels"] + board["templating"]["list"])
    used = set(re.findall(r"(?<!\$)\$\{?(\w+)", text)) - OF_GRAFANA

    assert used == set(variables(board)), uid
    assert {"environment", "namespace", "service"} <= used


@pytest.mark.parametrize("uid", BOARDS)
def test_links_lead_to_dashboards_and_variables_that_exist(uid: str) -> None:
    links = re.findall(r"/d/([\w-]+)\?([^\"]*)", json.dumps(BOARDS[uid]["panels"]))

    for target, query in links:
        assert target in BOARDS
        assert set(re.findall(r"var-(\w+)=", query)) <= set(variables(BOARDS[target]))
    assert BOARDS[uid]["links"][0]["includeVars"] is True


def test_data_sources_are_the_provisioned_ones() -> None:
    text = (GRAFANA / "provisioning/datasources/sightline.yaml").read_text()
    provisioned = {(source["type"], source["uid"]) for source in yaml.safe_load(text)["datasources"]}

    for uid, panel, target in (*PROMQL, *LOGQL, *JAEGER):
        assert (target["datasource"]["type"], target["datasource"]["uid"]) in provisioned, (
            uid,
            panel["title"],
        )


@pytest.mark.parametrize("case", [*PROMQL, *LOGQL], ids=name_of)
def test_query_follows_the_variables_and_the_zoom(case: Case) -> None:
    _, panel, target = case
    expr = target["expr"]

    hard_coded = re.findall(r'\b(?:job|instance|service_name|http_route)=~?"(?!\.\+")[^"$]+"', expr)
    assert not hard_coded
    followed = ("$service", "$entry", "$program")
    for selector in re.findall(r"\{[^}]*\}", expr):
        assert any(name in selector for name in followed) or "$correlation_id" in expr, selector
    ranges = set(re.findall(r"\[([^\]]+)\]", expr))
    over_time = "$__auto" if target["datasource"]["type"] == "loki" else "$__rate_interval"
    at_the_end = target.get("instant")
    assert ranges <= {
        "$__range" if at_the_end else over_time,
        *(["$__range"] if panel["type"] == "stat" else []),
    }


@pytest.mark.parametrize("case", [*PROMQL, *LOGQL], ids=name_of)
def test_legend_names_labels_that_the_query_keeps(case: Case) -> None:
    legend = set(re.findall(r"\{\{(\w+)\}\}", case[2]["legendFormat"]))
    kept = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", case[2]["expr"]))))

    aggregated = " by (" in case[2]["expr"] or "sum(" in case[2]["expr"]
    assert legend <= kept or not aggregated


def metrics_named() -> set[str]:
    """Returns every metric that a query or a variable names; of a pattern of names, each alternative."""
    found: set[str] = set()
    text = [target["expr"] for _, _, target in PROMQL]
    text += [
        v["definition"] for board in BOARDS.values() for v in board["templating"]["list"] if "definition" in v
    ]
    for expr in text:
        found |= set(re.findall(r"\b([a-z][\w:]*)\{", expr.replace("$window", "3d")))
        for pattern in re.findall(r'__name__=~"([^"]+)"', expr):
            found |= {pattern} if pattern.startswith("otelcol_") else set(pattern.split("|"))
    return found


def test_metric_of_a_service_is_one_that_the_code_emits() -> None:
    code = "".join(
        path.read_text()
        for folder in (
            ROOT / "instrumentation/sightline",
            ROOT / "processors/sightline_processors",
            *(Path(folder) / "_incubating/metrics" for folder in opentelemetry.semconv.__path__),
            *(Path(folder) / "metrics" for folder in opentelemetry.semconv.__path__),
        )
        for path in folder.rglob("*.py")
    )

    assert len(of_services()) > 30
    for metric in of_services():
        assert f'"{metric.name}"' in code, metric.name


def test_every_metric_named_is_emitted_recorded_or_of_a_program() -> None:
    emitted = prometheus_names(of_services() + of_connectors()) | recorded()
    program = re.compile(r"(otelcol|prometheus|loki|jaeger|alertmanager|scrape|process)_.*|up|ALERTS")

    assert {name for name in metrics_named() - emitted if not program.fullmatch(name)} == set()
