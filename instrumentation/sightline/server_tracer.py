"""Starts the SERVER spans of requests: the SDK's tracer at a part of its cost, any other its way.

Most requests bring neither trace nor correlation ID, and begin with what depends on nothing of them: a span
with random IDs, the context around it. These are made ahead, by the dozen: in one loop it costs a third.
"""

# ruff: noqa: SLF001  one module with the span that it makes; and the SDK gives no public way to its parts

from binascii import hexlify
from struct import Struct
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.sdk.trace import SynchronousMultiSpanProcessor
from opentelemetry.sdk.trace import Tracer as SdkTracer
from opentelemetry.sdk.trace._tracer_metrics import NoOpTracerMetrics
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import (
    INVALID_SPAN_CONTEXT,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Tracer,
)
from opentelemetry.trace.propagation import _SPAN_KEY as SPAN_KEY

from sightline.options import CaptureOptions
from sightline.request_context import request_context
from sightline.request_facts import RequestFacts
from sightline.request_metrics import RequestMetrics
from sightline.server_span import MAX_OWN_ATTRIBUTES, ServerSpan, requested, start_attributes, target_of
from sightline.types import Attributes, Scope
from sightline.unsampled_root import UnsampledRoot
from sightline_processors.forked_processes import renew_in_children
from sightline_processors.report import report
from sightline_processors.slo_sampling import EncodedSloSamplingProcessor
from sightline_processors.tracing.delivery import (
    EncodedSpanProcessor,
    on_start,
    processors_for,
    processors_of,
)
from sightline_processors.tracing.ids import random_bits, span_id_from
from sightline_processors.tracing.sampling import (
    RANDOM_PART,
    asked_decision,
    is_recorded,
    is_sampled,
    known_decision,
    root_bound,
)
from sightline_processors.tracing.tracers import FLAGS, NO_STATE, begin_trace, counted_start, span_context

_RANDOM_SAMPLED: Final = FLAGS[3]
_RANDOM: Final = FLAGS[2]
MADE_AHEAD: Final = 32
"""Spans that wait for their requests: enough for a loop, few enough to stay in the processor's caches."""

_IDS_BITS: Final = 128 * MADE_AHEAD
_IDENTITY: Final = Struct("32s")

_new = object.__new__
_new_context = tuple.__new__
_NOTHING: Final = Context()

Ready = tuple[Any, ServerSpan | None]
"""An exchange that waits for its request, and its span where that is exported."""


class ForeignTracer:
    """Starts spans with a tracer that is not the SDK's."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def start(
        self,
        facts: RequestFacts,
        scope: Scope,
        context: Context,
        started: int,
        captured: Attributes | None = None,
    ) -> Span:
        """Starts the span of a request; the arguments are those of `ServerTracer.start`."""
        attributes = {**start_attributes(facts, scope), **(captured or {})}
        return self._tracer.start_span(
            facts.shared.early_name, context, SpanKind.SERVER, attributes, start_time=started
        )


class ServerTracer:
    """Starts spans with a tracer of the SDK; any thread.

    Args:
        tracer: Of the SDK, with the SDK's `start_span`.
        requests: Holds the spans that have ended until there are enough to encode.
        options: Of the application.

    Attributes:
        tracer: The same.
        known: Its processors, while they are ours alone and nothing else stands against the short way.
        knows_roots: Whether the trace ID alone says what the sampler decides about a root span.
        ready: Exchanges that were made ahead; a request takes one.
    """

    def __init__(self, tracer: SdkTracer, requests: RequestMetrics, options: CaptureOptions) -> None:
        self.tracer: Any = tracer
        self.known: Any = None
        self.ready: list[Ready] = []
        self._requests = requests
        self._options = options
        limits = tracer._span_limits
        self._is_unlimited = limits.max_span_attribute_length is None and (
            limits.max_span_attributes is None or limits.max_span_attributes >= 2 * MAX_OWN_ATTRIBUTES
        )
        self._is_plain = (
            self._is_unlimited
            and type(tracer.id_generator) is RandomIdGenerator
            and type(tracer._tracer_metrics) is NoOpTracerMetrics
            and type(tracer.span_processor) is SynchronousMultiSpanProcessor
        )
        # By the parent: unsampled and sampled ones of this process, then of another.
        self._decisions = [_decision(tracer, parent) for parent in _PARENTS]
        root = _decision(tracer, None)
        self._root = (root, _RANDOM_SAMPLED if root else _RANDOM)
        self._bound = root_bound(tracer.sampler)
        self.knows_roots = known_decision(tracer.sampler, None, 0) is not None
        self._seen: Any = None
        self._direct: EncodedSpanProcessor | None = None
        # The same processor, where it decides at the end of a request whether its span is encoded.
        self._deciding: EncodedSloSamplingProcessor | None = None
        self._look_at_processors()
        renew_in_children(self, ServerTracer.forget_ready)

    def _look_at_processors(self) -> None:
        """Finds out whether the only processor takes encoded spans."""
        processors = processors_of(self.tracer.span_processor)
        if processors is self._seen:
            return
        concerned = processors_for(self.tracer.span_processor, SpanKind.SERVER)
        only = concerned[0] if len(concerned) == 1 else None
        self._direct = only if isinstance(only, EncodedSpanProcessor) and self._requests.feed(only) else None
        self.known = processors if self._direct is not None and self._is_plain else None
        self.ready.clear()  # those processors took them, or did not
        self._deciding = None
        if isinstance(only, EncodedSloSamplingProcessor) and only.decides(self.tracer.sampler):
            self._deciding = only if self.known is not None else None
        self._seen = processors

    def make_ready(self, exchange_class: type) -> Ready:
        """Makes exchanges and their root spans ahead, with what follows from no request; returns one.

        Args:
            exchange_class: Of the exchanges; their constructor is not called.
        """
        sampled, bound = self._root[0], self._bound
        tracer, direct, options = self.tracer, self._direct, self._options
        made: list[Ready] = []
        identities = hexlify(random_bits(_IDS_BITS).to_bytes(_IDS_BITS // 8, "big"))
        for (identity,) in _IDENTITY.iter_unpack(identities):
            if bound is not None:
                sampled = int(identity, 16) & RANDOM_PART < bound
            exchange: Any = _new(exchange_class)
            span: Any
            if sampled:
                span = _new(ServerSpan)
                ids = (int(identity, 16), random_bits(64), False, _RANDOM_SAMPLED, NO_STATE, True)
                span._context = _new_context(SpanContext, ids)
                span.correlation_bytes = identity
                span._tracer = tracer
                span._direct = direct
                span._parent = span._own = span._built = span._ending = span._end_time = None
            else:
                span = _new(UnsampledRoot)
                span.identity = identity
            exchange.span = span
            exchange.context = request_context(_NOTHING, span, identity.decode(), options)
            exchange._correlation_bytes = identity
            exchange._request_bytes = None
            exchange._flags = 0
            made.append((exchange, span if sampled else None))
        one = made.pop()
        self.ready += made
        return one

    def forget_ready(self) -> None:
        """Drops what was made ahead: a forked process has the same, and IDs must differ."""
        self.ready.clear()

    def start(
        self,
        facts: RequestFacts,
        scope: Scope,
        context: Context,
        started: int,
        captured: Attributes | None = None,
    ) -> Span:
        """Starts the span of a request; a non-recording one when it is not sampled.

        Args:
            facts: What follows from the connection.
            scope: The ASGI scope as the server gave it.
            context: The caller's.
            started: In Unix nanoseconds.
            captured: Request headers as attributes, or None.
        """
        tracer = self.tracer
        parent: SpanContext | None = None
        if context:
            current = context.get(SPAN_KEY)
            parent = current.get_span_context() if isinstance(current, Span) else None
            if parent is not None and not parent[5]:  # not valid
                parent = None
        if parent is None:
            sampled, flags = self._root
            trace_id, state = random_bits(128), NO_STATE
        else:
            sampled = self._decisions[2 * parent[2] + (parent[3] & 1)]
            trace_id, flags, state = parent[0], FLAGS[parent[3] & 2 | (sampled or 0)], parent[4]
        if (
            sampled is None
            or not facts.shared.is_usual
            or tracer.span_processor._span_processors is not self.known
            or not tracer._tracer_config.is_enabled
        ):
            return self._start_any(facts, scope, context, parent, captured, started)
        # A span that no processor wants to see: the way of most requests, without a call of ours.
        own = _new_context(SpanContext, (trace_id, random_bits(64), False, flags, state, True))
        if not sampled:
            unsampled = _new(NonRecordingSpan)
            unsampled._context = own  # all that its constructor does
            return unsampled
        span = _new(ServerSpan)
        # Until the request turns out to bring one; twice as fast as to format it.
        span.correlation_bytes = hexlify(trace_id.to_bytes(16, "big"))
        span._parent = parent
        span._own = captured
        span._built = span._ending = span._end_time = None
        span._tracer = tracer
        span._facts = facts
        span._context = own
        span._start_time = started
        span._direct = self._direct
        try:
            span._target = requested(scope)
        except KeyError:  # ASGI does not ask for all of them
            span._target = target_of(scope)
        return span

    def _start_any(
        self,
        facts: RequestFacts,
        scope: Scope,
        context: Context,
        parent: SpanContext | None,
        captured: Attributes | None,
        started: int,
    ) -> Span:
        """Starts a span with whatever parent, sampler, ID generator, limits and processors there are."""
        tracer = self.tracer
        if (
            self._deciding is not None
            and (parent is None or parent[2])
            and facts.shared.is_usual
            and tracer.span_processor._span_processors is self.known
            and tracer._tracer_config.is_enabled
        ):
            return self._start_undecided(self._deciding, facts, scope, parent, captured, started)
        self._look_at_processors()
        if not tracer._is_enabled():
            return NonRecordingSpan(parent or INVALID_SPAN_CONTEXT)
        trace_id, flags, state = begin_trace(tracer, parent)
        sampled = known_decision(tracer.sampler, parent, trace_id)
        records = sampled
        attributes: Any = None
        if sampled is None or not facts.shared.is_usual or not self._is_unlimited:
            attributes = {**start_attributes(facts, scope), **(captured or {})}
        if sampled is None:
            asked = asked_decision(
                tracer.sampler, context, trace_id, facts.shared.early_name, SpanKind.SERVER, attributes, ()
            )
            sampled, records = is_sampled(asked.decision), is_recorded(asked.decision)
            attributes, state = dict(asked.attributes or {}), asked.trace_state or NO_STATE
        own = span_context(
            trace_id, span_id_from(tracer.id_generator), flags | 1 if sampled else flags, state
        )
        ended = counted_start(tracer, parent, sampled=sampled, records=bool(records))
        if not records:
            return NonRecordingSpan(own)
        span = _new(ServerSpan)
        span._tracer = tracer
        span._facts = facts
        span._context = own
        span._parent = parent
        span._start_time = started
        span._built = attributes
        span._ending = span._end_time = None
        span._own = captured
        span._direct = self._direct if sampled and ended is None else None
        span.correlation_bytes = b"%032x" % trace_id  # a generator of the user's may give what is too big
        span._target = target_of(scope)
        if ended is not None:
            span._record_end_metrics = ended
        if not self._is_unlimited:
            span._bounded()
        if span._direct is None:
            on_start(tracer.span_processor, span, context)
        return span

    def _start_undecided(
        self,
        deciding: EncodedSloSamplingProcessor,
        facts: RequestFacts,
        scope: Scope,
        parent: SpanContext | None,
        captured: Attributes | None,
        started: int,
    ) -> Span:
        """Starts the span of a request whose end says whether it is exported; the short way of such."""
        trace_id = random_bits(128) if parent is None else parent[0]
        flags = _RANDOM if parent is None else FLAGS[parent[3] & 2]
        span_id = random_bits(64)
        try:
            trace, is_flagged, state = deciding.sampler.begin(trace_id, parent)
        except Exception as error:  # noqa: BLE001  fail open: as where a sampler raises that is asked
            report("sampler", "the sampler raised; the span is not sampled", error=error)
            return NonRecordingSpan(span_context(trace_id, span_id, flags, NO_STATE))
        if is_flagged:
            flags = FLAGS[flags | 1]
        if state is None:
            state = NO_STATE
        own = _new_context(SpanContext, (trace_id, span_id, False, flags, state, True))
        span = _new(ServerSpan)
        span.correlation_bytes = hexlify(trace_id.to_bytes(16, "big"))
        span._parent = parent
        span._own = captured
        span._built = span._ending = span._end_time = span._direct = None
        span._tracer = self.tracer
        span._facts = facts
        span._context = own
        span._start_time = started
        span._target = target_of(scope)
        span._undecided = (deciding, trace)
        return span


_ALL_BITS: Final = (1 << 128) - 1
_PARENTS: Final = tuple(
    span_context(1, 1, flags, NO_STATE, is_remote=is_remote)
    for is_remote in (False, True)
    for flags in (0, 1)
)


def _decision(tracer: SdkTracer, parent: SpanContext | None) -> bool | None:
    """Returns what the sampler always decides below such a parent; None where it depends on the trace."""
    decisions = {known_decision(tracer.sampler, parent, trace_id) for trace_id in (0, _ALL_BITS)}
    return decisions.pop() if len(decisions) == 1 else None
