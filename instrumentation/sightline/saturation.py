"""How full the process is: the lag of its event loops, and the work that waits for a thread.

A request is slow because of what it does, or because of what the process is busy with. A timer on each event
loop measures by how much it is late: as long waits everything else on that loop. With each tick it counts
what waits for a thread (`thread_waiters`).

The timer ticks each `INTERVAL_SECONDS` while requests come in, and each `QUIET_SECONDS` when there were none
for `QUIET_TICKS` ticks, because waking an idle process is what costs. It is not a task: it keeps neither the
loop nor the process alive, and ends with either. It runs in an empty context and holds nothing of a request.
A loop that is stopped and run again, which no server does, shows the pause between as lag.

Memory: 70 KB for each event loop that serves requests, until the loop is gone.
"""

import os
import threading
import time
from asyncio import AbstractEventLoop, get_running_loop
from collections import deque
from collections.abc import Iterable, Sequence
from contextvars import Context as ContextVariables
from functools import partial
from typing import Final
from weakref import WeakKeyDictionary, WeakSet, ref

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from sightline.boundaries import DURATION_BOUNDARIES_SECONDS
from sightline.names import EVENT_LOOP_LAG, REQUEST_QUEUE_TIME, THREADS_WAITING
from sightline.proxies import Network
from sightline.request_queue import RequestQueue
from sightline.seconds_histogram import SecondsHistogram
from sightline.thread_waiters import ThreadWaiters
from sightline.types import Attributes
from sightline_processors.report import report

INTERVAL_SECONDS: Final = 0.25
QUIET_SECONDS: Final = 1.0
QUIET_TICKS: Final = 2

LAG_BOUNDARIES_SECONDS: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
"""From the resolution of the loops' own timers, about 1 ms, to what makes a load balancer give up."""

MAX_WAITS: Final = 100
"""Values that are recorded for one stall: 25 s at `INTERVAL_SECONDS`."""

MAX_TICKS: Final = 240
"""Ticks that are remembered for each loop: one minute at `INTERVAL_SECONDS`."""


def watch_loop(meter: Meter) -> None:
    """Measures the running event loop from now on, if it is not measured yet; never raises.

    Called with each request, on its event loop: at most one request in `INTERVAL_SECONDS` finds more to do
    than one look-up. Without a running asyncio loop nothing is done.

    Args:
        meter: Its readers get the measurements; several meters share the one timer of a loop.
    """
    try:
        loop = get_running_loop()
    except RuntimeError:
        return
    watch = _watches.get(id(loop))
    if watch is None or watch.latest is not meter:
        _notice(loop, meter)


def snapshot(
    loop: AbstractEventLoop | None = None,
    *,
    duration_seconds: float = 0.0,
    queue_seconds: float | None = None,
) -> Attributes:
    """Returns span attributes that say how full the process was during a request; never raises.

    Lag and waiters are the most that was seen while the request ran, a stall that is still going on included;
    what is more than `MAX_TICKS` ticks ago is forgotten. Both are missing on a loop that is not watched.

    Args:
        loop: The request's event loop, which has to be the caller's; the running one when omitted.
        duration_seconds: How long the request ran; 0 for this moment only.
        queue_seconds: What `RequestQueue.seconds` returned for the request.
    """
    attributes: Attributes = {} if queue_seconds is None else {REQUEST_QUEUE_TIME: queue_seconds}
    try:
        watch = _watches.get(id(loop or get_running_loop()))
        if watch is not None:
            attributes[EVENT_LOOP_LAG], attributes[THREADS_WAITING] = watch.worst(duration_seconds)
    except RuntimeError:
        pass  # no asyncio loop is running
    except Exception as error:  # noqa: BLE001  fail open: the span goes without
        report("saturation", "could not read the saturation for a slow request", error=error)
    return attributes


def request_queue(meter: Meter, trusted: Sequence[Network]) -> RequestQueue | None:
    """Returns what reads and records the queue times of an application; None where no proxy is trusted."""
    return RequestQueue(trusted, _metrics_of(meter).queue_times) if trusted else None


def release_loops() -> None:
    """Ends the measuring of every event loop, at the next tick of each; a further request starts it anew."""
    _watches.clear()


def waits(lag_seconds: float, interval_seconds: float) -> list[float]:
    """Returns what timers at every interval of a stall would have waited, the longest first.

    One tick in a stall of 2 s would count as one wait among many short ones, although a fifth of 10 s was
    stalled. With these values the histogram shows what work that arrives at any time has to wait.

    Args:
        lag_seconds: By how much the tick was late, 0 or more.
        interval_seconds: Between two ticks, above 0.

    Source: HdrHistogram, recordValueWithExpectedInterval (correction for coordinated omission).
    """
    missed = min(int(lag_seconds / interval_seconds), MAX_WAITS - 1)
    return [max(0.0, lag_seconds - number * interval_seconds) for number in range(missed + 1)]


class _SaturationMetrics:
    """Holds the instruments of one meter.

    Attributes:
        lag: The histogram of event loops.
        queue_times: The histogram of what requests waited in front of the application.
    """

    def __init__(self, meter: Meter) -> None:
        self.lag = SecondsHistogram(
            meter,
            EVENT_LOOP_LAG,
            "Delay of timers on the event loops that serve requests.",
            LAG_BOUNDARIES_SECONDS,
        )
        self.queue_times = SecondsHistogram(
            meter,
            REQUEST_QUEUE_TIME,
            "Time that requests waited between the proxy and the application.",
            DURATION_BOUNDARIES_SECONDS,
        )
        meter.create_observable_gauge(
            THREADS_WAITING, [self._observe], unit="{task}", description="Tasks that wait for a thread."
        )

    def _observe(self, _options: CallbackOptions) -> Iterable[Observation]:
        """Is called in the collect of each reader, in a thread of its own: the loops are not touched."""
        self.lag.flush()
        self.queue_times.flush()
        counts = [watch.waiting for watch in list(_watches.values()) if watch.reports_to(self)]
        return [Observation(sum(counts))] if counts else ()


class _LoopWatch:
    """Measures one event loop; everything but `waiting` and `reports_to` on that loop's thread only.

    Attributes:
        latest: The meter of the last request since the last tick; None when there was none.
        waiting: What waited for a thread at the last tick.
    """

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop = ref(loop, partial(_forget, id(loop)))
        self._metrics: WeakSet[_SaturationMetrics] = WeakSet()
        self._waiters = ThreadWaiters()
        self._variables = ContextVariables()
        self._ticks: deque[tuple[float, float, int]] = deque(maxlen=MAX_TICKS)
        self._interval_seconds = 0.0  # no timer yet
        self._due_seconds = 0.0
        self._idle_ticks = 0
        self._timers = 0
        self.latest: Meter | None = None
        self.waiting = 0

    def notice(self, loop: AbstractEventLoop, meter: Meter) -> None:
        """Takes note of a request; starts the timer, or brings it back to its shorter interval."""
        self._metrics.add(_metrics_of(meter))
        self.latest = meter
        if self._interval_seconds != INTERVAL_SECONDS:
            self._schedule(loop, INTERVAL_SECONDS)

    def is_of(self, loop: "ref[AbstractEventLoop]") -> bool:
        """Tells whether this is the watch of a loop."""
        return self._loop is loop

    def reports_to(self, metrics: _SaturationMetrics) -> bool:
        """Tells whether the meter gets this loop's measurements; any thread."""
        loop = self._loop()
        return metrics in self._metrics and loop is not None and not loop.is_closed()

    def worst(self, seconds: float) -> tuple[float, int]:
        """Returns the greatest lag in seconds, and the most waiters, from so many seconds ago until now."""
        now = time.perf_counter()
        lag, waiting = max(0.0, now - self._due_seconds), self._waiters.count(self._loop())
        for at, tick_lag, tick_waiting in reversed(self._ticks):
            if at < now - seconds:
                break
            lag, waiting = max(lag, tick_lag), max(waiting, tick_waiting)
        return lag, waiting

    def _schedule(self, loop: AbstractEventLoop, interval_seconds: float) -> None:
        # A timer that this one replaces still fires, to no effect: its handle, kept, would keep the loop.
        self._timers += 1
        self._interval_seconds = interval_seconds
        self._due_seconds = time.perf_counter() + interval_seconds
        loop.call_later(interval_seconds, self._tick, self._timers, context=self._variables)

    def _tick(self, timer: int) -> None:
        try:
            loop = self._loop()
            if timer != self._timers or loop is None or _watches.get(id(loop)) is not self:
                return
            if not self._metrics:  # the providers are gone
                _watches.pop(id(loop), None)
                return
            self._measure()
            self._schedule(loop, self._next_interval())
        except Exception as error:  # noqa: BLE001  fail open: this loop is not measured any more
            _watches.pop(id(self._loop()), None)
            report("saturation", "could not measure an event loop; its watch ends", error=error)

    def _measure(self) -> None:
        now = time.perf_counter()
        lag = max(0.0, now - self._due_seconds)
        self.waiting = self._waiters.count(self._loop())
        self._ticks.append((now, lag, self.waiting))
        exemplar = (0, 0, time.time_ns(), 0)  # of no span
        for metrics in self._metrics:
            for value in waits(lag, self._interval_seconds):
                metrics.lag.record(value, exemplar)

    def _next_interval(self) -> float:
        self._idle_ticks = 0 if self.latest is not None else self._idle_ticks + 1
        self.latest = None  # the next request is noticed
        return QUIET_SECONDS if self._idle_ticks >= QUIET_TICKS else INTERVAL_SECONDS


_watches: dict[int, _LoopWatch] = {}
"""By the identity of the loop: a loop that is gone takes its entry along before another gets its identity."""

_metrics: "WeakKeyDictionary[Meter, _SaturationMetrics]" = WeakKeyDictionary()
_metrics_lock = threading.Lock()


def _metrics_of(meter: Meter) -> _SaturationMetrics:
    """Returns the instruments of a meter; applications that share a provider share them."""
    meter = getattr(meter, "_real_meter", None) or meter  # behind the API's proxy, once there is one
    with _metrics_lock:
        found = _metrics.get(meter)
        if found is None:
            found = _metrics[meter] = _SaturationMetrics(meter)
    return found


def _notice(loop: AbstractEventLoop, meter: Meter) -> None:
    try:
        watch = _watches.get(id(loop))
        if watch is None:
            watch = _watches[id(loop)] = _LoopWatch(loop)
        watch.notice(loop, meter)
    except Exception as error:  # noqa: BLE001  fail open: the request goes on
        _watches.pop(id(loop), None)
        report("saturation", "could not watch an event loop", error=error)


def _forget(key: int, loop: "ref[AbstractEventLoop]") -> None:
    watch = _watches.get(key)
    if watch is not None and watch.is_of(loop):
        del _watches[key]


def _forget_all() -> None:
    """Starts anew in a forked process, in which the parent's loops do not run."""
    global _metrics_lock  # noqa: PLW0603  a thread of the parent may hold it
    _metrics_lock = threading.Lock()
    _watches.clear()
    for metrics in list(_metrics.values()):
        metrics.lag.forget()
        metrics.queue_times.forget()


os.register_at_fork(after_in_child=_forget_all)
