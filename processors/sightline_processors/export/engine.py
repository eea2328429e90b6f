"""The export engine: one thread that sends what the lanes of a process hold.

The thread starts with the first item, here and in each forked process, sleeps while nothing waits, and serves
the lanes in turn, one attempt each: an endpoint that does not answer keeps the others for the timeout of one
attempt. A flush sends from the thread that asks for it, so that it needs no other.
"""

import _thread
import os
import threading
import time
import weakref
from collections.abc import Sequence
from typing import Final

from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, attach, set_value

from sightline_processors import report as report_module
from sightline_processors.export.backoff import Backoff
from sightline_processors.export.courier import Conclusion, Courier
from sightline_processors.export.faults import report_defect, report_fault
from sightline_processors.export.lane import Lane
from sightline_processors.export.ledger import Ledger
from sightline_processors.export.limits import Limits
from sightline_processors.export.reasons import SHUTDOWN, SIGNALS, Signal
from sightline_processors.export.spool import Spool
from sightline_processors.export.verdicts import Destination, Transport

THREAD_NAME: Final = "sightline-export"
SHUTDOWN_TIMEOUT_SECONDS: Final = 5.0

_SPOOL_INTERVAL_SECONDS: Final = 30.0
"""How often the spool is looked at, and how long it rests after a request that could not be sent."""
_DEFECT_PAUSE_SECONDS: Final = 1.0


class Engine:
    """Delivers the telemetry of one process.

    Args:
        shutdown_timeout_seconds: Longest time of all shutdowns together, from the first one on.
        spool: Keeps what cannot be delivered; None to drop it.
        backoff: Waits between attempts.

    Attributes:
        conclusion: Is told of each batch when it is settled.
    """

    def __init__(
        self,
        *,
        shutdown_timeout_seconds: float = SHUTDOWN_TIMEOUT_SECONDS,
        spool: Spool | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self.shutdown_timeout_seconds = shutdown_timeout_seconds
        self._backoff = backoff or Backoff()
        self._couriers: tuple[Courier, ...] = ()
        self._spool = spool
        self.conclusion: Conclusion | None = None
        self._shutdown_until: float | None = None
        self._thread_id: int | None = None
        if spool is not None:
            spool.lost = self._count_lost
        self._forget()
        _engines[:] = [*(reference for reference in _engines if reference() is not None), weakref.ref(self)]

    @property
    def couriers(self) -> Sequence[Courier]:
        """What sends the items of each lane."""
        return self._couriers

    @property
    def thread_id(self) -> int | None:
        """Identity of the thread that sends; None before the first item."""
        return self._thread_id

    def add(self, transport: Transport, limits: Limits | None = None) -> Courier:
        """Adds a lane for the items of one endpoint.

        Args:
            transport: Where the items go.
            limits: Bounds of the lane; those of the environment when omitted.
        """
        signal = transport.destination.signal
        lane = Lane(signal, limits or Limits.from_environment(signal), self._wake)
        courier = Courier(lane, transport, self._backoff, self._conclude)
        courier.spool = self._spool
        self._couriers += (courier,)
        if self._spool is not None:
            self._wake()  # there may be something in the spool
        return courier

    def ledger(self, signal: Signal) -> Ledger:
        """Returns the account of a signal at this moment, over all its endpoints."""
        accounts = (courier.lane.ledger() for courier in self._couriers if courier.lane.signal == signal)
        return sum(accounts, Ledger(signal))

    def pending(self) -> int:
        """Returns how many items wait or are being sent."""
        return sum(self.pending_items().values())

    def pending_items(self) -> dict[Signal, int]:
        """Returns the same by signal."""
        return {signal: self.ledger(signal).pending for signal in SIGNALS}

    @property
    def has_spool(self) -> bool:
        """Whether what cannot be delivered is kept."""
        return self._spool is not None

    def force_flush(self, timeout_seconds: float) -> bool:
        """Sends what came before the call, one lane after the other; tells whether all was delivered."""
        until = time.monotonic() + timeout_seconds
        results = [courier.flush(max(0.0, until - time.monotonic())) for courier in self._couriers]
        return all(results)

    def start_shutdown(self) -> None:
        """Starts the time that shutdowns share, unless it runs."""
        self.seconds_left()

    def marks(self) -> list[int]:
        """Returns marks for `is_settled`: of everything that has come until now."""
        return [courier.lane.mark() for courier in self._couriers]

    def is_settled(self, marks: Sequence[int]) -> bool:
        """Tells whether everything that came before the marks has left."""
        return all(
            courier.lane.is_settled(mark) for courier, mark in zip(self._couriers, marks, strict=False)
        )

    def seconds_left(self) -> float:
        """Starts the time that shutdowns share, unless it runs; returns what is left of it.

        A shutdown that comes long after another one has a time of its own.
        """
        now, timeout = time.monotonic(), self.shutdown_timeout_seconds
        if self._shutdown_until is None or now > self._shutdown_until + timeout:
            self._shutdown_until = now + timeout
        return max(0.0, self._shutdown_until - now)

    def shut_down(self, courier: Courier, timeout_seconds: float | None = None) -> bool:
        """Flushes one lane and closes it, once; tells whether everything was delivered.

        Args:
            courier: What sends its items.
            timeout_seconds: Longest time, at most that of `seconds_left`, which holds when omitted.
        """
        if courier.lane.is_closed:
            return True
        left = self.seconds_left()
        is_delivered = courier.flush(left if timeout_seconds is None else min(left, timeout_seconds))
        before = courier.lane.dropped_so_far()[SHUTDOWN]
        courier.finish()
        if courier.lane.dropped_so_far()[SHUTDOWN] > before:
            report_fault(SHUTDOWN, courier.lane.signal, courier.destination.endpoint)
        if all(each.lane.is_closed for each in self._couriers):
            self._is_finished = True
            self._wake()
        return is_delivered

    def finish(self) -> None:
        """Takes no more items; spools, or drops, what has not been delivered. Does not flush."""
        self._is_finished = True
        for courier in self._couriers:
            courier.finish()
        self._wake()

    def _forget(self) -> None:
        """Starts anew, without the thread, the items and the connections of the process above."""
        self._bell = threading.Lock()
        self._bell.acquire()
        self._starting = threading.Lock()
        self._thread_id = self._shutdown_until = None
        self._spool_due = 0.0
        self._is_finished = False
        self._backoff.forget()
        for courier in self._couriers:
            courier.forget()
            courier.transport.forget()
            courier.lane.forget()

    def _wake(self) -> None:
        """Rings the thread, which starts with the first ring; never blocks, and can interrupt itself."""
        if self._thread_id is None and not self._is_finished and self._starting.acquire(blocking=False):
            try:
                self._thread_id = _thread.start_new_thread(self._run, ())
            except RuntimeError:  # the interpreter ends, or the system has no thread left: a flush sends
                self._starting.release()
        try:
            self._bell.release()
        except RuntimeError:  # rung already
            return

    def _run(self) -> None:
        threading.current_thread().name = THREAD_NAME
        attach(set_value(_SUPPRESS_INSTRUMENTATION_KEY, value=True))
        bell = self._bell
        while not self._is_finished:
            try:
                wait = self._turn()
            except Exception as error:  # noqa: BLE001  the thread outlives what nobody thought of
                report_defect(error)
                wait = _DEFECT_PAUSE_SECONDS
            bell.acquire(timeout=-1 if wait is None else min(wait, threading.TIMEOUT_MAX))

    def _turn(self) -> float | None:
        """Makes one attempt; returns the seconds until the next turn, None to wait for a ring.

        Lanes whose endpoints answer come first, then those that have waited longest: an endpoint that hangs
        keeps them for one attempt, however many of them hang.
        """
        dues = [(due, courier) for courier in self._couriers if (due := courier.due_in()) is not None]
        ready = [courier for due, courier in dues if due <= 0]
        if ready:
            courier = min(ready, key=lambda each: (each.is_failing, each.attempted_at))
            courier.send()
        for each in self._couriers:
            each.report_overflow()
        waits = [0.0] if ready else [due for due, _ in dues]
        if self._spool is not None:
            waits.append(self._send_spooled(self._spool, min(waits, default=1.0)))
        return min(waits, default=None)

    def _send_spooled(self, spool: Spool, free_seconds: float) -> float:
        """Sends one request of the spool when nothing else is to be done; returns when to look again."""
        now = time.monotonic()
        if now < self._spool_due or free_seconds <= 0:
            return max(self._spool_due - now, 0.0)
        self._spool_due = now + _SPOOL_INTERVAL_SECONDS
        couriers = {(each.lane.signal, each.destination.key): each for each in self._couriers}
        healthy = [key for key, courier in couriers.items() if not courier.is_failing]
        spooled = spool.claim(healthy) or spool.claim(couriers)
        if spooled is None:
            return _SPOOL_INTERVAL_SECONDS
        if not couriers[spooled.signal, spooled.key].send_spooled(spooled):
            spooled.release()
            return _SPOOL_INTERVAL_SECONDS
        spooled.done()
        self._spool_due = now
        return 0.0

    def _conclude(self, destination: Destination, seconds: float, reason: str | None) -> None:
        try:
            if self.conclusion is not None:
                self.conclusion(destination, seconds, reason)
        except Exception as error:  # noqa: BLE001  an SDK of somebody else; the export goes on
            report_defect(error)

    def _count_lost(self, signal: Signal, items: int, reason: str) -> None:
        """Takes items that the spool has lost into the account."""
        courier = next((each for each in self._couriers if each.lane.signal == signal), None)
        if courier is not None:
            courier.count_recovered(items, items, reason)


_engines: list["weakref.ref[Engine]"] = []
"""Every engine of the process, for the processes that are forked from it."""

_of_process: list[Engine] = []


def process_engine() -> Engine:
    """Returns the engine that the processors of this process share; makes it at the first call."""
    if not _of_process:
        _of_process.append(Engine())
    return _of_process[0]


def _forget_parent() -> None:
    report_module._lock = threading.RLock()  # noqa: SLF001  of this package; a thread may have held it
    for reference in _engines:
        engine = reference()
        if engine is not None:
            try:
                engine._forget()  # noqa: SLF001  of this module
            except Exception as error:  # noqa: BLE001  a fork must not fail
                report_defect(error)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parent)
