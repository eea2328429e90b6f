"""The queue of one signal: its bounds, what is dropped, and an account without a hole."""

import gc
import signal as signals
import threading
import time

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.sightline_processors.export_support import limits

from sightline_processors.export import Ledger
from sightline_processors.export.lane import Lane

BATCH = 3
NOW = 100.0


def lane_of(signal="traces", ring=lambda: None, **bounds):
    return Lane(signal, limits(**{"max_items": 10, "max_batch_items": BATCH, **bounds}), ring)


def entry(number, size=1, count=1):
    """Returns `count` items as one entry."""
    return ("resource", "scope", bytes([number % 256]) * size, count)


def numbers(entries):
    return [each[2][0] for each in entries]


def fill(lane, count, start=0, size=1):
    for number in range(start, start + count):
        lane.put(entry(number, size))


def balance(ledger):
    spent = ledger.acknowledged + sum(ledger.dropped.values()) + ledger.spooled + ledger.pending
    return spent - ledger.recovered


def test_the_oldest_items_make_room_for_new_ones():
    lane = lane_of()
    fill(lane, 13)
    assert numbers(lane.items) == list(range(3, 13))
    assert lane.ledger().dropped == {"queue_full": 3}


def test_items_that_are_on_the_wire_count_and_stay():
    lane = lane_of()
    fill(lane, 10)
    batch = lane.take(NOW)
    fill(lane, 5, start=10)
    assert numbers(batch.entries) == [0, 1, 2]
    assert numbers(lane.items) == list(range(8, 15))
    assert lane.ledger() == Ledger("traces", dropped={"queue_full": 5}, queued=7, in_flight=3)


def test_items_that_wait_for_a_retry_are_the_oldest_and_go_first():
    lane = lane_of()
    fill(lane, 10)
    lane.postpone(lane.take(NOW), NOW + 1)
    fill(lane, 2, start=10)
    assert numbers(lane.batch.entries) == [2]
    fill(lane, 1, start=12)
    assert lane.batch is None
    assert lane.ledger() == Ledger("traces", dropped={"queue_full": 3}, queued=10)
    assert lane.is_settled(3)


def test_bytes_are_bounded_like_items():
    lane = lane_of(max_bytes=100)
    fill(lane, 5, size=30)
    assert numbers(lane.items) == [2, 3, 4]
    assert lane.queued_bytes == 90
    assert lane.ledger().dropped == {"queue_full": 2}


def test_bytes_that_are_on_the_wire_count():
    lane = lane_of(max_bytes=100)
    fill(lane, 3, size=30)
    batch = lane.take(NOW)
    fill(lane, 2, start=3, size=9)
    assert numbers(lane.items) == [4]
    lane.acknowledge(batch, 0)
    assert lane.queued_bytes == 9


def test_an_item_bigger_than_the_bound_is_dropped_alone():
    lane = lane_of(max_bytes=100)
    fill(lane, 2, size=10)
    lane.put(entry(7, size=101))
    assert numbers(lane.items) == [0, 1]
    assert lane.ledger().dropped == {"too_large": 1}
    assert lane.queued_bytes == 20


def test_a_request_ends_before_it_is_too_big_for_a_receiver():
    lane = lane_of(max_bytes=10_000_000)
    fill(lane, 2, size=3_000_000)
    assert numbers(lane.take(NOW).entries) == [0]
    assert lane.queued() == 1


def test_at_most_half_of_the_queue_is_sent_at_a_time():
    lane = lane_of(max_items=4, max_batch_items=4)
    fill(lane, 4)
    batch = lane.take(NOW)
    fill(lane, 2, start=4)
    assert numbers(batch.entries) == [0, 1]
    assert numbers(lane.items) == [4, 5]


def test_the_sender_is_woken_by_the_first_item_and_by_a_full_batch():
    rings: list[int | str] = []
    lane = lane_of(ring=lambda: rings.append("ring"), schedule_delay_seconds=5.0)
    assert lane.due_in(NOW) is None
    for _ in range(6):
        rings.append(len(lane.items))
        fill(lane, 1)
    assert rings == [0, "ring", 1, 2, "ring", 3, 4, 5]
    assert lane.due_in(NOW) == 0
    lane.acknowledge(lane.take(NOW), 0)
    fill(lane, 1)
    assert rings[-1] == "ring"


def test_a_batch_that_is_not_full_waits_for_more():
    lane = lane_of(schedule_delay_seconds=5.0)
    fill(lane, 1)
    assert lane.due_in(NOW) == 5.0
    assert lane.due_in(NOW + 4) == 1.0
    assert lane.due_in(NOW + 5) == 0.0
    lane.acknowledge(lane.take(NOW + 5), 0)
    assert lane.due_in(NOW + 5) == 5.0
    assert lane.due_in(NOW + 10) is None


def test_nothing_is_settled_twice():
    lane = lane_of()
    fill(lane, 3)
    batch = lane.take(NOW)
    assert lane.acknowledge(batch, 1)
    assert not lane.drop(batch, "unreachable")
    assert not lane.hand_over(batch)
    assert not lane.acknowledge(batch, 0)
    assert lane.ledger() == Ledger("traces", acknowledged=2, dropped={"rejected": 1})


def test_more_rejected_items_than_were_sent_are_as_many_as_were_sent():
    lane = lane_of()
    fill(lane, 2)
    lane.acknowledge(lane.take(NOW), 99)
    assert lane.ledger() == Ledger("traces", dropped={"rejected": 2})


def test_a_closed_lane_drops_and_counts():
    lane = lane_of()
    fill(lane, 2)
    lane.close()
    fill(lane, 3, start=2)
    assert numbers(lane.items) == [0, 1]
    assert lane.ledger().dropped == {"shutdown": 3}


def test_items_of_one_entry_are_sent_and_dropped_together():
    lane = lane_of(max_items=10, max_batch_items=5)
    for number in range(3):
        lane.put(entry(number, size=4, count=4))
    assert lane.ledger() == Ledger("traces", dropped={"queue_full": 4}, queued=8)
    batch = lane.take(NOW)
    assert (numbers(batch.entries), batch.count) == ([1], 4)  # two of them are more than a request takes
    lane.acknowledge(batch, 1)
    assert lane.ledger() == Ledger(
        "traces", acknowledged=3, dropped={"queue_full": 4, "rejected": 1}, queued=4
    )


def test_collections_of_metrics_count_as_their_data_points():
    lane = lane_of("metrics", max_items=2, max_batch_items=1)
    for points in (5, 7, 11):
        lane.put((None, None, b"request", points))
    assert lane.ledger() == Ledger("metrics", dropped={"queue_full": 5}, queued=18)
    lane.acknowledge(lane.take(NOW), 3)
    assert lane.ledger() == Ledger(
        "metrics", acknowledged=4, dropped={"queue_full": 5, "rejected": 3}, queued=11
    )


def test_everything_before_a_mark_is_settled_when_it_has_left():
    lane = lane_of()
    fill(lane, 4)
    mark = lane.mark()
    fill(lane, 1, start=4)
    first = lane.take(NOW)
    assert not lane.is_settled(mark)
    lane.acknowledge(first, 0)
    assert not lane.is_settled(mark)
    lane.acknowledge(lane.take(NOW), 0)
    assert lane.is_settled(mark)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(1, 60)),
        st.tuples(st.just("put_together"), st.integers(1, 6)),
        st.tuples(st.just("take"), st.just(0)),
        st.tuples(st.sampled_from(["acknowledge", "drop", "hand_over", "postpone"]), st.integers(-2, 6)),
        st.tuples(st.just("close"), st.just(0)),
    ),
    max_size=80,
)


@given(STEPS, st.integers(1, 12), st.integers(1, 12), st.integers(20, 200))
@settings(max_examples=150, deadline=None)
def test_accepted_is_acknowledged_and_dropped_and_spooled_and_pending_after_any_steps(
    steps, max_items, max_batch_items, max_bytes
):
    lane = lane_of(max_items=max_items, max_batch_items=max_batch_items, max_bytes=max_bytes)
    taken, accepted = None, 0
    for step, value in steps:
        if step == "put":
            lane.put(entry(accepted, size=value))
            accepted += 1
        elif step == "put_together":
            lane.put(entry(accepted, size=2 * value, count=value))
            accepted += value
        elif step == "take":
            taken = lane.take(NOW) or taken
        elif step == "close":
            lane.close()
        elif taken is not None:
            argument = {"acknowledge": [value], "drop": ["refused"], "hand_over": [], "postpone": [NOW]}[step]
            getattr(lane, step)(taken, *argument)
        ledger = lane.ledger()
        assert ledger.accepted == accepted == balance(ledger)
        assert lane.queued_items == ledger.queued == sum(each[3] for each in lane.items)
        assert ledger.queued + ledger.in_flight <= max_items
        if lane.batch and len(lane.batch.entries) > 1:
            assert lane.batch.count <= lane.limits.batch_items
        assert lane.queued_bytes == sum(len(each[2]) for each in lane.items) + (
            lane.batch.size if lane.batch else 0
        )
        assert lane.queued_bytes <= max_bytes


def test_no_item_is_lost_between_threads():
    lane = lane_of(max_items=500, max_batch_items=50)
    acknowledged = []

    def produce():
        for number in range(5_000):
            lane.put(entry(number))

    def consume():
        while not done.is_set() or lane.items:
            batch = lane.take(NOW)
            if batch is not None:
                acknowledged.append(batch.count)
                lane.acknowledge(batch, 0)

    done = threading.Event()
    consumer = threading.Thread(target=consume)
    producers = [threading.Thread(target=produce) for _ in range(4)]
    for thread in (consumer, *producers):
        thread.start()
    for thread in producers:
        thread.join()
    done.set()
    consumer.join()
    ledger = lane.ledger()
    assert ledger.accepted == 20_000
    assert ledger.pending == 0
    assert ledger.acknowledged == sum(acknowledged)
    assert lane.queued_bytes == 0


def test_an_item_may_come_from_a_finalizer_while_the_lane_is_locked():
    lane = lane_of(max_items=5)

    class Span:
        def __del__(self):
            lane.put(entry(9))

    with lane.lock:
        fill(lane, 20)
        span = Span()
        vars(span)["cycle"] = span
        del span
        gc.collect()
    assert lane.ledger().accepted == 21


def test_an_item_may_come_from_a_signal_handler_while_the_lane_is_locked():
    lane = lane_of(max_items=5)
    before = signals.signal(signals.SIGUSR1, lambda *_: fill(lane, 10))
    try:
        with lane.lock:
            signals.raise_signal(signals.SIGUSR1)
    finally:
        signals.signal(signals.SIGUSR1, before)
    assert lane.ledger().accepted == 10


def test_the_bounds_are_those_of_what_is_queued_however_often_a_signal_interrupts_an_overflow():
    lane = lane_of(max_items=64, max_batch_items=32)
    is_busy = []

    def put(*_):
        if not is_busy:
            is_busy.append(True)
            lane.put(entry(1, size=10))
            is_busy.clear()

    before = signals.signal(signals.SIGALRM, put)
    signals.setitimer(signals.ITIMER_REAL, 0.0005, 0.0005)
    try:
        ends = time.monotonic() + 1.5
        while time.monotonic() < ends:
            fill(lane, 1000, size=10)
    finally:
        signals.setitimer(signals.ITIMER_REAL, 0)
        signals.signal(signals.SIGALRM, before)
    assert (len(lane.items), lane.queued_items, lane.queued_bytes) == (64, 64, 640)


class HoldingBack:
    """A source: holds items back until it is asked, and tells when it gets the first."""

    def __init__(self, lane):
        self._lane, self._held = lane, []
        lane.sources += (self.give,)

    def get(self, *entries):
        first = not self._held
        self._held += entries
        if first:
            self._lane.wake()

    def give(self):
        held, self._held = self._held, []
        for each in held:
            self._lane.put(each)


def test_what_a_source_holds_back_is_due_after_the_delay():
    lane = lane_of(schedule_delay_seconds=5.0)
    source = HoldingBack(lane)
    assert lane.due_in(NOW) is None
    source.get(entry(1))
    assert lane.due_in(NOW) == 5.0
    assert lane.due_in(NOW + 4) == 1.0
    assert lane.due_in(NOW + 5) == 0.0
    lane.draw()
    assert numbers(lane.take(NOW + 5).entries) == [1]


def test_a_source_with_nothing_to_send_wakes_the_thread_once_in_a_while_and_not_each_time():
    rings = []
    lane = lane_of(ring=lambda: rings.append(1), schedule_delay_seconds=5.0)
    source = HoldingBack(lane)
    for turn in range(1000):  # requests that are not sampled: what is drawn is no item
        source.get()
        now = NOW + turn / 100
        if lane.due_in(now) == 0.0:
            lane.draw()
            assert lane.take(now) is None
    assert len(rings) == 1
    lane.draw()
    lane.take(NOW + 10)
    assert lane.due_in(NOW + 15) is None  # nothing is held any more: the thread sleeps until it is woken
    source.get(entry(1))
    assert len(rings) == 2


def test_what_a_source_gets_while_it_is_asked_is_not_forgotten():
    lane = lane_of(schedule_delay_seconds=5.0)
    source = HoldingBack(lane)
    source.get(entry(1))
    lane.sources = (source.give, lambda: source.get(entry(2)))
    lane.draw()
    batch = lane.take(NOW)
    assert numbers(batch.entries) == [1]
    lane.acknowledge(batch, 0)
    assert lane.due_in(NOW) == 5.0
    assert lane.due_in(NOW + 5) == 0.0  # entry 2 is still held back
