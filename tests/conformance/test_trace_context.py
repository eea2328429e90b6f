"""The rules of W3C trace context for what a server receives, through the default propagators.

Source: W3C Recommendation Trace Context (level 1, 23 November 2021), sections 3.2 and 3.3; many of the cases
are those of its conformance harness (w3c/trace-context, test/test.py).
"""

import asyncio

import pytest
from asgi import call, http_scope
from opentelemetry import baggage, propagate, trace
from opentelemetry.sdk.trace import ReadableSpan

from sightline import SightlineMiddleware
from sightline.options import capture_options
from sightline.testing import CapturedTelemetry

TRACE = "12345678901234567890123456789012"
PARENT = "1234567890123456"
VALID = f"00-{TRACE}-{PARENT}-01"
LONGEST_SIMPLE_KEY = "z" * 256
LONGEST_TENANT_KEY = f"{'t' * 241}@{'v' * 14}"
FULL = [f"bar{number:02}={number:02}" for number in range(1, 33)]

CONTINUED = {
    "valid": VALID,
    "every flag set": f"00-{TRACE}-{PARENT}-ff",
    "a future version": f"cc-{TRACE}-{PARENT}-01",
    "a future version with more fields": f"cc-{TRACE}-{PARENT}-01-what-the-future-will-be-like",
    "the last version that may come": f"fe-{TRACE}-{PARENT}-01",
    "a space before": f" {VALID}",
    "a tab before": f"\t{VALID}",
    "a space after": f"{VALID} ",
    "a tab after": f"{VALID}\t",
    "white space on both sides": f"\t {VALID} \t",
}

RESTARTED = {
    "empty": "",
    "white space only": " \t ",
    "version ff": f"ff-{TRACE}-{PARENT}-01",
    "version 00 with more fields": f"{VALID}-what-the-future-will-be-like",
    "version 00 with a trailing dash": f"{VALID}-",
    "version 00 with a trailing dot": f"{VALID}.what",
    "a future version with another separator": f"cc-{TRACE}-{PARENT}-01.what-the-future-will-be-like",
    "version with an illegal first character": f".0-{TRACE}-{PARENT}-01",
    "version with an illegal second character": f"0.-{TRACE}-{PARENT}-01",
    "version of one digit": f"0-{TRACE}-{PARENT}-01",
    "version of three digits": f"000-{TRACE}-{PARENT}-01",
    "version of four digits": f"0000-{TRACE}-{PARENT}-01",
    "version in capitals": f"CC-{TRACE}-{PARENT}-01",
    "trace ID in capitals": f"00-{'ABCDEF0123456789' * 2}-{PARENT}-01",
    "trace ID all zero": f"00-{'0' * 32}-{PARENT}-01",
    "trace ID with an illegal character": f"00-.{TRACE[1:]}-{PARENT}-01",
    "trace ID with an illegal last character": f"00-{TRACE[:-1]}.-{PARENT}-01",
    "trace ID that is not hexadecimal": f"00-{'g' * 32}-{PARENT}-01",
    "trace ID one digit long": f"00-{TRACE}3-{PARENT}-01",
    "trace ID one digit short": f"00-{TRACE[1:]}-{PARENT}-01",
    "parent ID in capitals": f"00-{TRACE}-ABCDEF0123456789-01",
    "parent ID all zero": f"00-{TRACE}-{'0' * 16}-01",
    "parent ID with an illegal character": f"00-{TRACE}-.{PARENT[1:]}-01",
    "parent ID that is not hexadecimal": f"00-{TRACE}-{'g' * 16}-01",
    "parent ID one digit long": f"00-{TRACE}-{PARENT}7-01",
    "parent ID one digit short": f"00-{TRACE}-{PARENT[1:]}-01",
    "flags with an illegal first character": f"00-{TRACE}-{PARENT}-.0",
    "flags with an illegal second character": f"00-{TRACE}-{PARENT}-0.",
    "flags in capitals": f"00-{TRACE}-{PARENT}-FF",
    "flags of one digit": f"00-{TRACE}-{PARENT}-1",
    "flags of three digits": f"00-{TRACE}-{PARENT}-001",
    "no flags": f"00-{TRACE}-{PARENT}",
    "no version": f"{TRACE}-{PARENT}-01",
    "a space inside": f"00-{TRACE} -{PARENT}-01",
    "a vertical tab before": f"\v{VALID}",
    "digits beyond ASCII": "00-" + "\xb2" * 32 + f"-{PARENT}-01",
    "two in one header": f"{VALID},{VALID}",
}

KEPT = {
    "one member": (["foo=1"], "foo=1"),
    "two members, in order": (["foo=1,bar=2"], "foo=1,bar=2"),
    "several headers, combined in order": (
        ["foo=1,bar=2", "rojo=1,congo=2", "baz=3"],
        "foo=1,bar=2,rojo=1,congo=2,baz=3",
    ),
    "an empty header before": (["", "foo=1"], "foo=1"),
    "an empty header after": (["foo=1", ""], "foo=1"),
    "empty members": (["foo=1,,,bar=2,"], "foo=1,bar=2"),
    "white space around members": (["foo=1 \t , \t bar=2, \t baz=3"], "foo=1,bar=2,baz=3"),
    "white space around the header": ([" \tfoo=1\t "], "foo=1"),
    "every character of a key": (["abcdefghijklmnopqrstuvwxyz0123456789_-*/=1"],
                                 "abcdefghijklmnopqrstuvwxyz0123456789_-*/=1"),
    "a tenant's key": (["fw529a3039@dt=1"], "fw529a3039@dt=1"),
    "a tenant that begins with a digit": (["0foo@bar=1"], "0foo@bar=1"),
    "every character of a value": (
        ["foo=" + "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in ",=")],
        "foo=" + "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in ",="),
    ),
    "a space inside a value": (["foo=a b"], "foo=a b"),
    "32 members": ([",".join(FULL)], ",".join(FULL)),
    "32 members in two headers": ([",".join(FULL[:16]), ",".join(FULL[16:])], ",".join(FULL)),
    "the longest simple key": ([f"{LONGEST_SIMPLE_KEY}=1"], f"{LONGEST_SIMPLE_KEY}=1"),
    "the longest tenant key": ([f"{LONGEST_TENANT_KEY}=1"], f"{LONGEST_TENANT_KEY}=1"),
    "the longest value": (["foo=" + "v" * 256], "foo=" + "v" * 256),
    "512 characters": (["a=" + "v" * 252 + ",b=" + "v" * 255], "a=" + "v" * 252 + ",b=" + "v" * 255),
}  # fmt: skip

DISCARDED = {
    "empty": [""],
    "white space only": [" \t "],
    "33 members": [",".join([*FULL, "bar33=33"])],
    "33 members in two headers": [",".join(FULL), "bar33=33"],
    "a key with a space": ["foo =1"],
    "a key in capitals": ["FOO=1"],
    "a key with a dot": ["foo.bar=1"],
    "no key": ["=1"],
    "no equals sign": ["foo"],
    "one invalid member among valid ones": ["foo=1,BAR=2,baz=3"],
    "one invalid header among valid ones": ["foo=1", "BAR=2", "baz=3"],
    "a simple key one character too long": ["z" * 257 + "=1"],
    "a value with an equals sign": ["foo=bar=baz"],
    "a value one character too long": ["foo=" + "v" * 257],
    "a value beyond ASCII": ["foo=\xe9"],
    "a control character in a value": ["foo=\x01"],
}


async def inject(scope, receive, send):
    """Answers with what a call to the next service would carry."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    headers = [(name.encode(), value.encode()) for name, value in carrier.items()]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


class Seen:
    """One request: its SERVER span and the headers that the application handed on."""

    def __init__(self, telemetry: CapturedTelemetry, headers: list[tuple[str, str | bytes]]) -> None:
        app = SightlineMiddleware(
            inject,
            capture_options(
                tracer_provider=telemetry.tracer_provider, meter_provider=telemetry.meter_provider
            ),
        )
        raw = [
            (
                name.encode(),
                value if isinstance(value, bytes) else value.encode("latin-1", "xmlcharrefreplace"),
            )
            for name, value in headers
        ]
        answer = asyncio.run(call(app, http_scope(headers=raw)))
        assert answer.error is None
        self.status = answer.status
        self.sent = dict(answer.headers)
        self.span: ReadableSpan = telemetry.spans[0]

    @property
    def trace_id(self) -> str:
        return trace.format_trace_id(self.span.get_span_context().trace_id)

    @property
    def tracestate(self) -> str:
        return self.span.get_span_context().trace_state.to_header()

    @property
    def is_continued(self) -> bool:
        parent = self.span.parent
        return (
            self.trace_id == TRACE and parent is not None and trace.format_span_id(parent.span_id) == PARENT
        )


@pytest.mark.parametrize("value", CONTINUED.values(), ids=CONTINUED)
def test_valid_traceparent_is_continued(telemetry, value):
    assert Seen(telemetry, [("traceparent", value)]).is_continued


@pytest.mark.parametrize("value", RESTARTED.values(), ids=RESTARTED)
def test_invalid_traceparent_restarts_the_trace(telemetry, value):
    seen = Seen(telemetry, [("traceparent", value)])

    assert seen.status == 200
    assert seen.span.parent is None
    assert seen.trace_id not in {TRACE, "0" * 32}


@pytest.mark.parametrize("value", RESTARTED.values(), ids=RESTARTED)
def test_invalid_traceparent_discards_the_tracestate(telemetry, value):
    seen = Seen(telemetry, [("traceparent", value), ("tracestate", "foo=1")])

    assert seen.tracestate == ""
    assert "tracestate" not in seen.sent


@pytest.mark.parametrize(
    "second",
    [f"00-{'a' * 32}-{PARENT}-01", VALID, "", "nonsense"],
    ids=["another", "equal", "empty", "invalid"],
)
@pytest.mark.parametrize("is_first", [True, False], ids=["before", "after"])
def test_duplicated_traceparent_restarts_the_trace(telemetry, second, is_first):
    values = [VALID, second] if is_first else [second, VALID]

    seen = Seen(telemetry, [*(("traceparent", value) for value in values), ("tracestate", "foo=1")])

    assert seen.span.parent is None
    assert seen.trace_id not in {TRACE, "a" * 32}
    assert seen.tracestate == ""


@pytest.mark.parametrize("name", ["trace-parent", "trace.parent", "x-traceparent"])
def test_other_header_names_are_not_traceparent(telemetry, name):
    assert Seen(telemetry, [(name, VALID)]).span.parent is None


def test_tracestate_without_traceparent_is_discarded(telemetry):
    seen = Seen(telemetry, [("tracestate", "foo=1")])

    assert seen.tracestate == ""
    assert "tracestate" not in seen.sent


def test_traceparent_without_tracestate_is_continued(telemetry):
    seen = Seen(telemetry, [("traceparent", VALID)])

    assert seen.is_continued
    assert "tracestate" not in seen.sent


@pytest.mark.parametrize(("values", "expected"), KEPT.values(), ids=KEPT)
def test_valid_tracestate_is_handed_on(telemetry, values, expected):
    seen = Seen(telemetry, [("traceparent", VALID), *(("tracestate", value) for value in values)])

    assert seen.is_continued
    assert seen.tracestate == expected
    assert seen.sent["tracestate"] == expected


@pytest.mark.parametrize("values", DISCARDED.values(), ids=DISCARDED)
def test_invalid_tracestate_is_discarded_and_the_trace_continued(telemetry, values):
    seen = Seen(telemetry, [("traceparent", VALID), *(("tracestate", value) for value in values)])

    assert seen.is_continued
    assert seen.tracestate == ""
    assert "tracestate" not in seen.sent


@pytest.mark.parametrize("values", [["foo=1,foo=2"], ["foo=1", "foo=2"], ["foo=1,foo=1"]])
def test_tracestate_never_hands_a_key_on_twice(telemetry, values):
    seen = Seen(telemetry, [("traceparent", VALID), *(("tracestate", value) for value in values)])

    assert seen.is_continued
    assert seen.sent.get("tracestate", "").count("foo=") <= 1


def test_application_hands_on_the_trace_with_the_server_span_as_parent(telemetry):
    seen = Seen(telemetry, [("traceparent", VALID)])

    version, trace_id, parent, flags = seen.sent["traceparent"].split("-")
    assert (version, trace_id) == ("00", TRACE)
    assert parent == trace.format_span_id(seen.span.get_span_context().span_id) != PARENT
    assert int(flags, 16) & 1


def test_restarted_trace_is_handed_on_too(telemetry):
    seen = Seen(telemetry, [("traceparent", "nonsense")])

    assert seen.sent["traceparent"].split("-")[1] == seen.trace_id


@pytest.mark.parametrize("flags", ["00", "02", "fe"])
def test_trace_that_the_caller_did_not_sample_stays_unsampled(telemetry, flags):
    app = SightlineMiddleware(inject, capture_options(tracer_provider=telemetry.tracer_provider))
    header = (b"traceparent", f"00-{TRACE}-{PARENT}-{flags}".encode())

    answer = asyncio.run(call(app, http_scope(headers=[header])))

    assert telemetry.spans == []
    assert answer.header("traceparent").startswith(f"00-{TRACE}-")
    assert int(answer.header("traceparent")[-2:], 16) & 1 == 0


@pytest.mark.parametrize("size", [513, 100_000])
def test_oversized_tracestate_never_breaks_the_trace(telemetry, size):
    seen = Seen(telemetry, [("traceparent", VALID), ("tracestate", "foo=" + "v" * size)])

    assert seen.status == 200
    assert seen.is_continued


def test_several_baggage_headers_are_combined():
    """RFC 9110, section 5.3, as W3C baggage, section 3.3.1 asks for it."""
    seen = {}

    async def app(scope, receive, send):
        seen.update(baggage.get_all())
        await inject(scope, receive, send)

    headers = [(b"baggage", b"first=one,other=1"), (b"baggage", b"second=two")]
    asyncio.run(call(SightlineMiddleware(app, capture_options()), http_scope(headers=headers)))

    assert seen == {"first": "one", "other": "1", "second": "two"}
