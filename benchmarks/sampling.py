"""A sampling profiler for the thread of requests: shares of time by function and by package.

A timer interrupts the thread; a sample counts for the innermost function on the stack that is not of the
standard library, whose time is its caller's. The interpreter looks at timers only between some of its
instructions, so that a sample may fall a few of them late: read shares, not digits.
"""

import signal
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

INTERVAL_SECONDS: Final = 0.0005


@contextmanager
def sampling() -> Iterator[Counter[str]]:
    """Counts samples by `module:function` until the block ends; main thread only."""
    samples: Counter[str] = Counter()

    def sample(_number: int, frame: FrameType | None) -> None:
        samples[_owner(frame)] += 1

    before = signal.signal(signal.SIGALRM, sample)
    signal.setitimer(signal.ITIMER_REAL, INTERVAL_SECONDS, INTERVAL_SECONDS)
    try:
        yield samples
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _owner(frame: FrameType | None) -> str:
    while frame is not None:
        module = str(frame.f_globals.get("__name__"))
        if package_of(module) not in sys.stdlib_module_names:
            return f"{module}:{frame.f_code.co_qualname}"
        frame = frame.f_back
    return "python:"


def package_of(name: str) -> str:
    """Returns the top-level package of `module` or `module:function`."""
    return name.partition(":")[0].partition(".")[0]
