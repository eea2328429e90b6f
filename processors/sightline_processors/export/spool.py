"""Keeps what could not be sent on disk, bounded in bytes, for the same or a later process to send.

One file is one encoded request of one signal for one endpoint. Files come into the folder whole, by a rename;
a process that sends one holds a lock on it, which the system releases when the process ends; after the
acknowledgement the file is deleted. When the folder is full, the oldest file goes first.
"""

import itertools
import json
import os
import re
import stat
import time
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sightline_processors.export import reasons
from sightline_processors.export.faults import report_spool
from sightline_processors.export.reasons import SIGNALS, Signal

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

MAX_SPOOL_BYTES: Final = 64 * 1024 * 1024
"""Bytes of all files of a folder, whoever wrote them."""

_SUFFIX: Final = ".otlp"
_NAME: Final = re.compile(
    r"[0-9]{20}-[0-9]+-[0-9]+\.(?P<signal>[a-z]+)\.(?P<items>[0-9]{1,9})\.otlp", re.ASCII
)
_MAGIC: Final = b"SIGHTLINE SPOOL 1\n"
_MAX_HEAD_BYTES: Final = 4096
_STALE_SECONDS: Final = 3600.0
"""A file that was never finished belongs to a process that is gone."""

Lost = Callable[[Signal, int, str], None]
"""Takes the items of a file that is gone, and the reason."""


@dataclass(frozen=True, slots=True)
class SpooledRequest:
    """Holds a request of the spool that this process alone may send, until it is released or done.

    Attributes:
        signal: What it holds.
        key: The endpoint that it is for.
        items: How many.
        body: The encoded request.
        path: Its file.
        descriptor: Holds the lock.
    """

    signal: Signal
    key: str
    items: int
    body: bytes
    path: Path
    descriptor: int

    def done(self) -> None:
        """Deletes the file."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)
        self.release()

    def release(self) -> None:
        """Lets any process send it."""
        with suppress(OSError):
            fcntl.flock(self.descriptor, fcntl.LOCK_UN)  # a forked process may hold the descriptor too
            os.close(self.descriptor)


class Spool:
    """Is one folder of undelivered requests; every method is safe from any thread and process.

    Args:
        folder: Where the files are; has been prepared by `open_spool`.
        max_bytes: Bound of all files together.
        lost: Is told of items that the spool itself loses.
    """

    def __init__(self, folder: Path, max_bytes: int = MAX_SPOOL_BYTES, lost: Lost | None = None) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self.lost = lost
        self._numbers = itertools.count()

    def write(self, signal: Signal, key: str, items: int, body: bytes) -> bool:
        """Adds a request, deleting the oldest ones when there is no room; tells whether it is there.

        Args:
            signal: What it holds.
            key: The endpoint that it is for (`Transport.key`).
            items: How many.
            body: The encoded request.
        """
        head = json.dumps({"key": key, "bytes": len(body), "crc32": zlib.crc32(body)}).encode()
        content = _MAGIC + head + b"\n" + body
        name = f"{time.time_ns():020d}-{os.getpid()}-{next(self._numbers)}.{signal}.{items}{_SUFFIX}"
        try:
            if len(content) > self.max_bytes or not self._make_room(len(content)):
                return False
            _write_whole(self.folder / name, content)
        except OSError as error:
            report_spool(f"SIGHTLINE_SPOOL_DIR could not take what was not delivered ({_name_of(error)})")
            return False
        return True

    def claim(self, keys: Collection[tuple[Signal, str]]) -> SpooledRequest | None:
        """Returns the oldest request for one of the endpoints that no other process is sending."""
        with suppress(OSError):
            for path, _ in self._files():
                if (claimed := self._claimed(path, keys)) is not None:
                    return claimed
        return None

    def _claimed(self, path: Path, keys: Collection[tuple[Signal, str]]) -> SpooledRequest | None:
        """Locks and reads one file; None where another process has it, or it is not for us, or broken."""
        signal, items = _described(path)
        if signal is None or all(signal != wanted for wanted, _ in keys):
            return None
        descriptor = _locked(path)
        if descriptor is None:
            return None
        key, body = _content(descriptor, self.max_bytes)
        if body is not None and (signal, key) in keys:
            return SpooledRequest(signal, key, items, body, path, descriptor)
        if body is None:
            self._lose(path, reasons.SPOOL_CORRUPT)
        os.close(descriptor)
        return None

    def _make_room(self, wanted: int) -> bool:
        """Deletes the oldest files that nobody is sending until there is room; tells whether there is."""
        files = list(self._files())
        total = sum(size for _, size in files) + wanted
        for path, size in files:
            if total <= self.max_bytes:
                break
            descriptor = _locked(path)
            if descriptor is not None:
                self._lose(path, reasons.SPOOL_FULL)
                os.close(descriptor)
                total -= size
        return total <= self.max_bytes

    def _files(self) -> Iterator[tuple[Path, int]]:
        """Yields the files and their sizes, oldest first; deletes what was never finished."""
        for name in sorted(os.listdir(self.folder)):  # noqa: PTH208  names sort by age, and cost no objects
            path = self.folder / name
            with suppress(OSError):
                status = path.lstat()
                if name.startswith(".") and time.time() - status.st_mtime > _STALE_SECONDS:
                    path.unlink(missing_ok=True)
                elif _described(path)[0] is not None and stat.S_ISREG(status.st_mode):
                    yield path, status.st_size

    def _lose(self, path: Path, reason: str) -> None:
        signal, items = _described(path)
        with suppress(OSError):
            path.unlink()
            if reason == reasons.SPOOL_CORRUPT:
                report_spool(
                    "SIGHTLINE_SPOOL_DIR held a file that is not what was written; it was deleted, and its "
                    "items are counted as dropped; does another program write there?"
                )
            if signal is not None and self.lost is not None:
                self.lost(signal, items, reason)


def open_spool(folder: str | os.PathLike[str], max_bytes: int = MAX_SPOOL_BYTES) -> Spool | None:
    """Prepares a folder that only this user may read; None, and one line in the log, where it cannot be used.

    It is created where it is missing. One that others can read and that is not empty, or that belongs to
    somebody else (a mounted volume), gets a folder `sightline-UID` inside.
    """
    try:
        path = _private(Path(folder))
        _write_whole(path / f".probe-{os.getpid()}", b"").unlink()
    except (OSError, ValueError) as error:
        report_spool(
            f"SIGHTLINE_SPOOL_DIR must be a folder that this process may write to ({_name_of(error)}); "
            "what cannot be sent is dropped; for example SIGHTLINE_SPOOL_DIR=/var/lib/shop/spool"
        )
        return None
    return Spool(path, max_bytes)


def _private(path: Path) -> Path:
    """Creates what is missing; returns the folder to use, of mode 0700 and this user's."""
    if fcntl is None:
        raise OSError("file locks are missing on this system")
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = path.stat()
    is_own = status.st_uid == os.geteuid()
    if is_own and not stat.S_IMODE(status.st_mode) & 0o077:
        return path
    if not is_own or status.st_mode & stat.S_ISVTX or any(path.iterdir()):
        path /= f"sightline-{os.geteuid()}"
        path.mkdir(mode=0o700, exist_ok=True)
        if path.lstat().st_uid != os.geteuid() or path.is_symlink():
            raise PermissionError("the folder inside belongs to somebody else")
    path.chmod(0o700)
    return path


def _write_whole(path: Path, content: bytes) -> Path:
    """Writes a file of mode 0600 that comes into being whole."""
    unfinished = path.with_name(f".{path.name.lstrip('.')}.part")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123  of a descriptor
            file.write(content)
        return unfinished.rename(path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise


def _locked(path: Path) -> int | None:
    """Opens and locks a file of this user; None where another process has it, or it is gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        status = os.fstat(descriptor)
        if status.st_nlink and status.st_uid == os.geteuid():  # whoever had the lock may have deleted it
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None


def _described(path: Path) -> tuple[Signal | None, int]:
    """Returns what a file's name says: signal and number of items; None and 0 for a foreign name."""
    match = _NAME.fullmatch(path.name)
    signal = next((each for each in SIGNALS if match is not None and match["signal"] == each), None)
    return (signal, int(match["items"])) if match is not None and signal is not None else (None, 0)


def _content(descriptor: int, max_bytes: int) -> tuple[str, bytes | None]:
    """Returns key and body of a file; None for the body where the file is broken."""
    try:
        content = _read(descriptor, max_bytes)
        head, separator, body = content.removeprefix(_MAGIC).partition(b"\n")
        if not content.startswith(_MAGIC) or not separator or len(head) > _MAX_HEAD_BYTES:
            return "", None
        fields: Any = json.loads(head)
        if fields["bytes"] != len(body) or fields["crc32"] != zlib.crc32(body):
            return "", None
        return str(fields["key"]), body
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return "", None


def _read(descriptor: int, max_bytes: int) -> bytes:
    chunks = []
    size = 0
    while size <= max_bytes and (chunk := os.read(descriptor, 1 << 20)):
        chunks.append(chunk)
        size += len(chunk)
    return b"".join(chunks)


def _name_of(error: OSError | ValueError) -> str:
    """Returns what went wrong, without paths."""
    return getattr(error, "strerror", None) or str(error)
