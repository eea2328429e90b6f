"""Workers and saturation: are processes too busy to answer, and are they all alike?"""

from typing import Final

from dashboards.board import Dashboard, Row
from dashboards.http_requests import COUNT, SLOW_SECONDS, active, duration, rate
from dashboards.panels import Query, heatmap, stat, timeseries
from dashboards.queries import average, per_second, quantile, select, total
from dashboards.tables import Column, Label, table
from dashboards.variables import OF_SERVICES

_LAG: Final = "sightline_event_loop_lag_seconds"
_WAITING: Final = "sightline_threads_waiting"
_QUEUE_TIME: Final = "sightline_request_queue_time_seconds"
_INSTANCE: Final = "service_name, service_instance_id"
_LEGEND: Final = "{{service_name}} {{service_instance_id}}"
_RANGE: Final = "$__range"
_LAG_STEPS: Final = ((0.05, "orange"), (0.25, "red"))
_WAITING_STEPS: Final = ((1, "orange"), (10, "red"))
_PROCESSES: Final = f"count by ({_INSTANCE}) ({select(COUNT)})"

_NOW = Row(
    "Now",
    (
        stat(
            "Processes", "Worker processes that report.", "short", Query(f"count({_PROCESSES})"), first="blue"
        ),
        stat(
            "Event loop lag, p99",
            "How late timers are. Above 50 ms something blocks the loop, and all its requests wait.",
            "s",
            Query(quantile(0.99, _LAG)),
            steps=_LAG_STEPS,
        ),
        stat(
            "Waiting for a thread",
            "Tasks that wait: `def` endpoints, files and blocking calls share 40 threads of a process.",
            "short",
            Query(total(select(_WAITING))),
            steps=_WAITING_STEPS,
        ),
        stat(
            "Queue time, p95",
            "Between the proxy and the application; where a trusted proxy sends X-Request-Start.",
            "s",
            Query(quantile(0.95, _QUEUE_TIME)),
            steps=((0.05, "orange"), (0.5, "red")),
        ),
        stat("Under way", "Requests that are being handled.", "short", Query(active()), first="blue"),
        stat(
            "Busiest process",
            "Requests under way in the process that has most of them.",
            "short",
            Query(f"max({active(by=_INSTANCE)})"),
            first="blue",
        ),
    ),
)

_LOOP = Row(
    "Event loop",
    (
        timeseries(
            "Lag, p99, by service",
            "A service whose lag rises with its requests is out of CPU; one whose lag jumps blocks its loop.",
            "s",
            Query(quantile(0.99, _LAG, by="service_name"), "{{service_name}}"),
            steps=_LAG_STEPS,
        ),
        timeseries(
            "Lag, p99, by process",
            "One process that lags alone has one request that blocks it.",
            "s",
            Query(quantile(0.99, _LAG, by=_INSTANCE), _LEGEND),
            steps=_LAG_STEPS,
        ),
        heatmap(
            "Lag",
            "How many timers were how late.",
            "s",
            Query(per_second(f"{_LAG}_bucket", by="le"), "{{le}}"),
            width=8,
        ),
    ),
)

_QUEUES = Row(
    "Queues",
    (
        timeseries(
            "Waiting for a thread",
            "By process. Above 0 for long: more threads, fewer blocking calls, or more processes.",
            "short",
            Query(total(select(_WAITING), by=_INSTANCE), _LEGEND),
            steps=_WAITING_STEPS,
        ),
        timeseries(
            "Queue time",
            "Between the proxy and the application, by service.",
            "s",
            Query(quantile(0.95, _QUEUE_TIME, by="service_name"), "{{service_name}} p95"),
            Query(average(_QUEUE_TIME, by="service_name"), "{{service_name}} mean"),
        ),
        timeseries(
            "Under way",
            "Requests that are being handled, by process.",
            "short",
            Query(active(by=_INSTANCE), _LEGEND),
        ),
    ),
)

_WORKERS = Row(
    "Processes",
    (
        timeseries(
            "Processes",
            "Worker processes that report, by service; a saw is a crash loop.",
            "short",
            Query(f"count by (service_name) ({_PROCESSES})", "{{service_name}}"),
        ),
        timeseries(
            "Requests by process",
            "Per second. Uneven: connections that live long, or one listener that takes all.",
            "reqps",
            Query(rate(by=_INSTANCE), _LEGEND),
        ),
        timeseries(
            "Versions",
            "Processes by service and version: the progress of a release.",
            "short",
            Query(
                f"count by (service_name, service_version) "
                f"(count by ({_INSTANCE}, service_version) ({select(COUNT)}))",
                "{{service_name}} {{service_version}}",
            ),
            stacked=True,
        ),
        table(
            "Processes",
            "Over the time shown.",
            (Label("service_name", "Service"), Label("service_instance_id", "Process")),
            (
                Column("Lag, p99", "s", quantile(0.99, _LAG, by=_INSTANCE, over=_RANGE), _LAG_STEPS),
                Column(
                    "Waiting for a thread", "short", total(select(_WAITING), by=_INSTANCE), _WAITING_STEPS
                ),
                Column("Requests/s", "reqps", rate(by=_INSTANCE, over=_RANGE)),
                Column("Under way", "short", active(by=_INSTANCE)),
                Column("p95", "s", duration(0.95, by=_INSTANCE, over=_RANGE), SLOW_SECONDS),
            ),
        ),
    ),
)

DASHBOARD = Dashboard(
    uid="sightline-saturation",
    title="Workers and saturation",
    description="Event loops, threads, queues and the spread of work over processes.",
    rows=(_NOW, _LOOP, _QUEUES, _WORKERS),
    variables=OF_SERVICES,
)
