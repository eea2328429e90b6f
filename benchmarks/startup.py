"""What instrumentation adds to the start of a process, against the stock `opentelemetry-instrument`."""

import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.cases import BARE, CONTRIB, OURS, Case
from benchmarks.servers import START_SECONDS, Laboratory, ServerError, running

COMPARED: Final = (BARE, CONTRIB, OURS)
IMPORT: Final = ("python", "-c", "import fastapi")


@dataclass(frozen=True, slots=True)
class StartUp:
    """Seconds to start, of each repetition.

    Attributes:
        name: The case's.
        import_seconds: Of a process that imports FastAPI and ends, its last export included.
        answer_seconds: Of a server, to its first answer.
    """

    name: str
    import_seconds: tuple[float, ...]
    answer_seconds: tuple[float, ...]


def added_seconds(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Returns the median of the differences within a repetition: what a machine drifts by falls out."""
    return statistics.median(one - other for one, other in zip(ours, theirs, strict=True))


def measure_start_up(laboratory: Laboratory, repetitions: int) -> list[StartUp]:
    """Starts each compared case so many times, interleaved; each repetition begins one case later."""
    imports: dict[str, list[float]] = {case.name: [] for case in COMPARED}
    answers: dict[str, list[float]] = {case.name: [] for case in COMPARED}
    for number in range(repetitions):
        first = number % len(COMPARED)
        for case in (*COMPARED[first:], *COMPARED[:first]):
            imports[case.name].append(_seconds_to_import(laboratory, case))
            with running(laboratory, case) as server:
                answers[case.name].append(server.seconds_to_answer)
    return [StartUp(case.name, tuple(imports[case.name]), tuple(answers[case.name])) for case in COMPARED]


def _seconds_to_import(laboratory: Laboratory, case: Case) -> float:
    with tempfile.TemporaryFile() as log:
        started = time.perf_counter()
        process = laboratory.spawn(case, (*case.command, *IMPORT), log)
        try:
            status = process.wait(START_SECONDS)
        finally:
            process.kill()
        seconds = time.perf_counter() - started
        if status:
            log.seek(0)
            raise ServerError(f"{case.name}: {log.read().decode(errors='replace')[-2000:]}")
    return seconds
