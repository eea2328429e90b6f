"""Tables, chart and page say what the samples say."""

import dataclasses
import math
import re
import xml.etree.ElementTree as ET

import pytest
from benchmarks import __main__ as command
from benchmarks.budgets import budgets
from benchmarks.cases import BARE, CASES, CONTRIB, OURS, VARIANTS
from benchmarks.chart import Bar, chart
from benchmarks.environments import ENVIRONMENTS
from benchmarks.figures import Spread, added_us, cpu_ratio, p99_ratio
from benchmarks.memory import Memory
from benchmarks.report import BEGIN, END, PAGE, page, titled, with_results
from benchmarks.results import Results
from benchmarks.rounds import Sample
from benchmarks.scenarios import UNSAMPLED, unsampled_share
from benchmarks.startup import StartUp


def sample(cpu_us, **changed):
    whole = dict.fromkeys((field.name for field in dataclasses.fields(Sample)), 1.0)
    return Sample(**{**whole, "cpu_us": cpu_us, "base_us": 100.0, "lost": "", **changed})


def everything(ours=110.0):
    samples = {case.name: [sample(500.0)] * 3 for case in CASES}
    samples[BARE.name] = [sample(100.0)] * 3
    samples[OURS.name] = [sample(ours)] * 3
    start_up = [
        StartUp(BARE.name, (0.3, 0.3, 0.5), (0.4, 0.4, 0.6)),
        StartUp(CONTRIB.name, (0.8, 0.8, 1.6), (0.9, 0.9, 1.8)),
        StartUp(OURS.name, (0.9, 1.2, 1.7), (1.0, 1.9, 1.9)),
    ]
    memory = [Memory(name, 10, 50.0, 51.0) for name in ("bare", "bare + SDK", "Sightline", "down")]
    return Results(samples, start_up, memory, {"Command": "`make bench`"})


def test_ratios_are_to_the_same_round_and_rounds_that_do_not_count_are_left_out():
    samples = {
        OURS.name: [
            sample(110.0, p99_ms=2.0, base_p99_ms=2.0),
            sample(240.0, base_us=200.0, p99_ms=8.0, base_p99_ms=4.0),
            sample(900.0, lost="spans are missing"),
        ],
    }
    assert cpu_ratio(samples, OURS.name).text(2) == "1.15 (1.10 to 1.20)"
    assert added_us(samples, OURS.name) == Spread(25.0, 10.0, 40.0)
    assert p99_ratio(samples, OURS.name) == Spread(1.5, 1.0, 2.0)


def test_unsampled_requests_are_compared_with_sampled_ones():
    samples = {
        OURS.name: [sample(115.0), sample(120.0), sample(400.0, base_us=200.0)],
        UNSAMPLED: [sample(95.0), sample(230.0, base_us=240.0), sample(190.0, base_us=200.0)],
    }
    assert unsampled_share(samples) == pytest.approx((1.2 * 0.95 - 1) / 0.2)


@pytest.mark.parametrize(("p99", "is_met"), [(4.9, True), (5.1, False)])
def test_the_p99_is_judged_by_that_of_the_bare_server_beside(p99, is_met):
    samples = {
        OURS.name: [sample(110.0, p99_ms=p99, base_p99_ms=4.0)],
        BARE.name: [sample(100.0, p99_ms=1.0)],
    }
    judged = {each.name: each for each in budgets(samples, (), ())}
    assert judged["p99 at 1,000 requests/s"].is_met is is_met


def test_a_case_without_a_round_that_counts_has_no_figure():
    lost = [Sample(lost="3 of 10 requests did not arrive")]
    samples = {**{case.name: lost for case in CASES}, BARE.name: [sample(100.0)]}
    written = page(Results(samples))
    assert math.isnan(cpu_ratio(samples, OURS.name).median)
    assert "| Sightline | no round counted |" in written
    assert "- Sightline, round 1, does not count: 3 of 10 requests did not arrive" in written
    assert "nan" not in written


def test_the_page_names_every_variant_with_the_version_that_was_measured():
    written = page(everything())
    for case in VARIANTS:
        assert f"| {titled(case.name)} |" in written
    assert f"| ddtrace {ENVIRONMENTS['ddtrace'].pins['ddtrace']} |" in written
    assert "nan" not in written
    assert "does not count" not in written


def test_every_label_of_the_chart_has_room():
    assert max(len(titled(case.name)) for case in VARIANTS) <= 42


@pytest.mark.parametrize(("ours", "is_met"), [(114.0, True), (116.0, False)])
def test_a_budget_is_met_or_not(ours, is_met):
    results = everything(ours)
    judged = {each.name: each for each in budgets(results.samples, results.start_up, results.memory)}
    assert judged["CPU per request, bare = 1"].is_met is is_met
    added = "start-up over the stock command"
    assert judged[f"{added}, an import"].is_met
    assert judged[f"{added}, an import"].measured == "+100 ms"
    assert judged[f"{added}, to the first answer"].measured == "+100 ms"
    assert judged["RSS over bare + SDK"].measured == "+0.0 MB"


def test_budgets_that_were_not_measured_are_left_out():
    assert budgets({BARE.name: [sample(100.0)]}, (), ()) == []


def test_results_replace_those_of_the_run_before_and_nothing_else():
    text = f"before\n{BEGIN}\nold\n{END}\nafter"
    once = with_results(text, "new")
    assert once == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter"
    assert with_results(once, "new") == once
    with pytest.raises(ValueError, match="markers"):
        with_results("no markers", "new")


def test_the_documentation_has_the_markers_and_the_chart():
    assert with_results(PAGE.read_text(), "new")
    ET.fromstring(PAGE.with_suffix(".svg").read_text())


@pytest.mark.parametrize("high", [1.02, 4.7, 618.0])
def test_the_chart_is_svg_with_an_axis_that_says_what_it_shows(high):
    bars = [Bar("bare", Spread(1, 1, 1)), Bar("<Sightline>", Spread(high, 1, high), is_ours=True)]
    drawn = chart([*bars, Bar("missing", Spread(math.nan, math.nan, math.nan))], "title")
    texts = [
        "".join(each.itertext()) for each in ET.fromstring(drawn).iter("{http://www.w3.org/2000/svg}text")
    ]
    assert "CPU per request, bare = 1" in texts
    assert "<Sightline>" in texts
    assert "missing" not in texts
    ends = [float(end) for end in re.findall(r'x2="([0-9.]+)"', drawn)]
    assert max(ends) <= 860


def test_results_are_written_for_other_programs():
    assert '"cpu_us": 110.0' in everything().as_json()


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ([], [case.name for case in CASES]),
        (["--only", "sentry"], ["sentry-sdk"]),
        (["--only", "variants"], [case.name for case in VARIANTS]),
        (["--only", "memory"], []),
    ],
)
def test_cases_are_chosen_by_part_and_by_name(arguments, names):
    selection = command.selected(command.parse(arguments))
    assert [case.name for case in selection.cases()] == names
    assert selection.has("memory") is (not arguments or "memory" in arguments)


def test_a_name_that_fits_nothing_is_refused(monkeypatch):
    monkeypatch.setattr("sys.argv", ["benchmarks", "--only", "sentri"])
    with pytest.raises(SystemExit, match="nothing is called sentri"):
        command.main()


def test_quick_is_quick():
    quick = command.selected(command.parse(["--quick"]))
    assert (quick.rounds, quick.plan.requests) == (3, 2_000)
    assert dataclasses.asdict(quick)["memory_requests"] == 10_000
