"""Tracers made fast: whoever takes part keeps his say, and nobody's failure is the application's."""

import asyncio
import copy
import gc
import logging
import random
import subprocess
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import pytest
from opentelemetry.context import get_current
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import (
    ConcurrentMultiSpanProcessor,
    ReadableSpan,
    Span,
    SpanProcessor,
    Tracer,
    TracerProvider,
)
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Sampler, SamplingResult
from opentelemetry.trace import INVALID_SPAN, NonRecordingSpan, get_current_span

from sightline_processors.report import reported
from sightline_processors.tracing import make_tracers_fast, restore_tracers
from sightline_processors.tracing.delivery import EncodedSpanProcessor
from sightline_processors.tracing.slotted_span import SlottedSpan
from sightline_processors.tracing.tracers import _ORIGINAL


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    """Begins with the SDK's methods, and leaves those that were there."""
    for name, method in _ORIGINAL.items():
        monkeypatch.setattr(Tracer, name, method)
    make_tracers_fast()


class Collector(SpanProcessor):
    """Keeps what it is told."""

    def __init__(self):
        self.told = []
        self.ended = []

    def on_start(self, span, parent_context=None):
        self.told.append("start")

    def _on_ending(self, span):
        self.told.append("ending")

    def on_end(self, span):
        self.told.append("end")
        self.ended.append(span)


class Raising(SpanProcessor):
    def on_start(self, span, parent_context=None):
        raise RuntimeError("at the start")

    def _on_ending(self, span):
        raise RuntimeError("while ending")

    def on_end(self, span):
        raise RuntimeError("at the end")


def provider_with(*processors, **options):
    provider = TracerProvider(shutdown_on_exit=False, **options)
    for processor in processors:
        provider.add_span_processor(processor)
    return provider


def tracer_with(*processors, **options):
    return provider_with(*processors, **options).get_tracer("tests")


def test_spans_are_spans_of_the_sdk_and_end_as_its_readable_spans():
    collector = Collector()
    span = tracer_with(collector).start_span("name")
    assert isinstance(span, SlottedSpan)
    assert isinstance(span, Span)
    assert weakref.ref(span)() is span

    span.end()

    (ended,) = collector.ended
    assert type(ended) is ReadableSpan
    assert collector.told == ["start", "ending", "end"]
    assert copy.deepcopy(ended).to_json() == span.to_json()


def test_an_encoding_processor_is_told_of_the_end_alone_and_gets_the_span_itself():
    class Encoder(EncodedSpanProcessor):
        told: list[object] = []  # noqa: RUF012  of one test

        def on_start(self, span, parent_context=None):
            self.told.append("start")

        def on_end(self, span):
            self.told.append(span)

    span = tracer_with(Encoder()).start_span("name")
    span.end()

    assert Encoder.told == [span]


def test_what_wraps_the_providers_processor_is_told_and_may_keep_a_span_back():
    class Encoder(EncodedSpanProcessor):
        def __init__(self):
            self.names = []

        def on_end(self, span):
            self.names.append(span.name)

    class Filter:
        """Passes on whatever else it is asked for, as wrappers do."""

        def __init__(self, inner):
            self._inner = inner

        def __getattr__(self, name):
            return getattr(self._inner, name)

        def on_end(self, span):
            if span.name != "secret":
                self._inner.on_end(span)

    encoder = Encoder()
    provider = provider_with(encoder)
    provider.get_tracer("before").start_span("before").end()  # what it finds out is remembered
    wrapped: Any = Filter(provider._active_span_processor)
    provider._active_span_processor = wrapped
    for name in ("secret", "after"):
        provider.get_tracer("tests").start_span(name).end()
    assert encoder.names == ["before", "after"]


def test_what_a_processor_changes_at_the_end_the_later_ones_see():
    class Masking(SpanProcessor):
        def on_end(self, span):
            span._attributes = {"masked": True}

    collector = Collector()
    tracer_with(Masking(), collector).start_span("name", attributes={"secret": "1234"}).end()

    assert dict(collector.ended[0].attributes) == {"masked": True}


def test_what_a_processor_changes_at_the_start_stays():
    class Renaming(SpanProcessor):
        def on_start(self, span, parent_context=None):
            span._resource = span.resource.merge(Resource({"tenant": "a"}))
            span.update_name("renamed")
            span._events.append("odd")

    collector = Collector()
    tracer_with(Renaming(), collector).start_span("name").end()

    (ended,) = collector.ended
    assert (ended.name, ended.resource.attributes["tenant"], ended.events) == ("renamed", "a", ("odd",))


def test_a_span_keeps_the_resource_that_it_started_with():
    collector = Collector()
    provider = provider_with(collector, resource=Resource({"service.name": "before"}))
    span = provider.get_tracer("tests").start_span("name")

    provider._update_resource(Resource({"service.name": "after"}))
    span.end()
    provider.get_tracer("tests").start_span("name").end()

    names = [ended.resource.attributes["service.name"] for ended in collector.ended]
    assert names == ["before", "after"]


def test_a_processor_added_later_hears_of_the_end():
    collector = Collector()
    provider = provider_with()
    span = provider.get_tracer("tests").start_span("name")

    provider.add_span_processor(collector)
    span.end()

    assert collector.told == ["ending", "end"]


@pytest.mark.parametrize("multi", [None, ConcurrentMultiSpanProcessor])
def test_a_processor_that_raises_is_counted_and_keeps_nobody_from_the_others(multi, caplog):
    collector = Collector()
    made = None if multi is None else multi()
    tracer = tracer_with(Raising(), collector, Raising(), active_span_processor=made)

    with tracer.start_as_current_span("name"):
        pass
    if made is not None:
        made._executor.shutdown()  # it does not wait for the others once one has raised

    assert collector.told == ["start", "ending", "end"]
    assert reported("span_processor") == (6 if multi is None else 3)
    assert len([record for record in caplog.records if record.name == "sightline"]) == 1


def test_a_sampler_that_raises_is_counted_and_its_span_not_sampled():
    class Odd(Sampler):
        def should_sample(self, parent_context, trace_id, name, *_, **__):
            return {}[name]

        def get_description(self):
            return "odd"

    collector = Collector()
    with tracer_with(collector, sampler=Odd()).start_as_current_span("name") as span:
        assert isinstance(span, NonRecordingSpan)
        assert span.get_span_context().is_valid

    assert reported("sampler") == 1
    assert collector.told == []


@pytest.mark.parametrize("answer", [None, 5, SamplingResult])
def test_a_sampler_that_answers_nothing_of_use_is_counted(answer):
    class Odd(Sampler):
        def should_sample(self, *_, **__):
            return answer

        def get_description(self):
            return "odd"

    assert not tracer_with(sampler=Odd()).start_span("name").is_recording()
    assert reported("sampler") == 1


@pytest.mark.parametrize("answer", ["7", None, LookupError])
def test_an_id_generator_that_fails_is_counted_and_random_ids_stand_in(answer):
    class Odd(IdGenerator):
        def generate_span_id(self):
            if isinstance(answer, type):
                raise answer
            return answer

        generate_trace_id = generate_span_id

    tracer = tracer_with(id_generator=Odd())
    contexts = [tracer.start_span("name").get_span_context() for _ in range(3)]

    assert all(context.is_valid for context in contexts)
    assert len({context.trace_id for context in contexts}) == 3
    assert len({context.span_id for context in contexts}) == 3
    assert reported("id_generator") == 6


def test_a_sampler_that_the_tracer_is_given_later_decides():
    class Never(Sampler):
        def should_sample(self, *_, **__):
            return SamplingResult(sampling_drop)

        def get_description(self):
            return "never"

    from opentelemetry.sdk.trace.sampling import Decision

    sampling_drop = Decision.DROP
    tracer = tracer_with(sampler=ALWAYS_ON)
    assert tracer.start_span("name").is_recording()

    tracer.sampler = Never()

    assert not tracer.start_span("name").is_recording()


ERRORS = [ValueError("wrong"), StopIteration(3), asyncio.CancelledError(), GeneratorExit(), SystemExit(3)]


def entered(start_as_current_span, error, options):
    """Returns what is seen of a span that an exception leaves."""
    exporter = InMemorySpanExporter()
    tracer = tracer_with(SimpleSpanProcessor(exporter))
    outside = get_current()
    try:
        with start_as_current_span(tracer, "name", attributes={"a": 1}, **options) as span:
            inside = get_current_span() is span
            if error is not None:
                raise error
    except BaseException as raised:
        is_same = raised is error
    else:
        is_same = error is None
    seen = (
        is_same,
        inside,
        get_current() is outside,
        span.is_recording(),
        span.status.status_code,
        span.status.description,
    )
    span.end()
    events = [(event.name, {**event.attributes, "exception.stacktrace": ""}) for event in span.events]
    return seen, events, len(exporter.get_finished_spans())


@pytest.mark.parametrize("error", [None, *ERRORS], ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    "options",
    [{}, {"record_exception": False}, {"set_status_on_exception": False}, {"end_on_exit": False}],
    ids=str,
)
def test_a_current_span_ends_as_one_of_the_sdk(error, options, caplog):
    caplog.set_level(logging.CRITICAL, "opentelemetry")

    ours = entered(Tracer.start_as_current_span, error, options)

    assert ours == entered(_ORIGINAL["start_as_current_span"], error, options)
    assert ours[0][:3] == (True, True, True)


def current_name():
    span = get_current_span()
    assert isinstance(span, Span)
    return span.name


def test_a_current_span_is_a_decorator_of_functions_and_coroutines():
    collector = Collector()
    tracer = tracer_with(collector)

    @tracer.start_as_current_span("plain")
    def plain():
        return current_name()

    @tracer.start_as_current_span("coroutine")
    async def coroutine():
        await asyncio.sleep(0)
        assert collector.told[-1] == "start"  # it ends with the coroutine, not before
        return current_name()

    assert [plain(), plain(), asyncio.run(coroutine())] == ["plain", "plain", "coroutine"]
    assert [span.name for span in collector.ended] == ["plain", "plain", "coroutine"]


def test_a_current_span_starts_when_it_is_entered_and_ends_when_it_is_forgotten():
    collector = Collector()
    manager = tracer_with(collector).start_as_current_span("name")
    assert isinstance(manager, AbstractContextManager)
    assert collector.told == []

    manager.__enter__()
    assert collector.told == ["start"]
    del manager
    gc.collect()

    assert collector.told == ["start", "ending", "end"]


def test_a_current_span_can_be_entered_once_at_a_time():
    collector = Collector()
    manager = tracer_with(collector).start_as_current_span("name")

    with manager, pytest.raises(RuntimeError), manager:
        pass

    assert collector.told == ["start", "ending", "end"]
    assert get_current_span() is INVALID_SPAN


def test_a_tracer_that_starts_spans_its_own_way_is_asked():
    class Own(Tracer):
        def start_span(self, name, *arguments, **options):
            return super().start_span(f"own {name}", *arguments, **options)

    tracer = tracer_with()
    tracer.__class__ = Own

    with tracer.start_as_current_span("name") as span:
        assert isinstance(span, SlottedSpan)
    assert span.name == "own name"


def test_seeding_random_does_not_repeat_ids():
    tracer = tracer_with()
    contexts = []
    for _ in range(3):
        random.seed(7)
        contexts.append(tracer.start_span("name").get_span_context())

    assert len({context.trace_id for context in contexts}) == 3
    assert len({context.span_id for context in contexts}) == 3


FORKING = """
import os
from opentelemetry.sdk.trace import TracerProvider
from sightline_processors.tracing import make_tracers_fast

make_tracers_fast()
tracer = TracerProvider(shutdown_on_exit=False).get_tracer("tests")
for _ in range(3):
    child = os.fork()
    if not child:
        print(tracer.start_span("child").get_span_context().trace_id, flush=True)
        os._exit(0)
    os.waitpid(child, 0)
print(tracer.start_span("parent").get_span_context().trace_id, flush=True)
"""


def test_forked_processes_have_ids_of_their_own():
    done = subprocess.run([sys.executable, "-c", FORKING], capture_output=True, text=True, check=True)

    assert len(set(done.stdout.split())) == 4


def test_threads_may_set_read_and_end_one_span_at_once():
    collector = Collector()
    span = tracer_with(collector).start_span("name")
    count = threading.Barrier(9)

    def write(number):
        count.wait()
        for step in range(10):
            span.set_attribute(f"{number}.{step}", step)
            span.add_event(f"{number}.{step}")

    def read():
        count.wait()
        for _ in range(200):
            assert all(isinstance(value, int) for value in span.attributes.values())
            assert len(span.events) <= 80

    with ThreadPoolExecutor(9) as pool:
        for done in [*(pool.submit(write, number) for number in range(8)), pool.submit(read)]:
            done.result()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: span.end(), range(4)))

    (ended,) = collector.ended
    assert len(ended.attributes) == len(ended.events) == 80
    assert collector.told == ["start", "ending", "end"]


def test_a_value_may_ask_the_span_that_it_is_set_on():
    span = tracer_with().start_span("name", attributes={"a": 1})

    class Asking:
        def __str__(self):
            span.set_attribute("asked", True)
            return f"{len(span.attributes)} attributes"

    span.set_attribute("asking", Asking())

    assert dict(span.attributes) == {"a": 1, "asked": True, "asking": "2 attributes"}


def test_restored_tracers_make_the_spans_of_the_sdk_again():
    tracer = tracer_with()

    restore_tracers()

    assert not isinstance(tracer.start_span("name"), SlottedSpan)
    assert Tracer.start_span is _ORIGINAL["start_span"]
    assert Tracer.start_as_current_span is _ORIGINAL["start_as_current_span"]


def test_a_wrapper_of_another_library_stays(monkeypatch):
    restore_tracers()
    names = []

    def wrapper(self, name, **options):
        names.append(name)
        return _ORIGINAL["start_span"](self, name, **options)

    monkeypatch.setattr(Tracer, "start_span", wrapper)

    make_tracers_fast()
    tracer_with().start_span("name")
    restore_tracers()

    assert names == ["name"]
    assert Tracer.start_span is wrapper
