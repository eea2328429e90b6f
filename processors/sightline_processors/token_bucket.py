"""A bound on the rate of log records: some at once, and as many a minute from then on."""


class TokenBucket:
    """Counts what may be logged, and what was left out; the caller holds a lock.

    Args:
        per_minute: Records on average, and at once.
        now: In seconds, monotonic.
    """

    __slots__ = ("_left_out", "_per_minute", "_refilled_at", "_tokens")

    def __init__(self, per_minute: int, now: float) -> None:
        self._per_minute = per_minute
        self._tokens = float(per_minute)
        self._refilled_at = now
        self._left_out = 0

    def take(self, now: float) -> int | None:
        """Returns how many were left out since the last one; None when this one is left out too."""
        elapsed = max(0.0, now - self._refilled_at)
        self._refilled_at = now
        self._tokens = min(float(self._per_minute), self._tokens + elapsed * self._per_minute / 60)
        if self._tokens < 1:
            self._left_out += 1
            return None
        self._tokens -= 1
        left_out, self._left_out = self._left_out, 0
        return left_out
