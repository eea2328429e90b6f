"""Single fields from values of any kind, for what the usual span or record does not have.

What is None, zero or empty is left out, as protobuf does. A value that is none of the field's kind raises:
`join_readable` leaves that field out and keeps the others.
"""

from collections.abc import Callable, Iterable
from struct import Struct
from typing import Any, Final

from sightline_processors.otlp.attributes import AttributeFields
from sightline_processors.otlp.primitives import field, text, varint

_FIXED32: Final = Struct("<I")
_FIXED64: Final = Struct("<Q")
_MAX_UINT32: Final = (1 << 32) - 1
_MAX_UINT64: Final = (1 << 64) - 1


def join_readable(readers: Iterable[Callable[[Any], bytes]], item: Any) -> bytes:
    """Returns the fields that the readers make of an item, without those that raise."""
    return b"".join([_read(reader, item) for reader in readers])


def _read(reader: Callable[[Any], bytes], item: Any) -> bytes:
    try:
        return reader(item)
    except Exception:  # noqa: BLE001  the item stays, without this field
        return b""


def id_field(tag: bytes, number: Any, size_bytes: int) -> bytes:
    """Returns a trace or span ID, big-endian; of one that is too long the lowest bits, zero as zeros."""
    low = int(number) & ((1 << 8 * size_bytes) - 1)
    return field(tag, low.to_bytes(size_bytes, "big"))


def time_field(tag: bytes, time_ns: Any) -> bytes:
    """Returns a time in nanoseconds since 1970 as fixed64; the nearest that fits."""
    return tag + _FIXED64.pack(min(max(int(time_ns), 0), _MAX_UINT64)) if time_ns else b""


def count_field(tag: bytes, number: Any) -> bytes:
    """Returns a count as varint of 32 bits; the nearest that fits."""
    return tag + varint(min(max(int(number), 0), _MAX_UINT32)) if number else b""


def flags_field(tag: bytes, flags: Any) -> bytes:
    """Returns flags as fixed32: their lowest 32 bits."""
    return tag + _FIXED32.pack(int(flags) & _MAX_UINT32) if flags else b""


def text_field(tag: bytes, value: Any) -> bytes:
    """Returns a text; nothing for None and for an empty one."""
    body = b"" if value is None else text(value)
    return field(tag, body) if body else b""


def attributes_field(fields: AttributeFields, attributes: Any) -> bytes:
    """Returns all attributes of a mapping, or nothing for None."""
    parts: list[bytes] = []
    fields.append_to(parts, attributes)
    return b"".join(parts)
