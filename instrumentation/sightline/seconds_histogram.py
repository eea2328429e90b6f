"""A histogram of seconds with one attribute set, which costs whoever measures an append to a list."""

import threading
from collections.abc import Sequence
from typing import Final

from opentelemetry.metrics import Histogram, Meter

from sightline_processors.histogram_aggregations import Exemplar, context_of
from sightline_processors.histograms import FLUSH_LOCK_SECONDS, HistogramBuffers
from sightline_processors.report import report

MAX_PENDING: Final = 128
"""Durations that wait to be aggregated together."""


class SecondsHistogram:
    """Records durations in seconds, without attributes; any thread, never raises.

    With the SDK's provider they are aggregated beside the measuring, after `MAX_PENDING` of them at the
    latest, and handed to the readers by `flush`; any other provider gets each one.

    Args:
        meter: Makes the histogram.
        name: Of the metric.
        description: Of the metric.
        boundaries: Upper bounds of its buckets, seconds; Views and exponential histograms win.
    """

    def __init__(self, meter: Meter, name: str, description: str, boundaries: Sequence[float]) -> None:
        self._histogram: Histogram = meter.create_histogram(
            name, unit="s", description=description, explicit_bucket_boundaries_advisory=boundaries
        )
        self._buffers = HistogramBuffers()
        self._is_buffered = self._buffers.buffer(self._histogram, {}) is not None
        self._pending: list[tuple[float, Exemplar]] = []
        self._lock = threading.Lock()

    def record(self, seconds: float, exemplar: Exemplar) -> None:
        """Records one duration.

        Args:
            seconds: 0 or more.
            exemplar: Trace ID, span ID (both 0 outside of a trace), Unix nanoseconds, and 1 if the span is
                exported, else 0.
        """
        if not self._is_buffered:
            self._record_one(seconds, exemplar)
            return
        self._pending.append((seconds, exemplar))
        if len(self._pending) >= MAX_PENDING:
            self._aggregate(wait_seconds=0)  # whoever has the lock takes these as well

    def flush(self) -> None:
        """Moves everything into the aggregations of every reader; called when a reader collects."""
        self._aggregate(wait_seconds=FLUSH_LOCK_SECONDS)
        self._buffers.flush()

    def forget(self) -> None:
        """Drops what is pending: a forked process has it from its parent, which exports it."""
        self._lock = threading.Lock()
        self._pending.clear()

    def _aggregate(self, wait_seconds: float) -> None:
        if not self._lock.acquire(timeout=wait_seconds):
            return
        try:
            # More may be appended meanwhile, at the end: what is taken from the front stays the same.
            taken = self._pending[:]
            del self._pending[: len(taken)]
            self._add(taken)
        except Exception as error:  # noqa: BLE001  fail open: the request goes on
            report("saturation", "could not aggregate a histogram", error=error)
        finally:
            self._lock.release()

    def _add(self, taken: Sequence[tuple[float, Exemplar]]) -> None:
        buffer = self._buffers.buffer(self._histogram, {}) if taken else None
        if buffer is not None:
            buffer.add([seconds for seconds, _ in taken], [exemplar for _, exemplar in taken])
            return
        for seconds, exemplar in taken:
            self._record_one(seconds, exemplar)

    def _record_one(self, seconds: float, exemplar: Exemplar) -> None:
        try:
            self._histogram.record(seconds, None, context_of(exemplar))
        except Exception as error:  # noqa: BLE001  fail open: another SDK's histogram
            report("saturation", "could not record a duration", error=error)
