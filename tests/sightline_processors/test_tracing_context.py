"""`make_context_fast`: the API's look at the current context gives what it gave, and can be given back."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context

from sightline_processors.tracing import make_context_fast, restore_context

_ORIGINAL = otel_context.get_current
KEY = otel_context.create_key("test")


@pytest.fixture
def fast():
    make_context_fast()
    yield
    restore_context()


@pytest.mark.usefixtures("fast")
def test_the_api_looks_without_a_call_of_its_own():
    assert otel_context.get_current is not _ORIGINAL
    assert otel_context.get_current() is _ORIGINAL()


@pytest.mark.usefixtures("fast")
def test_what_is_attached_is_found_and_detached_again():
    outside = otel_context.get_current()
    token = otel_context.attach(otel_context.set_value(KEY, "inside"))
    try:
        assert (otel_context.get_value(KEY), _ORIGINAL().get(KEY)) == ("inside", "inside")
        assert otel_context.get_value(KEY, Context()) is None
    finally:
        otel_context.detach(token)
    assert otel_context.get_value(KEY) is None
    assert otel_context.get_current() is outside


@pytest.mark.usefixtures("fast")
def test_the_current_span_is_that_of_the_thread_or_task():
    span = trace.NonRecordingSpan(trace.SpanContext(1, 2, is_remote=False))

    async def inside():
        with trace.use_span(span):
            await asyncio.sleep(0)
            return trace.get_current_span()

    async def both():
        return await asyncio.gather(inside(), asyncio.to_thread(trace.get_current_span))

    with ThreadPoolExecutor(1) as pool, trace.use_span(span):
        assert trace.get_current_span() is span
        assert pool.submit(trace.get_current_span).result() is trace.INVALID_SPAN
    assert asyncio.run(both()) == [span, trace.INVALID_SPAN]


def test_it_is_given_back():
    make_context_fast()
    make_context_fast()
    restore_context()
    assert otel_context.get_current is _ORIGINAL


def test_a_function_that_somebody_has_put_there_stays(monkeypatch):
    looks = []

    def looking():
        looks.append(1)
        return _ORIGINAL()

    monkeypatch.setattr(otel_context, "get_current", looking)
    make_context_fast()
    otel_context.get_value(KEY)
    restore_context()
    assert looks
    assert otel_context.get_current is looking
