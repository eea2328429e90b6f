"""What a span, a sample and a log record cost each program of the shipped pipeline.

    python -m benchmarks.pipeline_cost

Starts the real stack twice, on free ports and in a folder of its own: with Jaeger's Badger and with its
memory. It is given spans, collections of metrics and log records in steps, as Sightline sends them
(`pipeline_load.py`). Then come agents with one gateway and with two, in front of a sink, at three sampling
percentages. CPU is read from the process's clock, less what the program takes when idle, and divided by the
items of the step. The figure is the least of all steps, as others' load on the machine only ever adds; the
median shows how much. Takes less than 3 minutes.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks.pipeline_files import bytes_per_sample, disk_bytes
from benchmarks.pipeline_load import (
    INTERVAL_SECONDS,
    ITEMS_PER_POST,
    Processes,
    log_posts,
    points_per_process,
    post,
    series_per_process,
    span_posts,
)
from benchmarks.pipeline_programs import Program, Stack, Tiers, is_still, wait_until
from benchmarks.processes import require_linux

HEADER: Final = (
    "| program | item | items per step | µs of CPU per item | median | items/s per core | memory, MB "
    "| bytes on disk per item |"
)
STEPS: Final = 3
SPAN_POSTS: Final = 40
LOG_POSTS: Final = 60
TIER_POSTS: Final = 40
PROCESSES: Final = 5
COLLECTIONS: Final = 72
"""Of each step, 15 s apart: three steps are 54 minutes, and Prometheus takes samples up to an hour old."""

SPANS: Final = STEPS * SPAN_POSTS * ITEMS_PER_POST
RECORDS: Final = STEPS * LOG_POSTS * ITEMS_PER_POST
SERIES: Final = PROCESSES * series_per_process()
POINTS: Final = PROCESSES * points_per_process()
SAMPLES: Final = SERIES * (STEPS * COLLECTIONS + 1)

_IDLE_SECONDS: Final = 3.0
_DECISION_SECONDS: Final = 6.0
"""A gateway decides 5 s after a root has come; then it sends."""

_PACE_SECONDS: Final = 0.005


@dataclass
class Row:
    """One line of the table.

    Attributes:
        program: And what it is at the time.
        item: What is counted.
        items: Of one step.
        costs: CPU seconds per item, one of each step.
        memory_mb: The most seen.
        disk_bytes: Of one item; none where nothing stays.
    """

    program: str
    item: str
    items: float
    costs: list[float] = field(default_factory=list)
    memory_mb: float = 0.0
    disk_bytes: float | None = None

    def line(self) -> str:
        """Returns it in Markdown."""
        least, median = round(min(self.costs) * 1e6, 2), statistics.median(self.costs) * 1e6
        disk = "" if self.disk_bytes is None else f"{self.disk_bytes:.1f}"
        return (
            f"| {self.program} | {self.item} | {self.items:,.0f} | {least:.2f} | {median:.2f} "
            f"| {1e6 / max(least, 0.01):,.0f} | {self.memory_mb:.0f} | {disk} |"
        )


class Table:
    """Rows by program and item; what comes again is one more step of the same row."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], Row] = {}

    def add(self, program: str, item: str, items: float, cpu: float, memory_mb: float) -> None:
        """Adds what one step has cost."""
        row = self._rows.setdefault((program, item), Row(program, item, items))
        row.costs.append(max(cpu, 0.0) / items)
        row.memory_mb = max(row.memory_mb, memory_mb)

    def set_disk(self, program: str, item: str, bytes_per_item: float) -> None:
        """Notes what an item takes on the disk."""
        self._rows[program, item].disk_bytes = bytes_per_item

    def text(self) -> str:
        """Returns all of it in Markdown."""
        return "\n".join([HEADER, "|" + "---|" * (HEADER.count("|") - 1), *self.lines()])

    def lines(self) -> list[str]:
        """Returns its rows in Markdown."""
        return [row.line() for row in self._rows.values()]


def main() -> int:
    """Measures and prints the table."""
    require_linux()
    table, notes = Table(), list[str]()
    with tempfile.TemporaryDirectory() as folder:
        try:
            for number, jaeger in enumerate(("jaeger.yaml", "jaeger-memory.yaml")):
                with Stack.started(Path(folder) / str(number), jaeger) as stack:
                    notes += measure_stack(stack, jaeger, table)
            for gateways, sampled in ((1, "10"), (1, "1"), (1, "100"), (2, "10")):
                place = Path(folder) / f"tiers-{gateways}-{sampled}"
                place.mkdir()
                with Tiers.started(place, gateways, sampled) as tiers:
                    notes.append(measure_tiers(tiers, sampled, table))
        except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
            sys.exit(f"pipeline_cost failed: {error}")
    print(table.text(), *notes, sep="\n\n")
    return 0


def measure_stack(stack: Stack, jaeger: str, table: Table) -> list[str]:
    """Adds the steps of the signals; returns sentences about memory and size. Metrics with Badger only."""
    _note_idle(list(stack.programs.values()))
    if jaeger == "jaeger-memory.yaml":
        return [_measure_spans(stack, "Jaeger, memory", table)]
    notes = [_measure_series(stack, table)]
    _measure_spans(stack, "Jaeger, Badger", table)
    _measure_records(stack, table)
    stack.end()  # Badger and Prometheus write what they hold
    table.set_disk("Jaeger, Badger", "span", disk_bytes(stack.data("jaeger")) / SPANS)
    table.set_disk("Loki", "log record", disk_bytes(stack.data("loki") / "chunks") / RECORDS)
    table.set_disk("Prometheus", "sample", bytes_per_sample(stack.data("prometheus") / "chunks_head"))
    written = disk_bytes(stack.data("prometheus") / "wal") / SAMPLES
    return [*notes, f"Prometheus' write-ahead log: {written:.1f} bytes per sample, for two to three hours."]


def _note_idle(programs: Sequence[Program]) -> None:
    before = [program.cpu() for program in programs]
    time.sleep(_IDLE_SECONDS)
    for program, taken in zip(programs, before, strict=True):
        program.idle = (program.cpu() - taken) / _IDLE_SECONDS


def _costs(programs: Sequence[Program], work: Callable[[], None]) -> list[float]:
    """Returns the CPU seconds that some work takes of each program, less what it takes anyway."""
    before, start = [program.cpu() for program in programs], time.monotonic()
    work()
    elapsed = time.monotonic() - start
    return [
        program.cpu() - taken - program.idle * elapsed
        for program, taken in zip(programs, before, strict=True)
    ]


def _measure_spans(stack: Stack, store: str, table: Table) -> str:
    collector, jaeger = stack.programs["otelcol"], stack.programs["jaeger"]
    items, memory = SPAN_POSTS * ITEMS_PER_POST, jaeger.resident_mb()
    for _ in range(STEPS):
        bodies = span_posts(SPAN_POSTS)
        costs = _costs([collector, jaeger], partial(_deliver, stack, "traces", "spans", bodies, items))
        table.add("collector, one node", "span", items, costs[0], collector.peak_mb())
        table.add(store, "span", items, costs[1], jaeger.peak_mb())
    return f"{store}: grew by {(jaeger.resident_mb() - memory) * 1e6 / SPANS:.0f} bytes resident per span."


def _measure_series(stack: Stack, table: Table) -> str:
    collector, prometheus = stack.programs["otelcol"], stack.programs["prometheus"]
    source = Processes(PROCESSES, time.time() - (STEPS * COLLECTIONS + 4) * INTERVAL_SECONDS)
    live, resident = prometheus.live_mb(), prometheus.resident_mb()
    _deliver(stack, "metrics", "metric_points", source.collections(1), POINTS)  # makes the series
    new = (prometheus.live_mb() - live) * 1e6 / SERIES
    for _ in range(STEPS):
        deliver = partial(_deliver, stack, "metrics", "metric_points", source.collections(COLLECTIONS))
        costs = _costs([collector, prometheus], partial(deliver, items=POINTS * COLLECTIONS))
        table.add("collector, one node", "sample", SERIES * COLLECTIONS, costs[0], collector.peak_mb())
        table.add("Prometheus", "sample", SERIES * COLLECTIONS, costs[1], prometheus.peak_mb())
    full = (prometheus.live_mb() - live) * 1e6 / SERIES
    (cost,) = _costs([prometheus], partial(time.sleep, INTERVAL_SECONDS))
    table.add("Prometheus, rules", "series and 15 s", SERIES, cost, prometheus.peak_mb())
    return (
        f"Prometheus: {SERIES:,} series of {PROCESSES} processes, {series_per_process():,} each; "
        f"{new:.0f} bytes of live memory per series when new, {full:.0f} with an hour of samples, "
        f"{(prometheus.resident_mb() - resident) * 1e6 / SERIES:.0f} bytes resident."
    )


def _measure_records(stack: Stack, table: Table) -> None:
    collector, loki = stack.programs["otelcol"], stack.programs["loki"]
    items = LOG_POSTS * ITEMS_PER_POST
    for _ in range(STEPS):
        bodies = log_posts(LOG_POSTS)
        costs = _costs([collector, loki], partial(_deliver, stack, "logs", "log_records", bodies, items))
        table.add("collector, one node", "log record", items, costs[0], collector.peak_mb())
        table.add("Loki", "log record", items, costs[1], loki.peak_mb())
    loki.flush()
    chunks = stack.data("loki") / "chunks"
    wait_until(lambda: is_still(lambda: disk_bytes(chunks)), "Loki does not write its chunks")


def _deliver(stack: Stack, signal: str, unit: str, bodies: Sequence[bytes], items: int) -> None:
    """Posts, and waits until the back end has acknowledged all of it to the collector."""
    collector = stack.programs["otelcol"]
    name = f"otelcol_exporter_sent_{unit}"
    before = collector.own(name)
    post(stack.otlp, signal, bodies, _PACE_SECONDS)
    wait_until(lambda: collector.own(name) >= before + items, f"{signal} have not arrived: {stack.state}")


def measure_tiers(tiers: Tiers, sampled: str, table: Table) -> str:
    """Adds the steps of agent and gateways; returns what was kept."""
    programs = [tiers.agent, *tiers.gateways]
    _note_idle(programs)
    items = TIER_POSTS * ITEMS_PER_POST
    of_agent = f"agent, {'one gateway' if len(tiers.gateways) == 1 else 'fixed gateways'}"
    of_gateway = f"gateway, keeps {sampled} %" + (" (two)" if len(tiers.gateways) > 1 else "")
    for _ in range(STEPS - 1):
        bodies = span_posts(TIER_POSTS)
        costs = _costs(programs, partial(_through, tiers, bodies, items))
        table.add(of_agent, "span", items, costs[0], tiers.agent.peak_mb())
        table.add(of_gateway, "span", items, sum(costs[1:]), max(each.peak_mb() for each in tiers.gateways))
    share = _sent(tiers) / (items * (STEPS - 1))
    return f"{of_gateway} of the uneventful: {share:.1%} of all spans were kept."


def _through(tiers: Tiers, bodies: Sequence[bytes], items: int) -> None:
    before = sum(each.own("otelcol_receiver_accepted_spans") for each in tiers.gateways)
    post(tiers.otlp, "traces", bodies, _PACE_SECONDS)
    wait_until(
        lambda: sum(each.own("otelcol_receiver_accepted_spans") for each in tiers.gateways) >= before + items,
        "spans have not arrived at the gateways",
    )
    time.sleep(_DECISION_SECONDS)
    wait_until(lambda: is_still(lambda: _sent(tiers)), "the gateways do not come to an end")


def _sent(tiers: Tiers) -> float:
    return sum(each.own("otelcol_exporter_sent_spans") for each in tiers.gateways)


if __name__ == "__main__":
    sys.exit(main())
