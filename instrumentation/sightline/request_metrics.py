"""The four standard metrics of HTTP requests, one set for each MeterProvider.

With the SDK's provider a request costs a few additions: active requests are observed when a reader collects,
and the histograms are aggregated beside the request and handed over in the same callback, the one public
place in each reader's collect. Any other provider gets each measurement.
"""

import os
import threading
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Final
from weakref import WeakKeyDictionary, WeakSet

from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, Histogram, Meter, Observation
from opentelemetry.sdk.metrics import Meter as SdkMeter
from opentelemetry.semconv.attributes.http_attributes import HTTP_REQUEST_METHOD
from opentelemetry.semconv.attributes.url_attributes import URL_SCHEME
from opentelemetry.semconv.metrics.http_metrics import HTTP_SERVER_REQUEST_DURATION
from opentelemetry.trace import SpanContext

from sightline import names
from sightline.boundaries import BODY_SIZE_BOUNDARIES_BYTES, DURATION_BOUNDARIES_SECONDS
from sightline.error_metrics import observe_errors
from sightline.outcome import Outcome
from sightline.types import Attributes
from sightline_processors.histograms import Exemplar, HistogramBuffer, HistogramBuffers
from sightline_processors.report import report


class ActiveRequests:
    """Counts the requests under way by method and scheme, both from closed sets; any thread."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], list[int]] = {}

    def count_of(self, method: str, scheme: str) -> list[int]:
        """Returns the count, in a list of one that the requests change.

        No lock: between reading and writing `count[0] += 1` there is no call, and CPython changes threads at
        calls and jumps only.
        """
        return self._counts.setdefault((method, scheme), [0])

    def observations(self) -> list[Observation]:
        """Returns the counts as they are now."""
        return [
            Observation(count[0], {HTTP_REQUEST_METHOD: method, URL_SCHEME: scheme})
            for (method, scheme), count in list(self._counts.items())
        ]


class CountedActiveRequests:
    """Counts them with an instrument, where there is none to observe them."""

    def __init__(self, meter: Meter) -> None:
        self._instrument = meter.create_up_down_counter(
            names.ACTIVE_REQUESTS, unit="{request}", description=_ACTIVE_DESCRIPTION
        )

    def add(self, amount: int, method: str, scheme: str, context: Context) -> None:
        """Counts a request that starts (1) or ends (-1)."""
        attributes: Attributes = {HTTP_REQUEST_METHOD: method, URL_SCHEME: scheme}
        self._instrument.add(amount, attributes, context)


_ACTIVE_DESCRIPTION = "Number of active HTTP server requests."


Measurement = tuple["RequestRecording", float, int | None, int | None, SpanContext, int]
"""Where it belongs, seconds, bytes of the request, bytes of the response, span, end in Unix nanoseconds."""


class RequestRecording:
    """Takes the measurements of the requests with one attribute set.

    Args:
        histograms: Duration, request body size, response body size.
        attributes: The attribute set.
        buffers: One for each of the histograms; None to record one by one.
    """

    __slots__ = ("_attributes", "_buffers", "_histograms", "is_buffered")

    def __init__(
        self,
        histograms: tuple[Histogram, Histogram, Histogram],
        attributes: Attributes,
        buffers: tuple[HistogramBuffer, HistogramBuffer, HistogramBuffer] | None,
    ) -> None:
        self._histograms = histograms
        self._attributes = attributes
        self._buffers = buffers
        self.is_buffered = buffers is not None

    def record(self, measurement: Measurement, context: Context) -> None:
        """Records one request with the instruments; a size that is None is not known and not recorded."""
        for histogram, value in zip(self._histograms, measurement[1:4], strict=True):
            if value is not None:
                histogram.record(value, self._attributes, context)

    def add(self, measurements: Sequence[Measurement]) -> None:
        """Adds requests to the buffers."""
        if self._buffers is None:
            return
        exemplars = list(map(_exemplar, measurements))
        for buffer, column in zip(self._buffers, (1, 2, 3), strict=True):
            values: list[Any] = [each[column] for each in measurements]
            if None not in values:
                buffer.add(values, exemplars)
                continue
            known = [index for index, value in enumerate(values) if value is not None]
            if known:
                buffer.add([values[index] for index in known], [exemplars[index] for index in known])


def _exemplar(measurement: Measurement) -> Exemplar:
    span_context = measurement[4]
    return (span_context[0], span_context[1], measurement[5], span_context[3] & 1)


class RequestMetrics:
    """Holds the instruments and what is aggregated beside them; any thread.

    Attributes:
        active: Counts the requests under way; None where an instrument does.
        counted: The instrument that does.
        pending: Requests that are not yet in a buffer, `MAX_PENDING` at most; the request path appends.
    """

    def __init__(self, meter: Meter) -> None:
        self._histograms = (
            meter.create_histogram(
                HTTP_SERVER_REQUEST_DURATION,
                unit="s",
                description="Duration of HTTP server requests.",
                explicit_bucket_boundaries_advisory=DURATION_BOUNDARIES_SECONDS,
            ),
            meter.create_histogram(
                names.REQUEST_BODY_SIZE,
                unit="By",
                description="Size of HTTP server request bodies.",
                explicit_bucket_boundaries_advisory=BODY_SIZE_BOUNDARIES_BYTES,
            ),
            meter.create_histogram(
                names.RESPONSE_BODY_SIZE,
                unit="By",
                description="Size of HTTP server response bodies.",
                explicit_bucket_boundaries_advisory=BODY_SIZE_BOUNDARIES_BYTES,
            ),
        )
        self._buffers = HistogramBuffers()
        self._lock = threading.Lock()
        self.pending: list[Measurement] = []
        self.active: ActiveRequests | None = None
        self.counted: CountedActiveRequests | None = None
        if isinstance(meter, SdkMeter):
            self.active = ActiveRequests()
            meter.create_observable_up_down_counter(
                names.ACTIVE_REQUESTS, [self._collect], unit="{request}", description=_ACTIVE_DESCRIPTION
            )
            observe_errors(meter)
        else:
            self.counted = CountedActiveRequests(meter)
        _all.add(self)

    def _collect(self, _options: CallbackOptions) -> Iterable[Observation]:
        """Is called by the SDK in the collect of each reader, before it reads the histograms."""
        self.aggregate()
        self._buffers.flush()
        return self.active.observations() if self.active is not None else ()

    def aggregate(self) -> None:
        """Moves the pending requests into their buffers: by the hundred it costs a tenth for each."""
        if not self._lock.acquire(timeout=LOCK_SECONDS):
            return
        try:
            # Requests may be appended meanwhile, at the end: what is taken from the front stays the same.
            taken = self.pending[:]
            del self.pending[: len(taken)]
            groups: dict[RequestRecording, list[Measurement]] = defaultdict(list)
            for measurement in taken:
                groups[measurement[0]].append(measurement)
            for recording, measurements in groups.items():
                recording.add(measurements)
        except Exception as error:  # noqa: BLE001  fail open: the request goes on
            report("histograms", "could not aggregate the histograms of requests", error=error)
        finally:
            self._lock.release()

    def recording(self, outcome: Outcome) -> RequestRecording:
        """Returns what takes the requests of an outcome; one that is not remembered records one by one."""
        attributes = outcome.metric_attributes
        buffers = None
        if not outcome.is_passing:
            made = [self._buffers.buffer(histogram, attributes) for histogram in self._histograms]
            duration, request_size, response_size = made
            if duration is not None and request_size is not None and response_size is not None:
                buffers = (duration, request_size, response_size)
        return RequestRecording(self._histograms, attributes, buffers)

    def forget(self) -> None:
        """Drops what is pending: a forked process has it from its parent, which exports it."""
        self._lock = threading.Lock()
        self.pending.clear()


MAX_PENDING: Final = 256
LOCK_SECONDS: Final = 1.0
"""Longest wait: the holder may be what a signal handler has interrupted."""

_all: "WeakSet[RequestMetrics]" = WeakSet()


def _forget_all() -> None:
    for each in list(_all):
        each.forget()


os.register_at_fork(after_in_child=_forget_all)

_shared: "WeakKeyDictionary[Meter, RequestMetrics]" = WeakKeyDictionary()
_shared_lock = threading.Lock()


def request_metrics(meter: Meter) -> RequestMetrics:
    """Returns the metrics of a meter; applications that share a provider share them."""
    meter = getattr(meter, "_real_meter", None) or meter  # behind the API's proxy, once there is one
    with _shared_lock:
        found = _shared.get(meter)
        if found is None:
            found = _shared[meter] = RequestMetrics(meter)
    return found
