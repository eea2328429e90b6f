"""Every metric there is to ask for: of services, by the telemetry reference, and of the connectors."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import yaml

from .stack_fixture import CONFIG, ROOT

_ROW = re.compile(
    r"^\| `([a-z][\w.]+)` \| (histogram|counter|gauge|up-down counter), `([^`]+)` \|", re.MULTILINE
)
_UNITS = {"s": "_seconds", "ms": "_milliseconds", "By": "_bytes"}


@dataclass(frozen=True)
class Metric:
    """One metric; `kind` is `histogram`, `counter`, `gauge` or `up-down counter`."""

    name: str
    kind: str
    unit: str

    def series(self) -> set[str]:
        """Returns the names of the series that Prometheus makes of it."""
        name = self.name.replace(".", "_") + _UNITS.get(self.unit, "")
        if self.kind == "histogram":
            return {f"{name}_{part}" for part in ("bucket", "count", "sum")}
        if self.kind == "counter":
            return {name if name.endswith("_total") else f"{name}_total"}
        return {f"{name}_ratio" if self.unit == "1" else name}


def of_services() -> list[Metric]:
    """Returns what the telemetry reference lists."""
    reference = (ROOT / "docs/reference/telemetry.md").read_text()
    return [Metric(name, kind, unit) for name, kind, unit in _ROW.findall(reference)]


def of_connectors() -> list[Metric]:
    """Returns what the collector makes of spans; namespace and unit are those of its configuration."""
    connectors = yaml.safe_load((CONFIG / "otelcol.yaml").read_text())["connectors"]
    spans = connectors["span_metrics"]
    graph = "traces_service_graph_request"
    return [
        Metric(f"{spans['namespace']}.calls", "counter", ""),
        Metric(f"{spans['namespace']}.duration", "histogram", spans["histogram"]["unit"]),
        Metric(f"{graph}_total", "counter", ""),
        Metric(f"{graph}_failed_total", "counter", ""),
        Metric(f"{graph}_client", "histogram", "s"),
        Metric(f"{graph}_server", "histogram", "s"),
    ]


def prometheus_names(metrics: Iterable[Metric]) -> set[str]:
    """Returns the names of the series of several metrics."""
    return set().union(*(metric.series() for metric in metrics))
