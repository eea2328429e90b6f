"""Why a span is in the sample, how likely that was, and how the span says so."""

import copy
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, TraceFlags, TraceState

from sightline_processors.otlp import wire
from sightline_processors.slo_sampling.probability import (
    ALWAYS,
    has_threshold_alone,
    probability_of,
    state_of,
    with_threshold,
)
from sightline_processors.tracing.slotted_span import SlottedSpan

PROBABILITY: Final = "sightline.sampling.probability"
"""Attribute of a sampled span, double in (0, 1]: one span stands for `1 / probability` spans. Absent where a
caller's sampler, which told no threshold, has decided."""
REASON: Final = "sightline.sampling.reason"
"""Attribute of a sampled span: `violation`, `error`, `exemplar`, `parent` or `budget`."""

VIOLATION: Final = "violation"
"""The local root was `slow` or `failed` by its objective."""
ERROR: Final = "error"
"""The span, or another of its local trace, has the status ERROR."""
EXEMPLAR: Final = "exemplar"
"""The local root was the first of its series and bucket since the last collection of metrics."""
PARENT: Final = "parent"
"""The caller's span is sampled."""
BUDGET: Final = "budget"
"""Drawn at random, from the trace ID."""

_ATTRIBUTE: Final = wire.attribute_fields(wire.SPAN_ATTRIBUTES)


@dataclass(frozen=True, slots=True)
class Sampled:
    """Says that spans are kept.

    Attributes:
        reason: One of those above.
        threshold: The trace is kept when its random bits are at least this; None where that is not known.
    """

    reason: str
    threshold: int | None

    @property
    def is_certain(self) -> bool:
        """Whether it did not depend on chance."""
        return self.threshold == ALWAYS

    @property
    def attributes(self) -> dict[str, str | float]:
        """What the span says of it."""
        if self.threshold is None:
            return {REASON: self.reason}
        return {REASON: self.reason, PROBABILITY: probability_of(self.threshold)}

    def context_of(self, context: SpanContext) -> SpanContext:
        """Returns a span's context with the sampled flag and the threshold."""
        return SpanContext(
            context.trace_id,
            context.span_id,
            context.is_remote,
            TraceFlags(context.trace_flags | TraceFlags.SAMPLED),
            with_threshold(context.trace_state, self.threshold),
        )

    def fields(self, state: TraceState | None) -> bytes:
        """Returns the OTLP fields to append to those of an encoded span.

        A trace state that comes again replaces the one before it.
        Source: protobuf encoding, "Last One Wins".

        Args:
            state: The span's own trace state.
        """
        if self.threshold is not None and state is state_of(self.threshold):  # made here, as most are
            return _usual_fields(self.reason, self.threshold, has_state=True)
        if not state:
            return _usual_fields(self.reason, self.threshold, has_state=False)
        if has_threshold_alone(state):
            return _usual_fields(self.reason, self.threshold, has_state=True)
        return _fields(self, with_threshold(state, self.threshold), is_empty=False)


def _fields(choice: Sampled, state: TraceState, *, is_empty: bool) -> bytes:
    parts: list[bytes] = []
    if state or not is_empty:
        parts.append(wire.field(wire.SPAN_TRACE_STATE, state.to_header().encode()))
    _ATTRIBUTE.append_to(parts, choice.attributes)
    return b"".join(parts)


@lru_cache(maxsize=256)
def _usual_fields(reason: str, threshold: int | None, *, has_state: bool) -> bytes:
    """Returns the fields where the span's trace state says nothing but a threshold."""
    return _fields(Sampled(reason, threshold), with_threshold(None, threshold), is_empty=not has_state)


@lru_cache(maxsize=256)
def drawn(threshold: int) -> Sampled:
    """Returns the choice of what was drawn at random, by the threshold that it has reached."""
    return Sampled(BUDGET, threshold)


CERTAIN: Final = {reason: Sampled(reason, ALWAYS) for reason in (VIOLATION, ERROR, EXEMPLAR)}
OF_PARENT: Final = Sampled(PARENT, None)


def likelier(one: Sampled | None, other: Sampled | None) -> Sampled | None:
    """Returns what two choices about one trace come to; the more likely one was its probability."""
    if one is None or other is None:
        return one or other
    if one.is_certain or other.is_certain:
        return one if one.is_certain else other
    if one.threshold is None or other.threshold is None:
        return one if one.threshold is None else other
    return one if one.threshold <= other.threshold else other


def sampled_copy(span: ReadableSpan, choice: Sampled) -> ReadableSpan:
    """Returns an ended span as it is exported; the original stays as it is.

    Args:
        span: Of the SDK, ended.
        choice: Sets flag, trace state and two attributes.
    """
    if isinstance(span, SlottedSpan):
        span = span._readable_span()  # noqa: SLF001  the SDK's own way to it
    result: Any = copy.copy(span)
    attributes = BoundedAttributes(attributes={**(span.attributes or {}), **choice.attributes})
    attributes.dropped = span.dropped_attributes
    result._attributes = attributes  # noqa: SLF001  the SDK has no public way to a changed span
    result._context = choice.context_of(span.context)  # noqa: SLF001
    return result  # type: ignore[no-any-return]
