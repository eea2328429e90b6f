"""The items of one request."""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

Entry = tuple[Any, Any, bytes, int]
"""Resource, scope, encoded items, their number; of metrics None, None, encoded request, its data points."""


_BYTES_OF: Callable[[Entry], bytes] = itemgetter(2)
_COUNT_OF: Callable[[Entry], int] = itemgetter(3)


def encoded_size(entries: Iterable[Entry]) -> int:
    """Returns the bytes of some entries."""
    return sum(map(len, map(_BYTES_OF, entries)))


def item_count(entries: Iterable[Entry]) -> int:
    """Returns the items (of metrics, data points) of some entries."""
    return sum(map(_COUNT_OF, entries))


@dataclass(slots=True, eq=False)
class Batch:
    """Holds the items of one request.

    Attributes:
        entries: The items, oldest first.
        first: Number of the first entry in the order of the queue.
        started: When its first attempt began; clocks are `time.monotonic`.
        deadline: When it is given up.
        count: Items (of metrics, data points).
        size: Encoded bytes of the entries.
        attempts: Attempts so far.
        retry_at: When it may be sent.
        is_on_wire: Whether an attempt is under way, so that nothing of it can be dropped.
    """

    entries: deque[Entry]
    first: int
    started: float
    deadline: float
    count: int = 0
    size: int = 0
    attempts: int = 0
    retry_at: float = 0.0
    is_on_wire: bool = False
