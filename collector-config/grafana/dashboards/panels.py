"""Panels of Grafana, in the one look that all dashboards have.

Each function returns the panel without its place and number, which the dashboard gives it. Sizes are in units
of Grafana's grid: 24 to a row.

Source: Grafana's dashboard JSON model, classic schema.
"""

from dataclasses import dataclass, field
from typing import Any, Final

Json = dict[str, Any]

PROMETHEUS: Final[Json] = {"type": "prometheus", "uid": "sightline-prometheus"}
LOKI: Final[Json] = {"type": "loki", "uid": "sightline-loki"}
JAEGER: Final[Json] = {"type": "jaeger", "uid": "sightline-jaeger"}

GREEN, ORANGE, RED, BLUE = "green", "orange", "red", "blue"

Steps = tuple[tuple[float, str], ...]
"""Values from which a colour holds, after the first colour, which has no lower end."""


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a panel.

    Attributes:
        expr: PromQL, LogQL, or tags for Jaeger.
        legend: `{{label}}` stands for a label's value.
        source: The data source that answers it.
        exemplar: Whether points of single requests are shown, which lead to their traces.
        more: Further fields of the target, for Jaeger.
    """

    expr: str
    legend: str = ""
    source: Json = field(default_factory=lambda: PROMETHEUS)
    exemplar: bool = False
    more: Json = field(default_factory=dict)


def timeseries(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    width: int = 8,
    height: int = 8,
    stacked: bool = False,
    steps: Steps = (),
    minimum: float | None = 0,
    maximum: float | None = None,
) -> Json:
    """Returns a graph over time, with a table of means and maxima below.

    Args:
        title: What is shown, without the service.
        description: What it means and what to do about it.
        unit: Grafana's name of the unit.
        queries: What is drawn.
        width: Of 24.
        height: In grid units.
        stacked: Whether the series are parts of a whole.
        steps: Thresholds, drawn as lines.
        minimum: Lower end of the axis; None where values may be below 0.
        maximum: Upper end of the axis, where values have one.
    """
    custom = {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": 40 if stacked else 8,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
        "thresholdsStyle": {"mode": "line" if steps else "off"},
    }
    legend = {"displayMode": "table", "placement": "bottom", "showLegend": True, "calcs": ["mean", "max"]}
    defaults: Json = {"color": {"mode": "palette-classic"}, "custom": custom}
    defaults |= {name: end for name, end in (("min", minimum), ("max", maximum)) if end is not None}
    options = {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}
    return _panel("timeseries", title, description, queries, (width, height), unit, steps, options, defaults)


def stat(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    steps: Steps = (),
    first: str = GREEN,
    width: int = 4,
) -> Json:
    """Returns one large number, coloured by its thresholds, over the graph of its past."""
    options = {
        "colorMode": "value",
        "graphMode": "area",
        "justifyMode": "auto",
        "orientation": "auto",
        "textMode": "auto",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    }
    defaults: Json = {"color": {"mode": "thresholds"}, "noValue": "none"}
    return _panel("stat", title, description, queries, (width, 4), unit, steps, options, defaults, first)


def heatmap(title: str, description: str, unit: str, query: Query, *, width: int = 12) -> Json:
    """Returns the buckets of a histogram over time: how many values were how large."""
    options = {
        "calculate": False,
        "cellGap": 1,
        "color": {"mode": "scheme", "scheme": "Spectral", "exponent": 0.5, "steps": 64, "reverse": False},
        "exemplars": {"color": "rgba(255,0,255,0.7)"},
        "filterValues": {"le": 1e-9},
        "legend": {"show": True},
        "rowsFrame": {"layout": "auto"},
        "tooltip": {"mode": "single", "yHistogram": True, "showColorScale": False},
        "yAxis": {"axisPlacement": "left", "unit": unit, "reverse": False},
    }
    panel = _panel("heatmap", title, description, (query,), (width, 8), unit, (), options, {})
    panel["targets"][0]["format"] = "heatmap"
    return panel


def logs(title: str, description: str, expr: str, *, width: int = 24, height: int = 10) -> Json:
    """Returns log lines, newest first; opening one shows its attributes and the link to its trace."""
    options = {
        "showTime": True,
        "showLabels": False,
        "showCommonLabels": False,
        "wrapLogMessage": True,
        "prettifyLogMessage": False,
        "enableLogDetails": True,
        "dedupStrategy": "none",
        "sortOrder": "Descending",
    }
    query = Query(expr, source=LOKI)
    return _panel("logs", title, description, (query,), (width, height), "short", (), options, {})


def traces(title: str, description: str, service: str, tags: str, *, width: int = 24) -> Json:
    """Returns a table of the traces that Jaeger finds; a row leads to its trace.

    Args:
        title: What is shown.
        description: What it means.
        service: One service, as Jaeger wants it.
        tags: In logfmt: `key="value"`.
        width: Of 24.
    """
    query = Query(tags, source=JAEGER, more={"queryType": "search", "service": service, "limit": 20})
    options = {"showHeader": True, "cellHeight": "sm"}
    return _panel("table", title, description, (query,), (width, 8), "short", (), options, {})


def service_map(title: str, description: str, *, width: int = 12) -> Json:
    """Returns the graph of who calls whom, as Jaeger derives it from the traces."""
    query = Query("", source=JAEGER, more={"queryType": "dependencyGraph"})
    return _panel("nodeGraph", title, description, (query,), (width, 10), "short", (), {}, {})


def thresholds(steps: Steps, first: str = GREEN) -> Json:
    """Returns thresholds as Grafana has them."""
    return {
        "mode": "absolute",
        "steps": [{"color": first, "value": None}, *({"color": c, "value": v} for v, c in steps)],
    }


def _panel(
    kind: str,
    title: str,
    description: str,
    queries: tuple[Query, ...],
    size: tuple[int, int],
    unit: str,
    steps: Steps,
    options: Json,
    defaults: Json,
    first: str = GREEN,
) -> Json:
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": queries[0].source,
        "gridPos": {"w": size[0], "h": size[1]},
        "fieldConfig": {
            "defaults": {"unit": unit, "thresholds": thresholds(steps, first), **defaults},
            "overrides": [],
        },
        "options": options,
        "targets": [target(number, query, instant=False) for number, query in enumerate(queries)],
    }


def target(number: int, query: Query, *, instant: bool) -> Json:
    """Returns a query as Grafana has it; `instant` asks for the end of the time shown only."""
    target: Json = {"refId": chr(ord("A") + number), "datasource": query.source}
    if query.source is JAEGER:
        return {**target, **({"tags": query.expr} if query.expr else {}), **query.more}
    target |= {"expr": query.expr, "editorMode": "code", "legendFormat": query.legend or "__auto"}
    if query.source is LOKI:
        return {**target, "queryType": "instant" if instant else "range"}
    return {**target, "range": not instant, "instant": instant, "exemplar": query.exemplar}
