"""Brings the batches of a lane to its endpoint: attempts, retries within the deadline, and the outcome."""

import time
from collections.abc import Callable
from operator import itemgetter
from threading import Lock
from typing import Final

from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, attach, detach, set_value

from sightline_processors.export import reasons
from sightline_processors.export.backoff import Backoff
from sightline_processors.export.batches import Batch
from sightline_processors.export.faults import report_fault
from sightline_processors.export.lane import Lane
from sightline_processors.export.spool import Spool, SpooledRequest
from sightline_processors.export.verdicts import Delivered, Destination, Drop, Retry, Transport, Verdict
from sightline_processors.otlp.requests import join_request

KNOWN_DOWN_SECONDS: Final = 10.0
"""An endpoint that has failed for so long gets one more attempt in a flush, not all of its time."""

_MIN_ATTEMPT_SECONDS: Final = 0.05
_MEMBER_OF: Final = itemgetter(0, 1, 2)
_PAUSE_SECONDS: Final = 0.05
"""How often a flush that waits looks whether somebody else has sent."""

Conclusion = Callable[[Destination, float, str | None], None]
"""Takes where an export went, the seconds that it took, and why it failed; None where it did not."""


class Courier:
    """Sends what a lane holds; one attempt at a time, by the engine's thread or by one that flushes.

    Args:
        lane: What is to be sent.
        transport: Where to.
        backoff: Waits between attempts.
        conclusion: Is told of each batch when it is settled.
    """

    def __init__(self, lane: Lane, transport: Transport, backoff: Backoff, conclusion: Conclusion) -> None:
        self.lane = lane
        self.transport = transport
        self.destination = transport.destination
        self._conclusion = conclusion
        self.spool: Spool | None = None
        self._backoff = backoff
        self.forget()

    def forget(self) -> None:
        """Starts anew in a process that was forked from this one."""
        self.sending = Lock()
        self.attempted_at = 0.0
        self._failing_since: float | None = None
        self._reported: dict[str, int] = {}

    @property
    def is_failing(self) -> bool:
        """Whether the last attempt failed."""
        return self._failing_since is not None

    def due_in(self) -> float | None:
        """Returns the seconds until a batch is to be sent; None when nothing waits."""
        wait = self.lane.due_in(time.monotonic())
        return _PAUSE_SECONDS if wait == 0 and self.sending.locked() else wait

    def send(self) -> None:
        """Sends one batch, unless somebody flushes; for the engine's thread."""
        if self.sending.acquire(blocking=False):
            self.attempted_at = time.monotonic()
            try:
                self.attempt(float("inf"))
            finally:
                self.sending.release()

    def attempt(self, until: float) -> bool:
        """Sends one batch, once; tells whether there was one and it left the lane.

        The caller holds `sending`.

        Args:
            until: When the attempt must be over (`time.monotonic`), whatever the endpoint does.
        """
        self.lane.draw()
        now = time.monotonic()
        batch = self.lane.take(now)
        if batch is None:
            return False
        try:
            request = self._request(batch)
        except Exception:  # noqa: BLE001  an encoder of ours, and an item that it cannot take
            self._give_up(batch, Drop(reasons.ENCODING))
            return True
        seconds = min(self.destination.timeout_seconds, batch.deadline - now, until - now)
        verdict = self.transport.post(request, max(seconds, _MIN_ATTEMPT_SECONDS))
        return self._conclude(batch, verdict)

    def flush(self, timeout_seconds: float) -> bool:
        """Sends everything that came before the call; tells whether all of it was delivered in time.

        Does not wait for a retry that is due later: the first attempt is made at once.
        """
        until = time.monotonic() + timeout_seconds
        mark, losses = self.lane.mark(), self.lane.losses
        was_down = self._is_known_down()
        self.lane.hurry(time.monotonic())
        token = attach(set_value(_SUPPRESS_INSTRUMENTATION_KEY, value=True))
        try:
            while not self.lane.is_settled(mark):
                if not self._flush_batch(until, was_down=was_down):
                    return False
        finally:
            detach(token)
        return self.lane.losses == losses

    def _flush_batch(self, until: float, *, was_down: bool) -> bool:
        """Sends one batch when it is due; tells whether to go on."""
        now = time.monotonic()
        if now >= until:
            return False
        wait = self.lane.due_in(now) if self.lane.batch is not None else 0.0
        if wait:
            time.sleep(min(wait, _PAUSE_SECONDS, until - now))
            return True
        if not self.sending.acquire(timeout=min(_PAUSE_SECONDS, until - now)):
            return True
        try:
            left = self.attempt(until)
        finally:
            self.sending.release()
        return left or not was_down

    def finish(self) -> None:
        """Spools what has not been delivered, or drops it; closes the connections."""
        self.lane.draw()
        self.lane.close()
        self.lane.draw()
        self.transport.abort()
        held = self.sending.acquire(timeout=_MIN_ATTEMPT_SECONDS)
        try:
            while (batch := self.lane.take(time.monotonic())) is not None:
                self._put_away(batch, reasons.SHUTDOWN)
        finally:
            if held:
                self.sending.release()
                self.transport.close()

    def send_spooled(self, spooled: SpooledRequest) -> bool:
        """Sends a request of the spool, once; tells whether it need not be sent again."""
        if not self.sending.acquire(blocking=False):
            return False  # somebody flushes
        try:
            verdict = self.transport.post(spooled.body, self.destination.timeout_seconds)
        finally:
            self.sending.release()
        self._note(verdict)
        if isinstance(verdict, Retry):
            return False
        rejected = verdict.rejected if isinstance(verdict, Delivered) else spooled.items
        reason = reasons.REJECTED if isinstance(verdict, Delivered) else verdict.reason
        self.count_recovered(spooled.items, rejected, reason)
        return True

    def count_recovered(self, items: int, lost: int, reason: str) -> None:
        """Takes items of the spool into the account: some of them lost, the others acknowledged."""
        lost = min(max(lost, 0), items)
        with self.lane.lock:
            self.lane.recovered += items
            self.lane.acknowledged += items - lost
            if lost:
                self.lane.failed[reason] += lost

    def _request(self, batch: Batch) -> bytes:
        if self.lane.signal == "metrics":
            return batch.entries[0][2]
        return join_request(map(_MEMBER_OF, batch.entries))

    def _is_known_down(self) -> bool:
        since = self._failing_since
        return since is not None and time.monotonic() - since > KNOWN_DOWN_SECONDS

    def _conclude(self, batch: Batch, verdict: Verdict) -> bool:
        """Settles a batch, or keeps it for another attempt; tells whether it is settled."""
        self._note(verdict)
        match verdict:
            case Delivered(rejected):
                if self.lane.acknowledge(batch, rejected):
                    self._tell(batch, reasons.REJECTED if rejected else None)
            case Drop():
                self._give_up(batch, verdict)
            case Retry():
                return self._retry(batch, verdict)
        return True

    def _note(self, verdict: Verdict) -> None:
        """Logs what went wrong, and remembers since when."""
        match verdict:
            case Delivered(rejected):
                self._failing_since = None
                if rejected:
                    self._report(reasons.REJECTED)
            case Drop(reason, detail):
                self._failing_since = None
                self._report(reason, detail)
            case Retry(reason, detail=detail):
                self._failing_since = self._failing_since or time.monotonic()
                self._report(reason, detail)

    def _retry(self, batch: Batch, verdict: Retry) -> bool:
        """Keeps a batch for another attempt, the last one shortly before its deadline."""
        now = time.monotonic()
        reserve = min(self.destination.timeout_seconds, self.lane.limits.export_timeout_seconds / 10)
        latest = batch.deadline - reserve
        if now >= latest:
            self._put_away(batch, verdict.reason)
            return True
        wait = max(self._backoff.seconds(batch.attempts), verdict.after_seconds)
        self.lane.postpone(batch, min(now + wait, latest))
        return False

    def _put_away(self, batch: Batch, reason: str) -> None:
        """Hands a batch over to the spool; drops it where there is none."""
        if self.spool is not None and self._spooled(self.spool, batch):
            is_settled = self.lane.hand_over(batch)
        else:
            is_settled = self.lane.drop(batch, reason)
        if is_settled:
            self._tell(batch, reason)

    def _spooled(self, spool: Spool, batch: Batch) -> bool:
        try:
            return spool.write(self.lane.signal, self.destination.key, batch.count, self._request(batch))
        except Exception:  # noqa: BLE001  an encoder of ours, and an item that it cannot take
            return False

    def _give_up(self, batch: Batch, verdict: Drop) -> None:
        if self.lane.drop(batch, verdict.reason):
            self._tell(batch, verdict.reason)

    def _tell(self, batch: Batch, reason: str | None) -> None:
        self._conclusion(self.destination, time.monotonic() - batch.started, reason)

    def _report(self, reason: str, detail: str = "") -> None:
        if self.lane.is_closed:
            return  # what ended an attempt was this side's own end
        report_fault(reason, self.lane.signal, self.destination.endpoint, detail)

    def report_overflow(self) -> None:
        """Logs what requests have dropped since the last look: they themselves log nothing."""
        dropped = self.lane.dropped_so_far()
        for reason in (reasons.QUEUE_FULL, reasons.TOO_LARGE, reasons.ENCODING):
            count = dropped[reason]
            if count > self._reported.get(reason, 0):
                self._reported[reason] = count
                self._report(reason)
