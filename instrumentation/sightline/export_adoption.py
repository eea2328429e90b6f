"""Puts Sightline's export engine in the place of the stock OTLP exporters that the SDK has configured.

The SDK reads every variable and the configuration file; what it has made of them is read from its objects. A
`BatchSpanProcessor`, a `BatchLogRecordProcessor` or a `PeriodicExportingMetricReader` with exactly the stock
exporter over http/protobuf or gRPC is adopted; anything else stays as it is, and so does everything where the
SDK is not the one that this was tested with: the names are private (opentelemetry-sdk 1.45,
`tests/sightline_processors/test_export_adoption.py`).
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Final

from opentelemetry import _logs, metrics, trace
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.environment_variables import OTEL_BSP_MAX_EXPORT_BATCH_SIZE
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from sightline.configuration_file import CONFIG_FILE_VARIABLE
from sightline.options import process_settings
from sightline_processors.export import (
    Engine,
    Limits,
    OtlpLogRecordProcessor,
    OtlpMetricExporter,
    OtlpSpanProcessor,
    open_spool,
)
from sightline_processors.report import logger, report

SPANS_PER_EXPORT: Final = 1024
"""Where nobody says it: the SDK's 512 cost the requests more (`docs/decisions/0011-batches-of-1024.md`)."""

_adopted: list[Engine] = []


def adopted_engine() -> Engine | None:
    """Returns the engine that delivers for this process; None where nothing was adopted."""
    return _adopted[0] if _adopted else None


@contextmanager
def deferring_sessions() -> Iterator[Any]:
    """Yields the arguments for the exporters that the SDK constructs, by class, until they were adopted.

    What is adopted then needs no session of `requests`; what is not gets it at the end. See `deferred`.
    """
    try:
        from sightline_processors.export.deferred import DeferredSessions  # noqa: PLC0415  private names

        sessions = DeferredSessions()
    except ImportError:  # another exporter: it makes its sessions itself
        yield {}
        return
    try:
        yield sessions
    finally:
        sessions.open_those_in_use()


def adopt_exporters() -> Engine | None:
    """Replaces the stock OTLP exporters of the three global providers; None where there are none.

    Called once, right after the SDK was configured, while nothing has been recorded yet. Never raises.
    """
    engine = _new_engine()
    for adopt in (_adopt_spans, _adopt_logs, _adopt_metrics):
        try:
            adopt(engine)
        except Exception as error:  # noqa: BLE001  another SDK: its own exporters do
            report("adoption", "the SDK's own exporters stay in place", error=error)
    if not engine.couriers:
        return None
    _adopted[:] = [engine]
    _observe(engine)
    return engine


def _new_engine() -> Engine:
    settings = process_settings()
    spool = open_spool(settings.spool_dir) if settings.spool_dir else None
    return Engine(shutdown_timeout_seconds=settings.shutdown_timeout, spool=spool)


def _observe(engine: Engine) -> None:
    provider = metrics.get_meter_provider()
    if not isinstance(provider, MeterProvider):
        return
    from sightline_processors.export.self_metrics import observe_engine  # noqa: PLC0415  where there are metrics

    observe_engine(engine, provider)


def _adopt_spans(engine: Engine) -> None:
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        return
    multi = provider._active_span_processor  # noqa: SLF001  see the module's docstring
    multi._span_processors = _replaced(  # noqa: SLF001
        multi._span_processors,  # noqa: SLF001
        BatchSpanProcessor,
        lambda exporter, limits: OtlpSpanProcessor(_transport_of(exporter), _with_own_batch(limits), engine),
    )


def _adopt_logs(engine: Engine) -> None:
    provider = _logs.get_logger_provider()
    if not isinstance(provider, LoggerProvider):
        return
    multi = provider._multi_log_record_processor  # noqa: SLF001  see the module's docstring
    multi._log_record_processors = _replaced(  # noqa: SLF001
        multi._log_record_processors,  # noqa: SLF001
        BatchLogRecordProcessor,
        lambda exporter, limits: OtlpLogRecordProcessor(_transport_of(exporter), limits, engine),
    )


def _replaced(
    processors: Iterable[Any], batching: type, new: Callable[[Any, Limits], Any]
) -> tuple[Any, ...]:
    """Returns the processors with ours in the places of those that can be adopted, whose threads end."""
    result = []
    for processor in processors:
        adopted = None
        if type(processor) is batching:
            adopted = _adopted_or_none(partial(_stand_in, processor, new))
        result.append(adopted or processor)
        if adopted is not None:
            processor.shutdown()  # nothing waits in it yet, so that its thread ends at once
    return tuple(result)


def _stand_in(processor: Any, new: Callable[[Any, Limits], Any]) -> Any:
    from sightline_processors.export.stock import require_plain  # noqa: PLC0415  imports the stock exporters

    require_plain(processor, "on_end" if hasattr(processor, "on_end") else "on_emit", "force_flush")
    batch = processor._batch_processor  # noqa: SLF001
    return new(batch._exporter, _limits_of(batch))  # noqa: SLF001


def _adopt_metrics(engine: Engine) -> None:
    provider = metrics.get_meter_provider()
    if not isinstance(provider, MeterProvider):
        return
    for reader in provider._metric_readers:  # noqa: SLF001  see the module's docstring
        if type(reader) is PeriodicExportingMetricReader:
            _adopt_reader(reader, engine)


def _adopt_reader(reader: Any, engine: Engine) -> None:
    stock = reader._exporter  # noqa: SLF001
    limits = Limits.of_metrics(reader._export_timeout_millis / 1000)  # noqa: SLF001
    exporter = _adopted_or_none(
        lambda: OtlpMetricExporter(
            _transport_of(stock),
            limits,
            engine,
            stock._preferred_temporality,  # noqa: SLF001
            stock._preferred_aggregation,  # noqa: SLF001
        )
    )
    if exporter is not None:
        with reader._export_lock:  # noqa: SLF001
            reader._exporter = exporter  # noqa: SLF001
        stock.shutdown()


def _adopted_or_none(new: Callable[[], Any]) -> Any:
    """Returns what stands in for an exporter; None, with the reason at DEBUG, where nothing can."""
    try:
        return new()
    except Exception as error:  # noqa: BLE001  an exporter of somebody's own, or one that this does not know
        logger.debug("an exporter stays as it is (%s: %s)", type(error).__qualname__, error)
        return None


def _transport_of(exporter: Any) -> Any:
    from sightline_processors.export.stock import transport_of  # noqa: PLC0415  imports the stock exporters

    return transport_of(exporter)


def _limits_of(batch: Any) -> Limits:
    """Returns the bounds of a batch processor of the SDK."""
    return Limits(
        max_items=batch._max_queue_size,  # noqa: SLF001
        max_batch_items=batch._max_export_batch_size,  # noqa: SLF001
        schedule_delay_seconds=batch._schedule_delay_millis / 1000,  # noqa: SLF001
        export_timeout_seconds=batch._export_timeout_millis / 1000,  # noqa: SLF001
    )


def _with_own_batch(limits: Limits) -> Limits:
    """Returns the bounds of a queue of spans with the batch of ours, unless a variable or a file says it."""
    is_said = os.environ.get(OTEL_BSP_MAX_EXPORT_BATCH_SIZE) or os.environ.get(CONFIG_FILE_VARIABLE)
    if is_said or limits.max_batch_items != Limits().max_batch_items:
        return limits
    return replace(limits, max_batch_items=SPANS_PER_EXPORT)
