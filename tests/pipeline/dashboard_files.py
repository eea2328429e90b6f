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
from .stack_fixture import CONFIG, RULE_FILES

GRAFANA = CONFIG / "grafana"
if str(GRAFANA) not in sys.path:
    sys.path.insert(0, str(GRAFANA))

from build_dashboards import FOLDER, stale_files  # noqa: E402  the folder is put on the path above
from dashboards import DASHBOARDS  # noqa: E402  the folder is put on the path above

__all__ = ["DASHBOARDS", "FOLDER", "stale_files"]

Case = tuple[str, Json, Json]
"""Dashboard, panel and target of one query."""

BOARDS: dict[str, Json] = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}


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
def recorded() -> set[str]:
    """Returns the names of the series that rules record."""
    groups = (group for path in RULE_FILES for group in yaml.safe_load(path.read_text())["groups"])
    return {rule["record"] for group in groups for rule in group["rules"] if "record" in rule}


def substituted(expr: str, values: dict[str, str]) -> str:
    """Returns a query with values for its variables, as Grafana gives them."""
    known = {"__rate_interval": "1m", "__range": "1h", "__auto": "5m", "window": "3d", **values}
    return re.sub(r"\$\{?(\w+)\}?", lambda match: known.get(match[1], ".*"), expr)
