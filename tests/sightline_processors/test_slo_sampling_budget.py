"""The budget: shared evenly, kept to, and never dependent on what was drawn."""

import math
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sightline_processors.slo_sampling import RootFacts, SloSampler
from sightline_processors.slo_sampling.budget import MAX_ROUTES, SpanBudget, water_level
from sightline_processors.slo_sampling.exemplars import MAX_SLOTS, ExemplarSlots


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self):
        self.now = 1_000.0

    def __call__(self):
        return self.now


rates = st.lists(st.floats(0.01, 10_000), max_size=50)


@given(rates, st.floats(0.1, 10_000))
def test_the_water_level_spends_the_budget_exactly_or_covers_everything(given_rates, budget):
    level = water_level(given_rates, budget)
    if level is None:
        assert sum(given_rates) <= budget * (1 + 1e-9)
    else:
        assert sum(min(rate, level) for rate in given_rates) == pytest.approx(budget)


def drawn(budget, clock, per_second, seconds):
    """Offers spans of routes evenly over time; returns the expected number of kept ones by route."""
    kept = Counter()
    total = sum(per_second.values())
    order = [route for route, rate in per_second.items() for _ in range(rate)]
    random.Random(1).shuffle(order)
    for _ in range(seconds):
        for route in order:
            clock.now += 1 / total
            kept[route] += budget.offer(route, 1)
    return kept


def test_busy_routes_get_the_same_share_and_quiet_ones_all_they_need():
    clock = Clock()
    budget = SpanBudget(100, clock)
    rates = {"/busy": 3_000, "/half": 1_000, "/quiet": 10}
    drawn(budget, clock, rates, 5)
    kept = drawn(budget, clock, rates, 10)
    assert kept["/quiet"] == pytest.approx(100, rel=0.02)
    assert kept["/busy"] == pytest.approx(450, rel=0.05)
    assert kept["/half"] == pytest.approx(450, rel=0.05)
    assert budget.head_probability() == pytest.approx(45 / 3_000, rel=0.1)


def test_within_the_budget_everything_is_kept():
    clock = Clock()
    budget = SpanBudget(100, clock)
    assert drawn(budget, clock, {"/a": 20, "/b": 30}, 5) == {"/a": 100, "/b": 150}


def test_a_burst_after_silence_costs_a_few_budgets_at_most():
    clock = Clock()
    budget = SpanBudget(100, clock)
    clock.now += 60
    kept = drawn(budget, clock, {f"/{number}": 500 for number in range(20)}, 1)
    assert sum(kept.values()) <= 2 * 100 * (1 + math.log(10_000 / 200)) * 1.05


def test_what_must_be_kept_leaves_less_for_the_rest_but_never_nothing():
    clock = Clock()
    budget = SpanBudget(100, clock)
    for _ in range(10):
        budget.spend(60)
        last = drawn(budget, clock, {"/a": 1_000}, 1)
    assert last["/a"] == pytest.approx(40, rel=0.05)
    for _ in range(10):
        budget.spend(1_000)
        last = drawn(budget, clock, {"/a": 1_000}, 1)
    assert last["/a"] == pytest.approx(10, rel=0.05)


def test_a_budget_of_nothing_draws_nothing():
    budget = SpanBudget(0, Clock())
    assert budget.offer("/a", 1) == 0
    assert budget.head_probability() == 0


def test_routes_beyond_the_bound_share_one_place_and_silent_ones_are_forgotten():
    clock = Clock()
    budget = SpanBudget(100, clock)
    for number in range(5 * MAX_ROUTES):
        budget.offer(f"/{number}", 1)
    assert len(budget._routes) == MAX_ROUTES + 1
    for _ in range(20):
        clock.now += 5
        budget.offer("/a", 1)
    assert set(budget._routes) == {"/a"}


def test_counts_can_be_reconstructed_from_the_probabilities():
    clock, source = Clock(), random.Random(7)
    sampler = SloSampler(400, clock=clock, exemplar_interval_seconds=10)
    exported = []

    class Exporter:
        def export(self, choice, spans):
            exported.extend((choice, span) for span in spans)

    sampler.processor = Exporter()
    offered = Counter()
    for _ in range(20_000):
        clock.now += 1 / 1_000
        route = source.choices(["/a", "/b", "/c"], [80, 15, 5])[0]
        is_slow = source.random() < 0.02
        offered[route, is_slow] += 3
        trace_id = source.getrandbits(128)
        trace, *_ = sampler.begin(trace_id, None)
        sampler.take(trace_id, (route, is_slow), 1)
        sampler.take(trace_id, (route, is_slow), 1)
        sampler.close(trace, RootFacts(route, source.expovariate(20), is_slow, series=route), None)
        sampler.take(trace_id, (route, is_slow), 1)
    counted = Counter()
    for choice, key in exported:
        counted[key] += choice.attributes["sightline.sampling.probability"] ** -1
    for key, count in offered.items():
        tolerance = 1e-9 if key[1] else 0.15
        assert counted[key] == pytest.approx(count, rel=tolerance), key
    assert counted.total() == pytest.approx(offered.total(), rel=0.05)
    assert len(exported) < 1.3 * 400 * 20
    assert len(exported) + sum(sampler.buffer.not_kept().values()) == offered.total()


def test_the_first_of_each_bucket_is_wanted_once_an_interval():
    clock = Clock()
    slots = ExemplarSlots(15, (0.1, 1.0), clock)
    wanted = [slots.take("/a", seconds) for seconds in (0.05, 0.1, 0.11, 1.0, 2.0, 3.0)]
    assert wanted == [True, False, True, False, True, False]
    assert slots.take("/b", 0.05)
    clock.now += 14.9
    assert not slots.take("/a", 0.05)
    clock.now += 0.1
    assert slots.take("/a", 0.05)
    slots.renew()
    assert slots.take("/a", 0.05)


def test_exemplars_of_endless_series_take_bounded_memory():
    slots = ExemplarSlots(15, clock=Clock())
    wanted = sum(slots.take(number, 0.1) for number in range(2 * MAX_SLOTS))
    assert wanted == MAX_SLOTS
