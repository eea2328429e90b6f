"""The same thing with and without one of Sightline's parts, measured in turn in one process.

A round takes a few blocks of either side in turn. The fastest block of each counts, as in `hot_path`: what
else the machine does only adds. What a part adds in a round is the difference of the two.
"""

import asyncio
import gc
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import inf

from benchmarks import in_process
from benchmarks.applications.bare import app
from benchmarks.processors import Cost

BARE_REQUESTS = 300
"""Requests to the bare application in each round: what shares are of."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One part, and how to run something with it and without.

    Attributes:
        without: Does the thing so many times, without the part.
        with_it: The same with the part.
        fault: Returns why the part has not done its work; empty when it has. Asked once, after the rounds.
        items: How often a block does the thing.
        blocks: Blocks of each side in a round.
        settle: Runs before each block, outside of the clock.
        clock: CPU time in seconds: of this thread, or of the process where other threads work as well.
        close: Run once, at the end.
    """

    without: Callable[[int], object]
    with_it: Callable[[int], object]
    fault: Callable[[], str]
    items: int = 500
    blocks: int = 4
    settle: Callable[[], object] = gc.collect
    clock: Callable[[], float] = time.thread_time
    close: Sequence[Callable[[], object]] = ()

    def round_us(self) -> tuple[float, float]:
        """Returns the CPU of the thing without the part and with it: the fastest blocks, in microseconds."""
        fastest = [inf, inf]
        for number in range(self.blocks):
            for side in (0, 1)[:: -1 if number % 2 else 1]:
                run = self.with_it if side else self.without
                self.settle()
                started = self.clock()
                run(self.items)
                fastest[side] = min(fastest[side], self.clock() - started)
        without, with_it = (seconds / self.items * 1e6 for seconds in fastest)
        return without, with_it


@dataclass(frozen=True)
class Part:
    """Names a comparison that is still to be made.

    Attributes:
        name: What the table calls it.
        per: What the thing is that is done.
        make: Makes the objects.
    """

    name: str
    per: str
    make: Callable[[], Comparison]


def costs(
    parts: Sequence[Part], rounds: int, changed: Callable[[Comparison], Comparison] = lambda each: each
) -> list[Cost]:
    """Measures all parts in turn, so many times; each round begins one part later than the last.

    A part that cannot be made, raises or has done nothing has its reason in `Cost.lost`.

    Args:
        parts: What is measured.
        rounds: How often.
        changed: Returns another comparison in place of one, such as one with shorter blocks.
    """
    found = [Cost(part.name, part.per) for part in parts]
    with ExitStack() as stack:
        made = dict(_made(parts, found, changed, stack))
        for number in range(rounds):
            bare_us = bare_request_us()
            for cost in _rotated(found, number):
                if not cost.lost:
                    _measure(cost, made[cost.name], bare_us)
        for cost in found:
            cost.lost = cost.lost or _attempt(made[cost.name].fault)
    return found


def bare_request_us(blocks: int = 3) -> float:
    """Returns the CPU of a request to the bare application in this process: its fastest block."""
    target = in_process.Target(app)
    with asyncio.Runner() as runner:
        runner.run(in_process.serve(target, 20))
        found = [runner.run(in_process.cpu_seconds(target, BARE_REQUESTS)) for _ in range(blocks)]
    return min(block["thread"] for block in found) / BARE_REQUESTS * 1e6


def _made(
    parts: Sequence[Part],
    found: Sequence[Cost],
    changed: Callable[[Comparison], Comparison],
    stack: ExitStack,
) -> Iterable[tuple[str, Comparison]]:
    for part, cost in zip(parts, found, strict=True):
        try:
            comparison = changed(part.make())
            for close in comparison.close:
                stack.callback(close)
            for run in (comparison.without, comparison.with_it):
                run(1)
        except Exception as error:  # noqa: BLE001  what is to be measured may be missing: that is its result
            cost.lost = f"{type(error).__name__}: {error}"
        else:
            yield part.name, comparison


def _rotated(found: Sequence[Cost], number: int) -> Sequence[Cost]:
    first = number % max(len(found), 1)
    return (*found[first:], *found[:first])


def _measure(cost: Cost, comparison: Comparison, bare_us: float) -> None:
    try:
        without, with_it = comparison.round_us()
    except Exception as error:  # noqa: BLE001  the other parts are measured all the same
        cost.lost = f"{type(error).__name__}: {error}"
        return
    cost.without_us.append(without)
    cost.with_us.append(with_it)
    cost.bare_us.append(bare_us)


def _attempt(fault: Callable[[], str]) -> str:
    try:
        return fault()
    except Exception as error:  # noqa: BLE001  as above
        return f"{type(error).__name__}: {error}"
