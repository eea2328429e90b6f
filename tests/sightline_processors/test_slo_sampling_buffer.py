"""The buffer against a model: every span leaves once, with what was decided, within the bounds."""

import threading
from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sightline_processors.slo_sampling.buffer import BUFFER_FULL, NOT_SAMPLED, UNFINISHED, Limits, TraceBuffer
from sightline_processors.slo_sampling.choices import CERTAIN, ERROR, VIOLATION, Sampled

BOUNDS = Limits(open_traces=4, trace_spans=3, held_bytes=1_000, decided_traces=6)
HALF = Sampled("budget", 1 << 55)
trace_ids = st.integers(1, 9)
choices = st.sampled_from([None, HALF, CERTAIN[VIOLATION]])


class Buffered(RuleBasedStateMachine):
    """Opens, feeds and closes a few traces in any order."""

    def __init__(self):
        super().__init__()
        self.buffer = TraceBuffer(BOUNDS)
        self.roots = []
        self.given = 0
        self.left = Counter()

    def leave(self, releases):
        for choice, spans in releases:
            assert isinstance(choice, Sampled)
            self.left.update(spans)

    @rule(trace_id=trace_ids, promise=st.sampled_from([None, HALF]))
    def begin(self, trace_id, promise):
        trace, releases = self.buffer.begin(trace_id, promise)
        self.roots.append(trace)
        self.leave(releases)

    @rule(trace_id=trace_ids, size=st.integers(1, 600), is_error=st.booleans(), is_flagged=st.booleans())
    def take(self, trace_id, size, is_error, is_flagged):
        self.given += 1
        releases = self.buffer.take(trace_id, self.given, size, is_error=is_error, is_flagged=is_flagged)
        self.leave(releases)
        if is_error:
            assert self.left[self.given] == 1  # at once: its trace is kept

    @precondition(lambda self: self.roots)
    @rule(choice=choices, data=st.data())
    def close(self, choice, data):
        trace = self.roots.pop(data.draw(st.integers(0, len(self.roots) - 1)))
        self.leave(self.buffer.close(trace, choice))
        if choice is CERTAIN[VIOLATION]:
            assert not trace.spans
            assert self.buffer.is_kept(trace.trace_id)

    @rule()
    def finish(self):
        self.leave(self.buffer.finish())
        assert self.buffer.held_spans == self.buffer.held_bytes == 0

    @invariant()
    def every_span_is_held_or_has_left_once(self):
        assert set(self.left.values()) <= {1}
        dropped = sum(self.buffer.not_kept().values())
        assert self.given == self.left.total() + dropped + self.buffer.held_spans
        held = [span for trace in self.buffer.open.values() for span, _ in trace.spans]
        assert self.buffer.held_spans == len(held)

    @invariant()
    def it_is_within_its_bounds(self):
        assert len(self.buffer.open) <= BOUNDS.open_traces
        assert self.buffer.held_bytes <= BOUNDS.held_bytes
        assert len(self.buffer._decided) <= BOUNDS.decided_traces
        assert all(len(trace.spans) <= BOUNDS.trace_spans for trace in self.buffer.open.values())
        assert set(self.buffer._holding) == {key for key, trace in self.buffer.open.items() if trace.spans}
        sizes = sum(size for trace in self.buffer.open.values() for _, size in trace.spans)
        assert self.buffer.held_bytes == sizes


TestBuffered = Buffered.TestCase
TestBuffered.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def take(buffer, trace_id, span, **flags):
    return buffer.take(trace_id, span, 1, **{"is_error": False, "is_flagged": False, **flags})


def test_the_spans_of_a_trace_that_is_not_kept_are_counted_and_forgotten():
    buffer = TraceBuffer()
    trace, _ = buffer.begin(1, None)
    assert take(buffer, 1, "child") == []
    assert buffer.close(trace, None) == []
    assert take(buffer, 1, "root") == []
    assert buffer.not_kept() == {NOT_SAMPLED: 2}


def test_a_late_span_gets_what_was_decided_and_a_late_error_is_kept_alone():
    buffer = TraceBuffer()
    for trace_id, choice in ((1, HALF), (2, None)):
        buffer.close(buffer.begin(trace_id, None)[0], choice)
    assert take(buffer, 1, "late") == [(HALF, ["late"])]
    assert take(buffer, 2, "late") == []
    assert take(buffer, 2, "failed", is_error=True) == [(CERTAIN[ERROR], ["failed"])]


def test_of_a_long_trace_the_latest_spans_are_held_and_promised_ones_go_out():
    limits = Limits(trace_spans=2)
    for promise, expected in ((None, []), (HALF, [(HALF, ["0"]), (HALF, ["1"])])):
        buffer = TraceBuffer(limits)
        trace, _ = buffer.begin(1, promise)
        out = [release for span in "0123" for release in take(buffer, 1, span)]
        assert out == expected
        assert buffer.not_kept().get(BUFFER_FULL, 0) == (0 if promise else 2)
        assert buffer.close(trace, CERTAIN[VIOLATION]) == [(CERTAIN[VIOLATION], ["2", "3"])]


def test_a_trace_with_two_local_roots_is_decided_at_the_last_one():
    buffer = TraceBuffer()
    outer, _ = buffer.begin(1, None)
    inner, _ = buffer.begin(1, None)
    assert inner is outer
    take(buffer, 1, "of the inner one")
    assert buffer.close(inner, None) == []
    assert buffer.held_spans == 1
    assert buffer.close(outer, HALF) == [(HALF, ["of the inner one"])]


def test_at_the_end_of_the_process_only_what_is_sure_to_be_kept_goes_out():
    buffer = TraceBuffer()
    buffer.begin(1, None)
    buffer.begin(2, HALF)
    take(buffer, 1, "open")
    take(buffer, 2, "promised")
    assert buffer.finish() == [(HALF, ["promised"])]
    assert buffer.not_kept() == {UNFINISHED: 1}


def test_threads_lose_and_double_nothing():
    buffer = TraceBuffer(Limits(open_traces=50, trace_spans=5, held_bytes=500, decided_traces=50))
    left = Counter()
    lock = threading.Lock()

    def work(first):
        for trace_id in range(first, first + 4_000, 4):
            trace, out = buffer.begin(trace_id, None)
            for number in range(3):
                out += buffer.take(trace_id, (trace_id, number), 1, is_error=False, is_flagged=False)
            out += buffer.close(trace, HALF if trace_id % 2 else None)
            with lock:
                left.update(span for _, spans in out for span in spans)

    threads = [threading.Thread(target=work, args=(first,)) for first in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(left.values()) == {1}
    assert left.total() + sum(buffer.not_kept().values()) == 12_000
    assert buffer.held_spans == buffer.held_bytes == 0
    assert not buffer.open
