"""Thresholds of consistent probability sampling, and how `tracestate` carries them.

A trace is in the sample when its 56 random bits are at least the threshold.
Source: OpenTelemetry specification, TraceState: Probability Sampling; OTEP 235.
"""

from functools import lru_cache
from typing import Final

from opentelemetry.trace import TraceState

ALWAYS: Final = 0
"""The threshold of probability 1."""
NEVER: Final = 1 << 56
"""The threshold of probability 0; no span carries it."""

RANDOM_BITS: Final = NEVER - 1
"""Those of a trace ID: the last 56."""

_KEY: Final = "ot"
_DIGITS: Final = 14
_PRECISION_BITS: Final = 24
"""Of a threshold that is made here: 6 hexadecimal digits, so that the smallest probability is 6e-8."""
_MAX_MEMBERS: Final = 32
"""Source: W3C Trace Context, tracestate limits."""
_MAX_VALUE: Final = 256
"""Characters of one member's value. Source: as above."""


def threshold_of(probability: float) -> int:
    """Returns the threshold of a probability from 0 to 1, rounded to what `tracestate` carries."""
    return round((1 - probability) * (1 << _PRECISION_BITS)) << 56 - _PRECISION_BITS


def probability_of(threshold: int) -> float:
    """Returns the probability of a threshold from `ALWAYS` to `NEVER`."""
    return (NEVER - threshold) / NEVER


def randomness_of(trace_id: int, state: TraceState | None) -> int:
    """Returns the 56 random bits of a trace: `rv` of the trace state, else those of the trace ID."""
    if not state:
        return trace_id & RANDOM_BITS
    given = _number(_members(state).get("rv", ""), exact=True)
    return trace_id & RANDOM_BITS if given is None else given


def threshold_in(state: TraceState | None) -> int | None:
    """Returns the threshold that a trace state carries; None for none, and for one that is not valid."""
    return _number(_members(state).get("th", ""), exact=False)


def with_threshold(state: TraceState | None, threshold: int | None) -> TraceState:
    """Returns a trace state with a threshold, or without any; all else in it stays, as far as it has room.

    Args:
        state: The present one.
        threshold: Below `NEVER`; None where the probability is not known.
    """
    members = _members(state)
    members.pop("th", None)
    if threshold is not None:
        members = {"th": f"{threshold:014x}".rstrip("0") or "0", **members}
    value = ";".join([f"{key}:{text}" if text else key for key, text in members.items()])
    others = [(key, text) for key, text in (state or {}).items() if key != _KEY]
    if not value or len(value) > _MAX_VALUE:
        value = value[:_MAX_VALUE].rpartition(";")[0]
    return TraceState([(_KEY, value), *others[: _MAX_MEMBERS - 1]] if value else others)


@lru_cache(maxsize=256)
def state_of(threshold: int) -> TraceState:
    """Returns the trace state of a trace that begins here, with a threshold and nothing else."""
    return with_threshold(None, threshold)


def has_threshold_alone(state: TraceState) -> bool:
    """Tells whether a trace state says nothing but a threshold."""
    text = state.get(_KEY, "") if len(state) == 1 else ""
    return text.startswith("th:") and ";" not in text


def _members(state: TraceState | None) -> dict[str, str]:
    """Returns what the member of OpenTelemetry says, by key."""
    value = state.get(_KEY, "") if state else ""
    pairs = [each.partition(":") for each in value.split(";") if each]
    return {key: text for key, _, text in pairs}


def _number(text: str, *, exact: bool) -> int | None:
    """Returns up to 14 hexadecimal digits, read as a fraction; None for anything else."""
    if not text or len(text) > _DIGITS or (exact and len(text) < _DIGITS):
        return None
    if not set(text) <= set("0123456789abcdef"):
        return None
    return int(text.ljust(_DIGITS, "0"), 16)
