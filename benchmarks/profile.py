"""Where the microseconds of a captured request go, in one process: the figures of docs/explanation/cost.md.

First with parts switched off by the standard variables: what the capture adds to the CPU time of a request,
in the thread of the request and in all threads. Then by sampling that thread (`sampling.py`): shares by
package, and the functions of Sightline and OpenTelemetry that take most of it.

    python -m benchmarks.profile
"""

import argparse
import math
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

from benchmarks.processes import require_linux
from benchmarks.report import table
from benchmarks.sampling import package_of
from benchmarks.servers import ServerError
from benchmarks.workers import Pair, bare_and_captured

SWITCHES: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        "everything on": {},
        "no metrics": {"OTEL_METRICS_EXPORTER": "none"},
        "no logs": {"OTEL_LOGS_EXPORTER": "none"},
        "sampled at 0 %": {"OTEL_TRACES_SAMPLER": "always_off"},
        "spans recorded, not exported": {"OTEL_TRACES_EXPORTER": "none"},
        "sampled at 0 %, no metrics, no logs": {
            "OTEL_TRACES_SAMPLER": "always_off",
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "none",
        },
    }
)
BLOCKS: Final = 15
BLOCK_REQUESTS: Final = 400
SAMPLED_REQUESTS: Final = 40_000
OURS: Final = ("sightline", "sightline_processors", "opentelemetry")


def fastest_us(pair: Pair) -> dict[str, tuple[float, float]]:
    """Returns the CPU of a request in microseconds, bare and captured, of its thread and of all threads.

    Blocks are taken in turn; the fastest of each worker counts.
    """
    fastest = {"thread": (math.inf, math.inf), "process": (math.inf, math.inf)}
    for _ in range(BLOCKS):
        blocks = [worker.ask("cpu", BLOCK_REQUESTS) for worker in (pair.bare, pair.captured)]
        for part, (bare, captured) in fastest.items():
            fastest[part] = min(bare, blocks[0][part]), min(captured, blocks[1][part])
    scale = 1e6 / BLOCK_REQUESTS
    return {part: (bare * scale, captured * scale) for part, (bare, captured) in fastest.items()}


def switched_off() -> Iterator[tuple[str, str, str]]:
    """Yields the rows of the first table."""
    for name, variables in SWITCHES.items():
        with bare_and_captured(**variables) as pair:
            fastest = fastest_us(pair)
        added = [f"{captured - bare:+.1f} µs of {captured:.0f}" for bare, captured in fastest.values()]
        yield name, added[0], added[1]


def sampled(pair: Pair, functions: int) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """Returns the rows of packages and those of functions, in microseconds of a request."""
    thread_us = fastest_us(pair)["thread"][1]
    samples = Counter[str](pair.captured.ask("samples", SAMPLED_REQUESTS))
    one_us = thread_us / max(samples.total(), 1)
    packages: Counter[str] = Counter()
    for name, count in samples.items():
        packages[package_of(name)] += count
    ours = Counter({name: count for name, count in samples.items() if package_of(name) in OURS})
    return (
        [(name, f"{count * one_us:.1f} µs") for name, count in packages.most_common()],
        [(f"`{name}`", f"{count * one_us:.1f} µs") for name, count in ours.most_common(functions)],
    )


def main() -> int:
    """Prints the three tables; returns the exit code."""
    require_linux()
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.profile",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--functions", type=int, default=25, help="how many functions to print (default 25)")
    options = parser.parse_args()
    try:
        print(table(("capture", "adds in the request's thread", "adds in all threads"), list(switched_off())))
        with bare_and_captured() as pair:
            packages, functions = sampled(pair, options.functions)
    except ServerError as error:
        sys.exit(f"the profile failed: {error}")
    print("", table(("package", "of a captured request"), packages), sep="\n")
    print("", table(("function", "itself and the standard library"), functions), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
