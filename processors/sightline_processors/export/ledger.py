"""The account of one signal: every item that was taken is acknowledged, dropped, spooled or still here."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from sightline_processors.export.reasons import Signal


@dataclass(frozen=True, slots=True)
class Ledger:
    """Holds the account at one moment; items are spans, log records or data points.

    `accepted + recovered == acknowledged + sum(dropped) + spooled + pending`, at any moment.

    Attributes:
        signal: The signal that it is about.
        acknowledged: Items that the endpoint has acknowledged.
        dropped: Items that were given up, by reason (`reasons.REASONS`).
        spooled: Items that were handed over to the spool, whoever sends them.
        recovered: Items that came from the spool, whoever wrote them.
        queued: Items that wait.
        in_flight: Items of the request that is being sent or waits for its retry.
    """

    signal: Signal
    acknowledged: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    spooled: int = 0
    recovered: int = 0
    queued: int = 0
    in_flight: int = 0

    @property
    def pending(self) -> int:
        """Items of which nothing is known yet."""
        return self.queued + self.in_flight

    @property
    def accepted(self) -> int:
        """Items that the process has handed in."""
        return self.acknowledged + sum(self.dropped.values()) + self.spooled + self.pending - self.recovered

    def __add__(self, other: "Ledger") -> "Ledger":
        """Returns the account of two queues of one signal."""
        reasons = {*self.dropped, *other.dropped}
        return Ledger(
            self.signal,
            self.acknowledged + other.acknowledged,
            {reason: self.dropped.get(reason, 0) + other.dropped.get(reason, 0) for reason in reasons},
            self.spooled + other.spooled,
            self.recovered + other.recovered,
            self.queued + other.queued,
            self.in_flight + other.in_flight,
        )
