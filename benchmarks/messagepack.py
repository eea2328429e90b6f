"""Reads MessagePack, as far as tracing agents write it: enough to count spans, without a dependency.

Source: the MessagePack specification, https://github.com/msgpack/msgpack/blob/master/spec.md.
"""

import struct
from collections.abc import Callable
from functools import partial
from typing import Any, Final

Reader = Callable[[bytes, int], tuple[Any, int]]
"""Reads the value whose first byte stands before an offset; returns it, and the offset behind it."""


def decode(data: bytes) -> Any:
    """Returns the one value that `data` holds; text stays bytes, for nobody here reads it.

    Raises:
        ValueError: When the data are not MessagePack, are cut short, or hold extension types.
    """
    try:
        value, end = _value(data, 0)
    except (IndexError, struct.error):
        raise ValueError("the data end within a value") from None
    if end != len(data):
        raise ValueError(f"{len(data) - end} bytes follow the value")
    return value


def _value(data: bytes, at: int) -> tuple[Any, int]:
    reader = _READERS.get(data[at])
    if reader is None:
        raise ValueError(f"type {data[at]:#x} is not read")
    return reader(data, at + 1)


def _constant(value: Any) -> Reader:
    return lambda _, at: (value, at)


def _number(layout: str) -> Reader:
    size = struct.calcsize(layout)
    return lambda data, at: (struct.unpack_from(layout, data, at)[0], at + size)


def _with_length(layout: str, read: Callable[[bytes, int, int], tuple[Any, int]]) -> Reader:
    length = _number(layout)

    def reader(data: bytes, at: int) -> tuple[Any, int]:
        return read(data, *reversed(length(data, at)))

    return reader


def _bytes(data: bytes, at: int, length: int) -> tuple[bytes, int]:
    if at + length > len(data):
        raise IndexError
    return data[at : at + length], at + length


def _array(data: bytes, at: int, length: int) -> tuple[list[Any], int]:
    items = []
    for _ in range(length):
        item, at = _value(data, at)
        items.append(item)
    return items, at


def _map(data: bytes, at: int, length: int) -> tuple[dict[Any, Any], int]:
    flat, at = _array(data, at, 2 * length)
    return dict(zip(flat[::2], flat[1::2], strict=True)), at


_READERS: Final[dict[int, Reader]] = {
    **{kind: _constant(kind) for kind in range(0x80)},
    **{kind: _constant(kind - 0x100) for kind in range(0xE0, 0x100)},
    **{0x80 | length: partial(_map, length=length) for length in range(0x10)},
    **{0x90 | length: partial(_array, length=length) for length in range(0x10)},
    **{0xA0 | length: partial(_bytes, length=length) for length in range(0x20)},
    0xC0: _constant(None),
    0xC2: _constant(value=False),
    0xC3: _constant(value=True),
    **{0xC4 + n: _with_length(layout, _bytes) for n, layout in enumerate((">B", ">H", ">I"))},
    **{0xCA + n: _number(layout) for n, layout in enumerate((">f", ">d", ">B", ">H", ">I", ">Q"))},
    **{0xD0 + n: _number(layout) for n, layout in enumerate((">b", ">h", ">i", ">q"))},
    **{0xD9 + n: _with_length(layout, _bytes) for n, layout in enumerate((">B", ">H", ">I"))},
    **{0xDC + n: _with_length(layout, _array) for n, layout in enumerate((">H", ">I"))},
    **{0xDE + n: _with_length(layout, _map) for n, layout in enumerate((">H", ">I"))},
}
