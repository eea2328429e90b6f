"""Delivers what is buffered before the process ends, within a bound, whatever the collector does.

uvicorn ends by raising its signal again, so that `atexit` never runs and the SDK's own shutdown with it; and
where `atexit` does run, the SDK may wait for a collector that does not answer for a quarter of a minute.
The buffers are flushed when the application's lifespan ends, and again at exit for what came after; both
share one deadline. The exit code and the signal stay what they are.
"""

import asyncio
import atexit
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from opentelemetry import _logs, metrics, trace

from sightline.report import logger, report
from sightline.types import Message, Send

_ENDINGS = frozenset({"lifespan.shutdown.complete", "lifespan.shutdown.failed", "lifespan.startup.failed"})

_EXIT_HANDLERS = ("_atexit_handler", "_at_exit_handler")
"""Where the SDK keeps what it has registered at exit; private, and without them its shutdown just runs."""


class ShutdownDeadline:
    """Holds the time that all flushes of a process share; it starts with the first one.

    Args:
        timeout_seconds: Longest time in total, above 0.
    """

    def __init__(self, timeout_seconds: float) -> None:
        self.timeout_seconds = timeout_seconds
        self._ends_at: float | None = None

    def start(self) -> float:
        """Starts the clock unless it runs; returns the seconds that are left, 0 or more."""
        now = time.monotonic()
        if self._ends_at is None:
            self._ends_at = now + self.timeout_seconds
        return max(0.0, self._ends_at - now)


_deadline: list[ShutdownDeadline] = []


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
    flush()
    signal.raise_signal(number)


def flushing_send(send: Send) -> Send:
    """Wraps the `send` of a lifespan: the buffers are flushed before the server is told that it is over."""

    async def wrapper(message: Message) -> None:
        if message["type"] in _ENDINGS and _deadline:
            try:
                background = sys.modules.get("sightline.background")
                if background is not None:
                    await background.give_up_pending(_deadline[0].start())
                await asyncio.to_thread(flush)
            except Exception as error:  # noqa: BLE001  fail open: the application shuts down all the same
                report("flush", "could not flush telemetry at shutdown", error=error)
        await send(message)

    return wrapper


def flush() -> bool:
    """Flushes the three signals at the same time; returns whether all of them ended before the deadline."""
    if not _deadline:
        return True
    seconds = _deadline[0].start()
    if seconds <= 0:
        return False
    ends_at = time.monotonic() + seconds
    threads = [
        threading.Thread(target=_quietly, args=(force_flush, int(seconds * 1000)), daemon=True)
        for provider in _providers()
        if callable(force_flush := getattr(provider, "force_flush", None))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, ends_at - time.monotonic()))
    if any(thread.is_alive() for thread in threads):
        logger.warning(
            "telemetry could not be delivered within SIGHTLINE_SHUTDOWN_TIMEOUT (%g s); what is left is "
            "lost; is the collector reachable?",
            _deadline[0].timeout_seconds,
        )
        return False
    return True


def _quietly(call: Callable[[int], Any], timeout_milliseconds: int) -> None:
    try:
        call(timeout_milliseconds)
    except Exception as error:  # noqa: BLE001  a foreign provider may refuse after its own shutdown
        report("flush", "could not flush telemetry at shutdown", error=error)


def _at_exit() -> None:
    """Flushes what came after the lifespan; a collector that does not answer keeps the exit no longer."""
    if flush():
        return
    for provider in _providers():
        for name in _EXIT_HANDLERS:
            if (handler := getattr(provider, name, None)) is not None:
                atexit.unregister(handler)


def _providers() -> tuple[Any, Any, Any]:
    return trace.get_tracer_provider(), metrics.get_meter_provider(), _logs.get_logger_provider()
