"""Objectives, verdicts, and which objective judges which request."""

import dataclasses
import math
import time
from decimal import Decimal
from fnmatch import fnmatchcase
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline_processors.sla.catalogue import MAX_REMEMBERED, Catalogue, MatchedObjective
from sightline_processors.sla.objectives import (
    DEFAULT_OBJECTIVE,
    MAX_BOUNDARIES,
    Objective,
    ObjectiveError,
    boundary_union,
    parse_objective,
)
from sightline_processors.sla.verdict import VERDICTS, Verdict, verdict_of

HALF_A_SECOND = parse_objective("500ms@99%, 99.9%")
STANDARD = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)


@pytest.mark.parametrize(
    ("text", "latency_seconds", "latency_target", "availability_target"),
    [
        ("500ms@99%, 99.9%", 0.5, 0.99, 0.999),
        ("500ms@99%,99.9%", 0.5, 0.99, 0.999),
        (" 500 ms @ 99 % , 99.9 % ", 0.5, 0.99, 0.999),
        ("700ms@99%", 0.7, 0.99, None),
        ("1.5s@99.95%", 1.5, 0.9995, None),
        ("2m@50%", 120.0, 0.5, None),
        ("24H@0.1%", 86_400.0, 0.001, None),
        ("0.001ms@99%", 0.000001, 0.99, None),
        ("99.999%", None, None, 0.99999),
    ],
)
def test_objectives_are_read_as_the_nearest_floats_of_what_is_written(
    text, latency_seconds, latency_target, availability_target
):
    assert parse_objective(text, name="checkout") == Objective(
        "checkout", latency_seconds, latency_target, availability_target
    )


def test_the_default_is_what_the_settings_say_it_is():
    assert parse_objective("500ms@99%,99.9%", name="default") == DEFAULT_OBJECTIVE


LATENCY_CURE = "for 500 ms write 500ms@99%"
RATIO_CURE = "for 99.9 % write 99.9%"
SYNTAX_RULE = "must be a latency with its target, an availability, or both"
SYNTAX_CURE = "write latency@target, availability: 500ms@99%, 99.9%"
NO_BUDGET = "must be > 0 % and < 100 % (100 % leaves no error budget)"


@pytest.mark.parametrize(
    ("text", "setting", "rule", "value", "cure"),
    [
        ("-1s@99%", "latency", "must be > 0", "-1s", LATENCY_CURE),
        ("0ms@99%", "latency", "must be > 0", "0ms", LATENCY_CURE),
        ("25h@99%", "latency", "must be at most 24h", "25h", LATENCY_CURE),
        ("500@99%", "latency", "must be a number with ms, s, m or h", "500", LATENCY_CURE),
        ("500ms", "latency", "must come with its target", "500ms", LATENCY_CURE),
        ("1s@100%", "latency target", NO_BUDGET, "100%", RATIO_CURE),
        ("1s@99", "latency target", "must be a number with %", "99", RATIO_CURE),
        ("0%", "availability", "must be > 0 % and < 100 %", "0%", RATIO_CURE),
        ("101%", "availability", "must be > 0 % and < 100 %", "101%", RATIO_CURE),
        ("99.9", "availability", "must be a number with %", "99.9", RATIO_CURE),
        ("99.9%, 500ms@99%", "objective", SYNTAX_RULE, "99.9%, 500ms@99%", SYNTAX_CURE),
        ("", "objective", SYNTAX_RULE, "''", SYNTAX_CURE),
        ("9\n%", "availability", "must be a number with %", "'9\\n%'", RATIO_CURE),
        ("9" * 99, "availability", "must be a number with %", "9" * 80 + "…", RATIO_CURE),
    ],
)
def test_a_wrong_objective_is_refused_with_setting_rule_value_origin_and_cure(
    text, setting, rule, value, cure
):
    with pytest.raises(ObjectiveError) as raised:
        parse_objective(text, origin="SIGHTLINE_SLA")
    assert str(raised.value) == f"sla {setting} {rule}, got {value} (from SIGHTLINE_SLA); {cure}"


@pytest.mark.parametrize(
    "text",
    [
        "1s@",
        "@99%",
        "1s@99%,",
        ",99%",
        "1s@99%, 99%, 9%",
        "inf@9%",
        "nan%",
        "1e3ms@9%",
        "\N{ARABIC-INDIC DIGIT FIVE}ms@99%",
        "1s@9%@9%",
    ],
)
def test_what_only_looks_like_an_objective_is_refused(text):
    with pytest.raises(ObjectiveError):
        parse_objective(text)


def outcome_of(text):
    """Returns the objective, or the message of the error."""
    try:
        return parse_objective(text)
    except ObjectiveError as error:
        return str(error)


@given(st.text(max_size=200) | st.text("0159.,@%- mshM\n", max_size=30))
def test_any_text_is_read_or_refused_in_one_bounded_line(text):
    outcome = outcome_of(text)
    if isinstance(outcome, str):
        assert outcome.isprintable()
        assert len(outcome) < 600
    else:
        assert parse_objective(str(outcome)) == outcome


durations = st.tuples(st.decimals("0.001", "999", places=3), st.sampled_from(["ms", "s", "m"]))
ratios = st.decimals("0.0001", "99.9999", places=4)


@given(durations, ratios, ratios | st.none())
def test_what_is_written_is_what_holds_and_is_written_again_the_same(duration, target, availability):
    number, unit = duration
    written = f"{number}{unit}@{target}%" + (f", {availability}%" if availability is not None else "")
    objective = parse_objective(written)
    seconds = number * {"ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60)}[unit]
    assert objective.latency_seconds == float(seconds)
    assert objective.latency_target == float(target / 100)
    assert objective.availability_target == (None if availability is None else float(availability / 100))
    assert parse_objective(str(objective)) == objective


@pytest.mark.parametrize(
    "parts",
    [
        ("x", 0.5, None, None),
        ("x", None, 0.99, None),
        ("x", math.nan, 0.99, None),
        ("x", math.inf, 0.99, None),
        ("x", 0.5, 1.0, None),
        ("x", None, None, math.nan),
        ("", None, None, 0.99),
        ("a b", None, None, 0.99),
        ("x" * 65, None, None, 0.99),
        ("x\n", None, None, 0.99),
    ],
)
def test_an_objective_that_breaks_a_rule_cannot_be_made(parts):
    with pytest.raises(ObjectiveError):
        Objective(*parts)


def test_objectives_are_immutable_and_hashable():
    assert len({HALF_A_SECOND, parse_objective("500ms@99%, 99.9%")}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(HALF_A_SECOND, "name", "other")  # noqa: B010  mypy refuses the assignment, as it should


def test_thresholds_become_boundaries():
    union = boundary_union(STANDARD, (0.3, 0.5, 1.5))
    assert union.boundaries == tuple(sorted({*STANDARD, 0.3, 1.5}))
    assert union.left_out == ()


def test_where_boundaries_are_too_many_the_standard_ones_next_to_others_go():
    thresholds = tuple(100.0 * 2**index for index in range(18))
    union = boundary_union((*STANDARD, 10.5), thresholds)
    assert set(thresholds) <= set(union.boundaries)
    assert len(union.boundaries) == MAX_BOUNDARIES
    assert set(STANDARD) - set(union.boundaries) == {10.0}  # 5 % below its neighbour: nearest of all


def test_a_standard_boundary_next_to_a_threshold_goes_before_those_that_stand_alone():
    for beside in (9.9, 10.1):
        thresholds = (beside, *(100.0 * 2**index for index in range(18)))
        union = boundary_union(STANDARD, thresholds)
        assert set(STANDARD) - set(union.boundaries) == {10.0}


def test_of_too_many_thresholds_the_first_ones_stay_and_the_others_are_told():
    thresholds = tuple(float(40 - index) for index in range(40))
    assert boundary_union(STANDARD, thresholds) == (tuple(sorted(thresholds[:32])), thresholds[32:])


positive = st.floats(1e-6, 86_400)


@given(st.lists(positive, max_size=40), st.lists(positive, max_size=40))
def test_boundaries_are_bounded_sorted_and_hold_the_first_thresholds(standard, thresholds):
    union = boundary_union(standard, thresholds)
    unique = list(dict.fromkeys(thresholds))
    assert len(union.boundaries) == min(MAX_BOUNDARIES, len({*standard, *unique}))
    assert list(union.boundaries) == sorted(set(union.boundaries))
    assert set(unique[:MAX_BOUNDARIES]) <= set(union.boundaries) <= {*standard, *unique}
    assert union.left_out == tuple(unique[MAX_BOUNDARIES:])


@given(
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.floats(),
    st.sampled_from(["500ms@99%, 99.9%", "500ms@99%", "9%"]),
)
def test_the_verdict_is_the_first_that_applies(excluded, failed, eligible, seconds, written):
    objective = parse_objective(written)
    verdict = verdict_of(
        excluded=excluded, failed=failed, eligible=eligible, duration_seconds=seconds, objective=objective
    )
    is_slow = eligible and objective.latency_seconds is not None and seconds > objective.latency_seconds
    applies = {"excluded": excluded, "failed": failed, "slow": is_slow, "ok": True}
    assert verdict == next(name for name, does in applies.items() if does)
    assert type(verdict) is str
    assert verdict in VERDICTS


@pytest.mark.parametrize(
    ("seconds", "verdict"),
    [
        (0.5, Verdict.OK),
        (math.nextafter(0.5, 1), Verdict.SLOW),
        (math.nextafter(0.5, 0), Verdict.OK),
        (math.nan, Verdict.OK),
        (-1.0, Verdict.OK),
        (-math.inf, Verdict.OK),
        (math.inf, Verdict.SLOW),
    ],
)
def test_equality_with_the_threshold_is_ok_and_so_is_a_clock_that_stepped_back(seconds, verdict):
    judge = partial(
        verdict_of, excluded=False, failed=False, duration_seconds=seconds, objective=HALF_A_SECOND
    )
    assert judge(eligible=True) == verdict
    assert judge(eligible=False) == Verdict.OK


def objective(name):
    return Objective(name, None, None, 0.99)


def test_the_first_entry_that_matches_judges_and_the_default_the_rest():
    catalogue = Catalogue(
        [
            MatchedObjective(objective("pay"), ("/orders/*",), frozenset({"POST"}), frozenset({"checkout"})),
            MatchedObjective(objective("orders"), ("/orders*", "/carts/{id:int}")),
            MatchedObjective(objective("writes"), methods=frozenset({"POST", "PUT"})),
            MatchedObjective(objective("tagged"), tags=frozenset({"a", "b"})),
        ]
    )
    judges = [
        ("/orders/{id}", "POST", ("checkout", "x"), "pay"),
        ("/orders/{id}", "POST", (), "orders"),
        ("/orders", "GET", ["checkout"], "orders"),
        ("/carts/{id}", "GET", (), "orders"),
        ("/Orders", "GET", (), "default"),
        (None, "POST", (), "writes"),
        (None, "GET", {"b"}, "tagged"),
        (None, "GET", (), "default"),
    ]
    for route, method, tags, name in judges * 2:  # the second time, from memory
        assert catalogue.objective_for(route, method, tags).name == name


routes = st.none() | st.text("/ab{}[*]&-", max_size=8)
globs = st.lists(st.text("/ab*?[]!{}-&|~", min_size=1, max_size=6), max_size=3)
methods = st.sampled_from(["GET", "POST", "_OTHER"])
tags = st.frozensets(st.sampled_from("xyz"))


@given(
    st.lists(st.tuples(globs, st.frozensets(methods), tags), max_size=5),
    st.lists(st.tuples(routes, methods, tags), max_size=5),
)
def test_matching_does_what_a_naive_model_does(entries, requests):
    catalogue = Catalogue(
        [
            MatchedObjective(objective(f"o{number}"), tuple(patterns), of_methods, of_tags)
            for number, (patterns, of_methods, of_tags) in enumerate(entries)
        ]
    )
    for route, method, with_tags in requests * 2:
        expected = "default"
        for number, (patterns, of_methods, of_tags) in enumerate(entries):
            if patterns and (route is None or not any(fnmatchcase(route, each) for each in patterns)):
                continue
            if (of_methods and method not in of_methods) or (of_tags and not of_tags & with_tags):
                continue
            expected = f"o{number}"
            break
        assert catalogue.objective_for(route, method, with_tags).name == expected


def test_what_a_catalogue_remembers_is_bounded():
    catalogue = Catalogue([MatchedObjective(objective("all"), ("*7",))])
    for number in range(MAX_REMEMBERED + 100):
        catalogue.objective_for(f"/{number}", "GET")
    assert len(catalogue._answers) == MAX_REMEMBERED
    assert catalogue.objective_for(f"/{MAX_REMEMBERED + 7}", "GET").name == "all"


def test_thresholds_come_once_each_with_the_default_first():
    catalogue = Catalogue(
        [
            MatchedObjective(parse_objective(text, name=f"o{number}"))
            for number, text in enumerate(["2s@99%", "99%", "500ms@9%", "1s@99%", "2s@9%"])
        ],
        default=HALF_A_SECOND,
    )
    assert catalogue.thresholds() == (0.5, 2.0, 1.0)
    assert [each.name for each in catalogue.objectives] == ["default", "o0", "o1", "o2", "o3", "o4"]


def test_statuses_fail_from_500_on_and_where_they_are_configured():
    catalogue = Catalogue(failed_statuses=[429])
    assert [status for status in range(700) if catalogue.fails(status)] == [429, *range(500, 700)]


def test_paths_are_excluded_by_globs():
    catalogue = Catalogue(excluded_paths=["/health", "/internal/*"])
    assert catalogue.is_excluded_path("/health")
    assert catalogue.is_excluded_path("/internal/a/b")
    assert not catalogue.is_excluded_path("/healthy")
    assert not catalogue.is_excluded_path("/x/internal/a")
    assert not Catalogue().is_excluded_path("/health")


@settings(deadline=None, max_examples=5)
@given(st.sampled_from(["/a", "a/", "/", "ab"]))
def test_a_hostile_path_costs_time_in_proportion_to_its_length(piece):
    catalogue = Catalogue(excluded_paths=["/*a*/*a*/*a*/*a*/*a*x", "*/a/*/a/*/b/*"] * 10)
    path = piece * 100_000
    started = time.process_time()
    catalogue.is_excluded_path(path)
    assert time.process_time() - started < 2
