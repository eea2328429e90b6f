"""Items that are held back: each handled once, none forgotten, and nobody keeps the others."""

import threading
import time

import pytest

from sightline_processors.held_back import HeldBack

ENOUGH = 4


class Holder:
    """Appends as the owner of the items does, and counts who is told."""

    def __init__(self, handle=None, enough=ENOUGH):
        self.handled, self.tells = [], 0
        self.held = HeldBack(handle or self.handled.append, self._tell, enough)

    def _tell(self):
        self.tells += 1

    def append(self, item):
        held = self.held
        held.items.append(item)
        if not held.is_told or len(held.items) >= held.enough:
            held.attend()


def test_the_first_item_tells_and_the_others_wait_for_enough_of_them():
    holder = Holder()
    for number in range(ENOUGH - 1):
        holder.append(number)
    assert (holder.handled, holder.tells) == ([], 1)
    holder.append(ENOUGH - 1)
    assert (holder.handled, holder.tells) == ([0, 1, 2, 3], 1)
    holder.append(4)
    assert (holder.handled, holder.tells) == ([0, 1, 2, 3], 2)
    holder.held.drain()
    assert holder.handled == [0, 1, 2, 3, 4]


def test_what_comes_while_others_are_handled_waits_and_somebody_knows_of_it():
    handled = []

    def handle(item):
        handled.append(item)
        if item == "early":
            holder.append("late")

    holder = Holder(handle)
    holder.append("early")
    holder.held.drain()
    assert (handled, list(holder.held.items), holder.held.is_told, holder.tells) == (
        ["early"],
        ["late"],
        True,
        2,
    )


def test_an_interrupted_thread_loses_the_item_in_its_hands_and_no_other():
    handled = []

    def handle(item):
        if item == 1:
            raise KeyboardInterrupt
        handled.append(item)

    holder = Holder(handle)
    holder.held.items.extend(range(3))
    with pytest.raises(KeyboardInterrupt):
        holder.held.drain()
    assert (list(holder.held.items), holder.held.is_told, holder.tells) == ([2], True, 1)
    holder.held.drain()
    assert handled == [0, 2]


def test_whoever_asks_while_another_thread_is_stopped_gets_the_rest():
    stopped, go_on = threading.Event(), threading.Event()
    handled = []

    def handle(item):
        if item == 0:
            stopped.set()
            go_on.wait(5)
        handled.append(item)

    holder = Holder(handle)
    holder.held.items.extend(range(3))
    thread = threading.Thread(target=holder.held.drain)
    thread.start()
    stopped.wait(5)
    holder.held.drain()
    assert handled == [1, 2]
    go_on.set()
    thread.join()
    assert handled == [1, 2, 0]


def test_threads_that_append_and_drain_at_once_have_each_item_handled_once():
    holder = Holder()

    def work(thread):
        for number in range(5_000):
            holder.append((thread, number))

    def ask():
        while not done.is_set():
            holder.held.drain()
            time.sleep(0)

    done = threading.Event()
    asking = threading.Thread(target=ask)
    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(4)]
    for thread in (asking, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    asking.join()
    assert not holder.held.items or holder.held.is_told
    holder.held.drain()
    assert sorted(holder.handled) == [(thread, number) for thread in range(4) for number in range(5_000)]


def test_a_forked_process_has_nothing_of_its_parents():
    holder = Holder()
    holder.append(1)
    holder.held.forget()
    holder.append(2)
    assert holder.tells == 2
    holder.held.drain()
    assert holder.handled == [2]
