"""What the pipeline needs for a number of requests per second, from what its items cost.

    python -m benchmarks.pipeline_cost > costs.md
    python -m benchmarks.pipeline_sizing costs.md

It multiplies and does nothing else: no queries, no peaks, no copies for availability. `scaling.md` has the
table and says what comes on top.
"""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.pipeline_cost import HEADER
from benchmarks.pipeline_load import INTERVAL_SECONDS, SPANS_PER_TRACE, series_per_process

RATES: Final = (100, 1_000, 10_000, 100_000)
RECORDS_PER_REQUEST: Final = 2
REQUESTS_PER_PROCESS: Final = 250
"""A second, of one worker; each worker has its own series."""

EVENTFUL: Final = 0.01
"""Share of requests that fail or are slow: kept by every sampling."""

BUDGETS: Final = {100: 1.0, 1_000: 0.1, 10_000: 0.1, 100_000: 0.01}
"""What is kept of the others at a rate of requests."""

BYTES_PER_RECORD: Final = 242
"""Of OTLP, as `pipeline_load` makes them."""

RESIDENT_BYTES_PER_SERIES: Final = 8000
"""Of Prometheus, rounded, from the sentence below the table of costs."""

_DAY_SECONDS: Final = 86_400


@dataclass(frozen=True)
class Cost:
    """Of one item: seconds of CPU, and bytes on the disk."""

    cpu: float
    disk: float


Costs = Mapping[tuple[str, str], Cost]


def read_costs(text: str) -> Costs:
    """Returns the costs by program and item, from the table that pipeline_cost prints."""
    found = {}
    for line in text.partition(f"{HEADER}\n")[2].splitlines()[1:]:
        if not line.startswith("|"):
            break
        program, item, _, least, _, _, _, disk = (cell.strip() for cell in line.strip("|").split("|"))
        found[program, item] = Cost(float(least) / 1e6, float(disk or 0))
    return found


@dataclass(frozen=True)
class Load:
    """What so many requests per second are, per second."""

    requests: int

    @property
    def spans(self) -> float:
        """Made."""
        return float(self.requests * SPANS_PER_TRACE)

    @property
    def kept_share(self) -> float:
        """Of the spans."""
        return EVENTFUL + (1 - EVENTFUL) * BUDGETS[self.requests]

    @property
    def kept(self) -> float:
        """Spans that are stored."""
        return self.spans * self.kept_share

    @property
    def records(self) -> float:
        """Log records."""
        return float(self.requests * RECORDS_PER_REQUEST)

    @property
    def series(self) -> int:
        """Of all processes; not per second."""
        return math.ceil(self.requests / REQUESTS_PER_PROCESS) * series_per_process()

    @property
    def samples(self) -> float:
        """Of all series."""
        return self.series / INTERVAL_SECONDS


def sizing(costs: Costs) -> str:
    """Returns the table in Markdown."""
    loads = [Load(rate) for rate in RATES]
    lines: list[tuple[str, Callable[[Load], str]]] = [
        ("spans/s made", lambda load: f"{load.spans:,.0f}"),
        ("spans/s kept", lambda load: f"{load.kept:,.0f} ({load.kept_share:.3g})".replace("(1)", "(all)")),
        ("series", lambda load: f"{load.series:,}"),
        ("samples/s", lambda load: f"{load.samples:,.0f}"),
        ("log records/s", lambda load: f"{load.records:,.0f}"),
        ("traces, GB/day", lambda load: _daily(load.kept, costs["Jaeger, Badger", "span"])),
        ("metrics, GB/day", lambda load: _daily(load.samples, costs["Prometheus", "sample"])),
        ("logs received, GB/day", lambda load: _daily(load.records, Cost(0, BYTES_PER_RECORD))),
        ("logs on disk, GB/day", lambda load: _daily(load.records, costs["Loki", "log record"])),
        ("collector, one node, cores", lambda load: _cores(_one_node(load, costs))),
        ("or: all agents, cores", lambda load: _cores(_tier(load, "agent, one gateway", costs))),
        ("with all gateways, cores", lambda load: _cores(_tier(load, _gateway(load), costs))),
        ("Jaeger with Badger, cores", lambda load: _cores(load.kept * costs["Jaeger, Badger", "span"].cpu)),
        ("Prometheus, cores", lambda load: _cores(_prometheus(load, costs))),
        ("Prometheus, memory, GB", lambda load: f"{load.series * RESIDENT_BYTES_PER_SERIES / 1e9:.2g}"),
        ("Loki, cores, one copy", lambda load: _cores(load.records * costs["Loki", "log record"].cpu)),
    ]
    head = "| requests/s | " + " | ".join(f"{rate:,}" for rate in RATES) + " |"
    rows = [f"| {name} | {' | '.join(cell(load) for load in loads)} |" for name, cell in lines]
    return "\n".join([head, "|" + "---|" * (len(RATES) + 1), *rows])


def _daily(items: float, cost: Cost) -> str:
    gigabytes = items * cost.disk * _DAY_SECONDS / 1e9
    return f"{gigabytes:,.0f}" if gigabytes >= 10 else f"{gigabytes:.1g}"  # noqa: PLR2004  # two digits are enough


def _cores(cpu: float) -> str:
    return f"{cpu:,.1f}" if cpu >= 1 else f"{cpu:.1g}"


def _one_node(load: Load, costs: Costs) -> float:
    return load.spans * costs["collector, one node", "span"].cpu + _metrics_and_logs(load, costs)


def _tier(load: Load, tier: str, costs: Costs) -> float:
    return load.spans * costs[tier, "span"].cpu + _metrics_and_logs(load, costs)


def _gateway(load: Load) -> str:
    return f"gateway, keeps {BUDGETS[load.requests] * 100:.0f} %"


def _metrics_and_logs(load: Load, costs: Costs) -> float:
    samples = load.samples * costs["collector, one node", "sample"].cpu
    return samples + load.records * costs["collector, one node", "log record"].cpu


def _prometheus(load: Load, costs: Costs) -> float:
    rules = costs["Prometheus, rules", "series and 15 s"].cpu
    return load.samples * (costs["Prometheus", "sample"].cpu + rules)


def main(arguments: Sequence[str]) -> int:
    """Prints the table for the costs in a file."""
    if len(arguments) != 1:
        sys.exit("usage: python -m benchmarks.pipeline_sizing FILE")
    print(sizing(read_costs(Path(arguments[0]).read_text())))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
