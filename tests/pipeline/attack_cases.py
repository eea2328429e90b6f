"""The attacks, by what becomes of them: refused at the door, refused by a back end, or stored."""

from __future__ import annotations

import gzip
import math
import time
from collections.abc import Callable

from . import attacks

MEBIBYTE = 2**20
LARGEST_BODY = 4 * MEBIBYTE
# A list in a list takes nine bytes, a map in a map fourteen, in JSON 28. The largest body has room for four
# times as many: test_collector_limits.py sends that to the collector alone, as Jaeger needs seconds for it.
LEVELS = {"lists": 110_000, "maps": 70_000, "json": 35_000}
JSON = {"Content_Type": "application/json"}


def from_attacker(*items: bytes) -> bytes:
    """Returns an export request of any signal."""
    return attacks.request("attacker", *items)


def deep_span(kind: str) -> bytes:
    """Returns a request with a deep value; `kind` is a key of `LEVELS`."""
    if kind == "json":
        deep = '{"arrayValue":{"values":[' * LEVELS[kind] + '{"intValue":1}' + "]}}" * LEVELS[kind]
        ids = f'"traceId":"{"a" * 32}","spanId":"{"b" * 16}"'
        inner = f'{{{ids},"attributes":[{{"key":"deep","value":{deep}}}]}}'
        return f'{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{inner}]}}]}}]}}'.encode()
    value = attacks.nested_value(LEVELS[kind], lists=kind == "lists")
    return from_attacker(attacks.span(attacks.span_attribute("deep", value)))


def many_attributes(count: int) -> bytes:
    """Returns a request with one span; its attributes are as short as can be."""
    return from_attacker(attacks.span(attacks.span_attribute("", attacks.text("")) * count))


# Name: path, body, headers, status. All are refused before a pipeline sees them.
Refused = tuple[str, Callable[[], bytes], dict[str, str], int]
REFUSED: dict[str, Refused] = {
    "gzip bomb": ("traces", lambda: attacks.gzip_bomb(50), {"Content_Encoding": "gzip"}, 400),
    "gzip bomb in gzip": ("logs", lambda: attacks.gzip_bomb(50, 2), {"Content_Encoding": "gzip"}, 400),
    "two encodings": ("logs", lambda: attacks.gzip_bomb(9, 2), {"Content_Encoding": "gzip, gzip"}, 400),
    "deflate bomb": ("metrics", lambda: attacks.deflate_bomb(50), {"Content_Encoding": "deflate"}, 400),
    "zstd bomb": ("traces", lambda: attacks.zstd_frame(10**9, 17), {"Content_Encoding": "zstd"}, 400),
    "zstd window of 512 MiB": (
        "traces",
        lambda: attacks.zstd_frame(1000, 29),
        {"Content_Encoding": "zstd"},
        400,
    ),
    "garbage as gzip": ("traces", lambda: b"\x1f\x8b" + bytes(range(256)), {"Content_Encoding": "gzip"}, 400),
    "garbage": ("traces", lambda: bytes(range(255, 0, -1)) * 99, {}, 400),
    "truncated": ("metrics", lambda: from_attacker(attacks.gauge("g", attacks.point(1)))[:-3], {}, 400),
    "too large": ("logs", lambda: bytes(LARGEST_BODY + 1), {}, 400),
    "a million attributes": ("traces", lambda: many_attributes(1_000_000), {}, 400),
    "a million levels": (
        "traces",
        lambda: gzip.compress(attacks.nested_value(1_000_000), 1),
        {"Content_Encoding": "gzip"},
        400,
    ),
    "short trace ID": ("traces", lambda: from_attacker(attacks.span(trace_id=b"abc")), {}, 400),
    "not an object": ("traces", lambda: b"[]", JSON, 400),
    "wrong type": ("traces", lambda: b'{"resourceSpans": 5}', JSON, 400),
    "short ID in JSON": (
        "logs",
        lambda: b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"traceId":"ab"}]}]}]}',
        JSON,
        400,
    ),
    "deep unknown field": ("traces", lambda: b'{"unknown":' + b"[" * 2_000_000, JSON, 400),
    # The answer would quote the bytes, which its encoding cannot: it is 500, which no SDK sends again.
    "not text": ("traces", lambda: b"\xff\xfe", JSON, 500),
    "wrong content type": (
        "traces",
        lambda: from_attacker(attacks.span()),
        {"Content_Type": "text/html"},
        415,
    ),
    "unknown path": ("../admin", lambda: b"", {}, 404),
}


# What Jaeger cannot store: its keys hold service, attribute and value, and 65,000 bytes.
LONG = attacks.text("v" * 70_000)
UNSTORABLE_SPANS: dict[str, Callable[[], bytes]] = {
    "lists in lists": lambda: deep_span("lists"),
    "maps in maps": lambda: deep_span("maps"),
    "long value": lambda: from_attacker(attacks.span(attacks.span_attribute("sql", LONG))),
    "long name": lambda: from_attacker(attacks.span(name=b"n" * 70_000)),
    "long service": lambda: attacks.request("s" * 70_000, attacks.span()),
    "long scope": lambda: attacks.request("attacker", attacks.span(), scope=attacks.field(1, LONG)),
    "400,000 attributes": lambda: many_attributes(400_000),
    "100,000 events": lambda: from_attacker(attacks.span(attacks.field(11, attacks.fixed(1, 1)) * 100_000)),
}


NOW_NS = time.time_ns()
ODD_SPANS: dict[str, bytes] = {
    "no IDs": attacks.span(trace_id=b"", span_id=b""),
    "zero IDs": attacks.span(trace_id=bytes(16), span_id=bytes(8)),
    "invalid UTF-8": attacks.span(attacks.span_attribute(b"\xff\xc0", attacks.text(b"\xfe")), name=b"\xff"),
    "time 0": attacks.span(start_ns=0, end_ns=0),
    "time 2^64-1": attacks.span(start_ns=2**64 - 1, end_ns=2**64 - 1),
    "time 2^63": attacks.span(start_ns=2**63, end_ns=2**63),
    "ends before it starts": attacks.span(start_ns=NOW_NS, end_ns=NOW_NS - 10**15),
    "lasts 584 years": attacks.span(start_ns=0, end_ns=2**64 - 1),
    "same key 1,000 times": attacks.span(attacks.span_attribute("k", attacks.text("v")) * 1000),
    "empty": b"",
}


# What Prometheus refuses, and with it everything of the same request.
REFUSED_METRICS: dict[str, bytes] = {
    "time 0": attacks.gauge("t0", attacks.point(1, time_ns=0)),
    "1970": attacks.gauge("t1970", attacks.point(1, time_ns=10**9)),
    "2^63-1": attacks.gauge("t63", attacks.point(1, time_ns=2**63 - 1)),
    "2^64-1": attacks.gauge("t64", attacks.point(1, time_ns=2**64 - 1)),
    "in an hour": attacks.gauge("future", attacks.point(1, time_ns=NOW_NS + 3600 * 10**9)),
    "no name": attacks.gauge("", attacks.point(1)),
    "no label name": attacks.gauge("g", attacks.point(1, attacks.point_attribute("", attacks.text("v")))),
    "delta": attacks.counter("delta", attacks.point(1), temporality=1),
    "no temporality": attacks.counter("none", attacks.point(1), temporality=0),
    "scale -100": attacks.exponential_histogram("scale", count=2, scale=-100, buckets=2),
    "100,000 buckets": attacks.exponential_histogram("buckets", count=3, scale=2, buckets=100_000),
    "count 2^64-1": attacks.exponential_histogram("count", count=2**64 - 1, scale=2, buckets=2),
}
ODD_METRICS: dict[str, bytes] = {
    "NaN": attacks.gauge("nan", attacks.point(math.nan)),
    "infinities": attacks.gauge("inf", attacks.point(math.inf), attacks.point(-math.inf)),
    "negative counter": attacks.counter("negative", attacks.point(-1e308)),
    "scale 2^31-1": attacks.exponential_histogram("fine", count=2, scale=2**31 - 1, buckets=2),
    "invalid UTF-8": attacks.gauge(
        "g", attacks.point(1, attacks.point_attribute(b"\xff", attacks.text(b"\xfe")))
    ),
    "100,000 points": attacks.gauge("many", *[attacks.point(1)] * 100_000),
    "another's job": attacks.gauge(
        "g", attacks.point(1, attacks.point_attribute("job", attacks.text("otelcol")))
    ),
}


BODY = attacks.text("attack")
REFUSED_LOGS: dict[str, bytes] = {
    "1970": attacks.log_record(BODY, time_ns=10**9),
    "2^64-1": attacks.log_record(BODY, time_ns=2**64 - 1),
    "in an hour": attacks.log_record(BODY, time_ns=NOW_NS + 3600 * 10**9),
    "no key": attacks.log_record(BODY, attacks.log_attribute("", BODY)),
    "key of no letter": attacks.log_record(BODY, attacks.log_attribute(b"\xff\xc0", BODY)),
    "300 attributes": attacks.log_record(
        BODY, b"".join(attacks.log_attribute(f"k{number}", BODY) for number in range(300))
    ),
    "long attribute": attacks.log_record(BODY, attacks.log_attribute("k", LONG)),
    "deep attribute": attacks.log_record(BODY, attacks.log_attribute("k", attacks.nested_value(100_000))),
}
ODD_LOGS: dict[str, bytes] = {
    "no time": attacks.log_record(BODY, time_ns=0),
    "invalid UTF-8": attacks.log_record(
        attacks.text(b"\xff\xfe"), attacks.log_attribute("k", attacks.text(b"\xfe"))
    ),
    "line of 3 MB": attacks.log_record(attacks.text("l" * 3_000_000)),
    "deep body": attacks.log_record(attacks.nested_value(100_000)),
    "empty": b"",
}
