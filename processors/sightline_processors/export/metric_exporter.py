"""What a `PeriodicExportingMetricReader` hands its collections to."""

from typing import Any

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    MetricExporter,
    MetricExportResult,
    MetricsData,
)
from opentelemetry.sdk.metrics.view import Aggregation

from sightline_processors.export.engine import Engine, process_engine
from sightline_processors.export.faults import report_defect
from sightline_processors.export.limits import Limits
from sightline_processors.export.reasons import ENCODING
from sightline_processors.export.verdicts import Transport


class OtlpMetricExporter(MetricExporter):
    """Exports collections of metrics over OTLP: encodes them at once and queues them.

    A collection that cannot be delivered is tried again until its deadline, and the next ones wait behind it.

    Args:
        transport: Where the metrics go.
        limits: Bounds of the queue; those of the environment when omitted.
        engine: Delivers the metrics; the one of the process when omitted.
        preferred_temporality: For the reader, as of the stock exporter.
        preferred_aggregation: For the reader, as of the stock exporter.
    """

    def __init__(
        self,
        transport: Transport,
        limits: Limits | None = None,
        engine: Engine | None = None,
        preferred_temporality: dict[type, AggregationTemporality] | None = None,
        preferred_aggregation: dict[type, Aggregation] | None = None,
    ) -> None:
        super().__init__(preferred_temporality, preferred_aggregation)
        self._engine = engine or process_engine()
        self.courier = self._engine.add(transport, limits)

    def export(
        self,
        metrics_data: MetricsData,
        timeout_millis: float = 10_000,  # noqa: ARG002  nothing waits here
        **kwargs: Any,  # noqa: ARG002  the stock signature
    ) -> MetricExportResult:
        """Encodes and queues a collection; `force_flush` and the ledger tell whether it is delivered."""
        points = _count_points(metrics_data)
        if not points:
            return MetricExportResult.SUCCESS
        lane = self.courier.lane
        try:
            request = encode_metrics(metrics_data).SerializeToString()
        except Exception as error:  # noqa: BLE001  an attribute or a value that protobuf does not take
            lane.count_drop(ENCODING, points)
            report_defect(error)
            return MetricExportResult.FAILURE
        lane.put((None, None, request, points))
        return MetricExportResult.FAILURE if lane.is_closed else MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Sends what was exported before the call; tells whether all of it was delivered in time."""
        return self.courier.flush(max(0.0, timeout_millis) / 1000)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Flushes within the engine's time, spools or drops the rest; later collections are dropped."""
        timeout = kwargs.get("timeout", timeout_millis)  # the name that the SDK's reader gives it
        self._engine.shut_down(self.courier, max(0.0, timeout) / 1000)


def _count_points(metrics_data: MetricsData) -> int:
    return sum(
        len(metric.data.data_points)
        for resource in metrics_data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    )
