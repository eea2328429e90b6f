"""Log records of the SDK to elements of `ScopeLogs.log_records`.

Source: opentelemetry/proto/logs/v1/logs.proto, and the stock encoder for what it leaves open.
"""

from collections.abc import Callable
from struct import Struct
from typing import Any, Final

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.sdk._logs import ReadableLogRecord, ReadWriteLogRecord

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
from sightline_processors.otlp.values import encode_value

# By identity: the hash of an enumeration's member is a Python function.
_SEVERITIES: Final = {
    id(severity): count_field(wire.LOG_SEVERITY_NUMBER, severity.value) for severity in SeverityNumber
}
_TIMES: Final = Struct("<BQBQ")
_TIME: Final = wire.LOG_TIME[0]
_OBSERVED: Final = wire.LOG_OBSERVED_TIME[0]
_CONTEXT: Final = Struct(">2sQQ2sQ")
_TRACE_ID_HEAD: Final = wire.LOG_TRACE_ID + varint(16)
_SPAN_ID_HEAD: Final = wire.LOG_SPAN_ID + varint(8)
_SAMPLED: Final = flags_field(wire.LOG_FLAGS, 1)

_ATTRIBUTES: Final = wire.attribute_fields(wire.LOG_ATTRIBUTES)


def encode_log_record(record: ReadableLogRecord | ReadWriteLogRecord) -> bytes:
    """Returns one element of `ScopeLogs.log_records` with its tag and length, for `join_request`.

    Parses to what the stock encoder writes; never raises and always holds the record (see the package). Any
    thread.
    """
    try:
        body = _usual(record)
    except Exception:  # noqa: BLE001  whatever is odd about the record, the rest of it stays
        body = join_readable(_READERS, record)
    return wire.SCOPE_ITEM + varint(len(body)) + body


def _usual(record: ReadableLogRecord | ReadWriteLogRecord) -> bytes:
    """Returns the fields of a record that has what the SDK gives it; raises for any other."""
    log = record.log_record
    value = encode_value(log.body)
    parts = [
        _TIMES.pack(_TIME, log.timestamp or 0, _OBSERVED, log.observed_timestamp or 0),
        wire.LOG_BODY,
        varint(len(value)),
        value,
    ]
    severity = log.severity_number
    if severity is not None:
        parts.append(_SEVERITIES[id(severity)])
    if log.severity_text:
        parts.append(text_field(wire.LOG_SEVERITY_TEXT, log.severity_text))
    if log.event_name:
        parts.append(text_field(wire.LOG_EVENT_NAME, log.event_name))
    parts.append(_trace_context(log))
    _ATTRIBUTES.append_to(parts, log.attributes)
    if dropped := record.dropped_attributes:
        parts.append(count_field(wire.LOG_DROPPED_ATTRIBUTES, dropped))
    return b"".join(parts)


def _trace_context(log: LogRecord) -> bytes:
    trace_id: Any = log.trace_id
    span_id: Any = log.span_id
    flags: Any = log.trace_flags
    encoded = _SAMPLED if flags == 1 else flags_field(wire.LOG_FLAGS, flags)
    if trace_id and span_id:
        low = trace_id & 0xFFFFFFFFFFFFFFFF
        return _CONTEXT.pack(_TRACE_ID_HEAD, trace_id >> 64, low, _SPAN_ID_HEAD, span_id) + encoded
    return _id(wire.LOG_TRACE_ID, trace_id, 16) + _id(wire.LOG_SPAN_ID, span_id, 8) + encoded


def _id(tag: bytes, number: Any, size_bytes: int) -> bytes:
    return id_field(tag, number, size_bytes) if number else b""


_READERS: Final[tuple[Callable[[Any], bytes], ...]] = (
    lambda record: time_field(wire.LOG_TIME, record.log_record.timestamp),
    lambda record: time_field(wire.LOG_OBSERVED_TIME, record.log_record.observed_timestamp),
    lambda record: count_field(
        wire.LOG_SEVERITY_NUMBER, getattr(record.log_record.severity_number, "value", None)
    ),
    lambda record: text_field(wire.LOG_SEVERITY_TEXT, record.log_record.severity_text),
    lambda record: text_field(wire.LOG_EVENT_NAME, record.log_record.event_name),
    lambda record: field(wire.LOG_BODY, encode_value(record.log_record.body)),
    lambda record: _id(wire.LOG_TRACE_ID, record.log_record.trace_id, 16),
    lambda record: _id(wire.LOG_SPAN_ID, record.log_record.span_id, 8),
    lambda record: flags_field(wire.LOG_FLAGS, record.log_record.trace_flags),
    lambda record: attributes_field(_ATTRIBUTES, record.log_record.attributes),
    lambda record: count_field(wire.LOG_DROPPED_ATTRIBUTES, record.dropped_attributes),
)
