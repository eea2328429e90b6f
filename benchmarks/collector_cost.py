"""What a span costs the shipped collector, beside the example of its documentation.

    python -m benchmarks.collector_cost [--small] [--parts] [--full-queue]

Every configuration runs as a process of its own, all at once. Each round posts requests of 512 spans, as
Sightline sends them, to one after the other, and waits until the sink has counted every span. Compare within
one run: a busy machine makes all of them dearer. The figure is the least of the rounds, as others' load only
ever adds; `x` is the ratio of the medians to that of the example without gzip.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml
from benchmarks.collector_load import SPANS_PER_POST, Load
from benchmarks.collector_process import BACKENDS, Collector, Sink
from benchmarks.processes import cpu_seconds, require_linux

ROOT: Final = Path(__file__).resolve().parents[1]
PROFILE: Final = ROOT / "collector-config" / "otelcol.yaml"
PLAIN: Final = ROOT / "benchmarks" / "collector_plain.yaml"

RUNTIME: Final = {"GOMEMLIMIT": "240MiB", "GOGC": "400"}
"""What stack.py and compose.yaml start the profile with; a test compares."""

Configuration = dict[str, Any]


@dataclass
class Case:
    """One configuration under test.

    Attributes:
        name: In the table.
        file: What the collector is started with.
        variables: Of its Go runtime.
        costs: CPU seconds per span of each round.
    """

    name: str
    file: Path
    variables: Mapping[str, str]
    costs: list[float] = field(default_factory=list)


def main() -> int:
    """Measures and prints the tables; returns 1 where spans were lost."""
    require_linux()
    options = _options(sys.argv[1:])
    with tempfile.TemporaryDirectory() as folder:
        try:
            load = Load(small=options.small)
            if options.full_queue:
                print(full_queue(Path(folder), load))
            else:
                cases = _cases(Path(folder), options.also, parts=options.parts)
                print(table(measure(cases, Path(folder), load, options.rounds, options.posts)))
        except (RuntimeError, OSError) as error:
            sys.exit(f"collector_cost failed: {error}")
    return 0


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.collector_cost",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=10, help="of each configuration (10)")
    parser.add_argument("--posts", type=int, default=100, help="of 512 spans, in each round (100)")
    parser.add_argument("--small", action="store_true", help="spans of three attributes")
    parser.add_argument("--parts", action="store_true", help="also the profile without each of its parts")
    parser.add_argument("--also", type=Path, action="append", default=[], help="a configuration of your own")
    parser.add_argument(
        "--full-queue", action="store_true", help="instead: memory when nothing can be sent on"
    )
    return parser.parse_args(arguments)


def _cases(folder: Path, more: Sequence[Path], *, parts: bool) -> list[Case]:
    plain = yaml.safe_load(PLAIN.read_text())
    plain["exporters"]["otlp_grpc"]["compression"] = "none"
    cases = [
        Case("plain example: otlp, batch, otlp with gzip", PLAIN, {}),
        Case("plain example without gzip", _written(folder / "plain.yaml", plain), {}),
        Case("shipped profile", PROFILE, RUNTIME),
    ]
    if parts:
        cases.append(Case("shipped profile without GOGC and GOMEMLIMIT", PROFILE, {}))
        for number, (name, changed) in enumerate(_without_parts().items()):
            cases.append(Case(name, _written(folder / f"part-{number}.yaml", changed), RUNTIME))
    return [*cases, *(Case(file.name, file.resolve(), RUNTIME) for file in more)]


def _without_parts() -> dict[str, Configuration]:
    """Returns the profile without redaction, then also without connectors, and so on down to a queue."""
    found = {}
    profile = yaml.safe_load(PROFILE.read_text())
    traces, of_spans = (profile["service"]["pipelines"][name] for name in ("traces", "metrics/of_spans"))
    traces["processors"] = ["memory_limiter", "transform/of_spans"]
    found["- redaction"] = _copy(profile)
    traces["processors"] = ["memory_limiter"]
    found["- transform/of_spans"] = _copy(profile)
    for connector in ("service_graph", "span_metrics"):
        traces["exporters"].remove(connector)
        of_spans["receivers"].remove(connector)
        del profile["connectors"][connector]
        if not of_spans["receivers"]:
            del profile["service"]["pipelines"]["metrics/of_spans"]
        found[f"- {connector}"] = _copy(profile)
    del profile["exporters"]["otlp_grpc/jaeger"]["sending_queue"]["storage"]
    found["- queue on disk (in memory instead)"] = _copy(profile)
    return found


def _copy(configuration: Configuration) -> Configuration:
    """Returns a copy that shares nothing, not even within itself (anchors of YAML do)."""
    text = yaml.safe_dump(configuration)
    copied: Configuration = yaml.safe_load(text)
    return copied


def _written(file: Path, configuration: Configuration) -> Path:
    file.write_text(yaml.safe_dump(configuration))
    return file


@contextmanager
def _running(case: Case, folder: Path, places: ExitStack) -> Iterator[Collector]:
    sink = places.enter_context(Sink.started())
    yield places.enter_context(Collector.started(case.file, case.variables, folder, sink))


def measure(cases: list[Case], folder: Path, load: Load, rounds: int, posts: int) -> list[tuple[Case, float]]:
    """Returns the cases with their costs, and what memory each collector held at its most, in MB.

    Raises:
        RuntimeError: When a span does not arrive at the sink, or a collector does not start.
    """
    print(f"{load.bytes_per_span:.0f} bytes per span, {SPANS_PER_POST} spans per post", flush=True)
    with ExitStack() as places:
        running = []
        for number, case in enumerate(cases):
            place = folder / str(number)
            place.mkdir()
            running.append((case, places.enter_context(_running(case, place, places))))
        for _, collector in running:
            _cost(collector, load, posts // 4)  # caches, connections, the heap's first growth
        for _ in range(rounds):
            for case, collector in running:
                case.costs.append(_cost(collector, load, posts))
        return [(case, collector.peak_mb()) for case, collector in running]


def _cost(collector: Collector, load: Load, posts: int) -> float:
    before, spans = cpu_seconds(collector.pid), collector.sink.spans()
    load.send(collector.otlp_http, posts)
    collector.sink.wait_for(spans + posts * SPANS_PER_POST)
    return (cpu_seconds(collector.pid) - before) / (posts * SPANS_PER_POST)


def table(results: Sequence[tuple[Case, float]]) -> str:
    """Returns the table in Markdown; the ratio is to the second case."""
    base = statistics.median(results[1][0].costs)
    rows = [
        "| configuration | µs of CPU per span | median | x | spans/s per core | peak memory, MB |",
        "|---|---|---|---|---|---|",
    ]
    for case, peak in results:
        least, median = min(case.costs), statistics.median(case.costs)
        figures = (
            f"{least * 1e6:.1f} | {median * 1e6:.1f} | {median / base:.1f} | {1 / least:,.0f} | {peak:.0f}"
        )
        rows.append(f"| {case.name} | {figures} |")
    return "\n".join(rows)


def full_queue(folder: Path, load: Load) -> str:
    """Returns the memory of the profile while its queue of spans is full and its back end away."""
    with Sink.started() as sink:
        sink.stop()
        with Collector.started(PROFILE, RUNTIME, folder, sink) as collector:
            posts = load.fill(collector.otlp_http)
            return (
                f"full after {posts * SPANS_PER_POST:,} spans, {posts * load.bytes_per_post / 1e6:.0f} MB: "
                f"{collector.resident_mb():.0f} MB resident, {collector.peak_mb():.0f} MB at most, "
                f"{collector.anonymous_mb():.0f} MB of it not file pages"
            )


if __name__ == "__main__":
    if not BACKENDS.exists():
        sys.exit("collector_cost needs collector-config/native/backends.py")
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as error:
        sys.exit(error.stderr.strip() or str(error))
