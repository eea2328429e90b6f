"""Keeps the counts of the windows over a restart, in a folder that processes of one service share.

Each process has a slot of its own: a file `sla-SERVICE-N.state` that comes into being whole, and a file
`sla-SERVICE-N.lock` that the process holds locked as long as it lives; the system releases it however the
process ends. Who starts takes the first free slot and what is in it; the slots that nobody took within a
minute are taken over by whoever saves next, so that nothing is lost when fewer processes start than ended.
"""

import json
import math
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sightline_processors.report import report
from sightline_processors.sla.windows import Counts, Slot

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # each use is behind a check for it

MAX_PROCESSES: Final = 256
"""Slots: processes of one service that keep their state side by side in one folder."""

MAX_STATE_BYTES: Final = 32 * 1024 * 1024
"""Of one file; 1,024 objectives with every slot of every window in use take less."""

ADOPTION_SECONDS: Final = 60.0
"""For so long the state of a process that has ended waits for one that takes its slot."""

_MAGIC: Final = b"SIGHTLINE SLA 1 "
_CHECKSUM_DIGITS: Final = 8


@dataclass(frozen=True, slots=True)
class SavedWindows:
    """Is what one process has counted.

    Attributes:
        taken_at: Time of the process's `Timeline`: what the numbers of the slots refer to.
        wall: Time of the wall clock at the same moment, seconds since the epoch.
        objectives: By the objective's name, then the window's: the slots in use.
    """

    taken_at: float
    wall: float
    objectives: dict[str, dict[str, list[Slot]]]

    def shift_seconds(self, now: float, wall: float) -> float:
        """Returns how far the slots have to be moved for another process.

        Their age goes by the wall clock; where that went back in between, no time has passed.

        Args:
            now: Of the other process's `Timeline`.
            wall: Of the wall clock at the same moment.
        """
        return now - max(0.0, wall - self.wall) - self.taken_at


class StateFolder:
    """Is where a process keeps its state; not safe for several threads. Reports trouble and does without.

    Args:
        folder: Is made, of mode 0700, where it is missing.
        service: Keeps services apart that share a folder.
    """

    def __init__(self, folder: str | os.PathLike[str], service: str = "") -> None:
        self._folder = Path(folder)
        self._prefix = f"sla-{zlib.crc32(service.encode()):08x}-"
        self._lock: int | None = None
        self._slot = -1
        self._refused: set[int] = set()

    def claim(self) -> SavedWindows | None:
        """Takes a slot, unless this process has one; returns what is in it, if it is any good."""
        if self._lock is not None:
            return None
        if fcntl is None:
            _report("file locks are missing on this system")
            return None
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            return self._claim()
        except OSError as error:
            _report("SIGHTLINE_STATE_DIR must be a folder that this process may write to", error)
            return None

    def save(self, windows: SavedWindows) -> bool:
        """Replaces what is in the slot; tells whether it did.

        It survives the process's end, not that of the machine: nothing waits for the disk.
        """
        if self._lock is None:
            return False
        try:
            _write(self._state(self._slot), _encoded(windows))
        except OSError as error:
            _report("the state could not be written", error)
            return False
        return True

    def orphans(self, wall: float) -> Iterator[SavedWindows]:
        """Yields the states that nobody has; each is deleted when the next one is asked for.

        Args:
            wall: Time of the wall clock: a state has to be older by `ADOPTION_SECONDS`.
        """
        for slot in self._others() if self._lock is not None else ():
            lock = self._locked(slot)
            if lock is None:
                continue
            try:
                windows = self._read(slot)
                if windows is not None and abs(wall - windows.wall) >= ADOPTION_SECONDS:
                    yield windows
                    self._state(slot).unlink(missing_ok=True)
            except OSError as error:
                _report("the state of a process that has ended could not be taken over", error)
            finally:
                os.close(lock)

    def abandon(self) -> None:
        """Lets the slot go, with what is in it; in a forked process the parent has it still."""
        lock, self._lock = self._lock, None
        self._refused = set()
        if lock is not None:
            with suppress(OSError):
                os.close(lock)  # the lock is the open file's: it goes with the last process that has it open

    def _claim(self) -> SavedWindows | None:
        for slot in range(MAX_PROCESSES):
            self._lock = self._locked(slot)
            if self._lock is not None:
                self._slot = slot
                return self._read(slot)
        _report(f"all {MAX_PROCESSES} slots of the folder are taken")
        return None

    def _locked(self, slot: int) -> int | None:
        """Returns a descriptor that holds the lock of a slot; None where another process has it."""
        path = self._folder / f"{self._prefix}{slot}.lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return None
        return descriptor

    def _state(self, slot: int) -> Path:
        return self._folder / f"{self._prefix}{slot}.state"

    def _others(self) -> list[int]:
        """Returns the slots that hold something and are neither ours nor known to be no good."""
        return [
            slot
            for slot in range(MAX_PROCESSES)
            if slot != self._slot and slot not in self._refused and self._state(slot).exists()
        ]

    def _read(self, slot: int) -> SavedWindows | None:
        """Returns what is in a slot; None, after one report, where that is nothing that we wrote."""
        try:
            return _decoded(_content(self._state(slot)))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            self._refused.add(slot)
            _report("a file of state is not readable or not whole, and is left out", error)
            return None


def _report(message: str, error: BaseException | None = None) -> None:
    report("sla_state", f"SLA windows are not kept over a restart: {message}", error=error)


def _content(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:  # noqa: PTH123  of a descriptor
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            raise ValueError("not a file of this user")
        if status.st_size > MAX_STATE_BYTES:
            raise ValueError("too large")
        return file.read()


def _write(path: Path, content: bytes) -> None:
    """Replaces a file by one of mode 0600, whole or not at all."""
    unfinished = path.with_suffix(".part")
    unfinished.unlink(missing_ok=True)  # of a process that had this slot and was killed while it wrote
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(unfinished, flags, 0o600), "wb") as file:  # noqa: PTH123  of a descriptor
        file.write(content)
    unfinished.replace(path)


def _encoded(windows: SavedWindows) -> bytes:
    objectives = {
        name: {window: [[number, *counts] for number, counts in slots] for window, slots in each.items()}
        for name, each in windows.objectives.items()
    }
    document = {"taken_at": windows.taken_at, "wall": windows.wall, "objectives": objectives}
    body = json.dumps(document, separators=(",", ":")).encode()
    return b"%s%08x\n%s" % (_MAGIC, zlib.crc32(body), body)


def _decoded(content: bytes) -> SavedWindows:
    """Reads a file of state.

    Raises:
        ValueError: It is of another version, or not whole. Other errors of its content: it is not ours.
    """
    head, _, body = content.partition(b"\n")
    if head != b"%s%0*x" % (_MAGIC, _CHECKSUM_DIGITS, zlib.crc32(body)):
        raise ValueError("another version, or not whole")
    document = json.loads(body)
    objectives = {
        name: {window: [_slot(*each) for each in slots] for window, slots in windows.items()}
        for name, windows in document["objectives"].items()
    }
    taken_at, wall = float(document["taken_at"]), float(document["wall"])
    if not math.isfinite(taken_at - wall):
        raise ValueError("a time is finite")
    return SavedWindows(taken_at, wall, objectives)


def _slot(number: Any, *counts: Any) -> Slot:
    if not all(type(each) is int and 0 <= each < _MOST for each in (number, *counts)):
        raise ValueError("a slot is of whole numbers")
    return number, Counts(*counts)


_MOST: Final = 2**53
"""Whole numbers from there on are not what a process has counted."""
