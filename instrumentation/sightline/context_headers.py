"""Reads trace context and baggage from ASGI headers, and leaves out what is malformed.

The stock propagators log a malformed `tracestate` or `baggage` whole, each time: a client could write into
the logs. What they would refuse does not reach them.

Source: W3C Trace Context, sections 3.2 and 3.3; W3C Baggage, section 3.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from opentelemetry.propagators.textmap import Getter
from opentelemetry.trace import SpanContext, TraceFlags

from sightline.types import RawHeader

MAX_TRACESTATE_MEMBERS: Final = 32
MAX_BAGGAGE_MEMBERS: Final = 64
MAX_BAGGAGE_CHARACTERS: Final = 8192

_TRACESTATE_MEMBER = re.compile(
    r"(?:[a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})"
    r"=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)
_BAGGAGE_MEMBER = re.compile(
    r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}[ \t]{0,8}="
    r"[ \t]{0,8}[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]{0,4096}"
)


class HeaderGetter(Getter[Sequence[RawHeader]]):
    """Gives the propagators the headers of a request."""

    def get(self, carrier: Sequence[RawHeader], key: str) -> list[str] | None:
        """Returns the values of a header that its propagator will accept, or None."""
        name = key.lower().encode("latin-1")
        values = [value.decode("latin-1") for header, value in carrier if header == name]
        if not values:
            return None
        if name == b"traceparent":
            return values if len(values) == 1 else None  # more than one restarts the trace
        if name == b"tracestate":
            return _tracestate(values)
        if name == b"baggage":
            return _baggage(values)
        return values

    def keys(self, carrier: Sequence[RawHeader]) -> list[str]:
        """Returns the header names."""
        return [header.decode("latin-1") for header, _ in carrier]


def remote_parent(by_name: Mapping[bytes, bytes]) -> SpanContext | None:
    """Returns the caller's span of a usual request; None where the stock propagators have to look.

    Usual is a `traceparent` of version 00 alone, without `tracestate` and baggage; its reading by the stock
    propagators costs more than a whole span of ours.

    Args:
        by_name: The headers by name, each of which was sent once.
    """
    if b"tracestate" in by_name or b"baggage" in by_name:
        return None
    match = _TRACEPARENT.fullmatch(by_name.get(b"traceparent", b""))
    if match is None:
        return None
    trace_id, span_id, flags = (int(digits, 16) for digits in match.groups())
    if not trace_id or not span_id:
        return None
    return SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags))


_TRACEPARENT = re.compile(rb"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


def _tracestate(values: Sequence[str]) -> list[str] | None:
    """Combines the headers in order; one malformed or repeated member makes the list as a whole invalid."""
    members = [member.strip(" \t") for member in ",".join(values).split(",")]
    members = [member for member in members if member]
    keys = {member.partition("=")[0] for member in members}
    valid = len(keys) == len(members) <= MAX_TRACESTATE_MEMBERS and all(
        map(_TRACESTATE_MEMBER.fullmatch, members)
    )
    return [",".join(members)] if valid and members else None


def _baggage(values: Sequence[str]) -> list[str] | None:
    """Keeps the members that are well-formed, without their properties, as far as the bounds allow."""
    kept: list[str] = []
    length = 0
    for entry in ",".join(values)[: 4 * MAX_BAGGAGE_CHARACTERS].split(","):
        member = entry.partition(";")[0].strip(" \t")
        if not _BAGGAGE_MEMBER.fullmatch(member):
            continue
        length += len(member) + 1
        if len(kept) == MAX_BAGGAGE_MEMBERS or length > MAX_BAGGAGE_CHARACTERS:
            break
        kept.append(member)
    return [",".join(kept)] if kept else None
