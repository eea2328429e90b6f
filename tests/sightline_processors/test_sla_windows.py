"""Windows hold what happened in them, whatever the clocks do, in constant memory."""

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.sightline_processors.sla_clock import EPOCH, Clocks

from sightline_processors.sla.objectives import parse_objective
from sightline_processors.sla.status import kinds_of
from sightline_processors.sla.windows import NOTHING, WINDOWS, Counts, Timeline, Windows

OK, SLOW, FAILED, INELIGIBLE = range(4)
NAMES = [window.name for window in WINDOWS]
EVENTS = st.lists(
    st.tuples(st.one_of(st.integers(0, 400), st.integers(0, 300_000)), st.integers(0, 3), st.integers(1, 9)),
    max_size=40,
)


def expected(events, now, window):
    """Counts naively: an event is in the window while its slot is among the last ones."""
    first = now // window.slot_seconds - window.seconds // window.slot_seconds
    counts = [0] * 4
    for at, column, count in events:
        if at // window.slot_seconds > first:
            counts[column] += count
    return Counts(*counts)


@settings(max_examples=120, deadline=None)
@given(EVENTS, st.integers(0, 300_000))
def test_windows_count_like_a_list_of_all_events(steps, after):
    windows, events, now = Windows(), [], EPOCH
    for step, column, count in steps:
        now += step
        windows.add(column, count, now)
        events.append((now, column, count))
    now += after
    assert windows.totals(now) == {window.name: expected(events, now, window) for window in WINDOWS}


@settings(max_examples=60, deadline=None)
@given(EVENTS)
def test_reading_changes_nothing(steps):
    read, unread, now = Windows(), Windows(), EPOCH
    for step, column, count in steps:
        now += step
        read.totals(now)
        read.add(column, count, now)
        unread.add(column, count, now)
    assert read.totals(now) == unread.totals(now)


@pytest.mark.parametrize("window", WINDOWS)
def test_a_window_lasts_its_time_less_at_most_a_slot(window):
    windows = Windows()
    windows.add(SLOW, 1, EPOCH)
    end = EPOCH + window.seconds
    assert windows.totals(end - 1)[window.name] == Counts(0, 1, 0, 0)
    assert windows.totals(end)[window.name] == NOTHING
    windows.add(FAILED, 1, end + window.slot_seconds - 1)
    assert windows.totals(end + window.seconds - 1)[window.name] == Counts(0, 0, 1, 0)


def test_memory_is_constant():
    def size(windows):
        rings = windows._rings.values()
        return sum(sys.getsizeof(each) for ring in rings for each in (ring._counts, ring._numbers))

    windows, now = Windows(), EPOCH
    empty = size(windows)
    for step in range(3_000):
        now += step % 977
        windows.add(step % 4, 1, now)
    windows.totals(now)
    assert size(windows) == empty < 12_000


def test_a_clock_that_steps_back_stands_still():
    clocks = Clocks()
    timeline = Timeline(clocks.read_monotonic, clocks.read_wall)
    assert timeline.now() == EPOCH
    clocks.monotonic -= 500
    assert timeline.now() == EPOCH
    clocks.monotonic += 503
    assert timeline.now() == EPOCH + 3


def test_setting_the_wall_clock_changes_nothing():
    clocks = Clocks()
    timeline = Timeline(clocks.read_monotonic, clocks.read_wall)
    for wall in (0.0, EPOCH * 2, -5.0):
        clocks.wall = wall
        assert timeline.now() == EPOCH


def test_after_a_long_standstill_nothing_old_is_left():
    windows = Windows()
    for second in range(0, 300_000, 500):
        windows.add(OK, 1, EPOCH + second)
    assert windows.totals(EPOCH + 10**9) == dict.fromkeys(NAMES, NOTHING)


@settings(max_examples=50, deadline=None)
@given(EVENTS, EVENTS)
def test_restoring_is_the_same_as_having_counted_both(first, second):
    def counted(into, steps):
        now = EPOCH
        for step, column, count in steps:
            now += step
            into.add(column, count, now)
        return now

    one, two, both = Windows(), Windows(), Windows()
    now = max(counted(one, first), counted(two, second))
    order = sorted(_timed(first) + _timed(second))
    for at, column, count in order:
        both.add(column, count, at)
    one.restore(two.slots(now), 0.0)
    assert one.totals(now) == both.totals(now)


def _timed(steps):
    now, timed = EPOCH, []
    for step, column, count in steps:
        now += step
        timed.append((now, column, count))
    return timed


def test_many_restarts_move_nothing():
    windows = Windows()
    windows.add(FAILED, 7, EPOCH + 1_799)
    for restart in range(200):
        following = Windows()
        following.restore(windows.slots(EPOCH + 1_799), -0.4 if restart % 2 else 0.4)
        windows = following
    assert windows.slots(EPOCH + 1_799)["3d"] == [(EPOCH // 3_600, Counts(0, 0, 7, 0))]
    assert windows.totals(EPOCH + 1_799)["5m"] == Counts(0, 0, 7, 0)


def test_slots_that_are_too_old_are_not_restored():
    windows = Windows()
    windows.add(OK, 3, EPOCH)
    following = Windows()
    following.restore(windows.slots(EPOCH), 0.0)
    assert following.totals(EPOCH + 400) == {
        "5m": NOTHING,
        "1h": Counts(3, 0, 0, 0),
        "6h": Counts(3, 0, 0, 0),
        "3d": Counts(3, 0, 0, 0),
    }  # fmt: skip  one window a word


@pytest.mark.parametrize("window", WINDOWS)
def test_restored_slots_do_not_overwrite_newer_ones(window):
    windows, older = Windows(), Windows()
    older.add(OK, 3, EPOCH)
    now = EPOCH + window.seconds
    windows.add(SLOW, 1, now)
    windows.totals(now)
    windows.restore(older.slots(EPOCH), 0.0)
    assert windows.totals(now)[window.name] == Counts(0, 1, 0, 0)


def kinds(text, counts, **others):
    totals = {**dict.fromkeys(NAMES, counts), **others}
    return {kind.kind: kind for kind in kinds_of(parse_objective(text), totals)}


def test_without_requests_there_is_no_data():
    for kind in kinds("500ms@99%, 99.9%", NOTHING).values():
        for window in kind.windows:
            assert (window.bad, window.total) == (0, 0)
            assert (window.burn_rate, window.budget_remaining, window.exhaustion_seconds) == (None,) * 3


def test_latency_counts_slow_among_those_that_are_eligible_and_not_failed():
    window = kinds("500ms@90%", Counts(95, 5, 1_000, 1_000))["latency"].windows[0]
    assert (window.bad, window.total) == (5, 100)
    assert window.burn_rate == pytest.approx(0.5)
    assert window.budget_remaining == pytest.approx(0.5)


def test_availability_counts_failed_among_all():
    window = kinds("99%", Counts(40, 30, 2, 128))["availability"].windows[0]
    assert (window.bad, window.total) == (2, 200)
    assert window.burn_rate == pytest.approx(1)
    assert window.budget_remaining == pytest.approx(0)


def test_only_failed_requests_give_latency_no_data():
    assert kinds("500ms@90%", Counts(0, 0, 5, 5))["latency"].windows[0].burn_rate is None


def test_an_objective_has_the_kinds_that_it_has_targets_for():
    assert list(kinds("500ms@99%", NOTHING)) == ["latency"]
    assert list(kinds("99.9%", NOTHING)) == ["availability"]
    latency = kinds("500ms@99%, 99.9%", NOTHING)["latency"]
    assert (latency.target, latency.threshold_seconds) == (0.99, 0.5)
    assert [window.window for window in latency.windows] == ["5m", "1h", "6h", "3d"]


def test_time_to_exhaustion_goes_by_the_budget_of_three_days_and_the_rate_of_the_window():
    hot = Counts(90, 0, 10, 0)
    windows = kinds("99%", Counts(995, 0, 5, 0), **{"5m": hot})["availability"].windows
    assert windows[0].exhaustion_seconds == pytest.approx(0.5 * 259_200 / 10)
    assert windows[3].exhaustion_seconds == pytest.approx(0.5 * 259_200 / 0.5)


def test_a_spent_budget_is_exhausted_now_and_below_0():
    window = kinds("99%", Counts(90, 0, 10, 0))["availability"].windows[3]
    assert window.budget_remaining == pytest.approx(-9)
    assert window.exhaustion_seconds == 0


def test_while_nothing_burns_there_is_no_time_to_exhaustion():
    window = kinds("99%", Counts(90, 0, 0, 0))["availability"].windows[3]
    assert (window.burn_rate, window.budget_remaining, window.exhaustion_seconds) == (0, 1, None)
