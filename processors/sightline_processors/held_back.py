"""Items that are held back, to be handled by the hundred.

What is done for many in one loop costs a third of what it costs beside each request, where code and data have
left the processor's caches in between. The bound keeps the loop too short to be felt by a request that waits.
"""

from collections.abc import Callable
from threading import Lock
from typing import Final, Generic, TypeVar

MAX_HELD_BACK: Final = 64
"""Items that are handled together at most, but for what other threads add in that moment."""

HELD_BACK_MASK: Final = MAX_HELD_BACK - 1
"""A number of items that is 0 or 1 under it calls for attention: it is the first, or there are enough."""

LOCK_SECONDS: Final = 1.0
"""Longest wait: the holder may be what a signal handler has interrupted."""

_Item = TypeVar("_Item")


class HeldBack(Generic[_Item]):
    """Holds items until somebody has them handled; any thread.

    Args:
        handle: Gets the items in their order, in one thread at a time; must not raise.

    Attributes:
        items: What waits. Who appends looks at their number, `HELD_BACK_MASK`: at the first it tells whoever
            is to call `drain` in time, and when there are enough it does so itself.
    """

    def __init__(self, handle: Callable[[list[_Item]], None]) -> None:
        self.items: list[_Item] = []
        self._handle = handle
        self._lock = Lock()

    def drain(self) -> None:
        """Has the items handled that wait."""
        if not self.items or not self._lock.acquire(timeout=LOCK_SECONDS):
            return
        try:
            # Others may append meanwhile, at the end: what is taken from the front stays the same.
            taken = self.items[:]
            del self.items[: len(taken)]
            self._handle(taken)
        finally:
            self._lock.release()

    def forget(self) -> None:
        """Drops the items: a forked process has them from its parent, which handles them."""
        self._lock = Lock()
        self.items.clear()
