"""The limit on attribute sets, against a model; the reserved routes; the search for the offender."""

import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from opentelemetry.metrics import NoOpMeter

from sightline_processors.cardinality import AttributeSetLimiter, ReservedRoutes, observe_overflow
from sightline_processors.cardinality.limiter import MAX_SETS_OF_ROUTE, OVERFLOW_ATTRIBUTES, key_of
from sightline_processors.cardinality.overflow import (
    MAX_INSTRUMENTS,
    MAX_KEYS,
    DistinctValues,
    Overflows,
)
from sightline_processors.report import reported

ROUTES = [f"/{name}" for name in "abcd"]
OVERFLOW = {"otel.metric.overflow": True}

values = st.sampled_from([0, 1, True, 1.0, "1", b"1", None, (1, 2), (True, 2), {"x": 1}])
attribute_sets = st.one_of(
    st.fixed_dictionaries({"user": st.integers(0, 30)}),
    st.fixed_dictionaries({"value": values}, optional={"user": st.integers(0, 1)}),
    st.fixed_dictionaries(
        {"http.route": st.sampled_from([*ROUTES, "/unknown", ["/a"], None])},
        optional={"status": st.integers(200, 206)},
    ),
    st.just(OVERFLOW),
    st.just({}),
)


def same(attributes):
    """Returns what two sets have in common if and only if they are the same, slowly but surely."""
    return repr(sorted(attributes.items()))


class LimiterMachine(RuleBasedStateMachine):
    """Compares the limiter with lists."""

    @initialize(limit=st.integers(1, 12), routes=st.integers(0, 3))
    def begin(self, limit, routes):
        self.limit = limit
        self.most_routes = routes
        self.routes = ReservedRoutes(routes)
        self.limiter = AttributeSetLimiter(limit, routes=self.routes)
        self.reserved_routes: list[str] = []
        self.own: list[str] = []
        self.unreserved = 0
        self.series: Counter[str] = Counter()
        self.measured = 0

    @rule(route=st.sampled_from(ROUTES))
    def reserve(self, route):
        fits = route in self.reserved_routes or len(self.reserved_routes) < self.most_routes
        if fits and route not in self.reserved_routes:
            self.reserved_routes.append(route)
        assert self.routes.reserve(route) is fits

    @rule(attributes=attribute_sets)
    def measure(self, attributes):
        name = same(attributes)
        is_reserved = attributes.get("http.route") in self.reserved_routes
        if attributes != OVERFLOW and name not in self.own:
            if is_reserved:
                self.own.append(name)
            elif self.unreserved < self.limit - 1:
                self.own.append(name)
                self.unreserved += 1
        limited = self.limiter.limited(attributes)
        assert limited == (attributes if name in self.own else OVERFLOW)
        assert self.routes.is_reserved(attributes) is is_reserved
        self.series[same(limited)] += 1
        self.measured += 1

    @precondition(lambda self: self.own)
    @rule(data=st.data())
    def what_was_seen_keeps_counting(self, data):
        name = data.draw(st.sampled_from(self.own))
        attributes = dict(eval(name))
        assert self.limiter.limited(attributes) is attributes

    @invariant()
    def totals_are_conserved_and_the_bound_holds(self):
        assert sum(self.series.values()) == self.measured
        assert len(self.limiter) == len(self.own)
        unreserved = [name for name in self.series if dict(eval(name)).get("http.route") not in ROUTES]
        assert len(unreserved) <= self.limit


TestLimiter = LimiterMachine.TestCase
TestLimiter.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


def test_a_limit_of_2000_is_1999_sets_and_the_overflow_set():
    limiter = AttributeSetLimiter()
    series = {same(limiter.limited({"user": user})) for user in range(3000)}

    assert len(series) == 2000
    assert same(OVERFLOW_ATTRIBUTES) in series
    assert len(limiter) == 1999


def test_a_limit_of_one_is_the_overflow_set_alone():
    assert AttributeSetLimiter(1).limited({}) == OVERFLOW


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_refused_with_the_usual_one(limit):
    with pytest.raises(ValueError, match=rf"must be >= 1, got {limit}; the specification's is 2000"):
        AttributeSetLimiter(limit)


def test_a_reserved_route_has_places_after_the_limit_is_reached():
    routes = ReservedRoutes()
    limiter = AttributeSetLimiter(10, routes=routes)
    for user in range(100):
        limiter.limited({"http.route": "/late", "user": user})
    routes.reserve("/late")

    assert limiter.limited({"http.route": "/late", "status": 200}) != OVERFLOW
    assert limiter.limited({"http.target": "/late", "status": 200}) != OVERFLOW
    assert limiter.limited({"http.route": "/later", "status": 200}) == OVERFLOW


def test_an_attribute_with_many_values_cannot_hide_behind_a_reserved_route():
    routes = ReservedRoutes()
    routes.reserve("/a")
    routes.reserve("/b")
    limiter = AttributeSetLimiter(10, routes=routes)
    for user in range(1000):
        limiter.limited({"http.route": "/a", "user": user})

    assert len(limiter) == MAX_SETS_OF_ROUTE + 9
    assert limiter.limited({"http.route": "/b"}) != OVERFLOW


def test_a_route_beyond_the_registrys_bound_is_refused_with_a_line(caplog):
    routes = ReservedRoutes()

    assert all(routes.reserve(f"/{number}") for number in range(10_000))
    assert not routes.reserve("/one-too-many")
    assert routes.reserve("/0")
    assert reported("cardinality") == 1
    assert "one-too-many" not in caplog.text


@given(attribute_sets, attribute_sets)
@settings(max_examples=100, deadline=None)
def test_keys_are_equal_for_equal_sets_only(first, second):
    assert (key_of(first) == key_of(second)) == (same(first) == same(second))
    assert key_of(dict(reversed(first.items()))) == key_of(first)


def test_the_bound_and_what_was_seen_hold_under_threads():
    limiter = AttributeSetLimiter(200)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    start = threading.Barrier(6)

    def measure(thread):
        start.wait()
        own: set[int] = set()
        for number in range(2000):
            user = (number + thread * 7) % 400
            if limiter.limited({"user": user}) != OVERFLOW:
                own.add(user)
            else:
                assert user not in own
        return own

    try:
        with ThreadPoolExecutor(6) as pool:
            admitted = set().union(*pool.map(measure, range(6)))
    finally:
        sys.setswitchinterval(interval)

    assert admitted == {user for user in range(400) if limiter.limited({"user": user}) != OVERFLOW}
    assert len(admitted) == len(limiter) <= 199


@pytest.mark.parametrize("distinct", [0, 1, 2, 40, 700, 20_000])
@pytest.mark.parametrize("make", [int, str, lambda number: ("sequence", (number,))])
def test_distinct_values_are_estimated(distinct, make):
    found = DistinctValues()
    for number in range(distinct):
        for _ in range(2):
            found.add(hash(("key", ("kind", make(number)))))

    assert found.estimate() == pytest.approx(distinct, rel=0.35, abs=1.5)


class Clock:
    """A clock that stands still."""

    now = 0.0

    def __call__(self):
        return self.now


def observed(overflows):
    return {
        (observation.attributes["instrument"], observation.attributes["attribute"]): observation.value
        for observation in overflows.observations()
    }


def test_the_offender_is_the_attribute_with_the_most_values():
    overflows = Overflows(Clock())
    for number in range(300):
        overflows.note("shop.sales", 2000, [("method", number % 3), ("user", number), ("item", number % 40)])

    assert observed(overflows) == {("shop.sales", "user"): 300}


def test_counts_stay_with_the_offender_of_their_time():
    overflows = Overflows(Clock())
    overflows.note("shop.sales", 2000, [("user", 1)], 5)
    first = observed(overflows)
    for number in range(50):
        overflows.note("shop.sales", 2000, [("item", number)], 2)

    assert first == {("shop.sales", "user"): 5}
    assert observed(overflows) == {("shop.sales", "user"): 5, ("shop.sales", "item"): 100}
    assert observed(overflows) == {("shop.sales", "user"): 5, ("shop.sales", "item"): 100}


def test_one_line_an_hour_names_instrument_attribute_limit_and_cure(caplog):
    clock = Clock()
    overflows = Overflows(clock)

    def overflow(times):
        for number in range(times):
            overflows.note("shop.sales", 2000, [("user", f"secret-{number}"), ("method", "GET")])

    overflow(99)
    assert caplog.records == []
    overflow(301)
    [record] = caplog.records
    assert (record.name, record.levelname) == ("sightline", "WARNING")
    line = record.getMessage()
    for part in (
        "shop.sales",
        "values of user",
        "more than 2000 attribute sets",
        "100 measurements",
        "SIGHTLINE_CARDINALITY_LIMIT",
    ):
        assert part in line
    clock.now = 3599.9
    overflow(200)
    overflows.observations()
    assert len(caplog.records) == 1
    clock.now = 3600.0
    overflow(1)
    assert len(caplog.records) == 2
    assert "501 measurements" in caplog.records[1].getMessage()
    clock.now = 7200.0
    overflows.observations()
    assert len(caplog.records) == 2
    assert "secret" not in caplog.text


def test_a_collection_tells_of_an_overflow_of_one_measurement(caplog):
    overflows = Overflows(Clock())
    overflows.note("shop.sales", 2000, [("user", 1)])
    overflows.note("shop.returns", 2000, [("user", 1)])
    overflows.observations()

    assert len(caplog.records) == 2


def test_odd_and_further_keys_are_other(caplog):
    overflows = Overflows(Clock())
    for number in range(100):
        overflows.note("odd", 10, [(f"key\n{number}", 1)])
        overflows.note("long", 10, [("k" * 101, number)])
        overflows.note("many", 10, [(f"key{number}", 1)])
        overflows.note("none", 10, [])

    assert set(observed(overflows)) == {
        ("odd", "_other"),
        ("long", "_other"),
        ("many", "_other"),
        ("none", "_other"),
    }
    assert len(overflows._tallies["many"]._values) == MAX_KEYS + 1
    assert all("\n" not in record.getMessage() for record in caplog.records)


def test_further_instruments_are_other(caplog):
    overflows = Overflows(Clock())
    for number in range(MAX_INSTRUMENTS + 50):
        overflows.note(f"shop.{number}", 10, [("user", number)])
    counts = observed(overflows)

    assert len(counts) == MAX_INSTRUMENTS + 1
    assert counts["_other", "user"] == 50
    assert sum(counts.values()) == MAX_INSTRUMENTS + 50


def test_a_meter_that_is_not_the_sdks_gets_no_counter():
    observe_overflow(NoOpMeter("shop"))
