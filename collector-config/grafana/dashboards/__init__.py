"""Grafana dashboards as code; the JSON files that Grafana loads are built from this package.

`python collector-config/grafana/build_dashboards.py` writes the files. How panels look is in `panels` and
`tables`, how queries are written in `queries`; each dashboard is a module that reads from top to bottom.
"""

from typing import Final

from dashboards import (
    background,
    correlation,
    dependencies,
    pipeline,
    route_detail,
    saturation,
    service_overview,
    slo,
    websocket,
)
from dashboards.board import Dashboard

DASHBOARDS: Final[tuple[Dashboard, ...]] = (
    service_overview.DASHBOARD,
    route_detail.DASHBOARD,
    slo.DASHBOARD,
    websocket.DASHBOARD,
    background.DASHBOARD,
    dependencies.DASHBOARD,
    saturation.DASHBOARD,
    correlation.DASHBOARD,
    pipeline.DASHBOARD,
)

__all__ = ["DASHBOARDS", "Dashboard"]
