"""Each processor has a row, its figures are differences, and what does nothing has no figure."""

import dataclasses
import json
import math

import pytest
from benchmarks import compared_measurements, compared_requests, compared_spans, comparisons
from benchmarks.budgets import ROUTES_MB, budgets
from benchmarks.compared_processors import PARTS
from benchmarks.comparisons import Comparison, Part, costs
from benchmarks.figures import Spread
from benchmarks.processors import SECOND, Cost, added_by, processor_remarks, processor_rows
from benchmarks.report import page
from benchmarks.results import Results
from benchmarks.route_memory import WITH, WITHOUT, RouteMemory

from sightline.logs import restore_logging
from sightline_processors.slo_sampling.sampler import SloSampler
from sightline_processors.tracing import restore_tracers

MEMORY_OF_ROUTES = "RSS of SLA and reserved series, 10,000 routes of which 200 are active"


def shortened(comparison):
    """Keeps what a comparison does, and leaves out most of how often."""
    is_timed = comparison.items == 1
    return comparison if is_timed else dataclasses.replace(comparison, items=comparison.items // 10, blocks=1)


@pytest.fixture(autouse=True)
def untouched_libraries():
    """What the comparisons wrap in this process is as before."""
    yield
    restore_logging()
    restore_tracers()


@pytest.fixture(scope="module")
def quick_run():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparisons, "BARE_REQUESTS", 20)
        patch.setattr(compared_requests, "SETTLE_SECONDS", 0.05)
        patch.setattr(compared_requests, "BLOCK_SECONDS", 0.25)
        yield costs(PARTS, 1, shortened)


def part(name):
    return next(each for each in PARTS if name in each.name)


def lost(name):
    (cost,) = costs([part(name)], 1, shortened)
    return cost.lost


def test_every_processor_has_a_row():
    assert [each.name for each in PARTS] == [
        "SLA: verdict and counting",
        "SLA: latency sketch",
        "limit on attribute sets, a set seen before",
        "limit on attribute sets, an overflowing set",
        "bounded span names (`CardinalitySpanProcessor`)",
        "redaction (`RedactionProcessor`)",
        "redaction of logs (`RedactionLogProcessor`)",
        "slow operations (`SlowOperationProcessor`)",
        "sampler `sightline_slo`, kept",
        "sampler `sightline_slo`, dropped",
        "saturation: the timer of an idle event loop",
        "saturation: its look-up",
        "saturation: queue time",
        "verdict on access records",
    ]


def test_every_row_has_figures_of_both_sides_and_of_a_bare_request(quick_run):
    assert [cost.name for cost in quick_run] == [each.name for each in PARTS]
    for cost in quick_run:
        assert not cost.lost
        assert min(cost.without_us[0], cost.with_us[0]) > 0
        assert 10 < cost.bare_us[0] < 20_000


def test_costs_are_the_same_after_a_way_through_json(quick_run):
    written = json.dumps([dataclasses.asdict(each) for each in quick_run])
    assert [Cost(**each) for each in json.loads(written)] == quick_run


class Idle:
    """Stands where a processor is expected, takes whatever it is asked for, and does nothing."""

    def __init__(self, *_, **__):
        self.counts = [0] * 4

    def rewrite(self, span):
        return span

    def add(self, *_):
        """Counts nothing."""

    def on_start(self, *_, **__):
        """Looks at nothing."""

    on_end = _on_ending = on_start

    def force_flush(self, *_):
        return True


def nothing(*_, **__):
    return None


@pytest.mark.parametrize(
    ("name", "module", "attribute", "stand_in", "reason"),
    [
        ("bounded", compared_spans, "CardinalitySpanProcessor", Idle, "identifier is still in the name"),
        ("(`RedactionProcessor", compared_spans, "RedactionProcessor", Idle, "password is still in an"),
        ("RedactionLogProcessor", compared_spans, "redact_logs_of", nothing, "password is still in an"),
        ("slow operations", compared_spans, "SlowOperationProcessor", Idle, "was not counted"),
        ("seen before", compared_measurements, "guard_instruments", nothing, "beyond the limit of 400"),
        ("overflowing", compared_measurements, "guard_instruments", nothing, "0 overflow sets"),
        ("idle event loop", compared_requests, "watch_loop", nothing, "no lag was measured"),
        ("look-up", compared_requests, "watch_loop", nothing, "was not watched"),
        ("queue time", compared_requests, "request_queue", nothing, "no queue time was recorded"),
        ("access records", compared_requests, "add_ids_to_records", nothing, "the verdicts on the records"),
        ("dropped", compared_requests, "KEEPS_NONE", 1e6, "has dropped nothing"),
        ("kept", compared_requests, "KEEPS_ALL", 0.0, "spans of"),
        ("dropped", compared_requests, "install_slo_sampling", nothing, "0 spans of"),
    ],
)
def test_a_processor_that_does_nothing_loses_its_row(monkeypatch, name, module, attribute, stand_in, reason):
    monkeypatch.setattr(module, attribute, stand_in)
    monkeypatch.setattr(compared_requests, "SETTLE_SECONDS", 0.01)
    monkeypatch.setattr(compared_requests, "BLOCK_SECONDS", 0.15)
    assert reason in lost(name)


@pytest.mark.parametrize(
    ("name", "reason"), [("verdict and counting", "requests were counted"), ("sketch", "no quantiles")]
)
def test_a_cell_that_counts_nothing_loses_its_row(monkeypatch, name, reason):
    monkeypatch.setattr("sightline_processors.sla.tracker.SlaTracker.count", nothing)
    assert reason in lost(name)


def test_a_sampler_without_its_exporter_loses_its_row(monkeypatch):
    monkeypatch.setattr(SloSampler, "begin", nothing)
    assert lost("kept")


@pytest.mark.parametrize("name", ["CardinalitySpanProcessor", "RedactionProcessor", "SlowOperationProcessor"])
def test_a_processor_that_is_missing_loses_its_row(monkeypatch, name):
    monkeypatch.delattr(compared_spans, name)
    assert lost(f"(`{name}").startswith("NameError")


def burning(steps):
    return lambda count: sum(range(count * steps))


def test_what_is_added_is_the_difference_of_the_fastest_blocks(monkeypatch):
    monkeypatch.setattr(comparisons, "BARE_REQUESTS", 20)
    more = Comparison(without=burning(1_000), with_it=burning(10_000), fault=str, items=10, settle=list)
    same = Comparison(without=burning(1_000), with_it=burning(1_000), fault=str, items=10, settle=list)
    more_cost, same_cost = costs([Part("more", "sum", lambda: more), Part("same", "sum", lambda: same)], 3)
    assert added_by(more_cost).low > 3 * Spread.of(more_cost.without_us).median
    assert abs(added_by(same_cost).median) < added_by(more_cost).median / 3


COSTS = [
    Cost("one", "request", [10.0, 10.0, 10.0], [12.0, 15.0, 11.0], [100.0, 100.0, 100.0]),
    Cost("two", SECOND, [0.0], [500.0], [100.0]),
    Cost("three", "request", [10.0], [11.0], [100.0], lost="it has done nothing\nat all"),
]


def test_rows_hold_median_range_and_share_of_a_bare_request_or_a_core():
    assert processor_rows(COSTS) == [
        ("one", "request", "10.00 µs", "2.00 (1.00 to 5.00) µs", "2.0%"),
        ("two", SECOND, "0.00 µs", "500.00 (500.00 to 500.00) µs", "0.05% of a core"),
        ("three", "request", "no round counted", "", ""),
    ]
    assert processor_remarks(COSTS) == ["- three: does not count: it has done nothing"]
    assert math.isnan(added_by(COSTS[2]).median)


def test_the_page_shows_the_processors_and_a_lost_row_fails_the_run():
    results = Results({}, processors=COSTS, routes=RouteMemory(200.0, 211.0))
    written = page(results)
    assert (
        "| processor, in one process | for each | CPU without | adds | of a bare request's 100 µs |"
        in written
    )
    assert "| one | request | 10.00 µs | 2.00 (1.00 to 5.00) µs | 2.0% |" in written
    assert "| 10,000 registered routes, 200 of them active | 200.0 MB | 211.0 MB |" in written
    assert f"| {MEMORY_OF_ROUTES} | 20 MB | +11.0 MB | yes |" in written
    assert "nan" not in written
    assert results.uncounted() == ["three"]
    assert json.loads(results.as_json())["routes"] == {"without_mb": 200.0, "with_mb": 211.0}


@pytest.mark.parametrize(("added", "is_met"), [(ROUTES_MB - 0.1, True), (ROUTES_MB, False)])
def test_the_memory_of_routes_has_a_budget(added, is_met):
    (found,) = budgets({}, (), (), RouteMemory(100.0, 100.0 + added))
    assert (found.name, found.is_met) == (MEMORY_OF_ROUTES, is_met)


def test_the_two_servers_of_the_memory_of_routes_differ_in_nothing_but_the_application():
    assert dataclasses.replace(WITHOUT, name=WITH.name, application=WITH.application) == WITH
