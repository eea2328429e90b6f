"""The page that a run writes: the tables of `docs/reference/cost.md`."""

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Final

from benchmarks.budgets import Budget, budgets
from benchmarks.cases import OURS, VARIANTS
from benchmarks.chart import Bar, chart
from benchmarks.environments import ENVIRONMENTS
from benchmarks.figures import Samples, added_us, cpu_ratio, p99_ratio, spread
from benchmarks.memory import Memory
from benchmarks.processors import Cost, bare_request, processor_remarks, processor_rows
from benchmarks.results import Results
from benchmarks.route_memory import ACTIVE, REGISTERED, RouteMemory
from benchmarks.scenarios import scenario_rows
from benchmarks.startup import StartUp
from tests.matrix.environments import ROOT

PAGE: Final = ROOT / "docs" / "reference" / "cost.md"
BEGIN: Final = "<!-- make bench writes from here -->"
END: Final = "<!-- to here -->"
_MISSING: Final = re.compile(r"\bnan\b")


def write(results: Results) -> None:
    """Writes the tables, and the chart beside them."""
    PAGE.write_text(with_results(PAGE.read_text(), page(results)))
    bars = [Bar(titled(case.name), cpu_ratio(results.samples, case.name), case is OURS) for case in VARIANTS]
    bars.sort(key=lambda bar: bar.ratio.median)
    PAGE.with_suffix(".svg").write_text(chart(bars, "CPU per request of each instrumentation"))


def page(results: Results) -> str:
    """Returns everything between the two markers, in Markdown."""
    judged = budgets(results.samples, results.start_up, results.memory, results.routes)
    parts = [
        _setting(results.setting),
        variants_table(results.samples),
        table(("what else", "without", "Sightline adds", "to compare"), scenario_rows(results.samples)),
        start_up_table(results.start_up),
        memory_table(results.memory),
        processors_table(results.processors),
        routes_table(results.routes),
        budgets_table(judged),
        _remarks(results.samples, results.processors),
    ]
    return "\n\n".join(part for part in parts if part)


def variants_table(samples: Samples) -> str:
    """Returns the table of all variants; one without a round that counts says so."""
    head = (
        "variant",
        "CPU per request, bare = 1",
        "added",
        "requests/s",
        "p50",
        "p99",
        "p99, bare = 1",
        "RSS",
    )
    return table(head, [_variant_row(samples, case.name) for case in VARIANTS if case.name in samples])


def _variant_row(samples: Samples, name: str) -> tuple[str, ...]:
    if all(sample.lost for sample in samples[name]):
        return (titled(name), "no round counted", *[""] * 6)
    return (
        titled(name),
        cpu_ratio(samples, name).text(2),
        f"{added_us(samples, name).median:.0f} µs",
        f"{spread(samples, name, lambda each: each.rate).median:,.0f}",
        f"{spread(samples, name, lambda each: each.p50_ms).median:.2f} ms",
        f"{spread(samples, name, lambda each: each.p99_ms).median:.2f} ms",
        f"{p99_ratio(samples, name).median:.2f}",
        f"{spread(samples, name, lambda each: each.rss_mb).median:.0f} MB",
    )


def titled(name: str) -> str:
    """Returns a variant's name with the version that was measured."""
    case = next(case for case in VARIANTS if case.name == name)
    return f"{name} {ENVIRONMENTS[case.environment].pins[case.package]}" if case.package else name


def start_up_table(start_up: Sequence[StartUp]) -> str:
    """Returns the table of start-up times; empty where none were measured."""
    rows = [
        (
            each.name,
            f"{statistics.median(each.import_seconds):.2f} s",
            f"{statistics.median(each.answer_seconds):.2f} s",
        )
        for each in start_up
    ]
    head = ("start-up", "`python -c 'import fastapi'`, to its end", "uvicorn, to its first answer")
    return table(head, rows)


def memory_table(memory: Sequence[Memory]) -> str:
    """Returns the table of memory over many requests; empty where it was not measured."""
    rows = [
        (each.name, f"{each.requests:,}", f"{each.early_mb:.1f} MB", f"{each.end_mb:.1f} MB")
        for each in memory
    ]
    head = (
        "memory (RSS)",
        "requests, each with its own URL, Host and correlation ID",
        "after 20 %",
        "at the end",
    )
    return table(head, rows)


def processors_table(costs: Sequence[Cost]) -> str:
    """Returns the table of the processors' own costs; empty where they were not measured."""
    of_bare = f"of a bare request's {bare_request(costs).median:.0f} µs"
    head = ("processor, in one process", "for each", "CPU without", "adds", of_bare)
    return table(head, processor_rows(costs))


def routes_table(routes: RouteMemory | None) -> str:
    """Returns the table of the memory of many routes; empty where it was not measured."""
    if routes is None:
        return ""
    head = ("memory (RSS) of Sightline", "without SLA and reserved series", "with them")
    name = f"{REGISTERED:,} registered routes, {ACTIVE} of them active"
    return table(head, [(name, f"{routes.without_mb:.1f} MB", f"{routes.with_mb:.1f} MB")])


def budgets_table(judged: Sequence[Budget]) -> str:
    """Returns the table of budgets."""
    rows = [(each.name, each.limit, each.measured, "yes" if each.is_met else "**no**") for each in judged]
    return table(("budget", "at most", "measured", "met"), rows)


def _setting(setting: Mapping[str, str]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in setting.items())


def _remarks(samples: Samples, costs: Sequence[Cost]) -> str:
    late = [sample.late_p99_ms for rounds in samples.values() for sample in rounds if sample.late_p99_ms >= 0]
    lines = [
        f"- {name}, round {number}, does not count: {sample.lost.splitlines()[0]}"
        for name, rounds in samples.items()
        for number, sample in enumerate(rounds, 1)
        if sample.lost
    ]
    lines += processor_remarks(costs)
    whole = spread(samples, OURS.name, lambda each: each.whole_ratio)
    if not math.isnan(whole.median):
        lines.append(f"- With no block left out Sightline takes {whole.text(2)} times what bare does.")
    if late:
        own = f"{statistics.median(late):.2f} ms (p99, median of {len(late)} rounds)"
        lines.append(f"- The client of the open loop was itself late by {own}; latencies include that.")
    return "\n".join(lines)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a table in Markdown, empty when it has no rows; a cell whose figure is missing says so."""
    if not rows:
        return ""
    cells = [["not measured" if _MISSING.search(cell) else cell for cell in row] for row in rows]
    lines = [head, ["---"] * len(head), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def with_results(text: str, written: str) -> str:
    """Returns a page with its results replaced.

    Raises:
        ValueError: When the page lacks its markers.
    """
    before, found, rest = text.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not (found and ended):
        raise ValueError(f"the page lacks its markers {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{written}\n\n{END}{after}"
