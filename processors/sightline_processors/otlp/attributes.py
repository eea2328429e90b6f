"""Attributes: elements of a repeated field of `KeyValue`, whatever message holds them.

Keys are few and come from code, and what stands before a text depends only on tag, key and the length of the
text; so these heads are kept, as are whole fields of integers. Kept are, per tag, at most 2,048 keys and
4,096 heads and fields, of these 64 per key and kind; beyond that they are made anew each time. Thread-safe: a
race makes the same bytes twice, or keeps a few more.
"""

from typing import Any, Final

from sightline_processors.otlp.primitives import varint
from sightline_processors.otlp.values import encode_key, encode_value

MAX_TAGS: Final = 16
MAX_KEYS: Final = 2_048
MAX_KEY_CHARACTERS: Final = 256
"""Longer keys are not kept."""
MAX_KEPT: Final = 4_096
MAX_KEPT_PER_KEY: Final = 64
MAX_KEPT_BITS: Final = 64
"""Longer integers are not kept."""


def _pair(tag: bytes, key: bytes, value: bytes, following: int = 0) -> bytes:
    """Returns a `KeyValue` field, or its beginning where the value's last `following` bytes are to follow."""
    size = varint(len(value) + following)
    return tag + varint(len(key) + len(size) + len(value) + following) + key + size + value


def text_head(tag: bytes, key: bytes, length: int) -> bytes:
    """Returns what stands before a text of `length` bytes: the beginning of its `KeyValue` field.

    Args:
        tag: Of the field.
        key: As `encode_key` returns it.
        length: Of the text, in bytes.
    """
    return _pair(tag, key, b"\x0a" + varint(length), length)


class _Kept(dict[int, bytes]):
    """What is kept for one key."""

    __slots__ = ("_fields", "_key")

    def __init__(self, fields: "AttributeFields", key: bytes) -> None:
        self._fields, self._key = fields, key

    def _keep(self, number: int, part: bytes) -> bytes:
        # An integer of Python may be of any size.
        if (
            len(self) < MAX_KEPT_PER_KEY
            and self._fields.kept < MAX_KEPT
            and number.bit_length() <= MAX_KEPT_BITS
        ):
            self._fields.kept += 1
            self[number] = part
        return part


class _Heads(_Kept):
    """The length of a text in bytes → what stands before the text."""

    __slots__ = ()

    def __missing__(self, length: int) -> bytes:
        return self._keep(length, text_head(self._fields.tag, self._key, length))


class _Integers(_Kept):
    """An integer → the whole field."""

    __slots__ = ()

    def __missing__(self, number: int) -> bytes:
        return self._keep(number, _pair(self._fields.tag, self._key, encode_value(number)))


class _Key:
    __slots__ = ("encoded", "heads", "integers")

    def __init__(self, fields: "AttributeFields", key: object) -> None:
        self.encoded = encode_key(key)
        self.heads = _Heads(fields, self.encoded)
        self.integers = _Integers(fields, self.encoded)


class _Keys(dict[Any, _Key]):
    __slots__ = ("_fields",)

    def __init__(self, fields: "AttributeFields") -> None:
        self._fields = fields

    def __missing__(self, key: object) -> _Key:
        entry = _Key(self._fields, key)
        if type(key) is str and len(key) <= MAX_KEY_CHARACTERS and len(self) < MAX_KEYS:
            self[key] = entry
        return entry


class AttributeFields:
    """Encodes attributes as elements of one repeated field."""

    __slots__ = ("_keys", "kept", "tag")

    def __init__(self, tag: bytes) -> None:
        self.tag = tag
        self.kept = 0
        self._keys = _Keys(self)

    def append_to(self, parts: list[bytes], attributes: Any) -> None:
        """Appends the pieces of all attributes to a list that is going to be joined; never raises.

        Args:
            parts: Holds anything before; that stays.
            attributes: A mapping or None. Its `copy` is read where it has one: that takes a plain dict out of
                the SDK's `BoundedAttributes` at once, whose `items` costs ten times as much, and does not
                see what another thread changes meanwhile.
        """
        if attributes is None:
            return
        before = len(parts)
        try:
            self._append_plain(parts, attributes.copy().items())
        except Exception:  # noqa: BLE001  lone surrogates, odd keys and mappings: slowly, one by one
            del parts[before:]
            parts += [self.encode(key, value) for key, value in _pairs(attributes)]

    def _append_plain(self, parts: list[bytes], pairs: Any) -> None:
        tag, keys = self.tag, self._keys
        for key, value in pairs:
            entry = keys[key]
            kind = type(value)
            if kind is str:
                body = value.encode()
                parts.append(entry.heads[len(body)])
                parts.append(body)
            elif kind is int:
                parts.append(entry.integers[value])
            else:
                parts.append(_pair(tag, entry.encoded, encode_value(value)))

    def encode(self, key: object, value: object) -> bytes:
        """Returns one attribute; never raises."""
        try:
            if type(value) is str:
                body = value.encode()
                return self._keys[key].heads[len(body)] + body
            if type(value) is int:
                return self._keys[key].integers[value]
        except Exception:  # noqa: BLE001, S110  a lone surrogate, a key that cannot be hashed
            pass
        return _pair(self.tag, encode_key(key), encode_value(value))


def _pairs(attributes: Any) -> list[tuple[object, object]]:
    try:
        return [(key, value) for key, value in attributes.items()]
    except Exception:  # noqa: BLE001  code of the application
        return []


class _Tags(dict[bytes, AttributeFields]):
    __slots__ = ()

    def __missing__(self, tag: bytes) -> AttributeFields:
        fields = AttributeFields(tag)
        if len(self) < MAX_TAGS:
            self[tag] = fields
        return fields


_TAGS: Final = _Tags()


def attribute_fields(tag: bytes) -> AttributeFields:
    """Returns the encoder of the repeated field `tag`: one per tag, shared by all its users."""
    return _TAGS[tag]


def attribute_field(tag: bytes, key: str, value: object) -> bytes:
    """Returns one attribute as an element of the repeated field `tag`; never raises.

    What becomes of values that OTLP has no type for is said in `sightline_processors.otlp`.

    Args:
        tag: The encoded tag of the field, such as `SPAN_ATTRIBUTES`.
        key: Is kept with its encoded form, so it should come from code.
        value: Any object.
    """
    return _TAGS[tag].encode(key, value)
