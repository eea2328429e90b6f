"""The capture costs no more than the baseline says: what fails here is a regression of the hot path."""

import asyncio
import dataclasses
import statistics

import pytest
from benchmarks import hot_path, in_process
from benchmarks.applications.bare import app
from benchmarks.hot_path import TOLERANCE, HotPath
from benchmarks.servers import ServerError
from benchmarks.workers import bare_and_captured

BASELINE = HotPath.recorded()
RENEW = "if that is meant: make bench-baseline"


@pytest.fixture(scope="module")
def found():
    return hot_path.measured(limit=BASELINE.cpu_ratio * TOLERANCE)


def test_a_request_calls_no_more_functions_than_the_baseline(found):
    assert found.calls_added <= BASELINE.calls_added * TOLERANCE, RENEW


def test_a_request_executes_no_more_instructions_than_the_baseline(found):
    assert found.bytecodes_added <= BASELINE.bytecodes_added * TOLERANCE, RENEW


def test_a_request_takes_no_more_cpu_time_than_the_baseline(found):
    assert found.cpu_ratio <= BASELINE.cpu_ratio * TOLERANCE, RENEW


@pytest.mark.parametrize("sampler", [("always_off", "1"), ("parentbased_traceidratio", "0.001")])
def test_a_request_that_is_not_sampled_executes_at_most_70_percent_of_what_a_sampled_one_adds(found, sampler):
    name, argument = sampler
    with bare_and_captured(OTEL_TRACES_SAMPLER=name, OTEL_TRACES_SAMPLER_ARG=argument) as pair:
        assert hot_path.added(pair, "bytecodes") <= 0.7 * found.bytecodes_added


def test_500_routes_cost_what_one_does():
    with bare_and_captured("many_routes") as pair:
        for what in ("calls", "bytecodes"):
            first, last = (
                [statistics.median(worker.ask(what, 11, path)) for worker in (pair.bare, pair.captured)]
                for path in ("/items/7", "/items-500/7")
            )
            assert last[0] > 10 * first[0]
            assert last[1] - last[0] == pytest.approx(first[1] - first[0], rel=0.01)


async def slowed(scope, receive, send):
    """The bare application with a fifth more work."""
    for number in range(80):
        abs(number)
    await app(scope, receive, send)


@pytest.mark.parametrize("count", [in_process.calls, in_process.bytecodes])
def test_counts_are_the_same_each_time_and_grow_with_extra_work(count):
    async def measure():
        targets = [in_process.Target(each) for each in (app, app, slowed)]
        for target in targets:
            await in_process.serve(target, 50)
        return [sum(await count(target, 20)) for target in targets]

    first, second, more = asyncio.run(measure())
    assert first == second
    assert more >= first * TOLERANCE


def test_cpu_time_grows_with_extra_work():
    async def twice(*arguments):
        await app(*arguments)
        await app(*arguments)

    async def measure():
        blocks = {target: [] for target in (twice, app)}
        for _ in range(40):  # in turn: what slows the machine down meets both
            for target, seconds in blocks.items():
                block = await in_process.cpu_seconds(in_process.Target(target), 50)
                seconds.append(block["process"])
        return [min(seconds) for seconds in blocks.values()]

    more, once = asyncio.run(measure())
    assert more > once * 1.5


def test_every_figure_that_grows_by_more_than_a_tenth_is_a_regression():
    grown = dataclasses.replace
    figures = [field.name for field in dataclasses.fields(HotPath)]
    for name in figures:
        before = getattr(BASELINE, name)
        assert hot_path.regressions(grown(BASELINE, **{name: before * 1.09}), BASELINE) == []
        (line,) = hot_path.regressions(grown(BASELINE, **{name: before * 1.11}), BASELINE)
        assert line.startswith(f"{name} is ")
        assert "make bench-baseline" in line


def test_a_capture_that_captures_nothing_is_an_error_and_no_improvement():
    with bare_and_captured(OTEL_SDK_DISABLED="true") as pair:
        assert hot_path.added(pair, "calls") < BASELINE.calls_added
        with pytest.raises(ServerError, match="at the receiver"):
            pair.check_exports()


def test_a_baseline_is_read_as_it_was_written(tmp_path, monkeypatch):
    monkeypatch.setattr(hot_path, "BASELINE", tmp_path / "baseline.toml")
    written = HotPath(57, 894, 1.33)
    hot_path.BASELINE.write_text(written.as_toml())
    assert HotPath.recorded() == written
