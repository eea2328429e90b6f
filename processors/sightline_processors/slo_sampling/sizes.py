"""How much memory spans hold on to; rather too much than too little."""

# ruff: noqa: SLF001  the slots of our own spans, whose public properties make what nobody else asks for

import sys
from collections.abc import Mapping
from typing import Any, Final

from opentelemetry.sdk.trace import ReadableSpan

from sightline_processors.tracing.slotted_span import PLAIN_TYPES, SlottedSpan

SPAN_BYTES: Final = 1_000
"""Estimated memory of a span without attributes. Measured with CPython 3.11."""
_EVENT_BYTES: Final = 400
_VALUE_BYTES: Final = 50


def slotted_bytes(span: SlottedSpan) -> int:
    """Returns what `estimated_bytes` does of a span of ours that has ended, mostly without asking it."""
    attributes = span._attributes
    if type(attributes) is not dict or span._made_events is not None or span._made_links is not None:
        return estimated_bytes(span)
    return SPAN_BYTES + _size_of_items(attributes) if attributes else SPAN_BYTES


def estimated_bytes(span: ReadableSpan) -> int:
    """Returns the estimated memory of a span in bytes."""
    size = SPAN_BYTES + _size_of_items(span.attributes or {})
    for event in span.events:
        size += _EVENT_BYTES + _size_of_items(event.attributes or {})
    for link in span.links:
        size += _EVENT_BYTES + _size_of_items(link.attributes or {})
    return size


def _size_of_items(attributes: Mapping[str, Any]) -> int:
    size = sum(map(len, attributes))
    for value in attributes.values():
        size += _VALUE_BYTES + (sys.getsizeof(value) if type(value) in PLAIN_TYPES else _size_of(value))
    return size


def _size_of(value: Any) -> int:
    if isinstance(value, Mapping):
        return _size_of_items(value)
    if isinstance(value, list | tuple):
        return sum([_VALUE_BYTES + _size_of(each) for each in value])
    return sys.getsizeof(value)
