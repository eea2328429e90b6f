"""The four standard metrics of HTTP requests, one set for each MeterProvider.

With the SDK's provider a request costs a few additions: active requests are observed when a reader collects,
and the histograms are aggregated beside the request and handed over in the same callback, the one public
place in each reader's collect. Any other provider gets each measurement.
"""

import threading
from _thread import get_ident
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import compress
from time import perf_counter_ns, time_ns
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary, WeakSet, ref

from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, Histogram, Meter, Observation
from opentelemetry.sdk.metrics import Meter as SdkMeter
from opentelemetry.semconv.attributes.http_attributes import (
    HTTP_REQUEST_METHOD,
    HTTP_RESPONSE_STATUS_CODE,
)
from opentelemetry.semconv.metrics.http_metrics import HTTP_SERVER_REQUEST_DURATION
from opentelemetry.trace import NonRecordingSpan

from sightline import names
from sightline.active_requests import DESCRIPTION as ACTIVE_DESCRIPTION
from sightline.active_requests import ActiveRequests, CountedActiveRequests
from sightline.boundaries import BODY_SIZE_BOUNDARIES_BYTES
from sightline.error_metrics import observe_errors
from sightline.outcome import Outcome
from sightline.saturation import watch_loop
from sightline.service_levels import ServiceLevels
from sightline.types import Attributes
from sightline.unsampled_root import UnsampledRoot
from sightline_processors.cardinality import observe_overflow
from sightline_processors.forked_processes import renew_in_children
from sightline_processors.histograms import Exemplar, HistogramBuffer, HistogramBuffers
from sightline_processors.report import report
from sightline_processors.slo_sampling import SloSampler
from sightline_processors.tracing.delivery import EncodedSpanProcessor

if TYPE_CHECKING:
    from sightline.endings import Ending


Measurement = tuple["Ending", int, int | None, int | None, Any, int, bool]
"""How a request ended, its nanoseconds, bytes of the request, bytes of the response, span, end by
`perf_counter_ns`, and whether the span is still to be handed over (`ServerSpan.hand_over`)."""


class RequestRecording:
    """Takes the measurements of the requests with one attribute set.

    Args:
        histograms: Duration, request body size, response body size.
        attributes: The attribute set.
        buffers: One for each of the histograms; None to record one by one.
    """

    __slots__ = ("_attributes", "_buffers", "_histograms", "_sizes_are_known", "is_buffered")

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
        self._sizes_are_known = (
            HTTP_RESPONSE_STATUS_CODE in attributes and attributes.get(HTTP_REQUEST_METHOD) != "HEAD"
        )

    def record(self, measurement: Measurement, context: Context) -> None:
        """Records one request with the instruments; a size that is None is not known and not recorded."""
        values = (measurement[1] / 1e9, measurement[2], self._response_size(measurement))
        for histogram, value in zip(self._histograms, values, strict=True):
            if value is not None:
                histogram.record(value, self._attributes, context)

    def add(
        self,
        measurements: Sequence[Measurement],
        seconds: Sequence[float],
        exemplar_of: Callable[[Measurement], Exemplar],
        *,
        is_traced: bool = True,
    ) -> None:
        """Adds requests that ended alike, and how long they took, to the buffers.

        Args:
            measurements: One or more.
            seconds: As many.
            exemplar_of: Makes an exemplar of one.
            is_traced: Whether any of them may belong to a span that is exported.
        """
        if self._buffers is None:
            return
        durations, request_sizes, response_sizes = self._buffers
        more = measurements[0][0].exemplar_attributes if is_traced else None
        durations.add(seconds, measurements, exemplar_of, more)
        _, _, of_requests, of_responses, *_ = zip(*measurements, strict=True)
        if not self._sizes_are_known:
            of_responses = tuple(self._response_size(each) for each in measurements)
        for buffer, sizes in ((request_sizes, of_requests), (response_sizes, of_responses)):
            known, sources = _known(sizes, measurements)
            if known:
                buffer.add(known, sources, exemplar_of, more)

    def _response_size(self, measurement: Measurement) -> int | None:
        """Returns the bytes of a response: none of an answer to HEAD, and not known without an answer."""
        if self._sizes_are_known:
            return measurement[3]
        return 0 if HTTP_RESPONSE_STATUS_CODE in self._attributes else None


def _known(
    values: Sequence[Any], measurements: Sequence[Measurement]
) -> tuple[Sequence[Any], Sequence[Measurement]]:
    """Returns the values that are not None, and where they were measured."""
    missing = values.count(None)
    if not missing:
        return values, measurements
    if missing == len(values):
        return (), ()
    known = [pair for pair in zip(values, measurements, strict=True) if pair[0] is not None]
    return [value for value, _ in known], [measurement for _, measurement in known]


def _by_ending(
    measurements: list[Measurement], endings: Sequence["Ending"]
) -> Iterable[tuple["Ending", list[Measurement]]]:
    """Returns the measurements of each ending; often they have one, as the requests of one client have."""
    if endings.count(endings[0]) == len(endings):
        return [(endings[0], measurements)]
    groups: dict[Ending, list[Measurement]] = defaultdict(list)
    for ending, measurement in zip(endings, measurements, strict=True):
        groups[ending].append(measurement)
    return groups.items()


class RequestMetrics:
    """Holds the instruments and what is aggregated beside them; any thread.

    Attributes:
        levels: Judges the requests.
        active: Counts the requests under way; None where an instrument does.
        counted: The instrument that does.
        recorders: Of the applications that share these; each has a method `look_at_routes()`.
        pending: Requests that are not yet in a buffer, `MAX_PENDING` at most where a span is held back among
            them, else `MAX_UNTRACED`; the request path appends.
    """

    def __init__(self, meter: Meter) -> None:
        self._meter = ref(meter)  # which keeps these alive, not the reverse
        self.levels = ServiceLevels(meter)
        self.levels.tracker.flush_hooks.append(self.drain)
        self._histograms = (
            meter.create_histogram(
                HTTP_SERVER_REQUEST_DURATION,
                unit="s",
                description="Duration of HTTP server requests.",
                explicit_bucket_boundaries_advisory=self.levels.objectives.boundaries,
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
        self._draining: int | None = None
        self._sampler: SloSampler | None = None
        self.recorders: WeakSet[Any] = WeakSet()
        self.pending: list[Measurement] = []
        self._wakes: tuple[Callable[[], None], ...] = ()
        self.active: ActiveRequests | None = None
        self.counted: CountedActiveRequests | None = None
        if isinstance(meter, SdkMeter):
            self.active = ActiveRequests()
            meter.create_observable_up_down_counter(
                names.ACTIVE_REQUESTS, [self._collect], unit="{request}", description=ACTIVE_DESCRIPTION
            )
            observe_errors(meter)
            observe_overflow(meter)
        else:
            self.counted = CountedActiveRequests(meter)
        renew_in_children(self, RequestMetrics.forget)

    def _collect(self, _options: CallbackOptions) -> Iterable[Observation]:
        """Is called by the SDK in the collect of each reader, before it reads the histograms."""
        self.drain()
        self._buffers.flush()
        if self._sampler is not None:
            self._sampler.renew_exemplars()
        for recorder in list(self.recorders):
            recorder.look_at_routes()
        return self.active.observations() if self.active is not None else ()

    def feed(self, processor: EncodedSpanProcessor) -> bool:
        """Has a processor ask for the spans that are held back; tells whether it will."""
        wake = processor.draw_from(self.drain)
        if wake is not None and wake not in self._wakes:
            self._wakes += (wake,)
        return wake is not None

    def attend(self) -> None:
        """Does what the first of the pending requests calls for, and one too many."""
        meter = self._meter()
        if meter is not None:
            watch_loop(meter)
        pending = len(self.pending)
        if pending < MAX_PENDING:
            self._tell()
        elif pending >= MAX_UNTRACED or any(each[6] for each in self.pending):
            self.drain()

    def _tell(self) -> None:
        for wake in self._wakes:
            wake()

    def drain(self) -> None:
        """Encodes the pending spans and aggregates the requests: by the hundred it costs less for each."""
        if self._draining == get_ident():  # what interrupts it comes back to it
            return
        lock = self._lock
        if not lock.acquire(timeout=LOCK_SECONDS):
            return
        self._draining = get_ident()
        try:
            self._take()
        except Exception as error:  # noqa: BLE001  fail open: the request goes on
            report("histograms", "could not aggregate the histograms of requests", error=error)
        finally:
            self._draining = None
            lock.release()
        if self.pending:  # came meanwhile, while the number of them called for nothing
            self._tell()

    def _take(self) -> None:
        # Requests may be appended meanwhile, at the end: what is taken from the front stays the same.
        taken = self.pending[:]
        if not taken:
            return
        del self.pending[: len(taken)]
        endings, _, _, _, spans, _, held_back = zip(*taken, strict=True)
        if any(held_back):
            waiting = list(compress(spans, held_back))
            waiting[0].hand_over_all(waiting)
        # Of requests that are not sampled none becomes an exemplar, unless every one does.
        is_traced = self._sampler is not None or not _UNSAMPLED.issuperset(map(type, spans))
        for ending, measurements in _by_ending(taken, endings):
            if ending.active is not None:
                ending.active.ended(len(measurements))
            seconds = [measurement[1] / 1e9 for measurement in measurements]
            ending.cell.add(ending.verdict, seconds)
            ending.recording.add(measurements, seconds, self._exemplar, is_traced=is_traced)

    def follow(self, sampler: object) -> None:
        """Lets exemplars name the requests that a sampler keeps when they have ended."""
        if isinstance(sampler, SloSampler):
            self._sampler = sampler
            sampler.set_boundaries(self.levels.objectives.boundaries)

    def _exemplar(self, measurement: Measurement) -> Exemplar:
        span = measurement[4]
        trace_id, span_id, _, flags, *_ = span.get_span_context()
        is_kept = flags & 1 or (self._sampler is not None and self._sampler.buffer.is_kept(trace_id))
        ended_unix_ns = getattr(span, "end_time", None)
        if ended_unix_ns is None:  # it is not recorded
            ended_unix_ns = time_ns() - (perf_counter_ns() - measurement[5])
        return (trace_id, span_id, ended_unix_ns, 1 if is_kept else 0)

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
        self._draining = None
        for ending, *_ in self.pending:
            if ending.active is not None:
                ending.active.ended()
        self.pending.clear()


MAX_PENDING: Final = 64
MAX_UNTRACED: Final = 256
"""Requests that wait where none of them has a span to encode, which is what takes time in a batch."""
PENDING_MASK: Final = MAX_PENDING - 1
"""A number of pending requests that is 0 or 1 under it calls for `attend`."""
_UNSAMPLED: Final = frozenset({NonRecordingSpan, UnsampledRoot})
LOCK_SECONDS: Final = 1.0
"""Longest wait: the holder may be what a signal handler has interrupted."""


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
