"""One redactor for attributes, log bodies, headers and texts, with further keys of the user's."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from types import NoneType
from typing import Any, Final

from sightline_processors.otlp.primitives import printed
from sightline_processors.redaction.keys import (
    REDACTED,
    ExtraKeys,
    carries_credential,
    header_of,
    names_a_secret,
)
from sightline_processors.redaction.query import redact_query
from sightline_processors.redaction.text import bounded_redaction, redact_keys, redact_whole

MAX_DEPTH: Final = 16
"""Levels of nested maps and lists that are looked into; `[cut]` stands in place of what is deeper."""

MAX_CHARACTERS: Final = 262_144
"""What one mapping or body may hold, over all levels; each value counts 16 more. Then `[cut]` stands."""

_CUT: Final = "[cut]"
_COST_OF_A_VALUE: Final = 16

_SAFE, _TEXT, _QUERY, _SECRET, _SECRETS = range(5)
"""What is done to a value by its key: nothing, look for secrets, redact as a query, replace.

The last replaces no numbers, for names in the plural: `input_tokens` says how many.
"""

_UNINTERESTING: Final = frozenset(
    {
        "client.address", "client.port", "code.file.path", "code.function.name", "code.line.number",
        "correlation_id", "db.collection.name", "db.namespace", "db.operation.name", "db.system",
        "db.system.name", "error.type", "exception.escaped", "exception.type", "http.request.method",
        "http.response.status_code", "http.route", "messaging.system", "network.peer.address",
        "network.peer.port", "network.protocol.name", "network.protocol.version", "network.transport",
        "network.type", "rpc.system", "server.address", "server.port", "sightline.correlation_id",
        "sightline.end_reason", "sightline.sla.objective", "sightline.sla.outcome", "thread.id",
        "thread.name", "url.scheme",
    }
)  # fmt: skip
"""Names whose values come from closed sets, are validated, or name a place: not looked into."""

_QUERIES: Final = frozenset({"url.query", "http.request.query"})
_PLAIN: Final = frozenset({int, float, bool, NoneType})
_PASS: Final = frozenset({"ss", "SS"})
_MASKS: Final = frozenset({REDACTED, "[REDACTED]", "***", "*****", "**********"})
"""What stands for a secret already: ours, the stock instrumentors', pydantic's."""

_MAX_REMEMBERED_NAMES: Final = 2_048
_MAX_REMEMBERED_NAME_CHARACTERS: Final = 128
_MAX_REMEMBERED_TEXTS: Final = 2_048
_MAX_REMEMBERED_TEXT_CHARACTERS: Final = 128


class Redactor:
    """Replaces secrets by `REDACTED`; any thread, linear in the size of what it is given.

    Remembers at most 2,048 names and 2,048 short texts without secrets (about 2 MB in all), because
    applications repeat theirs. Never modifies what it is given; returns the same object if nothing changes.

    Args:
        extra_keys: Further names whose values are secrets, with `*` and `?` as wildcards; see `key_patterns`.
        enabled: False leaves everything as it is, short of headers that carry credentials.

    Raises:
        ValueError: When a key is no pattern.
    """

    def __init__(self, extra_keys: Sequence[str] = (), enabled: bool = True) -> None:  # noqa: FBT001, FBT002  part of the public call shape
        self.enabled = enabled
        self._extra = ExtraKeys(extra_keys)
        self._has_extra = bool(self._extra.patterns)
        remember = lru_cache(maxsize=_MAX_REMEMBERED_NAMES)
        self._remembered: Callable[[str], int] = remember(self._judgement)
        self._is_extra: Callable[[str], bool] = remember(self._extra.matches)
        self._clean: set[str] = set()

    def attributes(self, attributes: Mapping[str, Any]) -> Mapping[str, Any]:
        """Returns attributes of a span, an event or a log record without secrets; keys stay."""
        walk = None
        changes = {}
        for key, value in _items(attributes):
            # The lines of `judged`, without its call.
            is_short = type(key) is str and len(key) <= _MAX_REMEMBERED_NAME_CHARACTERS
            kind = self._remembered(key) if is_short else self.judged(key)
            if kind == _SAFE:
                continue
            if kind == _TEXT and (type(value) in _PLAIN or (type(value) is str and value in self._clean)):
                continue  # most values, without a call
            walk = walk or _Walk(self)
            redacted = walk.value(value, kind, MAX_DEPTH)
            if redacted is not value:
                changes[key] = redacted
        return {**attributes, **changes} if changes else attributes

    def body(self, body: Any) -> Any:
        """Returns the body of a log record without secrets: any value, nested maps and lists.

        What is neither text, number nor container is returned as its text, as which it would be exported.
        Beyond 16 levels, or 262,144 characters over all, `[cut]` stands in place of a value.
        """
        return _Walk(self).value(body, _TEXT, MAX_DEPTH) if self.enabled else body

    def text(self, text: str) -> str:
        """Returns a text without secrets; see `redact_text`, with the further keys."""
        if not self.enabled or text in self._clean:
            return text
        redacted = bounded_redaction(text, self._redact_whole)
        if redacted is text and len(text) <= _MAX_REMEMBERED_TEXT_CHARACTERS:
            if len(self._clean) >= _MAX_REMEMBERED_TEXTS:
                self._clean.clear()
            self._clean.add(text)
        return redacted

    def query(self, query: str) -> str:
        """Returns a query string, without its question mark, without secrets; see `redact_query`."""
        if not self.enabled:
            return query
        redacted = redact_query(query)
        return self._without_extra(redacted) if self._has_extra else redacted

    def header(self, name: str, value: str) -> str:
        """Returns the value of a header; `REDACTED` where it carries a credential, also when not enabled.

        Args:
            name: In any case.
            value: Of one header; several are judged one by one.
        """
        if carries_credential(name) or (self.enabled and self._extra.matches(name)):
            return value if value in _MASKS else REDACTED
        return self.text(value)

    def judged(self, key: Any) -> int:
        """Returns what is done to the value of a key."""
        if type(key) is str and len(key) <= _MAX_REMEMBERED_NAME_CHARACTERS:
            return self._remembered(key)
        return self._judgement(printed(key))

    def _judgement(self, key: str) -> int:
        header = header_of(key)
        if header is not None and carries_credential(header):
            return _SECRET
        if not self.enabled:
            return _SAFE
        if self._extra.matches(key):
            return _SECRET
        if key in _UNINTERESTING:
            return _SAFE
        if key in _QUERIES:
            return _QUERY
        if header is not None or not names_a_secret(key):
            return _TEXT
        return _SECRETS if key[-1] in "sS" and key[-2:] not in _PASS else _SECRET

    def _redact_whole(self, text: str) -> str:
        redacted = redact_whole(text)
        return self._without_extra(redacted) if self._has_extra else redacted

    def _without_extra(self, text: str) -> str:
        if not self._extra.may_stand_in(text):
            return text
        redacted = redact_keys(text, self._is_extra)
        return text if redacted == text else redacted


class _Walk:
    """One value with all that is nested in it; made for one call."""

    __slots__ = ("_left", "_redactor")

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._left = MAX_CHARACTERS

    def value(self, value: Any, kind: int, depth: int) -> Any:
        """Returns a value as its key has been judged."""
        if kind >= _SECRET:
            return value if kind == _SECRETS and isinstance(value, int) else _masked(value)
        self._left -= _COST_OF_A_VALUE
        if type(value) is str:
            return self._text(value, kind)
        if type(value) in _PLAIN:
            return value
        if depth <= 0 or self._left < 0:
            return _CUT
        return self._compound(value, kind, depth)

    def _text(self, value: str, kind: int) -> str:
        self._left -= len(value)
        if self._left < 0:
            return _CUT
        return self._redactor.query(value) if kind == _QUERY else self._redactor.text(value)

    def _compound(self, value: Any, kind: int, depth: int) -> Any:
        if isinstance(value, str):
            return self._text(str.__str__(value), kind)
        if isinstance(value, int | float):
            return value
        if isinstance(value, bytes | bytearray | memoryview):
            return self._octets(value)
        if isinstance(value, Mapping):
            return self._mapping(value, depth)
        if isinstance(value, Sequence | set | frozenset):
            return self._sequence(value, kind, depth)
        return self._text(printed(value), kind)

    def _octets(self, value: Any) -> Any:
        text = bytes(value).decode("latin-1")
        redacted = self._text(text, _TEXT)
        return value if redacted == text else redacted.encode("latin-1")

    def _mapping(self, value: Mapping[Any, Any], depth: int) -> Any:
        changes = {}
        snapshot = dict(value)
        for key, item in snapshot.items():
            redacted = self.value(item, self._redactor.judged(key), depth - 1)
            if redacted is not item:
                changes[key] = redacted
        return {**snapshot, **changes} if changes else value

    def _sequence(self, value: Any, kind: int, depth: int) -> Any:
        snapshot = tuple(value)
        if _PLAIN.issuperset(map(type, snapshot)):
            return value
        if _is_secret_pair(snapshot, self._redactor):
            return (snapshot[0], _masked(snapshot[1]))
        redacted = tuple(self.value(item, kind, depth - 1) for item in snapshot)
        if all(map(_is_same, redacted, snapshot)):
            return value
        return list(redacted) if isinstance(value, list) else redacted


def _items(attributes: Mapping[str, Any]) -> Any:
    """Returns keys and values; a copy, because another thread may be setting one."""
    copy = getattr(attributes, "copy", None)  # several times faster than iterating the SDK's mapping
    return (dict(attributes) if copy is None else copy()).items()


def _is_same(one: object, other: object) -> bool:
    return one is other


def _is_secret_pair(items: tuple[Any, ...], redactor: Redactor) -> bool:
    """Tells whether items are the name of a secret and its value, as in lists of raw headers."""
    if len(items) != 2 or not isinstance(items[1], str | bytes):  # noqa: PLR2004  a pair
        return False
    name = items[0].decode("latin-1") if isinstance(items[0], bytes) else items[0]
    return isinstance(name, str) and redactor.judged(name) >= _SECRET


def _masked(value: Any) -> Any:
    """Returns what stands for a secret: None and switches are none, and a float is a measurement."""
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, str):
        return value if value in _MASKS or not value else REDACTED
    if isinstance(value, list | tuple):
        masked = tuple(map(_masked_item, value))
        return value if all(map(_is_same, masked, value)) else masked
    return REDACTED


def _masked_item(item: Any) -> Any:
    is_none = type(item) in _PLAIN or (isinstance(item, str) and item in _MASKS)
    return item if is_none else REDACTED
