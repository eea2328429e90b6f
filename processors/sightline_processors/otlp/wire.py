"""The wire format of OTLP: tags of its fields, and what they are filled with.

A tag is the number of the field times 8 plus the wire type: 0 varint, 1 fixed64, 2 length-delimited and
5 fixed32.
Source: opentelemetry-proto v1.10.0, the packages trace, logs, common and resource; their layout is stable.
"""

from typing import Final

from sightline_processors.otlp.attributes import attribute_field, attribute_fields
from sightline_processors.otlp.primitives import field, varint

__all__ = ["attribute_field", "attribute_fields", "field", "varint"]

REQUEST_RESOURCE: Final = b"\x0a"
"""`resource_spans` or `resource_logs`; from here to `SCOPE_ITEM`, traces and logs have the same numbers."""
RESOURCE: Final = b"\x0a"
RESOURCE_SCOPE: Final = b"\x12"
RESOURCE_ATTRIBUTES: Final = b"\x0a"
SCHEMA_URL: Final = b"\x1a"
"""Of a resource's and of a scope's items."""
SCOPE: Final = b"\x0a"
SCOPE_NAME: Final = b"\x0a"
SCOPE_VERSION: Final = b"\x12"
SCOPE_ATTRIBUTES: Final = b"\x1a"
SCOPE_ITEM: Final = b"\x12"
"""`spans` or `log_records`."""

SPAN_TRACE_ID: Final = b"\x0a"
SPAN_ID: Final = b"\x12"
SPAN_TRACE_STATE: Final = b"\x1a"
SPAN_PARENT_ID: Final = b"\x22"
SPAN_NAME: Final = b"\x2a"
SPAN_KIND: Final = b"\x30"
SPAN_START_TIME: Final = b"\x39"
SPAN_END_TIME: Final = b"\x41"
SPAN_ATTRIBUTES: Final = b"\x4a"
SPAN_DROPPED_ATTRIBUTES: Final = b"\x50"
SPAN_EVENTS: Final = b"\x5a"
SPAN_DROPPED_EVENTS: Final = b"\x60"
SPAN_LINKS: Final = b"\x6a"
SPAN_DROPPED_LINKS: Final = b"\x70"
SPAN_STATUS: Final = b"\x7a"
SPAN_FLAGS: Final = b"\x85\x01"

EVENT_TIME: Final = b"\x09"
EVENT_NAME: Final = b"\x12"
EVENT_ATTRIBUTES: Final = b"\x1a"
EVENT_DROPPED_ATTRIBUTES: Final = b"\x20"

LINK_TRACE_ID: Final = b"\x0a"
LINK_SPAN_ID: Final = b"\x12"
LINK_ATTRIBUTES: Final = b"\x22"
LINK_DROPPED_ATTRIBUTES: Final = b"\x28"
LINK_FLAGS: Final = b"\x35"

STATUS_MESSAGE: Final = b"\x12"
STATUS_CODE: Final = b"\x18"

LOG_TIME: Final = b"\x09"
LOG_SEVERITY_NUMBER: Final = b"\x10"
LOG_SEVERITY_TEXT: Final = b"\x1a"
LOG_BODY: Final = b"\x2a"
LOG_ATTRIBUTES: Final = b"\x32"
LOG_DROPPED_ATTRIBUTES: Final = b"\x38"
LOG_FLAGS: Final = b"\x45"
LOG_TRACE_ID: Final = b"\x4a"
LOG_SPAN_ID: Final = b"\x52"
LOG_OBSERVED_TIME: Final = b"\x59"
LOG_EVENT_NAME: Final = b"\x62"
