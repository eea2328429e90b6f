"""Background work: what runs after the response, how long, and what fails where no client sees it."""

from typing import Final

from dashboards.board import Dashboard, Row
from dashboards.panels import LOKI, Query, heatmap, logs, stat, timeseries
from dashboards.queries import SERVICE, increase, lines, or_zero, per_second, quantile, share, streams
from dashboards.tables import Column, Label, table
from dashboards.variables import OF_SERVICES, from_prometheus

_DURATION: Final = "sightline_background_duration_seconds"
_COUNT: Final = f"{_DURATION}_count"
_FUNCTION: Final = 'code_function_name=~"$function"'
_FAILED: Final = 'error_type!=""'
_BY: Final = "service_name, code_function_name"
_LEGEND: Final = "{{service_name}} {{code_function_name}}"
_RANGE: Final = "$__range"
_RATIO_STEPS: Final = ((0.01, "orange"), (0.1, "red"))
_ERRORS: Final = 'detected_level=~"error|critical|fatal"'


def _rate(*matchers: str, by: str = "", over: str = "$__rate_interval") -> str:
    return per_second(_COUNT, _FUNCTION, *matchers, by=by, over=over)


def _failures(by: str = "", over: str = "$__rate_interval") -> str:
    return share(_rate(_FAILED, by=by, over=over), _rate(by=by, over=over))


def _busy(by: str = "", over: str = "$__rate_interval") -> str:
    return per_second(f"{_DURATION}_sum", _FUNCTION, by=by, over=over)


_NOW = Row(
    "Now",
    (
        stat("Tasks", "Background tasks that end, per second.", "ops", Query(_rate()), first="blue", width=6),
        stat("Failed", "Ratio that failed.", "percentunit", Query(_failures()), steps=_RATIO_STEPS, width=6),
        stat(
            "95th percentile",
            "95 of 100 tasks are faster.",
            "s",
            Query(quantile(0.95, _DURATION, _FUNCTION)),
            first="blue",
            width=6,
        ),
        stat(
            "At work",
            "Tasks that run at a time, on average; what rises without more requests will not end.",
            "short",
            Query(_busy()),
            first="blue",
            width=6,
        ),
    ),
)

_TASKS = Row(
    "Tasks",
    (
        timeseries("Tasks", "Per second, by function.", "ops", Query(_rate(by=_BY), _LEGEND)),
        timeseries(
            "Failed",
            "Ratio by function; no client has seen these.",
            "percentunit",
            Query(_failures(by=_BY), _LEGEND),
            steps=_RATIO_STEPS,
        ),
        timeseries(
            "Errors by type",
            "Exception class, per second. None is 0.",
            "ops",
            Query(or_zero(_rate(_FAILED, by="error_type")), "{{error_type}}"),
            stacked=True,
        ),
        timeseries(
            "95th percentile",
            "Duration by function; a point is one task and leads to its trace, which links to its request.",
            "s",
            Query(quantile(0.95, _DURATION, _FUNCTION, by=_BY), _LEGEND, exemplar=True),
        ),
        timeseries(
            "At work",
            "Tasks that run at a time, on average. They share the event loop and its threads with requests.",
            "short",
            Query(_busy(by=_BY), _LEGEND),
            stacked=True,
        ),
        heatmap(
            "Durations",
            "How many tasks took how long.",
            "s",
            Query(per_second(f"{_DURATION}_bucket", _FUNCTION, by="le"), "{{le}}", exemplar=True),
            width=8,
        ),
        table(
            "Functions",
            "Over the time shown.",
            (Label("service_name", "Service"), Label("code_function_name", "Function")),
            (
                Column("At work", "short", _busy(by=_BY, over=_RANGE)),
                Column("Tasks", "short", increase(_COUNT, _FUNCTION, by=_BY)),
                Column("Failures", "short", increase(_COUNT, _FUNCTION, _FAILED, by=_BY), ((1, "red"),)),
                Column("Failed", "percentunit", _failures(by=_BY, over=_RANGE), _RATIO_STEPS),
                Column("p95", "s", quantile(0.95, _DURATION, _FUNCTION, by=_BY, over=_RANGE)),
            ),
        ),
    ),
)

_LOGS = Row(
    "Logs",
    (
        timeseries(
            "Error records",
            "Log records of severity ERROR and above, by service.",
            "short",
            Query(lines(_ERRORS), "{{service_name}}", source=LOKI),
            height=10,
        ),
        logs(
            "Latest errors", "A task that failed has logged its exception here.", streams(_ERRORS), width=16
        ),
    ),
)

DASHBOARD = Dashboard(
    uid="sightline-background",
    title="Background work",
    description="Background tasks and spawned work by function: rate, failures, duration.",
    rows=(_NOW, _TASKS, _LOGS),
    variables=(
        *OF_SERVICES,
        from_prometheus(
            "function",
            "Function",
            "code.function.name: module and function.",
            f"label_values({_COUNT}{{{SERVICE}}}, code_function_name)",
        ),
    ),
)
