"""Spans of the SDK to elements of `ScopeSpans.spans`.

Source: opentelemetry/proto/trace/v1/trace.proto, and the stock encoder for what it leaves open.
"""

from collections.abc import Callable, Iterable
from struct import Struct
from typing import Any, Final

from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode

from sightline_processors.otlp import wire
from sightline_processors.otlp.fields import (
    attributes_field,
    count_field,
    flags_field,
    id_field,
    join_readable,
    text_field,
    time_field,
)
from sightline_processors.otlp.primitives import field, varint

_HAS_IS_REMOTE: Final = 0x100
_IS_REMOTE: Final = 0x200

# By identity: the hash of an enumeration's member is a Python function.
_KINDS: Final = {
    id(kind): wire.SPAN_KIND + varint(number)
    for number, kind in enumerate(
        (SpanKind.INTERNAL, SpanKind.SERVER, SpanKind.CLIENT, SpanKind.PRODUCER, SpanKind.CONSUMER), start=1
    )
}
_CODES: Final = {id(code): code.value for code in StatusCode}

_IDS: Final = Struct(">2sQQ2sQ")
_TIMES: Final = Struct("<BQBQ")
_PARENT_ID: Final = Struct(">2sQ")
_TRACE_ID_HEAD: Final = wire.SPAN_TRACE_ID + varint(16)
_SPAN_ID_HEAD: Final = wire.SPAN_ID + varint(8)
_PARENT_ID_HEAD: Final = wire.SPAN_PARENT_ID + varint(8)
_START: Final = wire.SPAN_START_TIME[0]
_END: Final = wire.SPAN_END_TIME[0]
FLAGS_LOCAL: Final = flags_field(wire.SPAN_FLAGS, _HAS_IS_REMOTE)
FLAGS_REMOTE: Final = flags_field(wire.SPAN_FLAGS, _HAS_IS_REMOTE | _IS_REMOTE)
STATUS_UNSET: Final = field(wire.SPAN_STATUS, b"")

_ATTRIBUTES: Final = wire.attribute_fields(wire.SPAN_ATTRIBUTES)
_EVENT_ATTRIBUTES: Final = wire.attribute_fields(wire.EVENT_ATTRIBUTES)
_LINK_ATTRIBUTES: Final = wire.attribute_fields(wire.LINK_ATTRIBUTES)


def encode_span(span: ReadableSpan) -> bytes:
    """Returns one element of `ScopeSpans.spans` with its tag and length, for `join_request`.

    Parses to what the stock encoder writes; never raises and always holds the span (see the package). Reads
    each public property once. Any thread.
    """
    try:
        body = _usual(span)
    except Exception:  # noqa: BLE001  whatever is odd about the span, the rest of it stays
        body = join_readable(_READERS, span)
    return wire.SCOPE_ITEM + varint(len(body)) + body


def _usual(span: ReadableSpan) -> bytes:
    """Returns the fields of a span that has what the SDK gives it; raises for any other."""
    context: Any = span.get_span_context()
    trace_id = context.trace_id
    name = str.encode(span.name)  # unbound: a subclass may override it
    status = span.status
    code, description = status.status_code, status.description
    parts = [
        _IDS.pack(
            _TRACE_ID_HEAD, trace_id >> 64, trace_id & 0xFFFFFFFFFFFFFFFF, _SPAN_ID_HEAD, context.span_id
        ),
        wire.SPAN_NAME,
        varint(len(name)),
        name,
        _KINDS[id(span.kind)],
        _TIMES.pack(_START, span.start_time, _END, span.end_time),
        _parent(span.parent),
        STATUS_UNSET if code is StatusCode.UNSET and not description else status_field(status),
    ]
    if context.trace_state:
        parts.append(_trace_state(context.trace_state))
    _ATTRIBUTES.append_to(parts, span.attributes)
    if events := span.events:
        parts.append(_events(events))
    if links := span.links:
        parts.append(_links(links))
    if dropped := span.dropped_attributes:
        parts.append(count_field(wire.SPAN_DROPPED_ATTRIBUTES, dropped))
    if dropped := span.dropped_events:
        parts.append(count_field(wire.SPAN_DROPPED_EVENTS, dropped))
    if dropped := span.dropped_links:
        parts.append(count_field(wire.SPAN_DROPPED_LINKS, dropped))
    return b"".join(parts)


def _parent(parent: SpanContext | None) -> bytes:
    if parent is None:
        return FLAGS_LOCAL
    flags = FLAGS_REMOTE if parent.is_remote else FLAGS_LOCAL
    return _PARENT_ID.pack(_PARENT_ID_HEAD, parent.span_id) + flags


def _flags(context: SpanContext | None) -> int:
    # Like the stock encoder: whether the parent is remote, and not the W3C trace flags.
    return _HAS_IS_REMOTE | _IS_REMOTE if context and context.is_remote else _HAS_IS_REMOTE


def _trace_state(trace_state: Any) -> bytes:
    pairs = ",".join([f"{key}={value}" for key, value in trace_state.items()])
    return text_field(wire.SPAN_TRACE_STATE, pairs)


def status_field(status: Status | None) -> bytes:
    """Returns the field of a status; nothing of None."""
    return b"" if status is None else field(wire.SPAN_STATUS, join_readable(_STATUS_READERS, status))


def _events(events: Iterable[Event]) -> bytes:
    return b"".join([field(wire.SPAN_EVENTS, join_readable(_EVENT_READERS, event)) for event in events])


def _links(links: Iterable[Link]) -> bytes:
    return b"".join([field(wire.SPAN_LINKS, join_readable(_LINK_READERS, link)) for link in links])


_Readers = tuple[Callable[[Any], bytes], ...]

_STATUS_READERS: Final[_Readers] = (
    lambda status: text_field(wire.STATUS_MESSAGE, status.description),
    lambda status: count_field(wire.STATUS_CODE, _CODES.get(id(status.status_code))),
)

_EVENT_READERS: Final[_Readers] = (
    lambda event: time_field(wire.EVENT_TIME, event.timestamp),
    lambda event: text_field(wire.EVENT_NAME, event.name),
    lambda event: attributes_field(_EVENT_ATTRIBUTES, event.attributes),
    lambda event: count_field(wire.EVENT_DROPPED_ATTRIBUTES, event.dropped_attributes),
)

_LINK_READERS: Final[_Readers] = (
    lambda link: id_field(wire.LINK_TRACE_ID, link.context.trace_id, 16),
    lambda link: id_field(wire.LINK_SPAN_ID, link.context.span_id, 8),
    lambda link: attributes_field(_LINK_ATTRIBUTES, link.attributes),
    lambda link: count_field(wire.LINK_DROPPED_ATTRIBUTES, link.dropped_attributes),
    lambda link: flags_field(wire.LINK_FLAGS, _flags(link.context)),
)

_READERS: Final[_Readers] = (
    lambda span: id_field(wire.SPAN_TRACE_ID, span.get_span_context().trace_id, 16),
    lambda span: id_field(wire.SPAN_ID, span.get_span_context().span_id, 8),
    lambda span: _trace_state(span.get_span_context().trace_state),
    lambda span: id_field(wire.SPAN_PARENT_ID, span.parent.span_id, 8),
    lambda span: text_field(wire.SPAN_NAME, span.name),
    lambda span: _KINDS[id(span.kind)],
    lambda span: time_field(wire.SPAN_START_TIME, span.start_time),
    lambda span: time_field(wire.SPAN_END_TIME, span.end_time),
    lambda span: attributes_field(_ATTRIBUTES, span.attributes),
    lambda span: count_field(wire.SPAN_DROPPED_ATTRIBUTES, span.dropped_attributes),
    lambda span: _events(span.events),
    lambda span: count_field(wire.SPAN_DROPPED_EVENTS, span.dropped_events),
    lambda span: _links(span.links),
    lambda span: count_field(wire.SPAN_DROPPED_LINKS, span.dropped_links),
    lambda span: status_field(span.status),
    lambda span: flags_field(wire.SPAN_FLAGS, _flags(span.parent)),
)
