"""The dashboards' files, and their queries with variables in place, for the tests of both."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any

import yaml

from .otlp_payloads import Json
from .stack_fixture import CONFIG

GRAFANA = CONFIG / "grafana"
if str(GRAFANA) not in sys.path:
    sys.path.insert(0, str(GRAFANA))

from build_dashboards import FOLDER, stale_files  # noqa: E402  the folder is put on the path above
from dashboards import DASHBOARDS  # noqa: E402  the folder is put on the path above

__all__ = ["DASHBOARDS", "FOLDER", "stale_files"]

Case = tuple[str, Json, Json]
"""Dashboard, panel and target of one query."""

BOARDS: dict[str, Json] = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}


# Counters that a program makes at the first event, and the string in its binary that shows that it can.
ON_FIRST_EVENT = {
    "otelcol_processor_refused_(spans|metric_points|log_records)": ("otelcol", "processor_refused_spans"),
    "otelcol_exporter_enqueue_failed_(spans|metric_points|log_records)": (
        "otelcol",
        "exporter_enqueue_failed_spans",
    ),
    "loki_discarded_samples_total": ("loki", "discarded_samples_total"),
}


def panels(board: Json) -> list[Json]:
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def targets(kind: str) -> Iterator[Case]:
    """Yields dashboard, panel and target of each query for a kind of data source."""
    for uid, board in BOARDS.items():
        for panel in panels(board):
            for target in panel["targets"]:
                if target["datasource"]["type"] == kind:
                    yield uid, panel, target


PROMQL = list(targets("prometheus"))
LOGQL = list(targets("loki"))
JAEGER = list(targets("jaeger"))


def name_of(case: Any) -> str:
    uid, panel, target = case
    return f"{uid}: {panel['title']}: {target['refId']}"


def variables(board: Json) -> dict[str, Json]:
    return {variable["name"]: variable for variable in board["templating"]["list"]}


@cache
def recorded() -> dict[str, str]:
    """Returns the recording rules; of several with one name, all, as alternatives."""
    rules: dict[str, str] = {}
    for path in (CONFIG / "rules").glob("*.yaml"):
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                if "record" in rule:
                    labelled = rule["expr"]
                    for label, value in rule.get("labels", {}).items():
                        labelled = f'label_replace({labelled}, "{label}", "{value}", "", "")'
                    rules[rule["record"]] = " or ".join(filter(None, (rules.get(rule["record"]), labelled)))
    return rules


def without_rules(expr: str) -> str:
    """Returns an expression that asks at once for what rules record each half minute, or each two.

    Of a selector's matchers, only the kind of an objective is kept: the rest would choose all there is.
    """
    rules = recorded()
    name = "|".join(map(re.escape, sorted(rules, key=len, reverse=True)))
    selector = re.compile(rf"\b({name})(?![\w:])(\{{[^}}]*\}})?(\[\w+\])?")

    def definition(match: re.Match[str]) -> str:
        over = match[3]
        of_kind = re.search(r'sightline_sla_kind="(\w+)"', match[2] or "")
        label = "sightline_sla_kind"
        one = (
            f' and on({label}) label_replace(vector(1), "{label}", "{of_kind[1]}", "", "")' if of_kind else ""
        )
        return f"(({rules[match[1]]}){one}){f'[{over[1:-1]}:30s]' if over else ''}"

    while selector.search(expr):
        expr = selector.sub(definition, expr)
    return expr


def substituted(expr: str, values: dict[str, str]) -> str:
    """Returns a query with values for its variables, as Grafana gives them."""
    known = {"__rate_interval": "1m", "__range": "1h", "__auto": "5m", "window": "3d", **values}
    return re.sub(r"\$\{?(\w+)\}?", lambda match: known.get(match[1], ".*"), expr)
