"""Items that are held back, to be handled many at a time.

What is done for many in one loop costs less than beside each request, where code and data have left the
processor's caches in between.
"""

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

_Item = TypeVar("_Item")


class HeldBack(Generic[_Item]):
    """Holds items until there are enough, or until somebody asks for them; any thread, without a lock.

    Who appends looks whether somebody knows of the items, and whether there are enough:

        held.items.append(item)
        if not held.is_told or len(held.items) >= held.enough:
            held.attend()

    Each item is handled once, by whoever takes it, one at a time: a thread that is stopped or interrupted
    meanwhile keeps no other item from anybody, a finalizer or a signal handler in that thread included.

    Args:
        handle: Gets an item; must not raise.
        tell: Called when there is something and nobody knows: `drain` is to be called in time.
        enough: As many are handled at once, by who appends the last of them; at least 1.

    Attributes:
        items: What waits.
        is_told: Whether `drain` will be called.
    """

    def __init__(self, handle: Callable[[_Item], None], tell: Callable[[], object], enough: int) -> None:
        self._handle = handle
        self._tell = tell
        self.enough = enough
        self.items: deque[_Item] = deque()
        self.is_told = False

    def attend(self) -> None:
        """Does what an item calls for that nobody knows of, or that makes them enough."""
        if len(self.items) >= self.enough:
            self.drain()
        else:
            self._tell_once()

    def drain(self) -> None:
        """Has the items handled that wait, without those that come meanwhile."""
        self.is_told = False  # before the first is taken: what comes from now on tells, or is taken, too
        try:
            for _ in range(len(self.items)):
                try:
                    item = self.items.popleft()
                except IndexError:  # somebody else has taken the others
                    break
                self._handle(item)
        finally:
            if self.items and not self.is_told:
                self._tell_once()

    def _tell_once(self) -> None:
        self.is_told = True  # before it tells: who appends from now on is known of
        self._tell()

    def forget(self) -> None:
        """Drops the items: a forked process has them from its parent, which handles them."""
        self.items.clear()
        self.is_told = False
