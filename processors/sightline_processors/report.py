"""Reports of Sightline's own trouble: one clear line, at a bounded rate, and never an exception.

After start-up nothing of ours may raise into the application. Whatever goes wrong on the way is handed
to `report`, which logs the first occurrence of a kind at once and then at most one line a minute, with
the number of occurrences that were left out.
"""

import logging
import threading
import time
from contextlib import suppress
from dataclasses import dataclass

logger = logging.getLogger("sightline")

INTERVAL_SECONDS = 60.0


@dataclass
class _Kind:
    total: int = 0
    unreported: int = 0
    reported_at: float = float("-inf")


_lock = threading.RLock()  # a signal handler may interrupt its holder
_kinds: dict[str, _Kind] = {}
_lines: set[str] = set()


def report(kind: str, message: str, *, error: BaseException | None = None) -> None:
    """Counts one occurrence of a problem and logs it unless its kind was logged within the last minute.

    Args:
        kind: Key of the rate limit. A closed set: the places in this package that call it.
        message: What happened and what was done instead; holds no raw input.
        error: Adds the exception's class to the line and its traceback at DEBUG.
    """
    now = time.monotonic()
    with _lock:
        entry = _kinds.setdefault(kind, _Kind())
        entry.total += 1
        if now - entry.reported_at < INTERVAL_SECONDS:
            entry.unreported += 1
            return
        left_out, entry.unreported, entry.reported_at = entry.unreported, 0, now
    suffix = f" ({left_out} more since the last line)" if left_out else ""
    cause = f": {type(error).__qualname__}" if error is not None else ""
    with suppress(Exception):  # of a filter of the application's own
        logger.warning("%s%s%s", message, cause, suffix)
        if error is not None:
            logger.debug("cause of the previous line", exc_info=error)


def warn_once(message: str, *arguments: object) -> None:
    """Logs a line about configuration that several parts read, once per process.

    Args:
        message: A format with `%s`; one of those written in this package, so that memory is bounded.
        *arguments: What the operator has configured; never anything from a request.
    """
    line = message % arguments
    with _lock:
        if line in _lines:
            return
        _lines.add(line)
    with suppress(Exception):  # likewise
        logger.warning("%s", line)


def count(kind: str) -> None:
    """Counts a problem that something else has logged already."""
    with _lock:
        _kinds.setdefault(kind, _Kind()).total += 1


def totals() -> dict[str, int]:
    """Returns how often each kind of problem has occurred in this process."""
    with _lock:
        return {kind: entry.total for kind, entry in _kinds.items()}


def reported(kind: str) -> int:
    """Returns how often a kind of problem has occurred in this process."""
    with _lock:
        entry = _kinds.get(kind)
        return entry.total if entry else 0
