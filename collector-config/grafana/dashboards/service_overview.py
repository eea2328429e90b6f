"""Service overview: is anything wrong, in which service, on which route?"""

from typing import Final

from dashboards.board import Dashboard, Row
from dashboards.http_requests import (
    DURATION,
    ERROR_RATIO,
    FAILED,
    SLOW_SECONDS,
    active,
    duration,
    failures,
    rate,
    time_spent,
)
from dashboards.panels import LOKI, Query, heatmap, logs, stat, timeseries
from dashboards.queries import increase, lines, most, or_zero, per_second, share, streams
from dashboards.tables import Column, Label, table
from dashboards.variables import OF_SERVICES

SERVICE_LABEL: Final = Label(
    "service_name", "Service", "/d/sightline-overview?var-service=${__data.fields.Service}"
)
_OF_ROUTE: Final = "service_name, http_route, http_request_method"
_JUDGED: Final = "sightline_sla_requests_total"
_ERRORS: Final = 'detected_level=~"error|critical|fatal"'
_ALERTS: Final = 'sum(ALERTS{alertstate="firing",severity!="info",service_name=~"|$service"})'
_RANGE: Final = "$__range"

_NOW = Row(
    "Now",
    (
        stat(
            "Requests", "Requests per second, of all chosen services.", "reqps", Query(rate()), first="blue"
        ),
        stat(
            "Failed",
            "Ratio of requests that ended in a 5xx, an exception or an incomplete response.",
            "percentunit",
            Query(failures()),
            steps=ERROR_RATIO,
        ),
        stat(
            "95th percentile",
            "95 of 100 requests are faster than this.",
            "s",
            Query(duration(0.95)),
            steps=SLOW_SECONDS,
        ),
        stat(
            "Within objective",
            "Ratio of judged requests that were neither slow nor failed; excluded ones do not count.",
            "percentunit",
            Query(
                share(
                    per_second(_JUDGED, 'sightline_sla_outcome="ok"'),
                    per_second(_JUDGED, 'sightline_sla_outcome=~"ok|slow|failed"'),
                )
            ),
            steps=((0.99, "orange"), (0.999, "green")),
            first="red",
        ),
        stat("Under way", "Requests that are being handled.", "short", Query(active()), first="blue"),
        stat(
            "Alerts",
            "Pages and tickets that fire, of these services and of the pipeline.",
            "short",
            Query(or_zero(_ALERTS)),
            steps=((1, "red"),),
        ),
    ),
)

_SERVICES = Row(
    "Services",
    (
        table(
            "Services",
            "Each service over the time shown; sorted by requests, click a header to sort by another column.",
            (SERVICE_LABEL,),
            (
                Column("Requests/s", "reqps", rate(by="service_name", over=_RANGE)),
                Column(
                    "Failed", "percentunit", failures(by="service_name", over=_RANGE), ERROR_RATIO, "green"
                ),
                Column("p50", "s", duration(0.5, by="service_name", over=_RANGE)),
                Column("p95", "s", duration(0.95, by="service_name", over=_RANGE), SLOW_SECONDS),
                Column("p99", "s", duration(0.99, by="service_name", over=_RANGE)),
                Column("Under way", "short", active(by="service_name")),
            ),
        ),
    ),
)

_RED = Row(
    "Rate, errors, duration",
    (
        timeseries(
            "Requests",
            "Requests per second by service. A drop to nothing is an outage in front of the service.",
            "reqps",
            Query(rate(by="service_name"), "{{service_name}}"),
        ),
        timeseries(
            "Failed",
            "Ratio of requests that failed, by service.",
            "percentunit",
            Query(failures(by="service_name"), "{{service_name}}"),
            steps=ERROR_RATIO,
        ),
        timeseries(
            "95th percentile",
            "Duration by service; a point is one request and leads to its trace.",
            "s",
            Query(duration(0.95, by="service_name"), "{{service_name}}", exemplar=True),
        ),
        timeseries(
            "Statuses",
            "Requests per second by HTTP status.",
            "reqps",
            Query(rate(by="http_response_status_code"), "{{http_response_status_code}}"),
            stacked=True,
        ),
        timeseries(
            "Errors by type",
            "What requests failed with, and clients that went away. None is 0.",
            "reqps",
            Query(or_zero(rate('error_type!=""', by="error_type")), "{{error_type}}"),
            stacked=True,
        ),
        heatmap(
            "Durations",
            "How many requests took how long; two bands are two kinds of requests.",
            "s",
            Query(per_second(f"{DURATION}_bucket", by="le"), "{{le}}", exemplar=True),
            width=8,
        ),
    ),
)

_ROUTES = Row(
    "Routes",
    (
        table(
            "Routes where the time goes",
            "The 20 routes with the most requests under way on average: rate times duration.",
            (
                Label("service_name", "Service"),
                Label(
                    "http_route",
                    "Route",
                    "/d/sightline-route?var-service=${__data.fields.Service}&var-route=${__data.fields.Route}",
                ),
                Label("http_request_method", "Method"),
            ),
            (
                Column("Under way", "short", most(time_spent(by=_OF_ROUTE, over=_RANGE))),
                Column("Requests/s", "reqps", rate(by=_OF_ROUTE, over=_RANGE)),
                Column("Failed", "percentunit", failures(by=_OF_ROUTE, over=_RANGE), ERROR_RATIO),
                Column("p95", "s", duration(0.95, by=_OF_ROUTE, over=_RANGE), SLOW_SECONDS),
                Column("Failures", "short", increase(f"{DURATION}_count", FAILED, by=_OF_ROUTE)),
            ),
        ),
    ),
)

_LOGS = Row(
    "Errors in the logs",
    (
        timeseries(
            "Error records",
            "Log records of severity ERROR and above, by service.",
            "short",
            Query(lines(_ERRORS), "{{service_name}}", source=LOKI),
            height=10,
        ),
        logs("Latest errors", "Open a line for its trace and correlation ID.", streams(_ERRORS), width=16),
    ),
)

DASHBOARD = Dashboard(
    uid="sightline-overview",
    title="Service overview",
    description="Rate, errors and duration of every service: is anything wrong, and where?",
    rows=(_NOW, _SERVICES, _RED, _ROUTES, _LOGS),
    variables=OF_SERVICES,
)
