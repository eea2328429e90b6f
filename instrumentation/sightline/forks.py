"""What a forked worker must not inherit: the connections, locks and counts of the process above it.

The SDK itself restarts its export threads and renews `service.instance.id` in the child. It leaves three
things as they were: the exporters' connections, on which child and parent would then write at the same time;
the lock of an export of metrics that was under way, which nobody in the child will ever release; and what
was counted before, which every child would export once more. The export engine of `sightline_processors`
takes care of itself: what is done here for exporters is for those that it has not adopted.

The SDK has no public way to any of this: each private name is looked up, and where it is missing nothing is
done. Tested with opentelemetry-sdk 1.45 (`tests/servers/test_forks.py`).
"""

import copy
import importlib
import os
import time
from collections.abc import Iterator
from threading import Lock
from typing import Any, Final

from opentelemetry import _logs, metrics, trace

from sightline.shutdown import flush_at_the_end_of_forks, renew_shutdown
from sightline_processors.report import report

PAUSE_SECONDS: Final = 0.5
"""Longest wait before a fork for exports that are under way."""

_LATE_IMPORTS: Final = ("netrc", "encodings.idna", "stringprep")
"""What requests imports at its first export: a module that a thread is importing at the moment of a fork
stays locked in the child for ever."""

_held: list[Any] = []
_registered: list[bool] = []


def keep_forks_apart() -> None:
    """Registers the repair of the global providers in forked processes, once per process."""
    if _registered or not hasattr(os, "register_at_fork"):
        return
    for module in _LATE_IMPORTS:
        importlib.import_module(module)
    os.register_at_fork(before=_pause_exports, after_in_parent=_resume_exports, after_in_child=_repair)
    _registered.append(True)


def _pause_exports() -> None:
    """Lets exports that are under way end before a fork."""
    until = time.monotonic() + PAUSE_SECONDS
    try:
        flush_at_the_end_of_forks()
        for owner in (*_batches(), *_storages()):
            lock = getattr(owner, "_export_lock", None)
            if lock is not None and lock.acquire(timeout=max(0.0, until - time.monotonic())):
                _held.append(lock)
    except Exception as error:  # noqa: BLE001  fail open: another SDK, or none
        report("fork", "could not wait for exports before a fork", error=error)


def _resume_exports() -> None:
    while _held:
        _held.pop().release()


def _repair() -> None:
    _held.clear()
    for repair in (renew_shutdown, _forget_metrics, _open_new_connections):
        try:
            repair()
        except Exception as error:  # noqa: BLE001  fail open: another SDK, or none
            report("fork", "could not separate a forked process from its parent", error=error)


def _forget_metrics() -> None:
    """Gives the child's metric readers storage and locks of their own."""
    consumer = getattr(metrics.get_meter_provider(), "_measurement_consumer", None)
    if consumer is None:
        return
    storages = _storages()
    for reader in storages:
        if hasattr(reader, "_export_lock"):
            reader._export_lock = Lock()  # noqa: SLF001  see the module's docstring
    consumer._lock = Lock()  # noqa: SLF001
    consumer._reader_storages = {  # noqa: SLF001
        reader: type(storage)(
            storage._sdk_config,  # noqa: SLF001
            storage._instrument_class_temporality,  # noqa: SLF001
            storage._instrument_class_aggregation,  # noqa: SLF001
        )
        for reader, storage in storages.items()
    }


def _open_new_connections() -> None:
    """Gives the child's exporters connection pools of their own, with the same settings."""
    for exporter in _exporters():
        transport = getattr(getattr(exporter, "_client", None), "_transport", None)
        session: Any = getattr(transport, "_session", None)
        for prefix, adapter in dict(getattr(session, "adapters", {})).items():
            session.mount(prefix, copy.copy(adapter))  # a copy holds the settings and opens its own pool


def _storages() -> dict[Any, Any]:
    """Returns the storage of each metric reader."""
    consumer = getattr(metrics.get_meter_provider(), "_measurement_consumer", None)
    return dict(getattr(consumer, "_reader_storages", {}))


def _processors() -> Iterator[Any]:
    """Yields the processors of spans and of log records."""
    spans = getattr(trace.get_tracer_provider(), "_active_span_processor", None)
    logs = getattr(_logs.get_logger_provider(), "_multi_log_record_processor", None)
    for processor in getattr(spans, "_span_processors", ()):
        yield processor
        yield from getattr(processor, "targets", ())  # of one that stands before others
    yield from getattr(logs, "_log_record_processors", ())


def _batches() -> Iterator[Any]:
    """Yields what batches the items of each processor."""
    for processor in _processors():
        yield getattr(processor, "_batch_processor", processor)


def _exporters() -> Iterator[Any]:
    for batch in _batches():
        yield getattr(batch, "_exporter", None) or getattr(batch, "span_exporter", None)
    for reader in _storages():
        yield getattr(reader, "_exporter", None)
