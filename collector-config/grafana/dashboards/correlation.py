"""Logs and correlation: all that one ID has left behind, and the logs of a service."""

from typing import Final

from dashboards.board import Dashboard, Row
from dashboards.http_requests import COUNT, DURATION
from dashboards.panels import LOKI, Query, logs, stat, timeseries, traces
from dashboards.queries import lines, per_second, quantile, streams
from dashboards.variables import OF_SERVICES, from_prometheus, text

_ID: Final = " or ".join(
    f'({label}!="" and {label}="$correlation_id")' for label in ("correlation_id", "trace_id")
)
"""While no ID is given, an empty one would find the records that have none of their own."""
_ITS_RECORDS: Final = streams(_ID, of='service_name=~".+"')
_ERRORS: Final = 'detected_level=~"error|critical|fatal"'
_WITHOUT_ID: Final = streams('correlation_id=""')
_ENTRY: Final = 'service_name="$entry"'

_ONE = Row(
    "One ID",
    (
        logs(
            "Its logs",
            "Records of all services with this correlation ID or trace ID, newest first.",
            _ITS_RECORDS,
            width=16,
        ),
        timeseries(
            "Its records by service",
            "Which services took part, and when. Empty until an ID is given.",
            "short",
            Query(
                f"sum by (service_name) (count_over_time({_ITS_RECORDS} [$__auto]))",
                "{{service_name}}",
                source=LOKI,
            ),
            height=10,
        ),
        traces(
            "Its spans",
            "Traces in which the entry service has a span with this ID; a row leads to the trace.",
            "$entry",
            'sightline.correlation_id="$correlation_id"',
        ),
    ),
)

_AROUND = Row(
    "What the entry service did at that time",
    (
        timeseries(
            "Duration",
            "Quantiles of the entry service; a point is one request, with its trace ID.",
            "s",
            Query(quantile(0.5, DURATION, of=_ENTRY), "p50"),
            Query(quantile(0.95, DURATION, of=_ENTRY), "p95", exemplar=True),
        ),
        timeseries(
            "Requests by status",
            "Per second.",
            "reqps",
            Query(
                per_second(COUNT, by="http_response_status_code", of=_ENTRY), "{{http_response_status_code}}"
            ),
            stacked=True,
        ),
        timeseries(
            "Records by severity",
            "Log records of the entry service.",
            "short",
            Query(
                f"sum by (detected_level) (count_over_time({streams(of=_ENTRY)} [$__auto]))",
                "{{detected_level}}",
                source=LOKI,
            ),
            stacked=True,
        ),
    ),
)

_ALL = Row(
    "Logs of the chosen services",
    (
        stat(
            "Errors",
            "Records of severity ERROR and above, in each step of the graph.",
            "short",
            Query(f"sum(count_over_time({streams(_ERRORS)} [$__auto]))", source=LOKI),
            steps=((1, "red"),),
            width=6,
        ),
        stat(
            "Records",
            "Log records in each step of the graph.",
            "short",
            Query(f"sum(count_over_time({streams()} [$__auto]))", source=LOKI),
            first="blue",
            width=6,
        ),
        stat(
            "Volume",
            "Bytes of log lines per second.",
            "Bps",
            Query(f"sum(bytes_rate({streams()} [$__auto]))", source=LOKI),
            first="blue",
            width=6,
        ),
        stat(
            "Without an ID",
            "Records of no request: start-up, schedulers, other threads.",
            "short",
            Query(f"sum(count_over_time({_WITHOUT_ID} [$__auto]))", source=LOKI),
            first="blue",
            width=6,
        ),
        timeseries(
            "Records by severity",
            "Log records in each step.",
            "short",
            Query(lines(by="detected_level"), "{{detected_level}}", source=LOKI),
            stacked=True,
        ),
        timeseries(
            "Errors by service",
            "Records of severity ERROR and above.",
            "short",
            Query(lines(_ERRORS), "{{service_name}}", source=LOKI),
            stacked=True,
        ),
        timeseries(
            "Volume by service",
            "Bytes of log lines per second; above its limits, Loki refuses a service that logs too much.",
            "Bps",
            Query(lines(function="bytes_rate"), "{{service_name}}", source=LOKI),
        ),
        logs(
            "Records",
            "Of the chosen services; the text is searched as it is written.",
            f"{streams()} |= `$text`",
        ),
    ),
)

DASHBOARD = Dashboard(
    uid="sightline-logs",
    title="Logs and correlation",
    description="One correlation ID or trace ID: its logs, its spans, the metrics around it; and all logs.",
    rows=(_ONE, _AROUND, _ALL),
    variables=(
        text("correlation_id", "ID", "Correlation ID or trace ID, whole."),
        *OF_SERVICES,
        from_prometheus(
            "entry",
            "Entry service",
            "The service whose spans are searched for the ID: usually the one that clients call.",
            f'label_values({COUNT}{{deployment_environment_name=~"$environment"}}, service_name)',
            everything=None,
        ),
        text("text", "Text", "Part of a log line."),
    ),
)
