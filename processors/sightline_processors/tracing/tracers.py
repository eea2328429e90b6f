"""`start_span` and `start_as_current_span` of the SDK's tracers, at a part of their cost.

The methods are replaced on the SDK's class, so that the spans of every instrumentation profit, whoever made
the tracer and whenever. Samplers, ID generators, limits, links and processors keep their say.
"""

# ruff: noqa: SLF001  the SDK has no public way to the parts of a tracer

import threading
from collections.abc import Sequence
from contextvars import Token
from time import time_ns
from types import FunctionType
from typing import Any, Final

from opentelemetry.context import Context, detach
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.trace import Tracer
from opentelemetry.sdk.trace._tracer_metrics import NoOpTracerMetrics
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import (
    DEFAULT_TRACE_STATE,
    INVALID_SPAN_CONTEXT,
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    get_current_span,
)
from opentelemetry.trace.propagation import _SPAN_KEY
from opentelemetry.util._decorator import _AgnosticContextManager
from opentelemetry.util.types import Attributes

from sightline_processors.tracing.current_context import attach, get_current, reset
from sightline_processors.tracing.delivery import on_start
from sightline_processors.tracing.ids import random_bits, span_id_from, trace_id_from
from sightline_processors.tracing.sampling import (
    Decisions,
    asked_decision,
    is_recorded,
    is_sampled,
    known_decision,
)
from sightline_processors.tracing.slotted_span import SlottedSpan, new_span

RANDOM: Final = 2
"""Flag of a trace ID whose bits are random. Source: W3C Trace Context level 2."""
FLAGS: Final = tuple(TraceFlags(bits) for bits in range(4))
NO_STATE: Final = DEFAULT_TRACE_STATE

_DECISIONS: Final = "_sightline_decisions"
_ID_LIMITS: Final = (1 << 128, 1 << 64)
_new_context = tuple.__new__


def span_context(
    trace_id: int, span_id: int, flags: int, state: TraceState, *, is_remote: bool = False
) -> SpanContext:
    """Returns the context of a span, as its constructor does without a call of ours.

    Source of the layout: `SpanContext.__new__`, API 1.45.
    """
    is_valid = 0 < trace_id < _ID_LIMITS[0] and 0 < span_id < _ID_LIMITS[1]
    return tuple.__new__(SpanContext, (trace_id, span_id, is_remote, FLAGS[flags & 3], state, is_valid))


def begin_trace(tracer: Tracer, parent: SpanContext | None) -> tuple[int, int, TraceState]:
    """Returns trace ID, flags without the decision, and trace state of a span: its parent's, or new ones."""
    if parent is None:
        trace_id, is_random = trace_id_from(tracer.id_generator)
        return trace_id, RANDOM if is_random else 0, NO_STATE
    return parent[0], parent[3] & RANDOM, parent[4]


def start_span(  # noqa: C901, PLR0912, PLR0915  the way of every span, in one piece: a call is 2 % of it
    self: Tracer,
    name: str,
    context: Context | None = None,
    kind: SpanKind = SpanKind.INTERNAL,
    attributes: Attributes = None,
    links: Sequence[Link] | None = (),
    start_time: int | None = None,
    record_exception: bool = True,  # noqa: FBT001, FBT002  the SDK's signature
    set_status_on_exception: bool = True,  # noqa: FBT001, FBT002
) -> Span:
    """Starts a span; the contract of `opentelemetry.sdk.trace.Tracer.start_span`.

    Raises:
        TypeError: When the current span's context is not a SpanContext, or the attributes are no mapping.
    """
    around: Any = (get_current() if context is None else context).get(_SPAN_KEY)
    if around is None:
        current: Any = INVALID_SPAN_CONTEXT
    elif SlottedSpan in type(around).__mro__:
        current = around._context
    else:
        current = get_current_span(context).get_span_context()
        if not isinstance(current, SpanContext) and current is not None:
            raise TypeError("parent_span_context must be a SpanContext or None.")
    if not self._tracer_config.is_enabled:
        return NonRecordingSpan(current)
    parent = current if current is not None and current[5] else None  # not valid: a root span
    sampler, makes_random_ids = self.sampler, type(self.id_generator) is RandomIdGenerator
    decisions = getattr(self, _DECISIONS, None)
    if decisions is None or decisions.sampler is not sampler:
        decisions = Decisions(sampler)
        setattr(self, _DECISIONS, decisions)
    if parent is not None:
        trace_id, flags, state = parent[0], parent[3] & RANDOM, parent[4]
        sampled = decisions.of_child[(2 if parent[2] else 0) + (parent[3] & 1)]
    else:
        sampled = decisions.of_root
        if makes_random_ids:
            trace_id, flags, state = random_bits(128) or 1, RANDOM, NO_STATE
        else:
            trace_id, flags, state = begin_trace(self, None)
    if sampled is None:
        sampled = known_decision(sampler, parent, trace_id)
    records = sampled
    if sampled is None:
        result = asked_decision(sampler, context, trace_id, name, kind, attributes, links or ())
        sampled, records = is_sampled(result.decision), is_recorded(result.decision)
        attributes = result.attributes
        state = NO_STATE if result.trace_state is None else result.trace_state
    flags = flags | 1 if sampled else flags
    if makes_random_ids:  # which are valid
        own = _new_context(SpanContext, (trace_id, random_bits(64) or 1, False, FLAGS[flags], state, True))
    else:
        own = span_context(trace_id, span_id_from(self.id_generator), flags, state)
    ended = None
    if type(self._tracer_metrics) is not NoOpTracerMetrics:
        ended = counted_start(self, parent, sampled=sampled, records=bool(records))
    if not records:
        return NonRecordingSpan(own)
    started = time_ns() if start_time is None else start_time
    span = new_span(self, name, own, parent, kind, attributes, started)
    if links:
        span._links = span._new_links(links)
    if not record_exception:
        span._record_exception = False
    if not set_status_on_exception:
        span._set_status_on_exception = False
    if ended is not None:
        span._record_end_metrics = ended
    on_start(self.span_processor, span, context)
    return span


class _CurrentSpan(_AgnosticContextManager[Span]):
    """Starts a span for a block, or for each call of a function that it decorates.

    The SDK's is a generator inside another. Source: `use_span`, API 1.45.
    """

    _token: Token[Context] | None = None

    def __init__(self, tracer: Tracer, arguments: dict[str, Any], *, end_on_exit: bool) -> None:
        self._tracer = tracer
        self._arguments = arguments
        self._end_on_exit = end_on_exit

    def __del__(self) -> None:
        if self._token is not None:  # entered and forgotten, which closes the SDK's generator
            self.__exit__(None, None, None)

    def _recreate_cm(self) -> "_CurrentSpan":
        return _CurrentSpan(self._tracer, self._arguments, end_on_exit=self._end_on_exit)

    def __enter__(self) -> Span:
        if self._token is not None:
            raise RuntimeError("start_as_current_span() can be entered once at a time")
        span = self._span = self._tracer.start_span(**self._arguments)
        within = Context(get_current())
        dict.__setitem__(within, _SPAN_KEY, span)
        self._token = attach(within)
        return span

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        token, self._token = self._token, None
        if token is None:
            return
        try:
            reset(token)
        except Exception:  # noqa: BLE001  left in another task than entered: `detach` says so
            detach(token)
        span = self._span
        try:
            if isinstance(error, Exception) and span.is_recording():
                if self._arguments["record_exception"]:
                    span.record_exception(error)
                if self._arguments["set_status_on_exception"]:
                    span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {error}"))
        finally:
            if self._end_on_exit:
                span.end()


def start_as_current_span(
    self: Tracer,
    name: str,
    context: Context | None = None,
    kind: SpanKind = SpanKind.INTERNAL,
    attributes: Attributes = None,
    links: Sequence[Link] | None = (),
    start_time: int | None = None,
    record_exception: bool = True,  # noqa: FBT001, FBT002  the SDK's signature
    set_status_on_exception: bool = True,  # noqa: FBT001, FBT002
    end_on_exit: bool = True,  # noqa: FBT001, FBT002
) -> _AgnosticContextManager[Span]:
    """Starts a span and makes it the current one; the contract of the SDK's method."""
    arguments = {
        "name": name,
        "context": context,
        "kind": kind,
        "attributes": attributes,
        "links": links,
        "start_time": start_time,
        "record_exception": record_exception,
        "set_status_on_exception": set_status_on_exception,
    }
    return _CurrentSpan(self, arguments, end_on_exit=end_on_exit)


def counted_start(tracer: Tracer, parent: SpanContext | None, *, sampled: bool, records: bool) -> Any:
    """Counts a span for the SDK's own metrics, where they are on; returns what counts its end."""
    metrics = tracer._tracer_metrics
    if type(metrics) is NoOpTracerMetrics:
        return None
    if not records:
        return metrics.start_span(parent, Decision.DROP)
    return metrics.start_span(parent, Decision.RECORD_AND_SAMPLE if sampled else Decision.RECORD_ONLY)


_FAST: Final = {"start_span": start_span, "start_as_current_span": start_as_current_span}
_ORIGINAL: Final = {name: getattr(Tracer, name) for name in _FAST}
_lock = threading.Lock()


def make_tracers_fast() -> None:
    """Replaces `start_span` and `start_as_current_span` of the SDK's tracers, those that exist included.

    Where another library has wrapped the SDK's `start_span`, its wrapper stays and nothing changes.
    """
    with _lock:
        if _is_of_sdk(Tracer.start_span):
            _exchange(_ORIGINAL, _FAST)


def restore_tracers() -> None:
    """Gives the SDK's tracers their own methods back, where ours are still in their place."""
    with _lock:
        _exchange(_FAST, _ORIGINAL)


def _is_of_sdk(function: Any) -> bool:
    # The type first: a wrapper may pass on what is asked of the function inside.
    return type(function) is FunctionType and function.__globals__ is vars(sdk)


def _exchange(present: dict[str, Any], wanted: dict[str, Any]) -> None:
    for name, method in present.items():
        if getattr(Tracer, name) is method:
            setattr(Tracer, name, wanted[name])
