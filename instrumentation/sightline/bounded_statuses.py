"""Statuses of responses, which applications choose: the first unusual ones pass, the rest share a place."""

from http import HTTPStatus
from typing import Final

MAX_STATUSES: Final = 20
"""Distinct statuses per application beyond the registered ones, such as 499 and 520."""

_REGISTERED: Final = frozenset(map(int, HTTPStatus))
_FIRST, _LAST = 100, 599


class BoundedStatuses:
    """Lets the registered statuses through, and the first `MAX_STATUSES` others; constant memory."""

    def __init__(self) -> None:
        self._seen: set[int] = set()

    def bounded(self, status_code: int | None) -> int | None:
        """Returns the status, or the first of its class; None where it has no class."""
        if status_code is None or status_code in _REGISTERED or status_code in self._seen:
            return status_code
        if not _FIRST <= status_code <= _LAST:
            return None
        if len(self._seen) >= MAX_STATUSES:
            return status_code // 100 * 100
        self._seen.add(status_code)
        return status_code
