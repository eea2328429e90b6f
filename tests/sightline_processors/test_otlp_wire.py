"""Varints, fields and attributes in OTLP's wire format, against opentelemetry-proto and the stock encoder."""

import collections
import enum
import math
import subprocess
import sys
import types
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext
from tests.sightline_processors.otlp_support import canonical
from tests.sightline_processors.otlp_support import same as assert_same

from sightline_processors.otlp import wire
from sightline_processors.otlp.attributes import (
    _TAGS,
    MAX_KEPT,
    MAX_KEPT_PER_KEY,
    MAX_KEY_CHARACTERS,
    MAX_KEYS,
    MAX_TAGS,
    AttributeFields,
    attribute_fields,
)
from sightline_processors.otlp.values import MAX_VALUES
from sightline_processors.otlp.wire import attribute_field, field, varint

BORDERS = [
    0,
    1,
    127,
    128,
    255,
    2047,
    2048,
    16383,
    16384,
    65535,
    2097151,
    2097152,
    2**31,
    2**32,
    2**62,
    2**63 - 1,
]

FIELDS: dict[str, tuple[type[Message], str]] = {
    "REQUEST_RESOURCE": (ExportTraceServiceRequest, "resource_spans"),
    "RESOURCE": (ResourceSpans, "resource"),
    "RESOURCE_SCOPE": (ResourceSpans, "scope_spans"),
    "RESOURCE_ATTRIBUTES": (Resource, "attributes"),
    "SCHEMA_URL": (ResourceLogs, "schema_url"),
    "SCOPE": (ScopeSpans, "scope"),
    "SCOPE_NAME": (InstrumentationScope, "name"),
    "SCOPE_VERSION": (InstrumentationScope, "version"),
    "SCOPE_ATTRIBUTES": (InstrumentationScope, "attributes"),
    "SCOPE_ITEM": (ScopeLogs, "log_records"),
    "SPAN_TRACE_ID": (Span, "trace_id"),
    "SPAN_ID": (Span, "span_id"),
    "SPAN_TRACE_STATE": (Span, "trace_state"),
    "SPAN_PARENT_ID": (Span, "parent_span_id"),
    "SPAN_NAME": (Span, "name"),
    "SPAN_KIND": (Span, "kind"),
    "SPAN_START_TIME": (Span, "start_time_unix_nano"),
    "SPAN_END_TIME": (Span, "end_time_unix_nano"),
    "SPAN_ATTRIBUTES": (Span, "attributes"),
    "SPAN_DROPPED_ATTRIBUTES": (Span, "dropped_attributes_count"),
    "SPAN_EVENTS": (Span, "events"),
    "SPAN_DROPPED_EVENTS": (Span, "dropped_events_count"),
    "SPAN_LINKS": (Span, "links"),
    "SPAN_DROPPED_LINKS": (Span, "dropped_links_count"),
    "SPAN_STATUS": (Span, "status"),
    "SPAN_FLAGS": (Span, "flags"),
    "EVENT_TIME": (Span.Event, "time_unix_nano"),
    "EVENT_NAME": (Span.Event, "name"),
    "EVENT_ATTRIBUTES": (Span.Event, "attributes"),
    "EVENT_DROPPED_ATTRIBUTES": (Span.Event, "dropped_attributes_count"),
    "LINK_TRACE_ID": (Span.Link, "trace_id"),
    "LINK_SPAN_ID": (Span.Link, "span_id"),
    "LINK_ATTRIBUTES": (Span.Link, "attributes"),
    "LINK_DROPPED_ATTRIBUTES": (Span.Link, "dropped_attributes_count"),
    "LINK_FLAGS": (Span.Link, "flags"),
    "STATUS_MESSAGE": (Status, "message"),
    "STATUS_CODE": (Status, "code"),
    "LOG_TIME": (LogRecord, "time_unix_nano"),
    "LOG_SEVERITY_NUMBER": (LogRecord, "severity_number"),
    "LOG_SEVERITY_TEXT": (LogRecord, "severity_text"),
    "LOG_BODY": (LogRecord, "body"),
    "LOG_ATTRIBUTES": (LogRecord, "attributes"),
    "LOG_DROPPED_ATTRIBUTES": (LogRecord, "dropped_attributes_count"),
    "LOG_FLAGS": (LogRecord, "flags"),
    "LOG_TRACE_ID": (LogRecord, "trace_id"),
    "LOG_SPAN_ID": (LogRecord, "span_id"),
    "LOG_OBSERVED_TIME": (LogRecord, "observed_time_unix_nano"),
    "LOG_EVENT_NAME": (LogRecord, "event_name"),
}

texts = st.text(max_size=40) | st.text("aé€😀", min_size=20, max_size=60)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.sampled_from(BORDERS + [-number for number in BORDERS])
    | st.floats()
    | texts
    | st.binary(max_size=200)
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.lists(inner, max_size=4).map(tuple) | st.dictionaries(texts, inner)
    ),
    max_leaves=12,
)


def wire_type(descriptor: Any) -> int:
    kinds = {
        descriptor.TYPE_FIXED64: 1,
        descriptor.TYPE_FIXED32: 5,
        descriptor.TYPE_UINT32: 0,
        descriptor.TYPE_ENUM: 0,
    }
    return kinds.get(descriptor.type, 2)


def ours(key, value) -> KeyValue:
    span = Span.FromString(attribute_field(wire.SPAN_ATTRIBUTES, key, value))
    assert len(span.attributes) == 1
    return span.attributes[0]


def stock(key, value) -> KeyValue:
    span = ReadableSpan("", SpanContext(1, 1, is_remote=False), attributes={key: value})
    return encode_spans([span]).resource_spans[0].scope_spans[0].spans[0].attributes[0]


def same(key, value):
    assert_same(ours(key, value), stock(key, value))


def text_of(value) -> str:
    got = ours("key", value)
    assert got.key == "key"
    assert got.value.WhichOneof("value") == "string_value"
    return got.value.string_value


# --- varints, fields, tags


@pytest.mark.parametrize("number", [*BORDERS, *(-number for number in BORDERS[1:]), -(2**63)])
def test_varint_at_the_borders_is_protobufs(number):
    assert b"\x18" + varint(number) == AnyValue(int_value=number).SerializeToString()


@given(st.integers(-(2**63), 2**63 - 1))
@settings(max_examples=200, deadline=None)
def test_varint_is_protobufs(number):
    assert b"\x18" + varint(number) == AnyValue(int_value=number).SerializeToString()


def test_varint_of_64_bits_without_sign_has_ten_bytes():
    assert varint(2**64 - 1) == b"\xff" * 9 + b"\x01"
    assert varint(2**64) == b"\x00"


@pytest.mark.parametrize("length", [0, 1, 127, 128, 2047, 2048, 16383, 16384, 2097151, 2097152])
def test_field_carries_its_length(length):
    body = bytes(length)
    assert field(b"\x3a", body) == AnyValue(bytes_value=body).SerializeToString()


def test_every_tag_is_that_of_its_field():
    constants = {name: value for name, value in vars(wire).items() if name.isupper()}
    assert constants.keys() == FIELDS.keys()
    for name, (message, field_name) in FIELDS.items():
        descriptor = message().DESCRIPTOR.fields_by_name[field_name]
        assert constants[name] == varint(descriptor.number << 3 | wire_type(descriptor)), name


# --- attributes that the stock encoder writes too


@given(st.text(max_size=30), values)
@settings(max_examples=300, deadline=None)
def test_attribute_is_the_stock_encoders(key, value):
    same(key, value)


@pytest.mark.parametrize(
    "length", [*range(4), *range(95, 135), *range(16360, 16390), 2097140, 2097151, 2097152]
)
def test_attribute_of_any_length_is_the_stock_encoders(length):
    same("key", "x" * length)
    same("key", bytes(length))
    same("k" * min(length, 20_000), "é" * 40)
    same("k" * min(length, 20_000), 7)


@pytest.mark.parametrize("number", [*BORDERS, *(-number for number in BORDERS[1:]), -(2**63)])
def test_integer_attribute_at_the_borders_is_the_stock_encoders(number):
    same("key", number)
    same("key", [number])


def test_bytes_of_an_attribute_are_as_the_encoding_guide_has_them():
    assert attribute_field(wire.SPAN_ATTRIBUTES, "k", "v") == b"\x4a\x08\x0a\x01k\x12\x03\x0a\x01v"
    assert attribute_field(wire.SPAN_ATTRIBUTES, "k", True) == b"\x4a\x07\x0a\x01k\x12\x02\x10\x01"
    assert attribute_field(wire.SPAN_ATTRIBUTES, "k", None) == b"\x4a\x05\x0a\x01k\x12\x00"


def test_values_that_compare_equal_keep_their_types():
    for value in (1, True, 1.0, 0, False, -0.0, 0.0, 1, True):
        same("one key", value)
        same("one key", [value, value])


class Text(str):
    """A text whose methods mislead."""

    __slots__ = ()

    def __str__(self):
        return "misleading"

    def encode(self, *_):
        return b"\xff"

    def __len__(self):
        return 1

    def __getitem__(self, _):
        raise RuntimeError


class Number(int):
    def __index__(self):
        return 7

    def __str__(self):
        return "misleading"

    def __le__(self, _):
        raise RuntimeError


class Float64(float):
    """As numpy's: a float by inheritance."""

    def __float__(self):
        return 7.0


class Octets(bytes):
    def __len__(self):
        return 1


class Level(enum.IntEnum):
    HIGH = 3


class Colour(enum.StrEnum):
    RED = "red"


class OldColour(str, enum.Enum):  # noqa: UP042  the older spelling has another `str()`
    RED = "red"


Point = collections.namedtuple("Point", "x y")


class Pair(Sequence):
    def __getitem__(self, index):
        return ("left", 2)[index]

    def __len__(self):
        return 2


class Settings(Mapping):
    def __getitem__(self, key):
        return {"a": 1, "b": None}[key]

    def __iter__(self):
        return iter("ab")

    def __len__(self):
        return 2


@pytest.mark.parametrize(
    "value",
    [
        Text("plain"),
        Number(5),
        Float64(1.5),
        Octets(b"abc"),
        Level.HIGH,
        Colour.RED,
        OldColour.RED,
        Point(1, "y"),
        Pair(),
        Settings(),
        bytearray(b"ab"),
        memoryview(b"ab"),
        range(3),
        collections.deque([1, "2"]),
        collections.OrderedDict(a=1),
        collections.ChainMap({"a": 1}, {"b": 2}),
        types.MappingProxyType({"a": [1]}),
        {1: 2, None: 3, b"k": 4, ("t",): 5, OldColour.RED: 6, Colour.RED: 7},
        math.nan,
        math.inf,
        [True, 1, 1.0, "1", b"1", None, [], {}],
        {"": ""},
    ],
    ids=lambda value: type(value).__name__,
)
def test_value_of_several_natures_is_the_stock_encoders(value):
    same("key", value)
    same("key", [value])


def test_bytes_as_key_are_taken_for_utf8_as_protobuf_does():
    same(b"key", 1)
    assert ours(b"\xff", 1).key == "\ufffd"


# --- attributes that the stock encoder loses


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a\ud800b", "a?b"),
        ("\udfff" * 3, "???"),
        (2**63, "9223372036854775808"),
        (-(2**63) - 1, "-9223372036854775809"),
        (Number(2**70), str(2**70)),
        ({1}, "{1}"),
        (1j, "1j"),
        (Ellipsis, "Ellipsis"),
        (int, "<class 'int'>"),
    ],
)
def test_value_that_otlp_cannot_hold_becomes_text(value, text):
    assert text_of(value) == text
    assert list(ours("key", [value, "after"]).value.array_value.values) == [
        AnyValue(string_value=text),
        AnyValue(string_value="after"),
    ]


def test_surrogates_in_keys_are_replaced():
    assert ours("a\ud800", 1).key == "a?"
    assert ours("key", {"b\udc00": 1}).value.kvlist_value.values[0].key == "b?"


@pytest.mark.parametrize(("key", "text"), [(1, "1"), (None, "None"), ((1, 2), "(1, 2)"), ([], "[]")])
def test_key_that_is_no_text_is_printed(key, text):
    for value in ("text", 1, 1.5):
        assert ours(key, value).key == text


def test_very_long_integer_becomes_bounded_hexadecimal():
    assert text_of(-(2**2047)) == str(-(2**2047))
    assert text_of(2**2048) == hex(2**2048)
    assert text_of(2**100_000) == hex(2**100_000)[:8192]


def test_printed_value_is_bounded():
    assert text_of(set(range(10_000))) == str(set(range(10_000)))[:8192]


class Unprintable:
    def __str__(self):
        raise RuntimeError


class Misnamed:
    __str__ = object().__sizeof__  # type: ignore[assignment]  # returns no text


class PrintedAsText:
    def __str__(self):
        return Text("plain")


class Liar:
    """Says that it is a text."""

    __class__ = str  # type: ignore[assignment]  # that is the lie

    def __str__(self):
        return "a liar"


class BrokenClass:
    __class__ = property(lambda _: 1 / 0)  # reading it raises

    def __str__(self):
        return "no class"


class Unhashable(type):
    def __eq__(cls, other):
        raise RuntimeError

    __hash__ = None  # type: ignore[assignment]  # as a metaclass with __eq__ alone has it


class OfUnhashableType(metaclass=Unhashable):
    def __str__(self):
        return "of odd type"


class Int64:
    """As numpy's: no int, but with an index."""

    def __index__(self):
        return 5

    def __str__(self):
        return "5"


class BrokenList(list):
    def __iter__(self):
        raise RuntimeError

    def __str__(self):
        return "broken list"


class BrokenMapping(Settings):
    def items(self):
        raise RuntimeError

    def __str__(self):
        return "broken mapping"


HOSTILE = {
    "unprintable": (Unprintable(), "<unprintable>"),
    "misnamed": (Misnamed(), "<unprintable>"),
    "printed as text": (PrintedAsText(), "plain"),
    "liar": (Liar(), "a liar"),
    "broken class": (BrokenClass(), "no class"),
    "of odd type": (OfUnhashableType(), "of odd type"),
    "int64": (Int64(), "5"),
    "broken list": (BrokenList([1]), "broken list"),
    "broken mapping": (BrokenMapping(), "broken mapping"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_value_is_printed_and_its_neighbours_stay(name):
    value, text = HOSTILE[name]
    assert text_of(value) == text
    pairs = ours("key", {"before": 0, "k": value, "after": 1}).value.kvlist_value.values
    assert [pair.key for pair in pairs] == ["before", "k", "after"]
    assert pairs[1].value.string_value == text
    assert ours(value, "value").key == text


def nested(depth, wrap):
    value = 1
    for _ in range(depth):
        value = wrap(value)
    return value


@pytest.mark.parametrize(
    ("wrap", "unwrap", "depth"),
    [
        (lambda value: [value], lambda any_value: any_value.array_value.values[0], 45),
        (lambda value: {"k": value}, lambda any_value: any_value.kvlist_value.values[0].value, 30),
    ],
    ids=["lists", "mappings"],
)
def test_nesting_is_cut_where_readers_would_refuse_the_request(wrap, unwrap, depth):
    same("key", nested(depth, wrap))
    for deeper in (depth + 1, depth + 2, 400, 5000):
        innermost = ours("key", nested(deeper, wrap)).value
        for _ in range(depth):
            innermost = unwrap(innermost)
        assert innermost == AnyValue(string_value="[cut]")


def test_value_that_holds_itself_ends():
    loop: list[object] = []
    loop += [loop, loop]
    assert "[cut]" in str(ours("key", loop))
    assert len(attribute_field(wire.SPAN_ATTRIBUTES, "key", loop)) < 100 * MAX_VALUES


def test_values_beyond_the_bound_are_cut():
    whole = ours("key", list(range(MAX_VALUES))).value.array_value.values
    assert [value.int_value for value in whole] == list(range(MAX_VALUES))
    cut = ours("key", {"list": list(range(MAX_VALUES)), "after": 1}).value.kvlist_value.values
    assert len(cut) == 1
    assert len(cut[0].value.array_value.values) == MAX_VALUES
    assert cut[0].value.array_value.values[-1] == AnyValue(string_value="[cut]")


def test_pairs_beyond_the_bound_are_cut():
    pairs = dict.fromkeys(map(str, range(MAX_VALUES)), 1)
    whole = ours("key", pairs).value.kvlist_value.values
    assert len(whole) == MAX_VALUES
    assert whole[-1].value == AnyValue(int_value=1)
    cut = ours("key", pairs | {"one more": 1, "another": 2}).value.kvlist_value.values
    assert len(cut) == MAX_VALUES + 1
    assert cut[-1] == KeyValue(key="one more", value=AnyValue(string_value="[cut]"))


class Endless(Sequence):
    def __getitem__(self, index):
        return index

    def __len__(self):
        return 1


def test_endless_sequence_ends():
    assert len(ours("key", Endless()).value.array_value.values) == MAX_VALUES + 1


# Hypothesis itself stumbles over a type that cannot be compared.
ODDITIES = [value for name, (value, _) in HOSTILE.items() if name != "of odd type"]
ODDITIES += [Text("x"), Number(3), Float64(1), Octets(b"x"), Level.HIGH, OldColour.RED, Point(1, 2), Pair()]
ODDITIES += [Settings(), object(), 1j, {1, 2}, frozenset("a"), range(5), memoryview(b"x"), bytearray(b"x")]
ODDITIES += [len, type, iter(()), "\ud800", "\x00", 2**64, -(2**63) - 1, 10**5000, NotImplemented]
# By number: hypothesis looks into what it samples from.
oddities = st.integers(0, len(ODDITIES) - 1).map(lambda number: ODDITIES[number])
hashable = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.tuples(st.text())
)
anything = st.recursive(
    scalars | st.integers() | st.text(st.characters(exclude_categories=())) | oddities,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.tuples(inner, inner)
        | st.dictionaries(hashable, inner, max_size=5)
        | st.lists(inner, max_size=3).map(collections.deque)
        | st.dictionaries(hashable, inner, max_size=3).map(collections.UserDict)
    ),
    max_leaves=20,
)


@given(hashable | oddities, anything)
@settings(max_examples=500, deadline=None)
def test_any_object_makes_one_attribute_that_parses(key, value):
    got = ours(key, value)
    assert canonical(KeyValue.FromString(canonical(got))) == canonical(got)


def test_attributes_that_are_plain_take_the_short_way():
    plain = {"text": "x", "number": 1, "float": 1.5, "flag": True, "none": None, "list": ["a", 1]}
    fields = AttributeFields(wire.SPAN_ATTRIBUTES)
    parts: list[bytes] = []
    fields._append_plain(parts, plain.items())
    assert b"".join(parts) == b"".join([fields.encode(key, value) for key, value in plain.items()])
    assert Span.FromString(b"".join(parts)).attributes == [stock(key, value) for key, value in plain.items()]


# --- what is kept


def keyed(key, value):
    any_value = AnyValue(string_value=value) if isinstance(value, str) else AnyValue(int_value=value)
    return KeyValue(key=key, value=any_value)


def test_kept_keys_and_heads_are_bounded_and_the_rest_is_right():
    fields = AttributeFields(wire.SPAN_ATTRIBUTES)
    for number in range(MAX_KEYS + 100):
        for value in ("x", number):
            span = Span.FromString(fields.encode(f"key.{number}", value))
            assert span.attributes[0] == keyed(f"key.{number}", value)
    assert len(fields._keys) == MAX_KEYS
    assert fields.kept == MAX_KEPT
    assert sum(len(key.heads) + len(key.integers) for key in fields._keys.values()) == MAX_KEPT


def test_values_kept_per_key_are_bounded():
    fields = AttributeFields(wire.SPAN_ATTRIBUTES)
    for number in range(MAX_KEPT_PER_KEY * 3):
        fields.encode("key", "x" * number)
        fields.encode("key", number)
        fields.encode("k" * (MAX_KEY_CHARACTERS + 1), number)
        fields.encode("k" * MAX_KEY_CHARACTERS, number)
        fields.encode("big", 2**64 + number)
    assert fields._keys.keys() == {"key", "big", "k" * MAX_KEY_CHARACTERS}
    assert len(fields._keys["key"].heads) == len(fields._keys["key"].integers) == MAX_KEPT_PER_KEY
    assert not fields._keys["big"].integers


def test_encoders_of_tags_are_shared_and_bounded():
    assert attribute_fields(wire.SPAN_ATTRIBUTES) is attribute_fields(wire.SPAN_ATTRIBUTES)
    for number in range(1, MAX_TAGS * 2):
        tag = varint(number << 3 | 2)
        assert attribute_field(tag, "k", 1) == tag + attribute_field(b"\x0a", "k", 1)[1:]
    assert len(_TAGS) == MAX_TAGS


def test_importing_the_encoder_imports_no_protobuf_and_no_application_framework():
    modules = "spans", "logs", "requests", "wire"
    imports = "; ".join(f"import sightline_processors.otlp.{name}" for name in modules)
    banned = (
        "google.protobuf",
        "opentelemetry.proto",
        "opentelemetry.exporter",
        "fastapi",
        "starlette",
        "sightline",
    )
    code = f"{imports}; import sys; print([name for name in {banned} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
