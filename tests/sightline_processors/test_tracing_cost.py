"""A child span costs less than half of the SDK's: counted in calls, which are the same in every run."""

import sys
from collections.abc import Callable

import pytest
from opentelemetry.sdk.trace import SpanProcessor, Tracer, TracerProvider

from sightline_processors.tracing import make_tracers_fast
from sightline_processors.tracing.delivery import EncodedSpanProcessor
from sightline_processors.tracing.tracers import _ORIGINAL

REPEATS = 20


class Trivial(SpanProcessor):
    """Does nothing much at the end, as an application's own processor."""

    def on_end(self, span):
        pass


class TrivialEncoder(EncodedSpanProcessor):
    """Does nothing much at the end, in the place of the exporter's processor."""

    def on_end(self, span):
        pass


def start_and_end(tracer):
    span = tracer.start_span("name")
    span.set_attribute("db.system.name", "postgresql")
    span.set_attribute("db.namespace", "shop")
    span.set_attribute("db.operation.name", "SELECT")
    span.end()


def start_with_attributes(tracer):
    tracer.start_span("name", attributes={"a": "1", "b": "2", "c": "3"}).end()


def start_as_current(tracer):
    with tracer.start_as_current_span("name") as span:
        span.set_attribute("db.system.name", "postgresql")
        span.set_attribute("db.namespace", "shop")
        span.set_attribute("db.operation.name", "SELECT")


def calls(function: Callable[[], object]) -> float:
    """Returns how many functions one call of `function` calls, those in C included."""
    count = 0

    def profile(frame, event, argument):
        nonlocal count
        count += event in ("call", "c_call")

    function()  # fills what is made once
    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        for _ in range(REPEATS):
            function()
    finally:
        sys.setprofile(before)
    return count / REPEATS


@pytest.mark.parametrize("processor", [Trivial, TrivialEncoder])
@pytest.mark.parametrize("is_child", [False, True], ids=["root", "child"])
@pytest.mark.parametrize("work", [start_and_end, start_with_attributes, start_as_current])
def test_a_span_makes_less_than_half_of_the_calls_of_one_of_the_sdk(work, is_child, processor, monkeypatch):
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor())
    tracer = provider.get_tracer("tests")

    def measured():
        if not is_child:
            return calls(lambda: work(tracer))
        with tracer.start_as_current_span("parent"):
            return calls(lambda: work(tracer))

    for name, method in _ORIGINAL.items():
        monkeypatch.setattr(Tracer, name, method)  # whatever earlier tests have left
    plain = measured()
    make_tracers_fast()
    fast = measured()

    assert fast < plain / 2, f"{fast:.1f} calls, {plain:.1f} by the SDK"
