"""Rules that bound what a span's name or an attribute may hold, and the memory behind them."""

import math
import operator
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final, TypeAlias

from sightline_processors.cardinality.value_shapes import template
from sightline_processors.forked_processes import renew_in_children
from sightline_processors.report import logger

OTHER: Final = "_other"
"""What stands where a value was one too many."""

DEFAULT_LIMIT: Final = 1000
DEFAULT_IDLE_SECONDS: Final = 3600.0
_MAX_KEY_CHARACTERS: Final = 256
_DIGEST_BYTES: Final = 16
_REPORT_SECONDS: Final = 3600.0


@dataclass(frozen=True)
class Allow:
    """Lets a value pass as it is: an exception from a wider rule."""


@dataclass(frozen=True)
class Cap:
    """Lets a number of values pass, and replaces further ones by `_other`.

    The values that pass are remembered; when all places are taken, a new value gets the place of the one
    that was used longest ago, provided that was `idle_seconds` ago or more. So within any such time at most
    `limit` values pass, and those in use keep passing.

    Args:
        limit: Values that pass, 1 or more.
        idle_seconds: How long a value keeps its place unused, 0 or more; `math.inf` for good.

    Raises:
        ValueError: For a limit or a time out of range.
    """

    limit: int = DEFAULT_LIMIT
    idle_seconds: float = DEFAULT_IDLE_SECONDS

    def __post_init__(self) -> None:
        _check_bounds(self.limit, self.idle_seconds)


@dataclass(frozen=True)
class Replace:
    """Replaces every value by `_other`: the attribute is there, its value is nobody's business."""


@dataclass(frozen=True)
class Template:
    """Puts `{id}` in the place of identifiers in paths (`value_shapes.template`), then caps like `Cap`.

    Args:
        limit: Templates that pass, 1 or more; None for no cap.
        idle_seconds: How long one keeps its place unused, 0 or more; `math.inf` for good.

    Raises:
        ValueError: For a limit or a time out of range.
    """

    limit: int | None = DEFAULT_LIMIT
    idle_seconds: float = DEFAULT_IDLE_SECONDS

    def __post_init__(self) -> None:
        _check_bounds(1 if self.limit is None else self.limit, self.idle_seconds)


Rule: TypeAlias = Allow | Cap | Replace | Template


def _check_bounds(limit: int, idle_seconds: float) -> None:
    if limit < 1:
        raise ValueError(
            f"limit of a cardinality rule must be >= 1, got {limit}; to let none pass, use Replace()"
        )
    if math.isnan(idle_seconds) or idle_seconds < 0:
        raise ValueError(
            f"idle_seconds of a cardinality rule must be >= 0, got {idle_seconds}; for an hour write 3600"
        )


class ValueMemory:
    """Remembers which values pass a cap; least recently used first out, once idle.

    Any thread. One look-up takes O(1) and a lock of this memory alone. Holds at most `limit` values, of one
    that is longer than 256 characters only a digest: up to 500 bytes each, 1.3 kB outside Latin-1.

    Args:
        limit: Values that are remembered, 1 or more.
        idle_seconds: How long a value keeps its place unused.
        clock: Seconds that never go back.
    """

    def __init__(
        self, limit: int, idle_seconds: float = math.inf, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.limit = limit
        self.idle_seconds = idle_seconds
        self.refused = 0
        self._clock = clock
        self._reports_at = -math.inf
        self._used_at: OrderedDict[str | bytes, float] = OrderedDict()
        self._lock = threading.RLock()  # a signal handler, or a finaliser, may start a span in its holder
        renew_in_children(self, ValueMemory.renew_lock)

    def __len__(self) -> int:
        return len(self._used_at)

    def touches(self, value: str) -> bool:
        """Tells whether a value has a place, and remembers that it was used."""
        key = _key_of(value)
        with self._lock:
            if key not in self._used_at:
                return False
            self._used_at.move_to_end(key)
            self._used_at[key] = self._clock()
        return True

    def admits(self, value: str) -> bool:
        """Tells whether a value passes, and remembers that it was used; counts one that does not."""
        key = _key_of(value)
        with self._lock:
            now = self._clock()
            used_at = self._used_at
            if key in used_at:
                used_at.move_to_end(key)
            elif len(used_at) >= self.limit:
                oldest = next(iter(used_at))
                if now - used_at[oldest] < self.idle_seconds:
                    self.refused += 1
                    return False
                del used_at[oldest]
            used_at[key] = now
        return True

    def is_report_due(self) -> bool:
        """Tells once an hour, to one caller, that it is time for a line in the log."""
        with self._lock:
            now = self._clock()
            if now < self._reports_at:
                return False
            self._reports_at = now + _REPORT_SECONDS
        return True

    def renew_lock(self) -> None:
        """Takes a new lock: in a forked child, the thread that held the old one is gone."""
        self._lock = threading.RLock()


def _key_of(value: str) -> str | bytes:
    """Returns what a value is remembered by; its size is bounded."""
    if len(value) > _MAX_KEY_CHARACTERS:
        return blake2b(str.encode(value, errors="surrogatepass"), digest_size=_DIGEST_BYTES).digest()
    return value if type(value) is str else str.__str__(value)  # a subclass may be, and hold, anything


class RuleMemory:
    """A rule together with what it remembers; any thread.

    Args:
        rule: Says what becomes of a value.
        subject: What the rule is for, as a log line names it; written by the application's programmers.
        clock: Seconds that never go back.
    """

    def __init__(self, rule: Rule, subject: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.rule = rule
        self.subject = subject
        self.values: ValueMemory | None = None
        if isinstance(rule, Cap | Template) and rule.limit is not None:
            self.values = ValueMemory(rule.limit, rule.idle_seconds, clock)

    def bounded_text(self, text: str) -> str:
        """Returns what a text becomes: itself (the same object), its template or `_other`.

        Idempotent while the result keeps its place.
        """
        rule, values = self.rule, self.values
        if isinstance(rule, Allow) or text == OTHER:  # `_other` takes nobody's place
            return text
        if isinstance(rule, Replace):
            return OTHER
        if isinstance(rule, Template):
            if values is not None and values.touches(text):
                return text  # only templates have places, and a template is its own
            text = template(text)
        return text if self._passes(text) else OTHER

    def bounded_value(self, value: Any) -> Any:
        """Returns what the value of an attribute becomes; the same object where nothing changes.

        Of a list or tuple each element is judged on its own. A number is capped like a text and changes only
        to `_other`; booleans and None change by `Replace` only; anything else (bytes, mappings, lists in
        lists) becomes `_other`, except by `Allow`.
        """
        if isinstance(self.rule, Allow):
            return value
        if isinstance(self.rule, Replace) or not isinstance(value, list | tuple):
            return self._bounded_scalar(value)
        bounded = tuple(map(self._bounded_scalar, value))
        return value if all(map(operator.is_, bounded, value)) else bounded

    def _bounded_scalar(self, value: Any) -> Any:
        if isinstance(self.rule, Replace):
            return OTHER
        if isinstance(value, str):
            return self.bounded_text(value)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int | float):
            return value if self._passes(repr(value)) else OTHER
        return OTHER

    def _passes(self, text: str) -> bool:
        values = self.values
        if values is None or values.admits(text):
            return True
        if values.is_report_due():
            logger.warning(
                "%s: more than %d within %g s; further ones become %s until a place is free (%d so far);"
                " put what differs from call to call elsewhere, or set a rule of CardinalitySpanProcessor",
                self.subject, values.limit, values.idle_seconds, OTHER, values.refused,
            )  # fmt: skip
        return False
