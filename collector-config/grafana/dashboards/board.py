"""A dashboard as a whole: rows of panels, put in their places, and what all dashboards have around them."""

import json
from dataclasses import dataclass
from typing import Final

from dashboards.panels import PROMETHEUS, Json
from dashboards.variables import Variables

GRID_WIDTH: Final = 24
SCHEMA_VERSION: Final = 41
"""Of the classic JSON model; later versions of Grafana migrate it when they load it."""
TAG: Final = "sightline"

_LINKS: Final[list[Json]] = [
    {
        "type": "dashboards",
        "title": "Sightline",
        "tags": [TAG],
        "asDropdown": True,
        "includeVars": True,
        "keepTime": True,
        "targetBlank": False,
        "icon": "external link",
    }
]


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under one heading, from left to right, and on the next line where they do not fit."""

    title: str
    panels: tuple[Json, ...]


@dataclass(frozen=True, slots=True)
class Dashboard:
    """One dashboard.

    Attributes:
        uid: Part of its address, which alerts and other dashboards name; never changed.
        title: Shown in lists.
        description: The question that it answers.
        rows: What it shows, the most important first.
        variables: In an order in which each needs only those before it.
        start: Beginning of the time shown.
    """

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]
    variables: Variables
    start: str = "now-1h"

    def text(self) -> str:
        """Returns the file that Grafana reads."""
        return json.dumps(self.model(), indent=1, ensure_ascii=False) + "\n"

    def model(self) -> Json:
        """Returns the dashboard in Grafana's classic JSON model."""
        return {
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": [TAG],
            "schemaVersion": SCHEMA_VERSION,
            "version": 1,
            "editable": True,
            "graphTooltip": 1,  # one crosshair for all panels
            "refresh": "30s",
            "timezone": "browser",
            "time": {"from": self.start, "to": "now"},
            "annotations": {"list": [_alerts()]},
            "links": _LINKS,
            "templating": {"list": list(self.variables)},
            "panels": _placed(self.rows),
        }


def _alerts() -> Json:
    """Returns the marks of alerts that fire, of the chosen services and of the pipeline."""
    firing = 'max by (alertname, severity, service_name) (ALERTS{alertstate="firing",severity!="info"})'
    return {
        "name": "Alerts",
        "datasource": PROMETHEUS,
        "enable": True,
        "iconColor": "red",
        "target": {"refId": "Anno", "expr": firing, "interval": "30s"},
        "titleFormat": "{{alertname}}",
        "textFormat": "{{severity}} {{service_name}}",
        "tagKeys": "severity",
    }


def _placed(rows: tuple[Row, ...]) -> list[Json]:
    placed: list[Json] = []
    top = 0
    for row in rows:
        placed.append(_heading(row.title, len(placed) + 1, top))
        top += 1
        left = height = 0
        for panel in row.panels:
            size = panel["gridPos"]
            if left + size["w"] > GRID_WIDTH:
                top, left, height = top + height, 0, 0
            place = {**size, "x": left, "y": top}
            placed.append({"id": len(placed) + 1, **panel, "gridPos": place})
            left, height = left + size["w"], max(height, size["h"])
        top += height
    return placed


def _heading(title: str, number: int, top: int) -> Json:
    place = {"w": GRID_WIDTH, "h": 1, "x": 0, "y": top}
    return {
        "id": number,
        "type": "row",
        "title": title,
        "collapsed": False,
        "gridPos": place,
        "panels": [],
    }
