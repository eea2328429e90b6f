"""Holds the spans of each trace until its local root has ended, and what was decided for a while after.

Bounds: `Limits`. An open trace takes about 0.4 KB without spans, a decided one 0.2 KB.
"""

from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from threading import RLock
from typing import Any, Final

from sightline_processors.slo_sampling.choices import CERTAIN, ERROR, OF_PARENT, Sampled, likelier

NOT_SAMPLED: Final = "not_sampled"
"""Counted for spans that nothing speaks for."""
BUFFER_FULL: Final = "buffer_full"
"""Counted for spans that had to make room for others before their trace was decided."""
UNFINISHED: Final = "unfinished"
"""Counted for spans whose local root had not ended when the process did."""

Release = tuple[Sampled, list[Any]]
"""A choice, and the spans that leave with it, oldest first."""

_UNKNOWN: Final[Any] = object()


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a buffer; beyond each of them the oldest goes first.

    Attributes:
        open_traces: Traces whose local root has not ended.
        trace_spans: Spans held for one trace.
        held_bytes: Estimated memory of all held spans.
        decided_traces: Traces whose late spans are still told what was decided.
    """

    open_traces: int = 10_000
    trace_spans: int = 1_000
    held_bytes: int = 16 * 1024 * 1024
    decided_traces: int = 10_000


class OpenTrace:
    """A trace in this process, while one of its local roots has not ended.

    Attributes:
        trace_id: Of the trace.
        promise: That it will be kept, which its sampled flag has told others; None without such a promise.
        choice: What speaks for it so far.
        open_roots: Local roots that have not ended: several, where the process calls itself.
        ended_spans: Spans that have ended.
    """

    __slots__ = ("choice", "ended_spans", "open_roots", "promise", "spans", "trace_id")

    def __init__(self, trace_id: int, promise: Sampled | None) -> None:
        self.trace_id = trace_id
        self.promise = promise
        self.choice: Sampled | None = None
        self.open_roots = 1
        self.ended_spans = 0
        self.spans: list[tuple[Any, int]] = []


class TraceBuffer:
    """Holds spans by trace; any thread.

    Each method returns what is to be exported now; the caller does that without the lock.

    Attributes:
        lock: Held for microseconds; its holder may take it again.
        open: By trace ID, the one that has begun first comes first.
        counts: Spans that were not kept, by why.
        held_spans: Spans held.
        held_bytes: Their estimated memory.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.forget()

    def forget(self) -> None:
        """Starts anew in a process that was forked: what is open is the parent's."""
        self.lock = RLock()
        self.open: OrderedDict[int, OpenTrace] = OrderedDict()
        self.counts: Counter[str] = Counter()
        self.held_spans = self.held_bytes = 0
        self._holding: OrderedDict[int, OpenTrace] = OrderedDict()
        self._decided: OrderedDict[int, Sampled | None] = OrderedDict()

    def begin(self, trace_id: int, promise: Sampled | None) -> tuple[OpenTrace, list[Release]]:
        """Counts a local root that begins; returns its trace, which may be open already."""
        with self.lock:
            found = self.open.get(trace_id)
            if found is not None:
                found.open_roots += 1
                found.promise = likelier(found.promise, promise)
                return found, []
            trace = self.open[trace_id] = OpenTrace(trace_id, promise)
            releases = []
            while len(self.open) > self.limits.open_traces:
                _, oldest = self.open.popitem(last=False)
                releases += self._give_up(oldest)
            return trace, releases

    def records(self, trace_id: int) -> bool | None:
        """Tells whether a span that begins is recorded; None for a trace that is not known."""
        trace = self.open.get(trace_id)
        if trace is not None:
            return True
        return None if self._decided.get(trace_id, _UNKNOWN) is _UNKNOWN else True

    def is_kept(self, trace_id: int) -> bool:
        """Tells whether a trace is certain to be kept, as far as is known by now."""
        trace = self.open.get(trace_id)
        choice = self._decided.get(trace_id) if trace is None else trace.choice or trace.promise
        return choice is not None

    def take(self, trace_id: int, span: Any, size: int, *, is_error: bool, is_flagged: bool) -> list[Release]:
        """Takes a span that has ended.

        Args:
            trace_id: Of its trace.
            span: Handed out again as it is, or dropped.
            size: Its estimated memory in bytes.
            is_error: Whether its status is an error, which keeps its trace.
            is_flagged: Whether its sampled flag is set; counts where nothing is known of the trace.
        """
        with self.lock:
            trace = self.open.get(trace_id)
            if trace is None:
                return self._late(trace_id, span, is_error=is_error, is_flagged=is_flagged)
            trace.ended_spans += 1
            trace.spans.append((span, size))
            self.held_spans += 1
            self.held_bytes += size
            self._holding.setdefault(trace_id, trace)
            if is_error:
                trace.choice = likelier(trace.choice, CERTAIN[ERROR])
            if trace.choice is not None and trace.choice.is_certain:
                return self._release(trace, trace.choice)
            limits = self.limits
            if len(trace.spans) <= limits.trace_spans and self.held_bytes <= limits.held_bytes:
                return []
            return self._make_room(trace)

    def close(self, trace: OpenTrace, choice: Sampled | None, *, awaits_root: bool = False) -> list[Release]:
        """Ends a local root; with the last one, or with a certain choice, the trace is decided.

        Args:
            trace: What `begin` gave.
            choice: What speaks for the root.
            awaits_root: Whether spans that are kept may wait for `leave_with`; they are held as before.
        """
        with self.lock:
            trace.open_roots -= 1
            found = self.open.get(trace.trace_id)  # another one where it made room and began anew
            if found is None:
                trace.spans = []  # what it holds after a fork is the parent's
            present = found or trace
            if present.choice is not None:
                choice = likelier(present.choice, choice)
            trace.choice = present.choice = choice
            if present.open_roots > 0:
                if choice is None or not choice.is_certain:
                    return []
                self._remember(trace.trace_id, choice)
                return self._release(present, choice)
            self.open.pop(trace.trace_id, None)
            choice = trace.choice = present.choice = self._remember(trace.trace_id, choice)
            if choice is None:
                return self._drop(present, NOT_SAMPLED) if present.spans else []
            return [] if awaits_root and present is trace else self._release(present, choice)

    def leave_with(self, trace: OpenTrace, *root: Any) -> list[Release]:
        """Hands out what still waits for the root of a trace that is kept, and the root with it."""
        with self.lock:
            return [(trace.choice, [*self._emptied(trace), *root])] if trace.choice else []

    def finish(self) -> list[Release]:
        """Ends all traces at the end of the process: what is sure to be kept goes out."""
        with self.lock:
            releases = []
            while self.open:
                _, trace = self.open.popitem(last=False)
                releases += self._give_up(trace, UNFINISHED)
            return releases

    def not_kept(self) -> Mapping[str, int]:
        """Returns how many spans were not kept, by why."""
        with self.lock:
            return dict(self.counts)

    def _late(self, trace_id: int, span: Any, *, is_error: bool, is_flagged: bool) -> list[Release]:
        """Takes a span whose trace is decided, or not known any more."""
        choice = self._decided.get(trace_id, _UNKNOWN)
        if choice is _UNKNOWN:
            choice = OF_PARENT if is_flagged else None
        if choice is None and is_error:
            choice = CERTAIN[ERROR]
        if choice is None:
            self.counts[NOT_SAMPLED] += 1
            return []
        return [(choice, [span])]

    def _remember(self, trace_id: int, choice: Sampled | None) -> Sampled | None:
        """Returns what is decided, also by an earlier part of the trace."""
        before = self._decided.pop(trace_id, None)
        if before is not None:
            choice = likelier(before, choice)
        self._decided[trace_id] = choice
        if len(self._decided) > self.limits.decided_traces:
            self._decided.popitem(last=False)
        return choice

    def _release(self, trace: OpenTrace, choice: Sampled) -> list[Release]:
        spans = self._emptied(trace)
        return [(choice, spans)] if spans else []

    def _drop(self, trace: OpenTrace, why: str) -> list[Release]:
        self.counts[why] += len(self._emptied(trace))
        return []

    def _give_up(self, trace: OpenTrace, why: str = BUFFER_FULL) -> list[Release]:
        """Decides a trace before its end, by what is known."""
        choice = likelier(trace.choice, trace.promise)
        return self._drop(trace, why) if choice is None else self._release(trace, choice)

    def _emptied(self, trace: OpenTrace) -> list[Any]:
        held = trace.spans
        if not held:
            return []
        trace.spans = []
        self._holding.pop(trace.trace_id, None)
        self.held_spans -= len(held)
        spans = []
        for span, size in held:
            self.held_bytes -= size
            spans.append(span)
        return spans

    def _make_room(self, trace: OpenTrace) -> list[Release]:
        """Lets the oldest spans go, of one trace that has too many and of those that hold longest."""
        releases = []
        while len(trace.spans) > self.limits.trace_spans:
            releases += self._evict(trace)
        while self.held_bytes > self.limits.held_bytes:
            releases += self._evict(next(iter(self._holding.values())))
        return releases

    def _evict(self, trace: OpenTrace) -> list[Release]:
        span, size = trace.spans.pop(0)
        self.held_spans -= 1
        self.held_bytes -= size
        if not trace.spans:
            self._holding.pop(trace.trace_id, None)
        choice = likelier(trace.choice, trace.promise)
        if choice is not None:
            return [(choice, [span])]
        self.counts[BUFFER_FULL] += 1
        return []
