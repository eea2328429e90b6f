"""Service level objectives as people write them: `500ms@99%, 99.9%`.

The first half is the latency objective (99 % of the requests take at most 500 ms), the second the
availability objective (99.9 % of them do not fail). Either may be missing.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from typing import Final, NamedTuple

MAX_LATENCY_SECONDS: Final = 86_400.0
MAX_BOUNDARIES: Final = 32
"""Boundaries of a histogram, at most: each one is a series in Prometheus, for each set of attributes."""

OBJECTIVE_ATTRIBUTE: Final = "sightline.sla.objective"
"""Attribute of spans, log records and metric points: the name of the objective that judged."""

DEFAULT_NAME: Final = "default"
"""Name of the objective of everything that no other one matches."""

_LATENCY_CURE: Final = "for 500 ms write 500ms@99%"
_SYNTAX_CURE: Final = "write latency@target, availability: 500ms@99%, 99.9%"
_RATIO_CURE: Final = "for 99.9 % write 99.9%"
_NAME_CURE: Final = "for example checkout"
_SHOWN_CHARACTERS: Final = 80
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,63}")
_DURATION: Final = re.compile(
    r"(?P<number>[+-]?[0-9]{1,9}(?:\.[0-9]{1,6})?) ?(?P<unit>ms|s|m|h)", re.IGNORECASE
)
_RATIO: Final = re.compile(r"(?P<number>[+-]?[0-9]{1,9}(?:\.[0-9]{1,9})?) ?%")
_SECONDS: Final = {"ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600)}


class ObjectiveError(ValueError):
    """Is raised for an objective that breaks a rule: says setting, rule, value, origin and cure."""


@dataclass(frozen=True, slots=True)
class Objective:
    """Is what a group of requests is judged by; immutable and hashable.

    Args:
        name: Tells it from others, in metrics too: 1 to 64 of `A-Za-z0-9._:/-`, the first a letter or digit.
        latency_seconds: What a request may take; above 0, at most a day. None where latency is not judged.
        latency_target: Ratio of requests that take no longer, between 0 and 1, neither included: of 1 there
            is no error budget. None exactly where `latency_seconds` is.
        availability_target: Ratio of requests that do not fail, likewise. None where that is not judged.

    Raises:
        ObjectiveError: A part breaks its rule.
    """

    name: str
    latency_seconds: float | None
    latency_target: float | None
    availability_target: float | None

    def __post_init__(self) -> None:
        check_name(self.name)
        if (self.latency_seconds is None) != (self.latency_target is None):
            raise _error("latency", "must come with its target", str(self), "code", _LATENCY_CURE)
        if self.latency_seconds is not None:
            _check_latency(self.latency_seconds, f"{self.latency_seconds}s", "code")
        for setting, ratio in (
            ("latency target", self.latency_target),
            ("availability", self.availability_target),
        ):
            if ratio is not None:
                _check_ratio(ratio, setting, f"{ratio}", "code")

    def __str__(self) -> str:
        """Returns the objective as one would write it."""
        halves = []
        if self.latency_seconds is not None or self.latency_target is not None:
            halves.append(f"{written_duration(self.latency_seconds)}@{_written_ratio(self.latency_target)}")
        if self.availability_target is not None:
            halves.append(_written_ratio(self.availability_target))
        return ", ".join(halves)


class BoundaryUnion(NamedTuple):
    """Is a set of histogram boundaries that holds thresholds."""

    boundaries: tuple[float, ...]
    """Ascending, each once, at most `MAX_BOUNDARIES`."""
    left_out: tuple[float, ...]
    """The thresholds that did not fit, in the order they were given."""


def parse_objective(text: str, *, name: str = DEFAULT_NAME, origin: str = "code") -> Objective:
    """Reads `500ms@99%, 99.9%`; either half may be missing.

    Durations are a number with `ms`, `s`, `m` or `h`, above 0 and at most 24h; ratios are between 0 % and
    100 %, neither included. Numbers are read as decimals: 99.9 % is the float 0.999.

    Args:
        text: What the operator wrote.
        name: Of the objective.
        origin: Where it was written, for the error: `SIGHTLINE_SLA`.

    Raises:
        ObjectiveError: The text breaks a rule.
    """
    halves = [half.strip() for half in text.split(",")]
    latency = halves.pop(0) if _is_latency(halves[0]) else None
    if len(halves) > 1 or "" in halves or (halves and _is_latency(halves[0])):
        raise _error(
            "objective",
            "must be a latency with its target, an availability, or both",
            text,
            origin,
            _SYNTAX_CURE,
        )
    seconds, target = (None, None) if latency is None else _parse_latency(latency, origin)
    availability = _parse_ratio(halves[0], "availability", origin) if halves else None
    check_name(name, origin)
    return Objective(name, seconds, target, availability)


def check_name(name: str, origin: str = "code") -> None:
    """Raises `ObjectiveError` unless the name of an objective is valid."""
    if not _NAME.fullmatch(name):
        rule = "must be 1 to 64 of A-Z, a-z, 0-9 and ._:/-, the first a letter or digit"
        raise _error("objective name", rule, name, origin, _NAME_CURE)


def boundary_union(standard: Sequence[float], thresholds: Iterable[float]) -> BoundaryUnion:
    """Joins thresholds into the boundaries of a histogram, so that counting against them is exact.

    Thresholds come first: where the union is longer than `MAX_BOUNDARIES`, those of the standard boundaries
    go that are relatively nearest to another boundary, and of more than `MAX_BOUNDARIES` thresholds the
    first given stay.

    Args:
        standard: Boundaries that the histogram would have; finite, in any order.
        thresholds: Finite, above 0, the most important first.
    """
    wanted = list(dict.fromkeys(map(float, thresholds)))
    kept = wanted[:MAX_BOUNDARIES]
    union = sorted({*map(float, standard), *kept})
    while len(union) > MAX_BOUNDARIES:
        del union[_most_crowded(union, frozenset(kept))]
    return BoundaryUnion(tuple(union), tuple(wanted[MAX_BOUNDARIES:]))


def written_duration(seconds: float | None) -> str:
    """Returns a duration as one would write it: `500ms`, `1.5s`."""
    if seconds is None or not math.isfinite(seconds):
        return str(seconds)
    number = Decimal(repr(seconds))
    return f"{_plain(number)}s" if number >= 1 else f"{_plain(number * 1000)}ms"


def shown(value: str) -> str:
    """Returns what an operator wrote in a form that fits a log line: at most 80 characters, all printable."""
    value = value if len(value) <= _SHOWN_CHARACTERS else value[:_SHOWN_CHARACTERS] + "…"
    return value if value.isprintable() and value else ascii(value)


def _most_crowded(union: Sequence[float], kept: frozenset[float]) -> int:
    """Returns the index of the boundary, not one of `kept`, that has the nearest neighbour."""
    gaps = [_relative_gap(low, high) for low, high in pairwise(union)]
    gaps = [math.inf, *gaps, math.inf]
    return min(
        (index for index, boundary in enumerate(union) if boundary not in kept),
        key=lambda index: min(gaps[index], gaps[index + 1]),
    )


def _relative_gap(low: float, high: float) -> float:
    return (high - low) / max(abs(low), abs(high))


def _is_latency(half: str) -> bool:
    return "@" in half or _DURATION.fullmatch(half) is not None


def _parse_latency(half: str, origin: str) -> tuple[float, float]:
    written, _, target = (part.strip() for part in half.partition("@"))
    match = _DURATION.fullmatch(written)
    if match is None:
        raise _error("latency", "must be a number with ms, s, m or h", written, origin, _LATENCY_CURE)
    seconds = float(Decimal(match["number"]) * _SECONDS[match["unit"].lower()])
    _check_latency(seconds, written, origin)
    if not target:
        raise _error("latency", "must come with its target", half, origin, _LATENCY_CURE)
    return seconds, _parse_ratio(target, "latency target", origin)


def _parse_ratio(written: str, setting: str, origin: str) -> float:
    match = _RATIO.fullmatch(written)
    if match is None:
        raise _error(setting, "must be a number with %", written, origin, _RATIO_CURE)
    ratio = float(Decimal(match["number"]) / 100)
    _check_ratio(ratio, setting, written, origin)
    return ratio


def _check_latency(seconds: float, written: str, origin: str) -> None:
    if not seconds > 0:  # not a number fails as well
        raise _error("latency", "must be > 0", written, origin, _LATENCY_CURE)
    if seconds > MAX_LATENCY_SECONDS:
        raise _error("latency", "must be at most 24h", written, origin, _LATENCY_CURE)


def _check_ratio(ratio: float, setting: str, written: str, origin: str) -> None:
    if not 0 < ratio < 1:
        rule = "must be > 0 % and < 100 %"
        if ratio == 1:
            rule += " (100 % leaves no error budget)"
        raise _error(setting, rule, written, origin, _RATIO_CURE)


def _error(setting: str, rule: str, value: str, origin: str, cure: str) -> ObjectiveError:
    return ObjectiveError(f"sla {setting} {rule}, got {shown(value)} (from {origin}); {cure}")


def _written_ratio(ratio: float | None) -> str:
    return "None" if ratio is None else f"{_plain(Decimal(repr(ratio)) * 100)}%"


def _plain(number: Decimal) -> str:
    """Returns a number without exponent and without zeros at its end."""
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


DEFAULT_OBJECTIVE: Final = parse_objective("500ms@99%, 99.9%", origin="the default")
"""What requests are judged by where nothing else is set."""
