"""`AnyValue`: what an attribute or the body of a log record holds.

Source: opentelemetry/proto/common/v1/common.proto. The order of the checks is the stock encoder's, so that a
value of several natures (an `IntEnum`, a named tuple, `bytearray`) is written as there.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from struct import Struct
from types import NoneType
from typing import Any, Final

from sightline_processors.otlp.primitives import MAX_PRINTED, field, printed, text, utf8, varint

MAX_MESSAGES: Final = 90
"""Messages nested in one value.

Source: protobuf's readers refuse more than 100 in a request, and up to 6 stand around the value.
"""

MAX_VALUES: Final = 65_536
"""Values that one attribute may hold, over all levels: also ends what refers to itself."""

_STRING: Final = b"\x0a"
_FALSE: Final = b"\x10\x00"
_TRUE: Final = b"\x10\x01"
_INTEGER: Final = b"\x18"
_DOUBLE: Final = Struct("<Bd")
_DOUBLE_TAG: Final = 0x21
_ARRAY: Final = b"\x2a"
_MAPPING: Final = b"\x32"
_BYTES: Final = b"\x3a"

_ELEMENT: Final = b"\x0a"
_KEY: Final = b"\x0a"
_VALUE: Final = b"\x12"

_MIN_INT64: Final = -(1 << 63)
_MAX_INT64: Final = (1 << 63) - 1
# Below the smallest limit that an application can set with `sys.set_int_max_str_digits`.
_MAX_DECIMAL_BITS: Final = 2_048


def encode_value(value: object) -> bytes:
    """Returns the body of an `AnyValue` for any object; never raises, and is empty for None."""
    return _Tree().encode(value, MAX_MESSAGES)


def _string(value: str) -> bytes:
    return field(_STRING, utf8(value))


def _boolean(value: bool) -> bytes:  # noqa: FBT001  one of the encoders by type
    return _TRUE if value else _FALSE


def _integer(value: int) -> bytes:
    if _MIN_INT64 <= value <= _MAX_INT64:
        return _INTEGER + varint(value)
    return _string(str(value) if value.bit_length() <= _MAX_DECIMAL_BITS else hex(value)[:MAX_PRINTED])


def _double(value: float) -> bytes:
    return _DOUBLE.pack(_DOUBLE_TAG, value)


def _octets(value: bytes) -> bytes:
    return field(_BYTES, value)


def _nothing(_: None) -> bytes:
    return b""


_SCALARS: Final[Mapping[type, Callable[[Any], bytes]]] = {
    str: _string,
    bool: _boolean,
    int: _integer,
    float: _double,
    bytes: _octets,
    NoneType: _nothing,
}

_CUT: Final = _string("[cut]")


class _Tree:
    """One value with all that is nested in it; made for one call."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = MAX_VALUES

    def encode(self, value: object, messages: int) -> bytes:
        """Returns the body of an `AnyValue` that may hold so many nested messages."""
        try:
            scalar = _SCALARS.get(type(value))
            return self._compound(value, messages) if scalar is None else scalar(value)
        except Exception:  # noqa: BLE001  hashing a type, iterating, comparing: all may be code of the application
            return _string(printed(value))

    def _compound(self, value: Any, messages: int) -> bytes:
        kind = type(value)
        if kind is list or kind is tuple:
            return self._array(value, messages)
        if kind is dict:
            # A snapshot: another thread may be changing it.
            return self._mapping(value.copy(), messages)
        return self._subclass(value, messages)

    def _subclass(self, value: Any, messages: int) -> bytes:
        # Unbound methods read the plain value, whatever the subclass overrides.
        if isinstance(value, str):
            return _string(str.__str__(value))
        if isinstance(value, int):
            return _integer(int.__index__(value))
        if isinstance(value, float):
            return _double(float.__float__(value))
        if isinstance(value, bytes):
            return _octets(bytes.__getitem__(value, slice(None)))
        if isinstance(value, Sequence):
            return self._array(value, messages)
        if isinstance(value, Mapping):
            return self._mapping(value, messages)
        return _string(printed(value))

    def _array(self, values: Iterable[object], messages: int) -> bytes:
        if messages < 2:  # noqa: PLR2004  ArrayValue and AnyValue
            return _CUT
        parts: list[bytes] = []
        for value in values:
            element = self._next(value, messages - 2)
            parts += (_ELEMENT, varint(len(element)), element)
            if self._left < 0:
                break
        return field(_ARRAY, b"".join(parts))

    def _mapping(self, values: Mapping[Any, object], messages: int) -> bytes:
        if messages < 3:  # noqa: PLR2004  KeyValueList, KeyValue and AnyValue
            return _CUT
        parts: list[bytes] = []
        for key, value in values.items():
            pair = field(_KEY, _nested_key(key)) + field(_VALUE, self._next(value, messages - 3))
            parts += (_ELEMENT, varint(len(pair)), pair)
            if self._left < 0:
                break
        return field(_MAPPING, b"".join(parts))

    def _next(self, value: object, messages: int) -> bytes:
        self._left -= 1
        return self.encode(value, messages) if self._left >= 0 else _CUT


def _nested_key(key: object) -> bytes:
    # `str(key)` also for subclasses of `str`, as the stock encoder does inside of mappings, and only there.
    return utf8(key if type(key) is str else printed(key))


def encode_key(key: object) -> bytes:
    """Returns what stands before the length of the value in a `KeyValue`; never raises."""
    return field(_KEY, text(key)) + _VALUE
