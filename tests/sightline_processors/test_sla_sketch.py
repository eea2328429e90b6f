"""Quantiles from a sketch are within 1 % of the exact ones, whatever the durations are."""

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline_processors import report
from sightline_processors.sla.rolling import MINUTES, RollingSketches
from sightline_processors.sla.sketch import (
    BINS,
    HIGHEST_SECONDS,
    LOWEST_SECONDS,
    QUANTILES,
    RELATIVE_ERROR,
    Sketch,
    merged,
)

GAMMA = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
IN_RANGE = st.floats(LOWEST_SECONDS, HIGHEST_SECONDS)
RATIOS = (0.0, 0.01, 0.25, *QUANTILES, 0.999, 1.0)
random = np.random.default_rng(7)


def sketch_of(values):
    sketch = Sketch()
    sketch.add(values)
    return sketch


def exact(values, ratio):
    """Returns the smallest value that at least this ratio of all reaches at most."""
    return sorted(values)[max(1, math.ceil(ratio * len(values))) - 1]


def content(sketch):
    return (
        sketch.count,
        sketch.refused,
        sketch.minimum,
        sketch.maximum,
        list(sketch.quantiles(ratio / 200 for ratio in range(201))),
    )


def shapes():
    size = 20_000
    bimodal = np.where(
        random.random(size) < 0.9, random.normal(0.004, 0.0005, size), 0.8 + random.random(size)
    )
    edges = LOWEST_SECONDS * GAMMA ** np.arange(BINS - 1)
    return {
        "lognormal": random.lognormal(-4, 0.8, size),
        "bimodal": np.abs(bimodal),
        "heavy tail": random.pareto(1.1, size) * 0.01 + 0.001,
        "timeouts": np.where(random.random(size) < 0.97, 0.02, 30.0),
        "uniform": random.uniform(0, 10, size),
        "all over the range": np.exp(
            random.uniform(math.log(LOWEST_SECONDS), math.log(HIGHEST_SECONDS), size)
        ),
        "at the edges of bins": edges,
        "just below the edges": np.nextafter(edges, 0),
        "just above the edges": np.nextafter(edges, 1e9),
        "descending": np.linspace(5, 0.001, size),
        "one value": np.full(size, 0.123),
    }


@pytest.mark.parametrize(("name", "values"), shapes().items())
def test_quantiles_are_within_1_percent_of_numpys(name, values):
    sketch = Sketch()
    for chunk in np.array_split(values, 40):
        sketch.add(chunk.tolist())
    assert sketch.count == len(values)
    for ratio in RATIOS:
        true = float(np.quantile(values, ratio, method="inverted_cdf"))
        assert sketch.quantile(ratio) == pytest.approx(true, rel=RELATIVE_ERROR + 1e-9, abs=LOWEST_SECONDS)


@settings(max_examples=150, deadline=None)
@given(st.lists(IN_RANGE, min_size=1, max_size=60), st.floats(0, 1))
def test_any_quantile_of_any_durations_is_within_1_percent(values, ratio):
    assert sketch_of(values).quantile(ratio) == pytest.approx(exact(values, ratio), rel=RELATIVE_ERROR + 1e-9)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.lists(st.floats(), max_size=20), max_size=6))
def test_merging_is_the_same_as_counting_everything_in_one(parts):
    union = content(sketch_of([value for part in parts for value in part]))
    sketches = [sketch_of(part) for part in parts]
    assert content(merged(sketches)) == union
    assert content(merged(reversed(sketches))) == union
    half = len(sketches) // 2
    assert content(merged([merged(sketches[:half]), merged(sketches[half:])])) == union


def test_merging_changes_neither_the_other_sketch_nor_a_copy():
    first, second = sketch_of([0.1, 0.2, 0.3]), sketch_of([0.1] * 9)
    copy, before = first.copy(), (content(first), content(second))
    first.merge(second)
    assert (content(copy), content(second)) == before
    assert (first.count, first.quantile(0.5)) == (12, pytest.approx(0.1, rel=RELATIVE_ERROR))


def test_an_empty_sketch_has_no_quantile():
    assert [Sketch().quantile(ratio) for ratio in RATIOS] == [None] * len(RATIOS)
    assert merged([]).quantile(0.5) is None


@pytest.mark.parametrize("value", [0.0, 1e-9, LOWEST_SECONDS, 0.25, HIGHEST_SECONDS, 1e9])
def test_one_value_is_every_quantile_exactly(value):
    assert [sketch_of([value]).quantile(ratio) for ratio in RATIOS] == [value] * len(RATIOS)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, -1e-9, -5.0])
def test_what_is_negative_or_not_finite_is_refused_and_counted(bad):
    sketch = sketch_of([0.5, bad, 0.5, bad])
    assert (sketch.count, sketch.refused) == (2, 2)
    assert (sketch.minimum, sketch.maximum, sketch.quantile(0.99)) == (0.5, 0.5, 0.5)
    assert content(sketch_of([bad])) == (0, 1, math.inf, -math.inf, [None] * 201)


def test_huge_durations_that_overflow_a_sum_are_counted():
    sketch = sketch_of([1e308, 1e308, 0.5])
    assert (sketch.count, sketch.refused, sketch.maximum) == (3, 0, 1e308)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, LOWEST_SECONDS), min_size=1), st.floats(0, 1))
def test_below_a_microsecond_the_error_is_less_than_that(values, ratio):
    assert abs(sketch_of(values).quantile(ratio) - exact(values, ratio)) <= LOWEST_SECONDS


def test_above_a_day_a_quantile_is_between_a_day_and_the_maximum():
    sketch = sketch_of([1.0, 2e5, 3e5])
    assert HIGHEST_SECONDS * 0.99 <= sketch.quantile(0.5) <= 3e5


def test_memory_is_constant():
    sketch = Sketch()
    for _ in range(50):
        sketch.add(np.exp(random.uniform(-30, 30, 2_000)).tolist())
    assert sketch.count == 100_000
    assert sys.getsizeof(sketch._counts) < 8 * BINS * 1.2 + 200
    assert BINS < 1_300


def test_the_tracker_needs_no_numpy():
    code = "import sys, sightline_processors.sla.metrics; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_rolling_sketch_covers_five_minutes():
    rolling = RollingSketches().of(("GET", "/"))
    for minute in range(10, 20):
        rolling.add(minute, [float(minute)])
    assert sorted(each.minimum for each in rolling.copies(19)) == [15, 16, 17, 18, 19]
    assert merged(rolling.copies(19 + MINUTES)).quantile(0.5) is None
    assert len(rolling._minutes) == MINUTES


def test_beyond_the_bound_of_active_routes_durations_are_left_out_until_others_are_idle(monkeypatch):
    monkeypatch.setattr(report, "_kinds", {})
    sketches = RollingSketches(max_active=2)
    for route in ("/a", "/b", "/c"):
        sketches.of(("GET", route)).add(100, [0.1, 0.2])
    assert sketches.left_out == 2
    assert report.reported("sla_quantiles") == 1
    sketches.of(("GET", "/a")).add(104, [0.1])
    sketches.of(("GET", "/c")).add(105, [0.3])  # nobody has used /b for five minutes
    assert sketches.left_out == 2
    assert {each.key for each in sketches.active(105)} == {("GET", "/a"), ("GET", "/c")}
