"""What one signal has to deliver: a queue bounded in items and bytes, the batch under way, and the account.

Items come in from any thread, from signal handlers, finalizers and forked processes, without a lock: an
append to a deque, two additions and two comparisons. Everything else happens under a lock that the thread may
hold already, for microseconds. Items leave at the front only, so the oldest ones go first. An entry of the
queue holds one item or several, which are sent, or dropped, together.
"""

from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from threading import RLock

from sightline_processors.export import reasons
from sightline_processors.export.batches import Batch, Entry, encoded_size, item_count
from sightline_processors.export.ledger import Ledger
from sightline_processors.export.limits import MAX_REQUEST_BYTES, Limits
from sightline_processors.export.reasons import Signal


class Lane:
    """Queues the items of one signal for one endpoint.

    Args:
        signal: What the items are.
        limits: Bounds of the queue.
        ring: Wakes the thread that sends; called from any thread, must not block.
    """

    __slots__ = (
        "_asleep", "_called", "_collections", "_due_at", "_is_held_back", "_left", "_ring", "acknowledged",
        "append", "attention", "batch", "byte_limit", "dropped", "failed", "is_closed", "items", "limits",
        "lock", "losses", "processed", "queued_bytes", "queued_items", "recovered", "signal", "sources",
        "spooled",
    )  # fmt: skip

    def __init__(self, signal: Signal, limits: Limits, ring: Callable[[], None]) -> None:
        self.signal: Signal = signal
        self.limits = limits
        self.byte_limit = limits.max_bytes
        self.is_closed = False
        self._collections = signal == "metrics"
        self._ring = ring
        self.sources: tuple[Callable[[], None], ...] = ()
        self.forget()

    def forget(self) -> None:
        """Starts anew, with an empty queue and account, in a process that was forked from this one."""
        self.lock = RLock()
        self.items: deque[Entry] = deque()
        self.append = self.items.append
        self.queued_bytes = self.queued_items = 0
        self.batch: Batch | None = None
        self.acknowledged = self.spooled = self.recovered = self.processed = self.losses = 0
        self.dropped: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self._left = 0
        self._due_at: float | None = None
        self._asleep, self._called = True, False
        self._is_held_back = False
        self._set_attention()

    def put(self, entry: Entry) -> None:
        """Queues an entry; never blocks, drops the oldest ones when there is no room.

        `OtlpSpanProcessor.put_encoded` holds the same lines, to save the call.
        """
        size, places = len(entry[2]), self._places(entry)
        self.queued_bytes += size  # in one step, here and elsewhere, as there is no call within the line
        self.queued_items += places
        self.append(entry)
        if self.queued_bytes > self.byte_limit or self.queued_items >= self.attention:
            self.attend(entry)

    def attend(self, entry: Entry) -> None:
        """Does what a new entry calls for: makes room for it, takes it back, wakes the sending thread."""
        with self.lock:
            if self.is_closed:
                self._withdraw(entry, reasons.SHUTDOWN)
            elif len(entry[2]) > self.byte_limit:
                self._withdraw(entry, reasons.TOO_LARGE)
            self._make_room()
            is_full = self.queued_items >= self.limits.batch_items
            wakes = not self.is_closed and (self._asleep or (is_full and not self._called))
            self._asleep = False
            self._called = self._called or is_full
            self._set_attention()
        if wakes:
            self._ring()

    def draw(self) -> None:
        """Has the sources put what they hold back; not with the lock held, which they need for it."""
        with self.lock:
            self._is_held_back = False  # before they are asked: what one gets from now on, it tells
        for source in self.sources:
            source()

    def wake(self) -> None:
        """Is told by a source that it holds something: the sending thread will draw it, when it is due."""
        with self.lock:
            self._is_held_back = True
            wakes = self._asleep and not self.is_closed
            if wakes:
                self._asleep = False
                self._set_attention()
        if wakes:
            self._ring()
        elif self.is_closed:
            self.draw()  # into the account of what is dropped

    def count_drop(self, reason: str, count: int = 1) -> None:
        """Counts items that never came to the queue."""
        with self.lock:
            self.dropped[reason] += count

    def due_in(self, now: float) -> float | None:
        """Returns the seconds until the next batch is to be sent; None when nothing waits.

        In the last case the next entry wakes the sending thread, and so does a source that gets something.
        """
        with self.lock:
            if self.batch is not None:
                return max(0.0, self.batch.retry_at - now)
            if self.queued_items >= self.limits.batch_items:
                return 0.0
            if self._due_at is not None and now < self._due_at:
                return self._due_at - now
            if self._due_at is not None and (self.items or self._is_held_back):
                return 0.0
            self._asleep = True
            self._set_attention()
            # Looked at after the attention was set, so that no entry is missed.
            if not (self.items or self._is_held_back):
                self._due_at = None
                return None
            self._asleep = False
            self._set_attention()
            self._due_at = now + self.limits.schedule_delay_seconds
            return self.limits.schedule_delay_seconds

    def take(self, now: float) -> Batch | None:
        """Returns the batch to send now, the one that was tried before if there is one, and marks it so."""
        with self.lock:
            if self.batch is None and self.items:
                self.batch = self._next_batch(now)
            self._due_at = now + self.limits.schedule_delay_seconds
            self._called = False
            self._set_attention()
            if self.batch is not None:
                self.batch.is_on_wire = True
                self.batch.attempts += 1
            return self.batch

    def acknowledge(self, batch: Batch, rejected: int) -> bool:
        """Settles a batch: acknowledged but for the rejected items, of which there are at most its count.

        Like `drop` and `hand_over`, tells whether the batch was this lane's: nothing is settled twice.
        """
        with self.lock:
            if not self._settle(batch):
                return False
            rejected = min(max(rejected, 0), batch.count)
            self.acknowledged += batch.count - rejected
            self._fail(reasons.REJECTED, rejected)
            return True

    def drop(self, batch: Batch, reason: str) -> bool:
        """Settles a batch: given up."""
        with self.lock:
            if not self._settle(batch):
                return False
            self._fail(reason, batch.count)
            return True

    def hand_over(self, batch: Batch) -> bool:
        """Settles a batch: the spool has it."""
        with self.lock:
            if not self._settle(batch):
                return False
            self.spooled += batch.count
            self.losses += 1
            return True

    def postpone(self, batch: Batch, retry_at: float) -> None:
        """Keeps a batch for another attempt; until then its oldest items may make room for new ones."""
        with self.lock:
            if self.batch is batch:
                batch.is_on_wire, batch.retry_at = False, retry_at
                self._make_room()
                self._set_attention()

    def hurry(self, now: float) -> None:
        """Lets the batch that waits for its retry be sent at once."""
        with self.lock:
            if self.batch is not None:
                self.batch.retry_at = min(self.batch.retry_at, now)

    def close(self) -> None:
        """Takes no further entries: they are dropped and counted."""
        with self.lock:
            self.is_closed = True
            self._set_attention()

    def mark(self) -> int:
        """Returns the number of the entry that comes next, for `is_settled`."""
        self.draw()
        with self.lock:
            return self._left + len(self.items)

    def is_settled(self, mark: int) -> bool:
        """Tells whether everything that came before a mark has left, one way or the other."""
        with self.lock:
            is_sent = self.batch is None or self.batch.first >= mark
            return is_sent and (self._left >= mark or not self.items)

    def ledger(self) -> Ledger:
        """Returns the account at this moment."""
        self.draw()
        with self.lock:
            return Ledger(
                self.signal,
                self.acknowledged,
                dict(self.dropped_so_far()),
                self.spooled,
                self.recovered,
                self.queued(),
                self.batch.count if self.batch is not None else 0,
            )

    def dropped_so_far(self) -> Counter[str]:
        """Returns how many items were given up, by reason."""
        with self.lock:
            return self.dropped + self.failed

    def queued(self) -> int:
        """Returns how many items wait, without the batch under way."""
        return item_count(self.items.copy()) if self._collections else self.queued_items

    def _places(self, entry: Entry) -> int:
        """Returns how much of `Limits.max_items` an entry takes: a collection of metrics counts as one."""
        return 1 if self._collections else entry[3]

    def _next_batch(self, now: float) -> Batch:
        """Removes the oldest entries from the queue, as many as one request may hold, and at least one."""
        batch = Batch(deque(), self._left, now, now + self.limits.export_timeout_seconds)
        entries, places = batch.entries, 0
        with suppress(IndexError):  # of a queue that is empty
            while places < self.limits.batch_items:
                entry = self.items.popleft()
                entries.append(entry)
                taken = self._places(entry)
                self.queued_items -= taken
                places += taken
        batch.size = encoded_size(entries)
        while len(entries) > 1 and (places > self.limits.batch_items or batch.size > MAX_REQUEST_BYTES):
            entry = entries.pop()
            self.items.appendleft(entry)
            taken = self._places(entry)
            self.queued_items += taken
            places -= taken
            batch.size -= len(entry[2])
        self._left += len(entries)
        batch.count = item_count(entries)
        self.processed += batch.count
        return batch

    def _settle(self, batch: Batch) -> bool:
        """Forgets a batch; tells whether it was still this lane's."""
        if self.batch is not batch:
            return False
        self.batch = None
        self.queued_bytes -= batch.size
        self._set_attention()
        return True

    def _fail(self, reason: str, count: int) -> None:
        if count:
            self.failed[reason] += count
            self.losses += 1

    def _make_room(self) -> None:
        while self._is_over() and self._drop_oldest():
            pass

    def _is_over(self) -> bool:
        return self.queued_bytes > self.byte_limit or self.queued_items > self._room()

    def _room(self) -> int:
        """Returns how many items may be queued beside the batch under way."""
        if self.batch is None:
            return self.limits.max_items
        return self.limits.max_items - (len(self.batch.entries) if self._collections else self.batch.count)

    def _drop_oldest(self) -> bool:
        """Drops one entry, of the batch that waits for its retry or of the queue; tells whether it could."""
        batch = self.batch
        if batch is not None and not batch.is_on_wire:
            self._drop_from(batch)
            return True
        if not self.items:
            return False
        entry = self.items.popleft()
        self._left += 1
        places = self._places(entry)
        self.queued_items -= places
        self._count_overflow(self.dropped, entry)
        return True

    def _drop_from(self, batch: Batch) -> None:
        entry = batch.entries.popleft()
        batch.count -= entry[3]
        batch.size -= len(entry[2])
        self._count_overflow(self.failed, entry)
        if not batch.entries:
            self.batch = None

    def _count_overflow(self, account: Counter[str], entry: Entry) -> None:
        size = len(entry[2])
        self.queued_bytes -= size
        account[reasons.QUEUE_FULL] += entry[3]
        self.losses += 1

    def _withdraw(self, entry: Entry, reason: str) -> None:
        """Takes back an entry that has just come, unless it is being sent already."""
        for index in range(len(self.items) - 1, -1, -1):
            if self.items[index] is entry:
                del self.items[index]
                size, places = len(entry[2]), self._places(entry)
                self.queued_bytes -= size
                self.queued_items -= places
                self.dropped[reason] += entry[3]
                return

    def _set_attention(self) -> None:
        """Sets the number of items from which on a new entry calls for more than its place in the queue."""
        room = self._room()
        if self.is_closed:
            self.attention = 0
        elif self._asleep:
            self.attention = 1
        else:
            self.attention = room + 1 if self._called else min(room + 1, self.limits.batch_items)
