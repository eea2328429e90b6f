"""What the engine tells about itself, read at each collection: requests pay nothing for it.

Which exporter a point is about, and where that sends, is told where a signal has several of them, or where
`OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED=true`: the conventions recommend these attributes, and with one
exporter they would tell nothing.

Source: semantic conventions v1.44.0, SDK metrics (in development), and `sightline.telemetry.dropped`.
"""

import os
from collections.abc import Callable, Iterator
from typing import Final

from opentelemetry.metrics import CallbackOptions, Histogram, Meter, MeterProvider, Observation
from opentelemetry.sdk.environment_variables import OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED
from opentelemetry.semconv._incubating.attributes.otel_attributes import (
    OTEL_COMPONENT_NAME,
    OTEL_COMPONENT_TYPE,
)
from opentelemetry.semconv._incubating.metrics import otel_metrics
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.semconv.attributes.server_attributes import SERVER_ADDRESS, SERVER_PORT

from sightline_processors.export.courier import Courier
from sightline_processors.export.engine import Engine
from sightline_processors.export.reasons import SHUTDOWN, SIGNALS, Signal
from sightline_processors.export.verdicts import Destination

SCOPE: Final = "sightline"
DROPPED: Final = "sightline.telemetry.dropped"
"""Counter, `{item}`, by signal and reason: items (of metrics, data points) that were given up."""

_OURS: Final = "sightline_"
"""Begins the names of components: the stock ones that gave way have theirs still."""
_ALREADY_SHUTDOWN: Final = "already_shutdown"
_BOUNDARIES: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_UNITS: Final[dict[Signal, str]] = {"traces": "{span}", "logs": "{log_record}", "metrics": "{data_point}"}
_PROCESSORS: Final[dict[Signal, str]] = {
    "traces": "batching_span_processor",
    "logs": "batching_log_processor",
}

Attributes = dict[str, str | int]
_Observe = Callable[[Courier], Iterator[tuple[int, Attributes]]]


def observe_engine(engine: Engine, meter_provider: MeterProvider) -> None:
    """Makes the instruments of an engine; once per engine.

    Args:
        engine: What is observed, the lanes that it gets later included.
        meter_provider: Where the instruments are.
    """
    meter = meter_provider.get_meter(SCOPE)
    meter.create_observable_counter(
        DROPPED,
        callbacks=[lambda _: list(_dropped(engine))],
        unit="{item}",
        description="Telemetry that was given up, by signal and reason.",
    )
    _Instruments(engine, meter).create()
    duration = meter.create_histogram(
        otel_metrics.OTEL_SDK_EXPORTER_OPERATION_DURATION,
        unit="s",
        description="The duration of exporting a batch of telemetry records.",
        explicit_bucket_boundaries_advisory=_BOUNDARIES,
    )
    engine.conclusion = _recorder(engine, duration)


class _Instruments:
    """Makes the instruments of the conventions for each signal."""

    def __init__(self, engine: Engine, meter: Meter) -> None:
        self._engine = engine
        self._meter = meter

    def create(self) -> None:
        """Makes them."""
        self._create_of_processors(
            "traces",
            otel_metrics.OTEL_SDK_PROCESSOR_SPAN_QUEUE_SIZE,
            otel_metrics.OTEL_SDK_PROCESSOR_SPAN_QUEUE_CAPACITY,
            otel_metrics.OTEL_SDK_PROCESSOR_SPAN_PROCESSED,
        )
        self._create_of_processors(
            "logs",
            otel_metrics.OTEL_SDK_PROCESSOR_LOG_QUEUE_SIZE,
            otel_metrics.OTEL_SDK_PROCESSOR_LOG_QUEUE_CAPACITY,
            otel_metrics.OTEL_SDK_PROCESSOR_LOG_PROCESSED,
        )
        self._create_of_exporters(
            "traces",
            otel_metrics.OTEL_SDK_EXPORTER_SPAN_INFLIGHT,
            otel_metrics.OTEL_SDK_EXPORTER_SPAN_EXPORTED,
        )
        self._create_of_exporters(
            "logs",
            otel_metrics.OTEL_SDK_EXPORTER_LOG_INFLIGHT,
            otel_metrics.OTEL_SDK_EXPORTER_LOG_EXPORTED,
        )
        self._create_of_exporters(
            "metrics",
            otel_metrics.OTEL_SDK_EXPORTER_METRIC_DATA_POINT_INFLIGHT,
            otel_metrics.OTEL_SDK_EXPORTER_METRIC_DATA_POINT_EXPORTED,
        )

    def _create_of_processors(self, signal: Signal, size: str, capacity: str, processed: str) -> None:
        self._up_down(signal, size, "Items in the queue.", self._queue_size)
        self._up_down(signal, capacity, "Items that the queue can hold.", self._queue_capacity)
        self._counter(signal, processed, "Items that were passed on, or not (error.type).", self._processed)

    def _create_of_exporters(self, signal: Signal, inflight: str, exported: str) -> None:
        self._up_down(signal, inflight, "Items that are being exported.", self._inflight)
        self._counter(
            signal, exported, "Items of which the export has ended, well or not (error.type).", self._exported
        )

    def _up_down(self, signal: Signal, name: str, description: str, observe: _Observe) -> None:
        self._meter.create_observable_up_down_counter(
            name, [self._callback(signal, observe)], _UNITS[signal], description
        )

    def _counter(self, signal: Signal, name: str, description: str, observe: _Observe) -> None:
        self._meter.create_observable_counter(
            name, [self._callback(signal, observe)], _UNITS[signal], description
        )

    def _callback(self, signal: Signal, observe: _Observe) -> Callable[[CallbackOptions], list[Observation]]:
        def callback(_: CallbackOptions) -> list[Observation]:
            return [
                Observation(value, attributes)
                for courier in self._engine.couriers
                if courier.lane.signal == signal
                for value, attributes in observe(courier)
            ]

        return callback

    def _queue_size(self, courier: Courier) -> Iterator[tuple[int, Attributes]]:
        yield courier.lane.queued(), self._of_processor(courier)

    def _queue_capacity(self, courier: Courier) -> Iterator[tuple[int, Attributes]]:
        yield courier.lane.limits.max_items, self._of_processor(courier)

    def _processed(self, courier: Courier) -> Iterator[tuple[int, Attributes]]:
        attributes = self._of_processor(courier)
        yield courier.lane.processed, attributes
        for reason, count in sorted(dict(courier.lane.dropped).items()):
            kind = _ALREADY_SHUTDOWN if reason == SHUTDOWN else reason
            yield count, {**attributes, ERROR_TYPE: kind}

    def _inflight(self, courier: Courier) -> Iterator[tuple[int, Attributes]]:
        yield courier.lane.ledger().in_flight, exporter_attributes(self._engine, courier.destination)

    def _exported(self, courier: Courier) -> Iterator[tuple[int, Attributes]]:
        attributes = exporter_attributes(self._engine, courier.destination)
        yield courier.lane.acknowledged, attributes
        for reason, count in sorted(dict(courier.lane.failed).items()):
            yield count, {**attributes, ERROR_TYPE: reason}

    def _of_processor(self, courier: Courier) -> Attributes:
        if not is_told_apart(self._engine, courier.lane.signal):
            return {}
        kind = _PROCESSORS[courier.lane.signal]
        return {
            OTEL_COMPONENT_TYPE: kind,
            OTEL_COMPONENT_NAME: f"{_OURS}{kind}/{_number(self._engine, courier)}",
        }


def is_told_apart(engine: Engine, signal: Signal) -> bool:
    """Tells whether the points of a signal say which exporter they are about."""
    if os.environ.get(OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED, "").strip().lower() == "true":
        return True
    return sum(courier.lane.signal == signal for courier in engine.couriers) > 1


def exporter_attributes(engine: Engine, destination: Destination) -> Attributes:
    """Returns the attributes that tell one exporter from the others."""
    if not is_told_apart(engine, destination.signal):
        return {}
    kind = destination.component_type
    same = [each.destination for each in engine.couriers if each.destination.component_type == kind]
    attributes: Attributes = {
        OTEL_COMPONENT_TYPE: kind,
        OTEL_COMPONENT_NAME: f"{_OURS}{kind}/{next(n for n, each in enumerate(same) if each is destination)}",
    }
    if destination.server_address is not None:
        attributes[SERVER_ADDRESS] = destination.server_address
    if destination.server_port is not None:
        attributes[SERVER_PORT] = destination.server_port
    return attributes


def _number(engine: Engine, courier: Courier) -> int:
    same = [each for each in engine.couriers if each.lane.signal == courier.lane.signal]
    return same.index(courier)


def _dropped(engine: Engine) -> Iterator[Observation]:
    for signal in SIGNALS:
        for reason, count in sorted(engine.ledger(signal).dropped.items()):
            yield Observation(count, {"signal": signal, "reason": reason})


def _recorder(engine: Engine, duration: Histogram) -> Callable[[Destination, float, str | None], None]:
    def record(destination: Destination, seconds: float, reason: str | None) -> None:
        attributes = exporter_attributes(engine, destination)
        duration.record(seconds, attributes if reason is None else {**attributes, ERROR_TYPE: reason})

    return record
