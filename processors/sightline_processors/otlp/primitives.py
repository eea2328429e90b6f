"""Varints, lengths and text: the pieces that every protobuf message is made of.

Source: protobuf.dev/programming-guides/encoding.
"""

from typing import Final

MAX_PRINTED: Final = 8_192
"""Characters kept of a value that has no type of its own in OTLP: its `repr` may be of any length."""

UNPRINTABLE: Final = "<unprintable>"

_UINT64: Final = (1 << 64) - 1
_TABLE_SIZE: Final = 2_048


def _encode_varint(number: int) -> bytes:
    groups = bytearray()
    while number >> 7:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)


VARINTS: Final = tuple(_encode_varint(number) for number in range(_TABLE_SIZE))
"""Varints at hand: most lengths, ports and status codes are among them; about 100 kB."""


def varint(n: int) -> bytes:
    """Returns a number as a varint of 1 to 10 bytes.

    Args:
        n: -2^63 to 2^64 - 1; a negative one is written as its two's complement of 64 bits. Of larger ones the
            lowest 64 bits are written.
    """
    if 0 <= n < _TABLE_SIZE:
        return VARINTS[n]
    return _encode_varint(n & _UINT64)


def field(tag: bytes, body: bytes) -> bytes:
    """Returns a length-delimited field: the encoded tag, the length of the body, the body."""
    return tag + varint(len(body)) + body


def utf8(text: str) -> bytes:
    """Returns a text in UTF-8, with `?` for each lone surrogate. Never raises for a `str` of any subclass."""
    # Unbound: a subclass may override `encode`.
    return str.encode(text, "utf-8", "replace")


def printed(value: object) -> str:
    """Returns `str(value)` of any object as a plain string of at most 8,192 characters; never raises."""
    try:
        return str.__getitem__(str(value), slice(MAX_PRINTED))
    except Exception:  # noqa: BLE001  __str__ is code of the application
        return UNPRINTABLE


def text(value: object) -> bytes:
    """Returns what stands for any object in a string field, in UTF-8; never raises.

    Bytes are taken for UTF-8, as protobuf does.
    """
    try:
        if isinstance(value, str):
            return utf8(value)
        if isinstance(value, bytes):
            return utf8(value.decode("utf-8", "replace"))
    except Exception:  # noqa: BLE001, S110  an object may lie about its class; it is printed like any other
        pass
    return utf8(printed(value))
