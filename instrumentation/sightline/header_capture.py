"""The request or response headers that are put on the span, credentials masked.

A client may send any name, as often as it likes: what is remembered of names is bounded.
"""

import re
from collections.abc import Iterable
from typing import Final

from sightline.attributes import bounded_text
from sightline.types import Attributes, RawHeader

MASKED: Final = "[REDACTED]"
"""Value of a captured header that carries a credential. Source: the stock instrumentors."""

MAX_NAMES: Final = 1024
"""Names that are judged once; further ones are each time."""


class HeaderCapture:
    """Captures the headers whose names match a pattern; any thread.

    Args:
        side: `request` or `response`.
        wanted: Full-match pattern of the names to capture, lower-case.
        masked: Full-match pattern of the names whose values become `[REDACTED]`.
    """

    def __init__(self, side: str, wanted: re.Pattern[str], masked: re.Pattern[str]) -> None:
        self._side = side
        self._wanted = wanted
        self._masked = masked
        self._judged: dict[bytes, tuple[str, bool]] = {}

    def attributes(self, headers: Iterable[RawHeader]) -> Attributes:
        """Returns `http.{request,response}.header.<name>` attributes, each a tuple of values.

        Args:
            headers: `(name, value)` byte pairs.
        """
        captured: Attributes = {}
        judged = self._judged
        for name, raw_value in headers:
            attribute, is_masked = judged.get(name) or self._judge(bytes(name))
            if not attribute:
                continue
            value = MASKED if is_masked else bounded_text(bytes(raw_value).decode("latin-1"))
            before = captured.get(attribute)
            captured[attribute] = (value,) if before is None else (*before, value)  # type: ignore[misc]
        return captured

    def _judge(self, raw_name: bytes) -> tuple[str, bool]:
        """Returns the attribute of a header, empty for none, and whether its value is masked."""
        name = raw_name.decode("latin-1").lower()
        wanted = self._wanted.fullmatch(name) is not None
        judgement = (f"http.{self._side}.header.{name}" if wanted else "", bool(self._masked.fullmatch(name)))
        if len(self._judged) < MAX_NAMES:
            self._judged[raw_name] = judgement
        return judgement
