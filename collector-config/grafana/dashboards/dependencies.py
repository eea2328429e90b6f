"""Database and dependencies: what services wait for, how slow it is, and how often it fails."""

from typing import Final

from dashboards.board import Dashboard, Row
from dashboards.panels import LOKI, Query, logs, service_map, stat, timeseries
from dashboards.queries import increase, lines, most, or_zero, per_second, quantile, share, streams
from dashboards.tables import Column, Label, table
from dashboards.variables import OF_SERVICES

_SLOW: Final = "sightline_slow_operations_total"
_CALLS: Final = "traces_span_metrics_calls_total"
_CALL_DURATION: Final = "traces_span_metrics_duration_milliseconds"
"""In the unit that the spanmetrics connector and Jaeger have by default."""
_EDGES: Final = "traces_service_graph_request_total"
_EDGE_FAILURES: Final = "traces_service_graph_request_failed_total"
_EDGE_DURATION: Final = "traces_service_graph_request_client_seconds"

_OUTGOING: Final = 'span_kind=~"SPAN_KIND_CLIENT|SPAN_KIND_PRODUCER"'
_FAILED: Final = 'status_code="STATUS_CODE_ERROR"'
_OF_CALL: Final = "service_name, span_name"
_EDGE: Final = "client, server, connection_type"
_CALLER: Final = 'client=~"$service"'
_RANGE: Final = "$__range"
_RATIO_STEPS: Final = ((0.01, "orange"), (0.05, "red"))
_ALERTS: Final = 'sightline_alert=~"slow_query|slow_call"'


def _calls(*matchers: str, by: str = "", over: str = "$__rate_interval") -> str:
    return per_second(_CALLS, _OUTGOING, *matchers, by=by, over=over)


def _failures(by: str = "", over: str = "$__rate_interval") -> str:
    return share(_calls(_FAILED, by=by, over=over), _calls(by=by, over=over))


def _duration(ratio: float, by: str = "", over: str = "$__rate_interval") -> str:
    return quantile(ratio, _CALL_DURATION, _OUTGOING, by=by, over=over)


def _waiting(over: str) -> str:
    """Returns the seconds spent per second: how many calls are under way on average."""
    return f"{per_second(f'{_CALL_DURATION}_sum', _OUTGOING, by=_OF_CALL, over=over)} / 1000"


def _edges(metric: str, by: str = _EDGE) -> str:
    return per_second(metric, _CALLER, by=by, of="", over=_RANGE)


def _a_minute(operations: str) -> str:
    return or_zero("60 * " + per_second(_SLOW, f'sightline_operation=~"{operations}"'))


_NOW = Row(
    "Now",
    (
        stat("Calls", "Outgoing calls per second, from the traces.", "ops", Query(_calls()), first="blue"),
        stat("Failed", "Ratio of calls that failed.", "percentunit", Query(_failures()), steps=_RATIO_STEPS),
        stat("95th percentile", "95 of 100 calls are faster.", "ms", Query(_duration(0.95)), first="blue"),
        stat(
            "Calls of a request",
            "Outgoing calls for each request that comes in. A jump is a query in a loop.",
            "short",
            Query(f"{_calls()} / ({per_second('http_server_request_duration_seconds_count')} > 0)"),
            first="blue",
        ),
        stat(
            "Slow queries",
            "Database and Redis operations above their threshold, per minute.",
            "short",
            Query(_a_minute("db|redis")),
            steps=((1, "orange"), (10, "red")),
        ),
        stat(
            "Slow calls",
            "HTTP calls and messages above their threshold, per minute.",
            "short",
            Query(_a_minute("http|messaging")),
            steps=((1, "orange"), (10, "red")),
        ),
    ),
)

_CALLS_ROW = Row(
    "Calls",
    (
        timeseries(
            "Calls",
            "Outgoing calls per second, by service.",
            "ops",
            Query(_calls(by="service_name"), "{{service_name}}"),
        ),
        timeseries(
            "Failed",
            "Ratio of outgoing calls that failed, by service.",
            "percentunit",
            Query(_failures(by="service_name"), "{{service_name}}"),
            steps=_RATIO_STEPS,
        ),
        timeseries(
            "95th percentile",
            "Duration of outgoing calls, by service.",
            "ms",
            Query(_duration(0.95, by="service_name"), "{{service_name}}"),
        ),
        table(
            "Operations where the time goes",
            "The 20 operations that most calls are waiting for, over the time shown.",
            (
                Label(
                    "service_name", "Service", "/d/sightline-overview?var-service=${__data.fields.Service}"
                ),
                Label("span_name", "Operation"),
            ),
            (
                Column(
                    "Waiting",
                    "short",
                    most(_waiting(_RANGE)),
                ),
                Column("Calls/s", "ops", _calls(by=_OF_CALL, over=_RANGE)),
                Column("Failed", "percentunit", _failures(by=_OF_CALL, over=_RANGE), _RATIO_STEPS),
                Column("p95", "ms", _duration(0.95, by=_OF_CALL, over=_RANGE)),
            ),
        ),
    ),
)

_SLOW_ROW = Row(
    "Slow operations",
    (
        timeseries(
            "By kind",
            "Operations above their threshold, per second. None is 0.",
            "ops",
            Query(or_zero(per_second(_SLOW, by="sightline_operation")), "{{sightline_operation}}"),
            stacked=True,
        ),
        timeseries(
            "By server",
            "Where they went; one server among several that is slow is that server's trouble.",
            "ops",
            Query(
                or_zero(per_second(_SLOW, by="db_system_name, server_address")),
                "{{db_system_name}} {{server_address}}",
            ),
            stacked=True,
        ),
        timeseries(
            "Logged",
            "Records of slow queries and calls, by alert; at most ten a minute of each kind and process.",
            "short",
            Query(lines(_ALERTS, by="sightline_alert"), "{{sightline_alert}}", source=LOKI),
            stacked=True,
        ),
        table(
            "Slow operations",
            "In the time shown.",
            (
                Label("service_name", "Service"),
                Label("sightline_operation", "Kind"),
                Label("db_system_name", "Database"),
                Label("server_address", "Server"),
            ),
            (
                Column(
                    "Count",
                    "short",
                    increase(_SLOW, by="service_name, sightline_operation, db_system_name, server_address"),
                ),
            ),
            width=8,
            height=10,
        ),
        logs(
            "Latest",
            "What was slow, for how long, and where; open a line for its trace.",
            streams(_ALERTS),
            width=16,
        ),
    ),
)

_MAP = Row(
    "Who calls whom",
    (
        service_map(
            "Map", "Services and how many calls go between them, derived from the traces that were kept."
        ),
        table(
            "Connections",
            "From all traces, over the time shown; a database or another host is a server too.",
            (Label("client", "Client"), Label("server", "Server"), Label("connection_type", "Kind")),
            (
                Column("Calls/s", "ops", _edges(_EDGES)),
                Column("Failed", "percentunit", share(_edges(_EDGE_FAILURES), _edges(_EDGES)), _RATIO_STEPS),
                Column("p95", "s", quantile(0.95, _EDGE_DURATION, _CALLER, by=_EDGE, of="", over=_RANGE)),
            ),
            width=12,
            height=10,
        ),
    ),
)

DASHBOARD = Dashboard(
    uid="sightline-dependencies",
    title="Database and dependencies",
    description="Databases, Redis, queues, other services: calls, failures, slow operations, who calls whom.",
    rows=(_NOW, _CALLS_ROW, _SLOW_ROW, _MAP),
    variables=OF_SERVICES,
)
