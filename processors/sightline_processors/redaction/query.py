"""Redaction of query strings: by key only, because each request pays for it."""

import re
from collections.abc import Collection
from functools import lru_cache
from urllib.parse import unquote_plus

from sightline_processors.redaction.keys import REDACTED, is_secret_parameter


def redact_query(query: str, keys: Collection[str] | None = None) -> str:
    """Replaces the values of sensitive keys in a query string by `REDACTED`; keys and order stay.

    Linear in the length of the query; no decoding except of percent-encoded keys.

    Args:
        query: Without the leading question mark.
        keys: Replaces the built-in lists, compared case-sensitively; None for those.
    """
    if "=" not in query or (keys is None and ";" not in query and not _may_name_a_secret(query)):
        return query
    return "".join(
        part if part in _SEPARATORS else _redact_pair(part, keys) for part in _PAIR_SEPARATOR.split(query)
    )


def _may_name_a_secret(query: str) -> bool:
    """Tells whether any key is sensitive; applications repeat their keys, and each is judged once."""
    return any(
        _is_known_secret(key) if len(key) <= _MAX_REMEMBERED_CHARACTERS else True
        for key in (pair.partition("=")[0] for pair in query.split("&"))
    )


@lru_cache(maxsize=1024)
def _is_known_secret(key: str) -> bool:
    return is_secret_parameter(unquote_plus(key, errors="replace"))


_MAX_REMEMBERED_CHARACTERS = 64


def _redact_pair(pair: str, keys: Collection[str] | None) -> str:
    key, separator, _ = pair.partition("=")
    if not separator:
        return pair
    name = unquote_plus(key, errors="replace")
    is_secret = is_secret_parameter(name) if keys is None else name in keys
    return f"{key}={REDACTED}" if is_secret else pair


_SEPARATORS = frozenset("&;")
_PAIR_SEPARATOR = re.compile("([&;])")
