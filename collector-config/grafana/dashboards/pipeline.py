"""Telemetry pipeline health: does what services emit arrive, and if not, where does it stay?"""

from typing import Final

from dashboards.back_ends import BACK_ENDS
from dashboards.board import Dashboard, Row
from dashboards.panels import Query, stat, timeseries
from dashboards.programs import PROGRAM, of_program
from dashboards.queries import increase, or_zero, per_second, quantile, select, total
from dashboards.variables import ANYTHING, OF_SERVICES, from_prometheus

_SIGNALS: Final = ("spans", "metric_points", "log_records")
_TITLES: Final = {"spans": "spans", "metric_points": "data points", "log_records": "log records"}
_KINDS: Final = ("span", "metric_data_point", "log")
_DROPPED: Final = "sightline_telemetry_dropped_total"
_FILL_STEPS: Final = ((0.5, "orange"), (0.8, "red"))
_ANY_STEPS: Final = ((1e-9, "red"),)


def _collector(name: str, by: str = "") -> str:
    """Returns the rate of a counter of the collector or Jaeger, which may or may not end in `_total`."""
    return per_second("", f'__name__=~"otelcol_{name}(_total)?"', PROGRAM, by=by, of="")


def _signals(name: str, by: str, legend: str) -> tuple[Query, ...]:
    """Returns one query for each signal; absent where nothing was ever counted."""
    return tuple(
        Query(or_zero(_collector(f"{name}_{signal}", by=by)), f"{_TITLES[signal]} {legend}".strip())
        for signal in _SIGNALS
    )


def _sum_of_signals(name: str) -> str:
    """Returns the rate of three counters together: their labels are alike, so one pattern is an error."""
    return " + ".join(f"({or_zero(_collector(f'{name}_{signal}'))})" for signal in _SIGNALS)


def _fill(by: str) -> str:
    """Returns how full the collector's queues are: their bytes are on disk."""
    size, capacity = (
        total(of_program(f"otelcol_exporter_queue_{part}"), by=by) for part in ("size", "capacity")
    )
    return f"{size} / {capacity}"


_NOW = Row(
    "Now",
    (
        stat(
            "Programs down",
            "Programs of the pipeline that Prometheus cannot scrape.",
            "short",
            Query(f"sum(1 - {of_program('up')})"),
            steps=((1, "red"),),
        ),
        stat(
            "Dropped by services",
            "Items that services gave up in the time shown.",
            "short",
            Query(or_zero(increase(_DROPPED))),
            steps=((1, "red"),),
        ),
        stat(
            "Refused",
            "Items per second that the collector refused: too little memory, or a full queue.",
            "cps",
            Query(_sum_of_signals("receiver_refused")),
            steps=_ANY_STEPS,
        ),
        stat(
            "Fullest queue",
            "A queue fills when its back end is slow or away; when it is full, the collector refuses.",
            "percentunit",
            Query(f"max({_fill('instance, exporter')})"),
            steps=_FILL_STEPS,
        ),
        stat(
            "Not taken by back ends",
            "Items per second that a back end refused for good.",
            "cps",
            Query(_sum_of_signals("exporter_send_failed")),
            steps=_ANY_STEPS,
        ),
        stat(
            "Telemetry errors",
            "Failures beside the requests, of user hooks and processors too, in the time shown.",
            "short",
            Query(or_zero(increase("sightline_telemetry_errors_total"))),
            steps=((1, "orange"),),
        ),
    ),
)


def _exported(kind: str) -> str:
    return per_second(f"otel_sdk_exporter_{kind}_exported_total", 'error_type=""')


def _queue_fill(kind: str) -> str:
    size, capacity = (
        total(select(f"otel_sdk_processor_{kind}_queue_{part}"), by="service_name")
        for part in ("size", "capacity")
    )
    return f"{size} / {capacity}"


_SERVICES = Row(
    "In the services",
    (
        timeseries(
            "Exported",
            "Items per second that the collector acknowledged, by kind.",
            "cps",
            *(Query(_exported(kind), kind.replace("_", " ")) for kind in _KINDS),
        ),
        timeseries(
            "Dropped",
            "Items per second that were given up; the telemetry reference explains the reasons.",
            "cps",
            Query(
                or_zero(per_second(_DROPPED, by="service_name, signal, reason")),
                "{{service_name}} {{signal}} {{reason}}",
            ),
            stacked=True,
        ),
        timeseries(
            "Fill of the queues",
            "In the processes, by service: at 100 % the oldest items are dropped.",
            "percentunit",
            Query(_queue_fill("span"), "{{service_name}} spans"),
            Query(_queue_fill("log"), "{{service_name}} logs"),
            steps=_FILL_STEPS,
            maximum=1,
        ),
        timeseries(
            "Duration of an export, p95",
            "From the services to the collector.",
            "s",
            Query(
                quantile(0.95, "otel_sdk_exporter_operation_duration_seconds", by="service_name"),
                "{{service_name}}",
            ),
        ),
        timeseries(
            "Beyond the cardinality limit",
            "Measurements per second without a series of their own, and the attribute to blame.",
            "cps",
            Query(
                or_zero(
                    per_second(
                        "sightline_cardinality_overflow_total", by="service_name, instrument, attribute"
                    )
                ),
                "{{service_name}} {{instrument}} {{attribute}}",
            ),
        ),
        timeseries(
            "Telemetry errors",
            "By kind, and correlation IDs that were not valid.",
            "cps",
            Query(
                or_zero(per_second("sightline_telemetry_errors_total", by="service_name, kind")),
                "{{service_name}} {{kind}}",
            ),
            Query(
                or_zero(per_second("sightline_correlation_rejected_total", by="service_name")),
                "{{service_name}} correlation ID",
            ),
        ),
        timeseries(
            "In flight",
            "Items on their way to the collector; what stays up is a collector that does not answer.",
            "short",
            *(
                Query(total(select(f"otel_sdk_exporter_{kind}_inflight")), kind.replace("_", " "))
                for kind in _KINDS
            ),
        ),
        timeseries(
            "Sampling",
            "Spans per second that the sampler kept or left, by reason; 0 where it is not in use.",
            "cps",
            Query(
                or_zero(per_second("sightline_sampling_spans_total", by="sightline_sampling_reason")),
                "{{sightline_sampling_reason}}",
            ),
            stacked=True,
        ),
        timeseries(
            "Held by the sampler",
            "Memory of the spans that wait for the verdict of their trace.",
            "bytes",
            Query(or_zero(total(select("sightline_sampling_held_bytes"))), "held"),
        ),
    ),
)

_COLLECTOR = Row(
    "In the collector",
    (
        timeseries(
            "Accepted",
            "Items per second. What Jaeger, a collector too, has accepted is shown beside it.",
            "cps",
            *_signals("receiver_accepted", "job", "{{job}}"),
        ),
        timeseries(
            "Refused and failed",
            "Items per second that the sender was told to send again, or never.",
            "cps",
            Query(_sum_of_signals("receiver_refused"), "refused at the receiver"),
            Query(_sum_of_signals("processor_refused"), "refused by the memory limiter"),
            Query(_sum_of_signals("exporter_enqueue_failed"), "queue full"),
            Query(_sum_of_signals("exporter_send_failed"), "not taken by the back end"),
        ),
        timeseries(
            "Fill of the queues",
            "On disk, one of each exporter: the others go on when one fills.",
            "percentunit",
            Query(_fill("instance, exporter"), "{{exporter}}"),
            steps=_FILL_STEPS,
            maximum=1,
        ),
        timeseries(
            "Sent",
            "Items per second that back ends have acknowledged.",
            "cps",
            *_signals("exporter_sent", "exporter", "{{exporter}}"),
        ),
        timeseries(
            "CPU",
            "Cores in use, by program.",
            "short",
            Query(_collector("process_cpu_seconds", by="job"), "{{job}}"),
            Query(per_second("process_cpu_seconds_total", PROGRAM, by="job", of=""), "{{job}}"),
        ),
        timeseries(
            "Memory",
            "Resident, by program. The collector refuses above its limit.",
            "bytes",
            Query(
                total(
                    select("", '__name__=~"otelcol_process_memory_rss(_bytes)?"', PROGRAM, of=""), by="job"
                ),
                "{{job}}",
            ),
            Query(total(of_program("process_resident_memory_bytes"), by="job"), "{{job}}"),
        ),
    ),
)


DASHBOARD = Dashboard(
    uid="sightline-pipeline",
    title="Telemetry pipeline health",
    description="From the services through the collector to the back ends: what arrives, waits, or is lost.",
    rows=(_NOW, _SERVICES, _COLLECTOR, BACK_ENDS),
    variables=(
        *OF_SERVICES,
        from_prometheus(
            "program",
            "Program",
            "job of the pipeline's programs, as the scrape targets name them.",
            "label_values(up, job)",
            everything=ANYTHING,
        ),
    ),
)
