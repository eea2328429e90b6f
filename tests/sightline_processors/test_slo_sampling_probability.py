"""Thresholds in `tracestate`, against the SDK's own reading of them."""

from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry.sdk.trace._sampling_experimental._trace_state import OtelTraceState, serialize_th
from opentelemetry.trace import TraceState

from sightline_processors.slo_sampling.choices import OF_PARENT, Sampled, likelier
from sightline_processors.slo_sampling.probability import (
    ALWAYS,
    NEVER,
    probability_of,
    randomness_of,
    threshold_in,
    threshold_of,
    with_threshold,
)

thresholds = st.integers(0, NEVER - 1)
members = st.lists(
    st.sampled_from(["rv:0123456789abcd", "rv:1", "x:1", "th:8", "th:zz", "th:", "p"]), max_size=4
)


@given(st.floats(0, 1))
@example(0.0)
@example(1.0)
def test_a_threshold_stands_for_its_probability(probability):
    threshold = threshold_of(probability)
    assert ALWAYS <= threshold <= NEVER
    assert abs(probability_of(threshold) - probability) <= 2**-24
    assert (threshold == ALWAYS) == (probability_of(threshold) == 1)


@given(thresholds)
@example(0)
@example(NEVER - 1)
@example(1)
def test_a_threshold_is_written_and_read_as_the_sdk_does(threshold):
    state = with_threshold(None, threshold)
    assert state.to_header() == f"ot=th:{serialize_th(threshold)}"
    assert threshold_in(state) == OtelTraceState.parse(state).threshold == threshold


@given(st.text(max_size=20))
@example("0123456789abcdef")
@example("+1")
@example("_1")
@example("٣")
def test_what_is_no_threshold_is_read_as_none(text):
    state = TraceState([("ot", f"th:{text}")])
    found = threshold_in(state)
    if text and len(text) <= 14 and set(text) <= set("0123456789abcdef"):
        assert found == int(text.ljust(14, "0"), 16)
    else:
        assert found is None


@given(members, st.none() | thresholds)
def test_a_new_threshold_leaves_everything_else_in_the_trace_state(present, threshold):
    state = TraceState([("vendor", "a"), *([("ot", ";".join(present))] if present else []), ("other", "b")])
    changed = with_threshold(state, threshold)
    assert threshold_in(changed) == threshold
    assert (changed.get("vendor"), changed.get("other")) == ("a", "b")
    assert randomness_of(7, changed) == randomness_of(7, state)
    kept = {each for each in present if not each.startswith(("th", "rv"))}
    assert kept <= set(changed.get("ot", "").split(";"))


def test_a_full_trace_state_gives_up_its_last_member():
    state = TraceState([(f"k{number}", "v") for number in range(32)])
    changed = with_threshold(state, 0)
    assert list(changed) == ["ot", *list(state)[:31]]


def test_a_member_that_grows_too_long_is_cut_at_a_key():
    state = TraceState([("ot", ";".join(f"k{number:02}:{'v' * 20}" for number in range(10)))])
    changed = with_threshold(state, NEVER - 1)
    assert threshold_in(changed) == NEVER - 1
    assert len(changed["ot"]) <= 256
    assert all(len(each) == 24 for each in changed["ot"].split(";")[1:])


def test_the_randomness_is_that_of_the_trace_id_unless_the_caller_gives_another():
    assert randomness_of((1 << 127) | 5, None) == 5
    assert randomness_of(NEVER - 1, None) == NEVER - 1
    assert randomness_of(5, TraceState([("ot", "rv:0000000000000a")])) == 10
    assert randomness_of(5, TraceState([("ot", "rv:0a")])) == 5


choices = st.none() | st.builds(Sampled, st.just("budget"), st.none() | thresholds)


@given(choices, choices)
def test_of_two_choices_about_one_trace_the_likelier_one_was_its_probability(one, other):
    both = likelier(one, other)
    assert (both is None) == (one is None and other is None)
    known = [each.threshold for each in (one, other) if each is not None]
    if 0 in known:
        assert both.threshold == 0
    elif None in known:
        assert both.threshold is None
    elif known:
        assert both.threshold == min(known)


def test_an_unknown_probability_is_no_attribute():
    assert OF_PARENT.attributes == {"sightline.sampling.reason": "parent"}
    assert Sampled("budget", threshold_of(0.25)).attributes == {
        "sightline.sampling.reason": "budget",
        "sightline.sampling.probability": 0.25,
    }
