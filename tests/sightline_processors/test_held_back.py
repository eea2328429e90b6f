"""Items that are held back: handled together, each once, in one thread at a time; none twice after a fork."""

import threading
import time

from sightline_processors import held_back
from sightline_processors.held_back import HELD_BACK_MASK, MAX_HELD_BACK, HeldBack


def test_what_waits_is_handled_together_in_its_order():
    handled = []
    held = HeldBack(handled.append)
    held.items += [1, 2, 3]
    held.drain()
    held.drain()
    held.items += [4]
    held.drain()
    assert handled == [[1, 2, 3], [4]]


def test_the_first_item_and_the_one_that_makes_them_enough_call_for_attention():
    calling = [number for number in range(1, 2 * MAX_HELD_BACK) if number & HELD_BACK_MASK < 2]
    assert calling == [1, MAX_HELD_BACK, MAX_HELD_BACK + 1]


def test_what_comes_while_others_are_handled_waits_for_the_next_time():
    handled = []

    def handle(items):
        handled.append(items)
        held.items.append("late")

    held = HeldBack(handle)
    held.items.append("early")
    held.drain()
    assert (handled, held.items) == ([["early"]], ["late"])


def test_threads_that_append_and_drain_at_once_have_each_item_handled_once():
    handled, at_once, most = [], [0], [0]

    def handle(items):
        at_once[0] += 1
        most[0] = max(most[0], at_once[0])
        time.sleep(0)
        handled.extend(items)
        at_once[0] -= 1

    held = HeldBack(handle)

    def work(thread):
        for number in range(2_000):
            held.items.append((thread, number))
            if len(held.items) & HELD_BACK_MASK < 2:
                held.drain()

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    held.drain()
    assert sorted(handled) == [(thread, number) for thread in range(4) for number in range(2_000)]
    assert most == [1]


def test_whoever_handles_and_is_interrupted_keeps_nobody_for_long(monkeypatch):
    monkeypatch.setattr(held_back, "LOCK_SECONDS", 0.01)
    handled = []

    def handle(items):
        handled.append(items)
        if len(handled) == 1:  # a signal handler ends a span, too
            held.items.append("from a handler")
            held.drain()

    held = HeldBack(handle)
    held.items.append("first")
    held.drain()
    assert handled == [["first"]]
    held.drain()
    assert handled == [["first"], ["from a handler"]]


def test_a_handler_that_raises_leaves_nothing_locked():
    def fail(items):
        raise RuntimeError("not today")

    held = HeldBack(fail)
    for _ in range(2):
        held.items.append(1)
        try:
            held.drain()
        except RuntimeError:
            continue
        raise AssertionError("it has not been called")
    assert held.items == []


def test_a_forked_process_has_nothing_of_its_parents():
    held = HeldBack(lambda items: None)
    held.items.append(1)
    held._lock.acquire()  # by a thread that the child does not have
    held.forget()
    handled = []
    held._handle = handled.append
    held.items.append(2)
    held.drain()
    assert handled == [[2]]
