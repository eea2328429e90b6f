"""Spans as the OTLP bytes that are exported, with what says that they are sampled at the end of them."""

from collections.abc import Sequence
from typing import NamedTuple

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import TraceState

from sightline_processors.otlp import wire
from sightline_processors.otlp.spans import encode_span
from sightline_processors.slo_sampling.choices import Sampled
from sightline_processors.tracing.rewriting import SpanRewriter, rewritten
from sightline_processors.tracing.slotted_span import TracerSpan


class EncodedRoot(NamedTuple):
    """A local root that came encoded: an element of `ScopeSpans.spans`, and the rest of what it is."""

    resource: Resource
    scope: InstrumentationScope
    item: bytes
    state: TraceState | None


def with_fields(item: bytes, fields: bytes) -> bytes:
    """Returns an element of `ScopeSpans.spans` with further fields at its end."""
    start = 1
    while item[start] & 0x80:
        start += 1
    body = item[start + 1 :] + fields
    return wire.SCOPE_ITEM + wire.varint(len(body)) + body


def encoded_sampled(span: TracerSpan, choice: Sampled, rewriters: Sequence[SpanRewriter]) -> bytes:
    """Returns what `OtlpSpanProcessor` makes of a sampled copy of a span, without making that copy.

    Args:
        span: Ended; stays as it is.
        choice: Says why it is exported.
        rewriters: Those of the processor.
    """
    fields = choice.fields(span._context[4])  # noqa: SLF001  its slot
    return with_fields(encode_span(rewritten(span, rewriters) if rewriters else span), fields)
