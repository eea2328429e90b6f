"""What the capture adds to a request in one process, and whether that has grown: what CI compares.

Two counts are the same on every machine and at every load: the functions that a request calls, and the
instructions that the interpreter executes, those of the bare application taken off. The third figure is CPU
time: the fastest captured block of requests as a ratio to the fastest bare one, blocks taken in turn.

After a change that is meant to cost what it costs, `make bench-baseline` writes `baseline.toml` anew. The
counts are recorded with Python 3.11, the oldest that is supported; later ones need fewer.
"""

import argparse
import math
import statistics
import sys
import tomllib
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Final, Self

from benchmarks.workers import Pair, bare_and_captured

BASELINE: Final = Path(__file__).with_name("baseline.toml")
TOLERANCE: Final = 1.10
COUNTED_REQUESTS: Final = 256
BLOCK_REQUESTS: Final = 400
BLOCKS: Final = 10
ATTEMPTS: Final = 3


@dataclass(frozen=True, slots=True)
class HotPath:
    """What the capture of one request costs in this process.

    Attributes:
        calls_added: Functions called beyond those of the bare application.
        bytecodes_added: Instructions executed beyond those of the bare application.
        cpu_ratio: CPU time, the export included, bare = 1.
    """

    calls_added: float
    bytecodes_added: float
    cpu_ratio: float

    @classmethod
    def recorded(cls) -> Self:
        """Returns the baseline."""
        return cls(**tomllib.loads(BASELINE.read_text()))

    def as_toml(self) -> str:
        """Returns the text of a baseline."""
        lines = (f"{name} = {round(value, 2)}" for name, value in asdict(self).items())
        return "\n".join(("# Written by make bench-baseline.", *lines, ""))


def added(pair: Pair, what: str) -> float:
    """Returns the calls or the instructions that the capture adds to a request: the mean.

    Some requests in a hundred do work for the others: a median would not see it.
    """
    bare, captured = (worker.ask(what, COUNTED_REQUESTS) for worker in (pair.bare, pair.captured))
    return statistics.fmean(captured) - statistics.fmean(bare)


def cpu_ratio(pair: Pair) -> float:
    """Returns the CPU time of the fastest captured block, that of the fastest bare one being 1."""
    bare = captured = math.inf
    for _ in range(BLOCKS):
        bare = min(bare, pair.bare.ask("cpu", BLOCK_REQUESTS)["process"])
        captured = min(captured, pair.captured.ask("cpu", BLOCK_REQUESTS)["process"])
    return captured / bare


def measured(limit: float = 0.0) -> HotPath:
    """Measures; CPU time up to `ATTEMPTS` times while it is above a limit, for a busy machine adds to it."""
    # A reader that collects in between would take work off the thread that is counted.
    with bare_and_captured(OTEL_METRIC_EXPORT_INTERVAL="600000") as pair:
        calls, instructions = added(pair, "calls"), added(pair, "bytecodes")
        ratio = math.inf
        for _ in range(ATTEMPTS):
            ratio = min(ratio, cpu_ratio(pair))
            if ratio <= limit:
                break
        pair.check_exports()
    return HotPath(calls, instructions, ratio)


def regressions(found: HotPath, baseline: HotPath) -> list[str]:
    """Returns one line for each figure that has grown by more than a tenth."""
    return [
        f"{name} is {now:.2f}, the baseline is {before:.2f}: more than {TOLERANCE - 1:.0%} above it; "
        "if that is meant, run make bench-baseline and commit benchmarks/baseline.toml"
        for name in (field.name for field in fields(HotPath))
        if (now := getattr(found, name)) > (before := getattr(baseline, name)) * TOLERANCE
    ]


def main() -> int:
    """Prints the figures and compares or writes the baseline; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.hot_path",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--write", action="store_true", help="write the baseline instead of comparing with it"
    )
    if parser.parse_args().write:
        BASELINE.write_text(measured().as_toml())
        print(BASELINE.read_text(), end="")
        return 0
    baseline = HotPath.recorded()
    found = measured(baseline.cpu_ratio * TOLERANCE)
    print(found.as_toml(), end="")
    grown = regressions(found, baseline)
    print("\n".join(grown), file=sys.stderr)
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main())
