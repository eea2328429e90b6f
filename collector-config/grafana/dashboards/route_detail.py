"""Route detail: one service, one route or several; what its requests look like and why they are slow."""

from typing import Final

from dashboards.board import Dashboard, Row
from dashboards.http_requests import (
    COUNT,
    DURATION,
    ERROR_RATIO,
    FAILED,
    SLOW_SECONDS,
    duration,
    failures,
    rate,
)
from dashboards.panels import Query, heatmap, stat, timeseries, traces
from dashboards.queries import ROUTE, or_zero, per_second, quantile, select, share, total
from dashboards.tables import Column, Label, table
from dashboards.variables import ENVIRONMENT, NAMESPACE, ONE_SERVICE, routes

_JUDGED: Final = "sightline_sla_requests_total"
_OUTCOME: Final = "sightline_sla_outcome"
_RANGE: Final = "$__range"
_INSTANCE: Final = "service_instance_id"
_METHOD: Final = "http_route, http_request_method"

_NOW = Row(
    "Now",
    (
        stat("Requests", "Requests per second on these routes.", "reqps", Query(rate(ROUTE)), first="blue"),
        stat("Failed", "Ratio that failed.", "percentunit", Query(failures(ROUTE)), steps=ERROR_RATIO),
        stat("Median", "Half of the requests are faster.", "s", Query(duration(0.5, ROUTE)), first="blue"),
        stat(
            "95th percentile",
            "95 of 100 are faster.",
            "s",
            Query(duration(0.95, ROUTE)),
            steps=SLOW_SECONDS,
        ),
        stat(
            "99th percentile",
            "99 of 100 are faster.",
            "s",
            Query(duration(0.99, ROUTE)),
            steps=SLOW_SECONDS,
        ),
        stat(
            "Within objective",
            "Ratio of judged requests that were neither slow nor failed.",
            "percentunit",
            Query(
                share(
                    per_second(_JUDGED, ROUTE, f'{_OUTCOME}="ok"'),
                    per_second(_JUDGED, ROUTE, f'{_OUTCOME}=~"ok|slow|failed"'),
                )
            ),
            steps=((0.99, "orange"), (0.999, "green")),
            first="red",
        ),
    ),
)

_REQUESTS = Row(
    "Requests",
    (
        timeseries(
            "Requests by status",
            "Requests per second.",
            "reqps",
            Query(rate(ROUTE, by="http_response_status_code"), "{{http_response_status_code}}"),
            stacked=True,
        ),
        timeseries(
            "Verdicts",
            "Requests per second by verdict: ok, slow, failed, or excluded from the objective.",
            "reqps",
            Query(per_second(_JUDGED, ROUTE, by=_OUTCOME), f"{{{{{_OUTCOME}}}}}"),
            stacked=True,
        ),
        timeseries(
            "Errors by type",
            "Exception class, status, or how the exchange broke off. None is 0.",
            "reqps",
            Query(or_zero(rate(ROUTE, 'error_type!=""', by="error_type")), "{{error_type}}"),
            stacked=True,
        ),
    ),
)

_DURATIONS = Row(
    "Durations",
    (
        timeseries(
            "Quantiles",
            "Estimated from the histogram of all processes; a point is one request and leads to its trace.",
            "s",
            *(
                Query(duration(ratio, ROUTE), name, exemplar=ratio == 0.99)
                for name, ratio in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
            ),
        ),
        heatmap(
            "Distribution",
            "How many requests took how long.",
            "s",
            Query(per_second(f"{DURATION}_bucket", ROUTE, by="le"), "{{le}}", exemplar=True),
            width=8,
        ),
        timeseries(
            "99th percentile, slowest process",
            "As each process measures it over five minutes, within 1 %; the highest of all processes.",
            "s",
            Query(
                total(
                    select("sightline_sla_latency_seconds", ROUTE, 'quantile="0.99"'),
                    by=_METHOD,
                    function="max",
                ),
                "{{http_request_method}} {{http_route}}",
            ),
        ),
        timeseries(
            "95th percentile by process",
            "One process that is slower than the others is not the code's fault: look at its host.",
            "s",
            Query(duration(0.95, ROUTE, by=_INSTANCE), f"{{{{{_INSTANCE}}}}}"),
            width=12,
        ),
        timeseries(
            "Requests by process",
            "An uneven spread is the load balancer's, or that of long-lived connections.",
            "reqps",
            Query(rate(ROUTE, by=_INSTANCE), f"{{{{{_INSTANCE}}}}}"),
            width=12,
        ),
    ),
)

_SIZES = Row(
    "Sizes",
    (
        timeseries(
            "Response body, 95th percentile",
            "Bytes handed to the server; large ones make slow requests.",
            "bytes",
            Query(
                quantile(0.95, "http_server_response_body_size_bytes", ROUTE, by="http_route"),
                "{{http_route}}",
            ),
            width=12,
        ),
        timeseries(
            "Request body, 95th percentile",
            "Bytes that the application has read.",
            "bytes",
            Query(
                quantile(0.95, "http_server_request_body_size_bytes", ROUTE, by="http_route"),
                "{{http_route}}",
            ),
            width=12,
        ),
    ),
)

_EXAMPLES = Row(
    "Examples",
    (
        table(
            "Routes and methods",
            "Over the time shown.",
            (Label("http_route", "Route"), Label("http_request_method", "Method")),
            (
                Column(
                    "Requests", "short", f"sum by ({_METHOD}) (increase({select(COUNT, ROUTE)}[{_RANGE}]))"
                ),
                Column("Failed", "percentunit", failures(ROUTE, by=_METHOD, over=_RANGE), ERROR_RATIO),
                Column("Failures/s", "reqps", rate(ROUTE, FAILED, by=_METHOD, over=_RANGE)),
                Column("p95", "s", duration(0.95, ROUTE, by=_METHOD, over=_RANGE), SLOW_SECONDS),
            ),
        ),
        *(
            traces(
                f"{verdict.capitalize()} requests",
                f"Traces in which this service has a request that is {verdict}; a row leads to the trace.",
                "$service",
                f'sightline.sla.outcome="{verdict}"',
                width=12,
            )
            for verdict in ("failed", "slow")
        ),
    ),
)

DASHBOARD = Dashboard(
    uid="sightline-route",
    title="Route detail",
    description="Requests of one service by route: how many, how fast, how they end, and examples.",
    rows=(_NOW, _REQUESTS, _DURATIONS, _SIZES, _EXAMPLES),
    variables=(ENVIRONMENT, NAMESPACE, ONE_SERVICE, routes(COUNT)),
)
