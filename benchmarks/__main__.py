"""`make bench`: what a request costs, as a ratio to the bare application, in one run.

Each case is a process of its own, on a core of its own. Rounds are interleaved, so that a machine whose speed
drifts slows all of them alike, and each ratio is to the bare application of the same round. A round in which
a request is missing at the receiver does not count, and says so. What each processor costs by itself is
measured in one process, without a server. A run of everything writes the tables and the chart of
docs/reference/cost.md.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.load import LoadError, has_wrk
from benchmarks.processes import require_linux
from benchmarks.report import page, write
from benchmarks.rounds import Plan
from benchmarks.runs import PARTS, Selection, laboratory, measure
from benchmarks.servers import ServerError


def main() -> int:
    """Measures what was asked for and prints its tables; returns the exit code."""
    require_linux()
    options = parse(sys.argv[1:])
    selection = selected(options)
    if unknown := selection.unknown():
        sys.exit(f"--only: nothing is called {', '.join(unknown)}; parts are {', '.join(PARTS)}")
    try:
        with laboratory() as place:
            results = measure(place, selection)
    except (RuntimeError, ServerError, LoadError, subprocess.CalledProcessError) as error:
        sys.exit(f"make bench failed: {error}")
    print(page(results))
    if options.json:
        options.json.write_text(results.as_json())
    if not (options.only or options.quick or options.no_write):
        write(results)
    return 1 if results.uncounted() else 0


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Returns the options of a run."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = f"any of {', '.join(PARTS)}, or a part of a case's name"
    parser.add_argument("--only", nargs="+", default=[], metavar="PART", help=parts)
    parser.add_argument("--rounds", default=5, help="rounds of each case (default 5)", type=int)
    parser.add_argument("--requests", default=12_000, help="requests at full load (default 12000)", type=int)
    parser.add_argument("--open-requests", default=4_000, help="at 1,000 a second (default 4000)", type=int)
    parser.add_argument("--repetitions", default=15, help="starts of each command (default 15)", type=int)
    parser.add_argument("--quick", action="store_true", help="3 rounds of 2,000 requests, less of the rest")
    parser.add_argument("--full", action="store_true", help="1,000,000 requests for the memory, not 50,000")
    parser.add_argument("--client", choices=("auto", "wrk", "asyncio"), default="auto", help="for full load")
    parser.add_argument("--json", type=Path, metavar="FILE", help="writes every sample")
    parser.add_argument("--no-write", action="store_true", help="leaves the documentation alone")
    return parser.parse_args(arguments)


def selected(options: argparse.Namespace) -> Selection:
    """Returns what the options ask for."""
    rounds, requests, paced = options.rounds, options.requests, options.open_requests
    memory_requests = 1_000_000 if options.full else 50_000
    if options.quick:
        rounds, requests, paced, memory_requests = 3, 2_000, 2_000, 10_000
    return Selection(
        only=tuple(options.only),
        rounds=rounds,
        plan=Plan(requests, paced, client(options.client)),
        repetitions=3 if options.quick else options.repetitions,
        memory_requests=memory_requests,
    )


def client(asked: str) -> str:
    """Returns the client for full load.

    Raises:
        SystemExit: When wrk was asked for and is not installed.
    """
    if asked == "wrk" and not has_wrk():
        sys.exit("wrk is not installed: install it (Debian: apt-get install wrk) or leave out --client wrk")
    return ("wrk" if has_wrk() else "asyncio") if asked == "auto" else asked


if __name__ == "__main__":
    sys.exit(main())
