"""Tables: one row for each set of labels, one column for each query, links to the dashboard with more."""

from dataclasses import dataclass

from dashboards.panels import PROMETHEUS, Json, Query, Steps, target, thresholds


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        title: Its header.
        unit: Grafana's name of the unit; of text, `string`.
        expr: PromQL, asked for the end of the time shown.
        steps: Thresholds that colour the cell.
        first: Colour below the first threshold.
    """

    title: str
    unit: str
    expr: str
    steps: Steps = ()
    first: str = "green"


@dataclass(frozen=True, slots=True)
class Label:
    """A label that is a column, and leads somewhere.

    Attributes:
        name: In Prometheus.
        title: Its header.
        link: Path of a dashboard and variables; `${__data.fields.NAME}` is another cell.
    """

    name: str
    title: str
    link: str = ""


def table(
    title: str,
    description: str,
    labels: tuple[Label, ...],
    columns: tuple[Column, ...],
    *,
    width: int = 24,
    height: int = 9,
) -> Json:
    """Returns a table, sorted by its first column of numbers, largest first."""
    refs = [chr(ord("A") + number) for number in range(len(columns))]
    queries = [Query(column.expr) for column in columns]
    return {
        "type": "table",
        "title": title,
        "description": description,
        "datasource": PROMETHEUS,
        "gridPos": {"w": width, "h": height},
        "fieldConfig": {
            "defaults": {
                "unit": "short",
                "custom": {"filterable": True, "align": "auto"},
                "noValue": "-",
                "thresholds": thresholds(()),
            },
            "overrides": [
                *(_override_of_label(label) for label in labels if label.link),
                *(_override(column) for column in columns),
            ],
        },
        "options": {
            "showHeader": True,
            "cellHeight": "sm",
            "sortBy": [{"displayName": columns[0].title, "desc": True}],
        },
        "targets": [
            {**target(number, query, instant=True), "format": "table"} for number, query in enumerate(queries)
        ],
        "transformations": [
            {"id": "merge", "options": {}},
            {"id": "organize", "options": _organization(labels, columns, refs)},
        ],
    }


def _organization(labels: tuple[Label, ...], columns: tuple[Column, ...], refs: list[str]) -> Json:
    """Returns order and headers. With a single query, Grafana calls its value `Value` without a letter."""
    values = ["Value"] if len(refs) == 1 else [f"Value #{ref}" for ref in refs]
    names = [label.name for label in labels] + values
    titles = [label.title for label in labels] + [column.title for column in columns]
    return {
        "excludeByName": {"Time": True},
        "indexByName": {name: place for place, name in enumerate(names)},
        "renameByName": dict(zip(names, titles, strict=True)),
    }


def _override(column: Column) -> Json:
    properties: list[Json] = [{"id": "unit", "value": column.unit}]
    if column.steps:
        properties += [
            {"id": "thresholds", "value": thresholds(column.steps, column.first)},
            {"id": "custom.cellOptions", "value": {"type": "color-text"}},
        ]
    return {"matcher": {"id": "byName", "options": column.title}, "properties": properties}


def _override_of_label(label: Label) -> Json:
    link = {"title": f"Open this {label.title.lower()}", "url": f"{label.link}&${{__url_time_range}}"}
    return {
        "matcher": {"id": "byName", "options": label.title},
        "properties": [{"id": "links", "value": [link]}],
    }
