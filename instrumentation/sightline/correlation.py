"""Correlation IDs: taken from the request when valid, generated otherwise, readable anywhere in it.

Rules (design, decision 9): 1 to 128 characters of `A-Za-z0-9._:/+=@-`; a header that occurs with two
different values is invalid; across the configured headers the first valid one wins. An invalid one is
replaced, counted, and reported at most once a minute without its value.
"""

import re
from collections.abc import Iterable, Sequence

from opentelemetry import context as otel_context
from opentelemetry.context import Context

from sightline.types import RawHeader

_VALID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
CONTEXT_KEY = otel_context.create_key("sightline.correlation_id")


def correlation_id() -> str | None:
    """Returns the current request's correlation ID, or None outside a request.

    Works in async code, sync handlers, worker threads started through anyio or asyncio, and background
    tasks. Safe from any thread.
    """
    return correlation_id_of(otel_context.get_current())


def correlation_id_of(context: Context) -> str | None:
    """Returns the correlation ID that a context carries, or None."""
    value = context.get(CONTEXT_KEY)
    return value if isinstance(value, str) else None


def choose(headers: Iterable[RawHeader], names: Sequence[bytes]) -> tuple[bytes | None, bool]:
    """Chooses the correlation ID among the request headers.

    Args:
        headers: `(name, value)` byte pairs, names lower-case.
        names: Lower-case header names in order of preference.

    Returns:
        The ID or None, and whether a header was present that is not valid.
    """
    found: dict[bytes, bytes] = {}
    conflicting: set[bytes] = set()
    for name, value in headers:
        if name in names:
            value = value.strip(b" \t")  # noqa: PLW2901  optional white space (RFC 9110) that a parser left
            if found.setdefault(name, value) != value:
                conflicting.add(name)
    rejected = False
    for name in names:
        candidate = found.get(name)
        if candidate is None:
            continue
        if name not in conflicting and _VALID.fullmatch(candidate):
            return candidate, rejected
        rejected = True
    return None, rejected
