"""The last part of the pipeline's dashboard: Prometheus, Loki, Jaeger and Alertmanager."""

from dashboards.board import Row
from dashboards.panels import Json, Query, timeseries
from dashboards.programs import PROGRAM, lost, of_program
from dashboards.queries import or_zero, per_second, quantile, total
from dashboards.tables import Column, Label, table


def _prometheus() -> tuple[Json, ...]:
    return (
        timeseries(
            "Prometheus: samples",
            "Appended per second.",
            "cps",
            Query(per_second("prometheus_tsdb_head_samples_appended_total", PROGRAM, of=""), "samples"),
        ),
        timeseries(
            "Prometheus: series",
            "In memory, about 3 kB each.",
            "short",
            Query(total(of_program("prometheus_tsdb_head_series")), "series"),
        ),
        timeseries(
            "Prometheus: not taken",
            "Samples per second that were too old or out of bounds; rules that could not be evaluated.",
            "cps",
            *(
                Query(lost(f"prometheus_{metric}_total"), legend)
                for metric, legend in (
                    ("tsdb_too_old_samples", "too old"),
                    ("tsdb_out_of_bound_samples", "out of bounds"),
                    ("tsdb_out_of_order_samples", "out of order"),
                    ("rule_evaluation_failures", "rule failed"),
                    ("notifications_errors", "alert not sent"),
                )
            ),
        ),
    )


def _loki_and_jaeger() -> tuple[Json, ...]:
    return (
        timeseries(
            "Loki: lines",
            "Received per second, and those discarded, by reason.",
            "cps",
            Query(per_second("loki_distributor_lines_received_total", PROGRAM, of=""), "received"),
            Query(
                or_zero(per_second("loki_discarded_samples_total", PROGRAM, by="reason", of="")),
                "{{reason}}",
            ),
        ),
        timeseries(
            "Loki: streams",
            "One for each service, namespace and environment; thousands mean a wrong label.",
            "short",
            Query(total(of_program("loki_ingester_memory_streams")), "streams"),
        ),
        timeseries(
            "Jaeger: storage",
            "Duration of its storage's operations, p95, and those that failed.",
            "s",
            Query(
                quantile(0.95, "jaeger_storage_latency_seconds", PROGRAM, by="operation", of=""),
                "{{operation}}",
            ),
        ),
    )


BACK_ENDS = Row(
    "In the back ends",
    (
        *_prometheus(),
        *_loki_and_jaeger(),
        timeseries(
            "Alertmanager: alerts",
            "Received, by state, and notifications that failed, per second.",
            "short",
            Query(total(of_program("alertmanager_alerts"), by="state"), "{{state}}"),
            Query(lost("alertmanager_notifications_failed_total"), "notifications failed"),
        ),
        timeseries(
            "Exemplars",
            "Kept by Prometheus, and how many fit.",
            "short",
            Query(total(of_program("prometheus_tsdb_exemplar_exemplars_in_storage")), "kept"),
            Query(total(of_program("prometheus_tsdb_exemplar_max_exemplars")), "fit"),
        ),
        timeseries(
            "Disk",
            "Blocks of Prometheus: the retention's size is their bound.",
            "bytes",
            Query(total(of_program("prometheus_tsdb_storage_blocks_bytes")), "Prometheus"),
        ),
        table(
            "Programs",
            "As Prometheus scrapes them.",
            (Label("job", "Program"), Label("instance", "Address")),
            (
                Column("Up", "short", f"max by (job, instance) ({of_program('up')})", ((1, "green"),), "red"),
                Column(
                    "Samples", "short", f"max by (job, instance) ({of_program('scrape_samples_scraped')})"
                ),
                Column("Scrape", "s", f"max by (job, instance) ({of_program('scrape_duration_seconds')})"),
                Column(
                    "Scraped",
                    "percentunit",
                    f"avg by (job, instance) (avg_over_time({of_program('up')}[$__range]))",
                    ((0.99, "green"),),
                    "red",
                ),
            ),
        ),
    ),
)
