"""Delivers what is buffered before the process ends, within a bound, whatever the collector does.

uvicorn ends by raising its signal again, so that `atexit` never runs and the SDK's own shutdown with it; and
where `atexit` does run, the SDK may wait for a collector that does not answer for a quarter of a minute.
The buffers are flushed when the application's lifespan ends, and again at exit for what came after; both
share one deadline. The exit code and the signal stay what they are, and a second signal ends the flush.
"""

import asyncio
import atexit
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from opentelemetry import _logs, metrics, trace

from sightline.export_adoption import adopted_engine
from sightline.types import Message, Send
from sightline_processors.report import logger, report

SECOND_SIGNAL_SECONDS: Final = 0.5
"""A second signal leaves a flush so long, from its beginning: to workers in a process group it comes at once,
from the terminal and from their supervisor.
"""

FLUSH_SHARE: Final = 0.95
"""Part of the time that the flush may take; the rest is for ending it."""

_ENDINGS = frozenset({"lifespan.shutdown.complete", "lifespan.shutdown.failed", "lifespan.startup.failed"})

_EXIT_HANDLERS = ("_atexit_handler", "_at_exit_handler")
"""Where the SDK keeps what it has registered at exit; private, and without them its shutdown just runs."""

_PAUSE_SECONDS = 0.05


class ShutdownDeadline:
    """Holds the time that all flushes of a process's end share; it starts with the first one.

    Args:
        timeout_seconds: Longest time in total, above 0.
    """

    def __init__(self, timeout_seconds: float) -> None:
        self.timeout_seconds = timeout_seconds
        self._started_at: float | None = None
        self._ends_at = 0.0

    def start(self) -> float:
        """Starts the clock unless it runs; returns the seconds that are left, 0 or more."""
        now = time.monotonic()
        if self._started_at is None:
            self._started_at, self._ends_at = now, now + self.timeout_seconds * FLUSH_SHARE
        return max(0.0, self._ends_at - now)

    def start_lifespans_end(self) -> None:
        """Starts anew where an earlier lifespan has ended long ago: the process went on, as tests do."""
        if self._started_at is not None and time.monotonic() > self._started_at + 2 * self.timeout_seconds:
            self._started_at = None
        self.start()

    def cut(self) -> None:
        """Leaves `SECOND_SIGNAL_SECONDS` from the start on."""
        self.start()
        self._ends_at = min(self._ends_at, (self._started_at or 0.0) + SECOND_SIGNAL_SECONDS)


_deadline: list[ShutdownDeadline] = []
_told: list[bool] = []
"""Not empty when the log says already that something is lost."""
_ending: list[bool] = []
"""Not empty while the interpreter's exit flushes."""
_forks: list[bool] = []
"""Not empty when the children that `multiprocessing` forks are taken care of."""
_LAST = -1000
"""Priority among what `multiprocessing` does at the end of a child."""


def flush_at_the_end(timeout_seconds: float) -> None:
    """Registers the flush at exit once per process; further calls renew the timeout."""
    if not _deadline:
        atexit.register(_at_exit)
        _flush_on_sigterm()
    _deadline[:] = [ShutdownDeadline(timeout_seconds)]


def release_shutdown() -> None:
    """Forgets the registration."""
    _deadline.clear()
    atexit.unregister(_at_exit)
    if (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) is _on_sigterm
    ):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def flush_at_the_end_of_forks() -> None:
    """Registers the flush for the children that `multiprocessing` forks: they end without `atexit`."""
    util: Any = sys.modules.get("multiprocessing.util")
    if util is not None and _deadline and not _forks:
        _forks.append(True)
        util.register_after_fork(_at_exit, lambda _: util.Finalize(None, _at_exit, exitpriority=_LAST))


def renew_shutdown() -> None:
    """Gives a forked process a deadline of its own."""
    _told.clear()
    _ending.clear()
    _deadline[:] = [ShutdownDeadline(deadline.timeout_seconds) for deadline in _deadline]


def _flush_on_sigterm() -> None:
    """Flushes before SIGTERM ends a process that handles it in no other way.

    A server installs its own handler over this one, and raises the signal again when it has shut down: then
    this one delivers what the lifespan's end did not see.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _on_sigterm)


def _on_sigterm(number: int, _frame: object) -> None:
    signal.signal(number, signal.SIG_DFL)  # a second signal ends the process at once
    try:
        _give_up(is_lost=bool(_ending) or not flush())
    finally:
        signal.raise_signal(number)


def flushing_send(send: Send) -> Send:
    """Wraps the `send` of a lifespan: the buffers are flushed before the server is told that it is over."""

    async def wrapper(message: Message) -> None:
        if message["type"] in _ENDINGS and _deadline:
            try:
                _deadline[0].start_lifespans_end()
                with _cut_by_a_second_signal(_deadline[0]):
                    background = sys.modules.get("sightline.background")
                    if background is not None:
                        await background.give_up_pending(_deadline[0].start())
                    await asyncio.to_thread(flush)
            except Exception as error:  # noqa: BLE001  fail open: the application shuts down all the same
                report("flush", "could not flush telemetry at shutdown", error=error)
        await send(message)

    return wrapper


@contextmanager
def _cut_by_a_second_signal(deadline: ShutdownDeadline) -> Iterator[None]:
    """Has a signal that arrives meanwhile end the flush soon; the server's own handler runs as well."""
    replaced: dict[signal.Signals, tuple[Any, Any]] = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            handler = signal.getsignal(number)
            if callable(handler):  # neither the system's default nor a handler that is not Python's
                ours = _cutting(deadline, handler)
                replaced[number] = handler, ours
                signal.signal(number, ours)
    try:
        yield
    finally:
        for number, (handler, ours) in replaced.items():
            if signal.getsignal(number) is ours:
                signal.signal(number, handler)


def _cutting(deadline: ShutdownDeadline, handler: Callable[..., Any]) -> Callable[..., Any]:
    def cut(number: int, frame: Any) -> Any:
        deadline.cut()
        return handler(number, frame)

    return cut


def flush() -> bool:
    """Flushes the three signals at the same time; returns whether all was delivered before the deadline."""
    if not _deadline:
        return True
    deadline, engine = _deadline[0], adopted_engine()
    if deadline.start() > 0:
        _save_service_levels()
        if engine is not None:
            engine.start_shutdown()
        is_done = _flush_providers(deadline)
        if is_done and engine is not None:
            # Everything until now, the last collection of metrics included; what comes later is no loss yet.
            marks = engine.marks()
            if not engine.is_settled(marks):
                engine.force_flush(deadline.start())
            is_done = engine.is_settled(marks)
        if is_done:
            return True
    _tell_once(deadline)
    return False


def _save_service_levels() -> None:
    """Keeps the windows of the objectives for the next start, where there is a folder for them."""
    module = sys.modules.get("sightline.sla_decorator")
    for tracker in module.sla.trackers if module is not None else ():
        try:
            tracker.save()
        except Exception as error:  # noqa: BLE001  fail open: the buffers are flushed all the same
            report("sla_state", "could not keep the state of the objectives", error=error)


def _flush_providers(deadline: ShutdownDeadline) -> bool:
    """Flushes each provider in a thread of its own; returns whether they ended before the deadline."""
    milliseconds = int(deadline.start() * 1000)
    threads = []
    for provider in _providers():
        if callable(force_flush := getattr(provider, "force_flush", None)):
            thread = threading.Thread(target=_quietly, args=(force_flush, milliseconds), daemon=True)
            try:
                thread.start()
            except RuntimeError:  # since Python 3.12 no thread starts while the interpreter ends
                _quietly(force_flush, int(deadline.start() * 1000))
            else:
                threads.append(thread)
    for thread in threads:
        while thread.is_alive() and (seconds := deadline.start()) > 0:
            thread.join(min(seconds, _PAUSE_SECONDS))
    return not any(thread.is_alive() for thread in threads)


def _quietly(call: Callable[[int], Any], timeout_milliseconds: int) -> None:
    try:
        call(timeout_milliseconds)
    except Exception as error:  # noqa: BLE001  a foreign provider may refuse after its own shutdown
        report("flush", "could not flush telemetry at shutdown", error=error)


def _tell_once(deadline: ShutdownDeadline) -> None:
    """Logs what is lost, or kept, once per process."""
    if _told:
        return
    _told.append(True)
    engine = adopted_engine()
    left = {signal: count for signal, count in engine.pending_items().items() if count} if engine else {}
    items = ", ".join(f"{count} {_ITEMS[signal]}" for signal, count in left.items())
    kept = engine is not None and engine.has_spool
    logger.warning(
        "telemetry could not be delivered within SIGHTLINE_SHUTDOWN_TIMEOUT (%g s); what is left%s is %s; "
        "is the collector reachable?",
        deadline.timeout_seconds,
        f" ({items})" if items else "",
        "kept in SIGHTLINE_SPOOL_DIR" if kept else "lost",
    )


_ITEMS = {"traces": "spans", "metrics": "data points", "logs": "log records"}


def _give_up(*, is_lost: bool) -> None:
    """Spools, or drops and counts, what was not delivered; says so where that is more than a late record."""
    engine = adopted_engine()
    if engine is not None:
        if is_lost and _deadline and engine.pending():
            _tell_once(_deadline[0])
        engine.finish()


def _at_exit() -> None:
    """Flushes what came after the lifespan; a collector that does not answer keeps the exit no longer."""
    _ending.append(True)
    try:
        if flush():
            return
    except KeyboardInterrupt:  # a second signal
        pass
    _give_up(is_lost=True)
    for provider in _providers():
        for name in _EXIT_HANDLERS:
            if (handler := getattr(provider, name, None)) is not None:
                atexit.unregister(handler)


def _providers() -> tuple[Any, Any, Any]:
    return trace.get_tracer_provider(), metrics.get_meter_provider(), _logs.get_logger_provider()
