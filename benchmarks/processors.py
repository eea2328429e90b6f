"""What each processor costs by itself: rows that a process of its own measures (`compared_processors`)."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.figures import Spread, share
from benchmarks.processes import cores
from benchmarks.servers import ServerError
from tests.matrix.environments import ROOT

LIMIT_SECONDS: Final = 900.0
SECOND: Final = "second"
"""What a row is of that no request causes: its share is one of a core."""


@dataclass(slots=True)
class Cost:
    """What a part has cost in each round, in microseconds.

    Attributes:
        name: The part, and the thing that was done.
        per: What one of these things is.
        without_us: CPU of the thing without the part.
        with_us: CPU of the thing with it.
        bare_us: CPU of a bare request in the same process, in the same round.
        lost: Why the figures do not count; empty when they do.
    """

    name: str
    per: str
    without_us: list[float] = field(default_factory=list)
    with_us: list[float] = field(default_factory=list)
    bare_us: list[float] = field(default_factory=list)
    lost: str = ""


def measure_processors(rounds: int) -> list[Cost]:
    """Measures every processor, each with and without in turn, so many rounds, on the server's core.

    Raises:
        ServerError: When the process fails that does it, or takes `LIMIT_SECONDS`.
    """
    programs = Path(sys.executable).parent
    with subprocess.Popen(
        [programs / "python", "-m", "benchmarks.compared_processors", str(rounds)],
        cwd=ROOT,
        env={"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "PYTHONHASHSEED": "0"},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        os.sched_setaffinity(process.pid, cores()[0])
        try:
            output, _ = process.communicate(timeout=LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            raise ServerError(f"the processors were not measured within {LIMIT_SECONDS:.0f} s") from None
    if process.returncode:
        raise ServerError(f"the processors were not measured: status {process.returncode}")
    return [Cost(**each) for each in json.loads(output)]


def added_by(cost: Cost) -> Spread:
    """Returns what a part adds, in microseconds; without a number where no round counts."""
    if cost.lost:
        return Spread.of(())
    pairs = zip(cost.with_us, cost.without_us, strict=True)
    return Spread.of(with_us - without_us for with_us, without_us in pairs)


def bare_request(costs: Sequence[Cost]) -> Spread:
    """Returns the CPU of a bare request in the process that has measured, in microseconds."""
    return Spread.of(each for cost in costs for each in cost.bare_us)


def processor_rows(costs: Sequence[Cost]) -> list[tuple[str, ...]]:
    """Returns the rows of the table; one that has lost its figures says so, and `processor_remarks` why."""
    bare = bare_request(costs).median
    return [(cost.name, cost.per, *_figures(cost, bare)) for cost in costs]


def _figures(cost: Cost, bare_us: float) -> tuple[str, str, str]:
    added = added_by(cost)
    if cost.lost:
        return "no round counted", "", ""
    of_core = cost.per == SECOND
    part = f"{share(added.median, 1e6):.2%} of a core" if of_core else f"{share(added.median, bare_us):.1%}"
    return f"{Spread.of(cost.without_us).median:.2f} µs", f"{added.text(2)} µs", part


def processor_remarks(costs: Sequence[Cost]) -> list[str]:
    """Returns a line for each row that does not count."""
    return [f"- {cost.name}: does not count: {cost.lost.splitlines()[0]}" for cost in costs if cost.lost]
