"""Root spans that are made ahead of their requests: nobody can tell, and no ID is there twice."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from opentelemetry.propagate import get_global_textmap, inject, set_global_textmap
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, TraceIdRatioBased
from opentelemetry.trace import get_current_span
from tests.sightline.test_server_span import Seen, Sink, instrumented, make_app, plain, serve

from sightline import correlation_id
from sightline.request_metrics import MAX_PENDING, MAX_UNTRACED
from sightline.server_tracer import MADE_AHEAD, ServerTracer

TRACED = [(b"traceparent", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01")]


class AskingSink(Sink):
    """Asks for what is held back, as the exporter does: spans are made ahead for such a processor alone."""

    def __init__(self):
        super().__init__()
        self._sources = []

    def draw_from(self, source):
        self._sources.append(source)
        return lambda: None

    @property
    def spans(self):
        for source in self._sources:
            source()
        return super().spans


def settled(*processors, **options):
    """Returns an application whose first request, which finds out about propagators, is over."""
    app, _ = instrumented(*processors, **options)
    serve(app)
    return app


def identity_of(answer):
    return answer.header("x-correlation-id")


@pytest.fixture
def made(monkeypatch):
    """Counts the loops in which spans are made ahead."""
    loops = []
    make = ServerTracer.make_ready

    def counted(tracer, *arguments):
        loops.append(tracer)
        return make(tracer, *arguments)

    monkeypatch.setattr(ServerTracer, "make_ready", counted)
    return loops


@pytest.fixture
def sink():
    return AskingSink()


def test_requests_without_a_trace_get_spans_that_were_made_ahead_each_its_own(sink, made):
    app = settled(sink)
    count = 2 * MADE_AHEAD + 1
    answers = [serve(app) for _ in range(count)]
    spans = sink.spans[1:]
    assert len(made) == 3
    assert len({span.trace_id for span in spans}) == len({span.span_id for span in spans}) == count
    assert [identity_of(answer) for answer in answers] == [span.trace_id.hex() for span in spans]
    assert not any(span.parent_span_id for span in spans)
    assert all(span.start_time_unix_nano <= span.end_time_unix_nano for span in spans)


def test_such_a_span_says_what_any_other_says(sink, made):
    other = Sink()  # does not ask: for it each span is made with its request
    spans = []
    for each in (sink, other):
        app = settled(each)
        serve(app, "/touch", query_string=b"a=1&token=secret")
        span = plain(each.spans[-1])
        for name in ("trace_id", "span_id", "start_time_unix_nano", "end_time_unix_nano"):
            span.ClearField(name)
        for attribute in span.attributes:
            if attribute.key == "sightline.correlation_id":
                attribute.value.Clear()
        spans.append(span)
    assert len(made) == 1
    assert spans[0] == spans[1]


@pytest.mark.parametrize(
    "headers", [TRACED, [(b"x-correlation-id", b"order-7")], [(b"baggage", b"tenant=acme")]]
)
def test_a_request_that_brings_a_trace_or_an_id_gets_a_span_of_its_own_making(sink, made, headers):
    app = settled(sink)
    for _ in range(2 * MADE_AHEAD):
        serve(app, headers=headers)
    assert not made
    ids = {span.trace_id for span in sink.spans}
    assert len(ids) == (2 if headers is TRACED else 2 * MADE_AHEAD + 1)


def test_inside_the_request_the_span_and_the_id_are_current(sink, made):
    app = make_app()
    seen = []

    @app.get("/inside")
    async def inside():
        seen.append((get_current_span().get_span_context().trace_id, correlation_id()))

    settled(sink, app=app)
    serve(app, "/inside")
    ((trace_id, identity),) = seen
    assert made
    assert sink.spans[-1].trace_id == trace_id.to_bytes(16, "big")
    assert identity == f"{trace_id:032x}"


def test_a_processor_that_comes_later_gets_the_next_span_and_all_of_it(sink, made):
    app = settled(sink)
    serve(app)
    (tracer,) = made
    later = Seen()
    tracer.tracer.span_processor.add_span_processor(later)
    serve(app)
    serve(app)
    assert [len(later.started), len(later.ended), len(sink.spans)] == [2, 2, 4]


def test_what_is_not_sampled_is_made_ahead_too_and_exports_nothing(sink, made):
    app = settled(sink, sampler=ParentBased(ALWAYS_OFF))
    identities = {identity_of(serve(app)) for _ in range(MADE_AHEAD + 1)}
    assert len(made) == 2
    assert len(identities) == MADE_AHEAD + 1
    assert not sink.spans
    serve(app, headers=TRACED)  # the caller has decided
    assert len(sink.spans) == 1


def test_the_ids_of_what_is_not_sampled_are_there_for_whoever_asks(sink, made):
    app, seen = make_app(), []

    @app.get("/inside")
    async def inside():
        span = get_current_span()
        with ThreadPoolExecutor(8) as pool:
            contexts = [asked.result() for asked in [pool.submit(span.get_span_context) for _ in range(8)]]
        carrier: dict[str, str] = {}
        inject(carrier)
        seen.append((span, contexts, carrier))

    settled(sink, app=app, sampler=ALWAYS_OFF)
    answers = [serve(app, "/inside") for _ in range(2)]
    assert made
    assert len({span.get_span_context().span_id for span, _, _ in seen}) == 2
    for answer, (span, contexts, carrier) in zip(answers, seen, strict=True):
        context = span.get_span_context()
        assert all(each is context for each in contexts)
        assert context.is_valid
        assert not context.is_remote
        assert not span.is_recording()
        trace_id, span_id = f"{context.trace_id:032x}", f"{context.span_id:016x}"
        assert identity_of(answer) == trace_id
        assert carrier["traceparent"] == f"00-{trace_id}-{span_id}-02"  # random, not sampled


@pytest.mark.parametrize(("sampler", "most"), [(ALWAYS_ON, MAX_PENDING), (ALWAYS_OFF, MAX_UNTRACED)])
def test_requests_wait_for_each_other_longer_where_there_is_no_span_to_encode(sink, sampler, most):
    app = settled(sink, sampler=sampler)
    pending = app._sightline[1]._recorder.requests.pending
    lengths = []
    for _ in range(2 * most):
        serve(app)
        lengths.append(len(pending))
    assert max(lengths) == most - 1
    assert lengths.count(0) == 2


def test_a_span_among_requests_that_are_not_sampled_does_not_wait_longer(sink):
    app = settled(sink, sampler=ParentBased(ALWAYS_OFF))
    pending = app._sightline[1]._recorder.requests.pending
    for _ in range(MAX_PENDING):
        serve(app)
    serve(app, headers=TRACED)  # the caller has decided
    waiting = len(pending)
    for _ in range(2 * MAX_PENDING - waiting):
        serve(app)
    assert waiting > MAX_PENDING
    assert not pending


def test_a_ratio_decides_by_the_trace_id_of_each(sink, made):
    sampler = TraceIdRatioBased(0.5)
    app = settled(sink, sampler=ParentBased(sampler))
    before = len(sink.spans)  # that of the first request, if it was kept
    count = 16 * MADE_AHEAD
    identities = [int(identity_of(serve(app)), 16) for _ in range(count)]
    kept = [
        identity for identity in identities if identity & TraceIdRatioBased.TRACE_ID_LIMIT < sampler.bound
    ]
    assert len(made) == 16
    assert [int.from_bytes(span.trace_id, "big") for span in sink.spans[before:]] == kept
    assert 0.3 < len(kept) / count < 0.7


def test_the_flags_of_a_span_that_was_made_ahead_are_its_own(sink, made):
    app, seen = make_app(), []

    @app.get("/inside")
    async def inside():
        seen.append(get_current_span())

    settled(sink, app=app, sampler=TraceIdRatioBased(0.5))
    for _ in range(2 * MADE_AHEAD):
        serve(app, "/inside")
    assert made
    contexts = [span.get_span_context() for span in seen]
    assert {context.trace_flags.sampled for context in contexts} == {True, False}
    assert [span.is_recording() for span in seen] == [False] * len(seen)  # they are over
    assert {context.trace_id.to_bytes(16, "big") for context in contexts if context.trace_flags.sampled} == {
        span.trace_id for span in sink.spans if span.name == "GET /inside"
    }


def test_a_disabled_tracer_makes_no_span(sink, made):
    app = settled(sink)
    serve(app)
    (tracer,) = made
    before = tracer.tracer._tracer_config
    tracer.tracer._tracer_config = type(before)(is_enabled=False)
    serve(app)
    tracer.tracer._tracer_config = before
    serve(app)
    assert len(sink.spans) == 3


def test_another_propagator_is_asked_for_each_request(sink, made):
    asked = []

    class Propagator(CompositePropagator):
        def extract(self, carrier, context=None, getter=None):
            asked.append(carrier)
            return super().extract(carrier, context, getter)

    app = settled(sink)
    before = get_global_textmap()
    set_global_textmap(Propagator([]))
    try:
        serve(app)
        serve(app)
    finally:
        set_global_textmap(before)
    assert len(asked) == 2


def test_a_forked_process_does_not_use_the_ids_of_its_parent(sink, made):
    app = settled(sink, sampler=ALWAYS_ON)
    serve(app)  # leaves spans that are ready
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, identity_of(serve(app)).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        of_child = pipe.read().decode()
    os.waitpid(child, 0)
    own = {identity_of(serve(app)) for _ in range(2 * MADE_AHEAD)}
    assert len(of_child) == 32
    assert of_child not in own
