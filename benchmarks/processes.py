"""What a process costs, and on which core it runs. Linux only."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final

TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


def require_linux() -> None:
    """Ends the program with one line where its measurements do not exist.

    Raises:
        SystemExit: On any other system.
    """
    if not sys.platform.startswith("linux"):
        sys.exit("make bench needs Linux: it reads /proc and other processes' CPU clocks")


def cpu_seconds(pid: int) -> float:
    """Returns user and system time of a process, its threads and its descendants, in seconds.

    Living processes are read in nanoseconds, descendants that have ended in ticks of the kernel (10 ms).
    """
    return sum(_own_cpu_seconds(each) + _reaped_seconds(each) for each in (pid, *_descendants(pid)))


def rss_mb(pid: int) -> float:
    """Returns the resident memory of a process and its descendants, in megabytes (10^6 bytes)."""
    return sum(_rss_bytes(each) for each in (pid, *_descendants(pid))) / 1e6


@cache
def cores() -> tuple[frozenset[int], frozenset[int]]:
    """Returns the cores of the server and those of everything else; the same where there is only one.

    The answer is that of the first call: a program asks before it moves itself.
    """
    available = sorted(os.sched_getaffinity(0))
    others = frozenset(available[1:]) or frozenset(available)
    return frozenset(available[:1]), others


def _own_cpu_seconds(pid: int) -> float:
    # What the C library's clock_getcpuclockid returns: the process's clock, all its threads, in nanoseconds.
    # Source: Linux, include/linux/posix-timers_types.h (CPUCLOCK_SCHED).
    return time.clock_gettime((~pid << 3) | 2)


def _reaped_seconds(pid: int) -> float:
    fields = _stat(pid)
    return (int(fields[13]) + int(fields[14])) / TICKS_PER_SECOND


def _descendants(pid: int) -> Iterator[int]:
    """Yields children, their children and so on; the kernel need not list them by parent."""
    children: dict[int, list[int]] = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile
            children.setdefault(int(_stat(int(process.name))[1]), []).append(int(process.name))
    found = list(children.get(pid, ()))
    for child in found:
        yield child
        found += children.get(child, ())


def _rss_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES


def _stat(pid: int) -> list[str]:
    """Returns the fields of a process's `stat` from its state on: the name before may hold anything."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
