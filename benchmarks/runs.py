"""A run: the cases that were chosen, round by round, then start-up and memory."""

import datetime as dt
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from benchmarks.cases import BARE, CASES, Case, Kind
from benchmarks.environments import ENVIRONMENTS, programs
from benchmarks.load import CONNECTIONS
from benchmarks.memory import measure_memory
from benchmarks.processes import cores
from benchmarks.processors import measure_processors
from benchmarks.results import Results
from benchmarks.rounds import BLOCKS, OPEN_RATE, Plan, Sample, run_round
from benchmarks.route_memory import measure_route_memory
from benchmarks.servers import Laboratory, Receiver
from benchmarks.startup import measure_start_up

START_UP: Final = "start-up"
MEMORY: Final = "memory"
PROCESSORS: Final = "processors"
PARTS: Final = (Kind.VARIANT.value, Kind.SCENARIO.value, START_UP, MEMORY, PROCESSORS)
PROCESSOR_ROUNDS: Final = 2
"""Rounds of the processors for each of the cases: theirs are short."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What a run measures, and how much of it.

    Attributes:
        only: Parts (`PARTS`) and parts of cases' names; everything when empty.
        rounds: Rounds of each case.
        plan: The length of a round.
        repetitions: Starts of each command.
        memory_requests: Distinct requests for the memory.
    """

    only: tuple[str, ...]
    rounds: int
    plan: Plan
    repetitions: int
    memory_requests: int

    def has(self, part: str) -> bool:
        """Tells whether a part was chosen."""
        return not self.only or part in self.only

    def cases(self) -> list[Case]:
        """Returns the cases that were chosen."""
        names = [name.lower() for name in self.only if name not in PARTS]
        return [
            case
            for case in CASES
            if self.has(case.kind.value) or any(name in case.name.lower() for name in names)
        ]

    def unknown(self) -> list[str]:
        """Returns the names that fit nothing."""
        return [
            name
            for name in self.only
            if name not in PARTS and not any(name.lower() in case.name.lower() for case in CASES)
        ]


def measure(laboratory: Laboratory, selection: Selection) -> Results:
    """Runs what was chosen; environments that are missing are created first."""
    cases = selection.cases()
    for environment in sorted({each.environment for case in cases for each in (case, case.base) if each}):
        _tell(f"environment {environment}")
        laboratory.programs(environment)
    samples = run_rounds(laboratory, cases, selection.plan, selection.rounds)
    start_up, memory = [], []
    if selection.has(START_UP):
        _tell("start-up")
        start_up = measure_start_up(laboratory, selection.repetitions)
    if selection.has(MEMORY):
        _tell("memory")
        memory = measure_memory(laboratory, selection.memory_requests)
    processors, routes = [], None
    if selection.has(PROCESSORS):
        _tell("processors")
        processors = measure_processors(PROCESSOR_ROUNDS * selection.rounds)
        routes = measure_route_memory(laboratory)
    return Results(samples, start_up, memory, setting(selection), processors, routes)


def run_rounds(
    laboratory: Laboratory, cases: Sequence[Case], plan: Plan, rounds: int
) -> dict[str, list[Sample]]:
    """Runs all cases in turn, so many times; each round begins one case later than the last."""
    samples: dict[str, list[Sample]] = {case.name: [] for case in cases}
    for number in range(rounds):
        first = number % max(len(cases), 1)
        for case in (*cases[first:], *cases[:first]):
            for sample in _samples(laboratory, case, plan):
                samples[case.name].append(sample)
                outcome = f"did not count: {sample.lost}" if sample.lost else f"{sample.cpu_us:.0f} µs"
                _tell(f"round {number + 1} of {rounds}  {case.name}: {outcome}")
    return samples


def _samples(laboratory: Laboratory, case: Case, plan: Plan) -> Iterator[Sample]:
    """Yields what a round measures of a case: one sample, or one for each of its pairs."""
    if case.kind is not Kind.VARIANT:
        plan = replace(plan, open_requests=0)
    if case.pairs > 1:
        plan = replace(plan, requests=max(plan.requests // 2, BLOCKS))
    for _ in range(case.pairs):
        yield run_round(laboratory, case, plan)


def setting(selection: Selection) -> dict[str, str]:
    """Returns how and where a run was made; nothing of it names the machine."""
    pins = ENVIRONMENTS[BARE.environment].pins
    plan = selection.plan
    served, others = cores()
    apart = (
        "server and client on different cores" if served != others else "**server and client on one core**"
    )
    return {
        "Command": "`make bench`",
        "Date": dt.datetime.now(dt.UTC).date().isoformat(),
        "Machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}; {apart}",
        "Software": (
            f"Python {platform.python_version()}, FastAPI {pins['fastapi']}, Starlette {pins['starlette']}, "
            f"uvicorn {pins['uvicorn']} with uvloop and httptools, one process"
        ),
        "Load": (
            f"{plan.requests:,} requests over {CONNECTIONS} connections by {plan.client}, in turn with the "
            f"bare server; for p50 and p99 {plan.open_requests:,} at fixed times, {OPEN_RATE:,} a second"
        ),
        "Figures": f"medians of {selection.rounds} interleaved rounds, ranges in brackets",
    }


@contextmanager
def laboratory() -> Iterator[Laboratory]:
    """Runs the receivers, and holds what a session makes; this process keeps off the server's core.

    Raises:
        RuntimeError: When an environment cannot be created.
    """
    os.sched_setaffinity(0, cores()[1])
    with tempfile.TemporaryDirectory(prefix="sightline-bench-") as made:
        folder = Path(made)
        with Receiver(_certificates(folder)) as first, Receiver() as second:
            yield Laboratory((first, second), folder)


def _certificates(folder: Path) -> Path:
    """Makes a certificate for localhost, since one agent speaks nothing but TLS; returns its folder."""
    certificates = folder / "certificates"
    certificates.mkdir()
    python = programs("newrelic", folder) / "python"
    options = ("--quiet", "--dir", str(certificates), "--identities", "localhost")
    subprocess.run([str(python), "-m", "trustme", *options], check=True)
    return certificates


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
