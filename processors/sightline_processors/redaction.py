"""Redaction of values that must not leave the process."""

import re
from collections.abc import Collection
from functools import lru_cache
from urllib.parse import unquote_plus

REDACTED = "REDACTED"

SENSITIVE_QUERY_PARAMETERS = frozenset(
    {
        "X-Amz-Signature",
        "X-Amz-Credential",
        "X-Amz-Security-Token",
        "AWSAccessKeyId",
        "Signature",
        "sig",
        "X-Goog-Signature",
    }
)
"""Keys whose values are redacted, case-sensitive. Source: semantic conventions v1.44.0, `url.query`."""

SECRET_QUERY_PARAMETERS = frozenset(
    {
        "access_token",
        "api-key",
        "api_key",
        "apikey",
        "auth",
        "authorization",
        "client_secret",
        "code",
        "id_token",
        "jwt",
        "key",
        "otp",
        "passwd",
        "password",
        "pwd",
        "refresh_token",
        "secret",
        "session",
        "sessionid",
        "sid",
        "signature",
        "state",
        "token",
    }
)
"""Further keys, compared without case and punctuation: a choice of Sightline, wider than the conventions."""


_TEXT_SECRETS = re.compile(
    # key=value and key: value; the quantifiers are bounded and the classes disjoint, so a match is linear
    r"(?i)(?<![a-z0-9])(?P<key>(?:[a-z0-9]{0,24}[_-]){0,3}(?:password|passwd|pwd|passphrase|secret|token|cookie"
    r"|session|authorization|(?:api|access|private)[_-]?key))"
    r"(?P<separator>[\"']?\s{0,4}[=:]\s{0,4})"
    r"(?:\"[^\"]{0,4096}\"|'[^']{0,4096}'|(?:(?:bearer|basic)\s{1,4})?[^\s\"'&,;]{1,4096})"
    # a bearer or basic credential on its own
    r"|\b(?P<scheme>bearer|basic)\s{1,4}[a-z0-9._~+/=-]{8,4096}"
    # a JSON web token
    r"|(?<![a-z0-9_-])eyJ[a-z0-9_-]{4,4096}\.[a-z0-9_-]{4,4096}\.[a-z0-9_-]{0,4096}"
    # the user information of a URL
    r"|(?<=://)[^\s/:@]{0,256}:[^\s/]{1,256}(?=@)"
)


def redact_text(text: str) -> str:
    """Replaces credentials in free text, such as an exception's message, by `REDACTED`.

    Finds `key=value` with a key that names a secret, bearer and basic credentials, JSON web tokens and the
    user information of URLs. Linear in the length of the text.
    """
    return _TEXT_SECRETS.sub(_replacement, text)


def _replacement(match: re.Match[str]) -> str:
    if match["key"]:
        return f"{match['key']}{match['separator']}{REDACTED}"
    if match["scheme"]:
        return f"{match['scheme']} {REDACTED}"
    return f"{REDACTED}:{REDACTED}" if ":" in match[0] else REDACTED


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
    return _is_sensitive(unquote_plus(key, errors="replace"), None)


_MAX_REMEMBERED_CHARACTERS = 64


def _redact_pair(pair: str, keys: Collection[str] | None) -> str:
    key, separator, _ = pair.partition("=")
    if separator and _is_sensitive(unquote_plus(key, errors="replace"), keys):
        return f"{key}={REDACTED}"
    return pair


def _is_sensitive(name: str, keys: Collection[str] | None) -> bool:
    if keys is not None:
        return name in keys
    if name in SENSITIVE_QUERY_PARAMETERS:
        return True
    # `x-Api-Key`, `user[password]` and `accessToken` alike
    plain = _NOT_ALPHANUMERIC.sub("", name.lower())
    return plain in _PLAIN_SECRETS or any(word in plain for word in _SECRET_WORDS)


_SEPARATORS = frozenset("&;")
_PAIR_SEPARATOR = re.compile("([&;])")
_NOT_ALPHANUMERIC = re.compile("[^a-z0-9]")
_PLAIN_SECRETS = frozenset(_NOT_ALPHANUMERIC.sub("", name) for name in SECRET_QUERY_PARAMETERS)
_SECRET_WORDS = (
    "apikey",
    "accesskey",
    "credential",
    "jwt",
    "passphrase",
    "passw",
    "privatekey",
    "secret",
    "sessionid",
    "token",
)
"""Words that make a key sensitive wherever they stand in it."""
