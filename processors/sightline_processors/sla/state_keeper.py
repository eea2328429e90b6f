"""Saves the windows of a tracker, and takes in those of processes that have ended."""

import threading
from collections.abc import Callable
from typing import Final, Protocol

from sightline_processors.report import report
from sightline_processors.sla.state import SavedWindows, StateFolder

SAVE_SECONDS: Final = 30.0
"""Between two saves: what a process that is killed loses at most."""

_LOCK_SECONDS: Final = 1.0
"""Longest wait for another save: it may be what a signal handler has interrupted."""


class WindowsSource(Protocol):
    """Is what windows are saved of."""

    def saved_windows(self) -> SavedWindows:
        """Returns what it has counted."""

    def restore(self, saved: SavedWindows) -> None:
        """Adds what another process has counted."""


class StateKeeper:
    """Saves a source's windows into a folder; safe from any thread, never raises.

    Args:
        folder: Where they are kept.
        source: What they are of.
    """

    def __init__(self, folder: StateFolder, source: WindowsSource) -> None:
        self._folder = folder
        self._source = source
        self._lock = threading.Lock()
        self._saved_at = float("-inf")

    def start(self, now: float) -> None:
        """Takes in what the process that had the slot before has left.

        Args:
            now: As of `save`.
        """
        self._do(now, self._claim)

    def is_due(self, now: float) -> bool:
        """Tells whether half a minute has passed since the last save."""
        return now - self._saved_at >= SAVE_SECONDS

    def save(self, now: float) -> None:
        """Writes the windows, and takes over those that nobody has; waits a second at most.

        Args:
            now: Seconds, of a clock that does not go back.
        """
        self._do(now, self._save)

    def forget(self) -> None:
        """Lets the slot go; a forked process takes one of its own with its first save."""
        self._lock = threading.Lock()
        self._folder.abandon()

    def _do(self, now: float, work: Callable[[], None]) -> None:
        if not self._lock.acquire(timeout=_LOCK_SECONDS):
            return
        try:
            self._saved_at = now
            work()
        except Exception as error:  # noqa: BLE001  fail open: the windows go on in memory
            report("sla_state", "SLA windows could not be kept over a restart", error=error)
        finally:
            self._lock.release()

    def _claim(self) -> None:
        found = self._folder.claim()
        if found is not None:
            self._source.restore(found)

    def _save(self) -> None:
        self._claim()
        windows = self._source.saved_windows()
        for orphan in self._folder.orphans(windows.wall):
            self._source.restore(orphan)
            windows = self._source.saved_windows()
            if not self._folder.save(windows):
                return
        self._folder.save(windows)
