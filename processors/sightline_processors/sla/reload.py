"""The file of objectives, followed while the process runs: a change takes effect whole, or not at all."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

from sightline_processors.report import logger, report
from sightline_processors.sla.catalogue import Catalogue
from sightline_processors.sla.objectives import DEFAULT_OBJECTIVE, Objective, ObjectiveError, shown

INTERVAL_SECONDS: Final = 2.0
_STOP_SECONDS: Final = 1.0

_Stamp: TypeAlias = tuple[int, int, int, int] | None
"""What tells one version of a file from the next; None where there is no file."""

_running: set["ObjectivesFile"] = set()


class ObjectivesFile:
    """Follows a file of objectives.

    `catalogue` is always whole: it is replaced by one assignment, and only by that of a file without a
    problem. A bad file keeps the catalogue there is and costs one report, however long it stays. Any method
    may be called from any thread, and nothing raises. In a forked process the file is followed on.

    Args:
        path: The file.
        on_change: Called with each new catalogue: in `start` for the first, later by the thread that follows.
            What it raises is reported.
        default: The objective of what no entry matches, where the file has no `default`; and all there is
            while there has been no good file.
        interval_seconds: How often the file is looked at, above 0. It is read when it has changed and then
            stayed the same for one interval, so that one that is being written is not read half.
    """

    def __init__(
        self,
        path: str | Path,
        on_change: Callable[[Catalogue], None],
        *,
        default: Objective = DEFAULT_OBJECTIVE,
        interval_seconds: float = INTERVAL_SECONDS,
    ) -> None:
        self.catalogue = Catalogue(default=default)
        """What holds now."""
        self.problem: str | None = None
        """What is wrong with the file as it is now, in one line; None where it is what holds."""
        self._path = Path(path)
        self._on_change = on_change
        self._default = default
        self._interval_seconds = interval_seconds
        self._loaded: _Stamp = None
        self._seen: _Stamp = None
        self._content: bytes | None = None
        self._renew()

    def start(self) -> None:
        """Reads the file and begins to follow it; does nothing where that has begun."""
        with self._lock:
            if self in _running:
                return
            _running.add(self)
            self._loaded = self._seen = self._stamp()
            self._load()
            self._follow()

    def stop(self) -> None:
        """Ends following; the catalogue stays. Takes at most a second."""
        with self._lock:
            _running.discard(self)
            self._stopped.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_STOP_SECONDS)

    def _renew(self) -> None:
        """Makes what a forked process must not share with the one above it."""
        self._lock = threading.RLock()  # what is called on a change may stop the following
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def _follow(self) -> None:
        self._stopped = stopped = threading.Event()
        self._thread = threading.Thread(
            target=self._poll, args=(stopped,), name="sightline-objectives", daemon=True
        )
        try:
            self._thread.start()
        except RuntimeError as error:  # the process ends, or may have no more threads
            self._thread = None
            report("sla_file", "changes of the file of objectives will have no effect", error=error)

    def _poll(self, stopped: threading.Event) -> None:
        while not stopped.wait(self._interval_seconds):
            self._look()

    def _look(self) -> None:
        stamp = self._stamp()
        is_settled, self._seen = stamp == self._seen, stamp
        if stamp != self._loaded and is_settled:
            self._loaded = stamp
            self._load()

    def _stamp(self) -> _Stamp:
        try:
            found = os.stat(self._path)  # noqa: PTH116  follows links, as a mounted ConfigMap is changed by one
        except (OSError, ValueError):
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev

    def _load(self) -> None:
        try:
            self._read()
        except ObjectiveError as error:
            self.problem = str(error)
            report("sla_file", f"{error}; the objectives that hold stay")
        except Exception as error:  # noqa: BLE001  fail open: the objectives that hold go on holding
            report("sla_file", "could not read the file of objectives", error=error)

    def _read(self) -> None:
        # Imported here: YAML and its checks are for those who have a file.
        from sightline_processors.sla.objectives_file import parse_catalogue, read_bytes  # noqa: PLC0415

        content = read_bytes(self._path)
        if content == self._content and self.problem is None:
            return
        catalogue = parse_catalogue(content, self._path, default=self._default)
        self.problem = None
        if content != self._content:
            self._content = content
            self._change(catalogue)

    def _change(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        logger.info("%d objectives from %s hold", len(catalogue.objectives), shown(str(self._path)))
        try:
            self._on_change(catalogue)
        except Exception as error:  # noqa: BLE001  what follows the objectives may not end following
            report("sla_file", "could not pass the new objectives on", error=error)


def _follow_on() -> None:
    for each in tuple(_running):
        each._renew()  # noqa: SLF001  of this module
        each._follow()  # noqa: SLF001


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_follow_on)
