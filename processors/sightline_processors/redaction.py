"""Redaction of values that must not leave the process."""

import re
from collections.abc import Collection
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
        "passwd",
        "password",
        "pwd",
        "refresh_token",
        "secret",
        "session",
        "sessionid",
        "signature",
        "state",
        "token",
    }
)
"""Further keys, compared in lower case: a choice of Sightline, wider than the conventions."""


_TEXT_SECRETS = re.compile(
    # key=value and key: value; the quantifiers are bounded and the classes disjoint, so a match is linear
    r"(?i)\b(?P<key>(?:[a-z0-9]{0,24}[_-])?(?:password|passwd|pwd|secret|token|api[_-]?key|authorization))"
    r"(?P<separator>[\"']?\s{0,4}[=:]\s{0,4}[\"']?)(?:(?:bearer|basic)\s{1,4})?[^\s\"'&,;]{1,4096}"
    # a bearer or basic credential on its own
    r"|\b(?P<scheme>bearer|basic)\s{1,4}[a-z0-9._~+/=-]{8,4096}"
    # a JSON web token
    r"|\beyJ[a-z0-9_-]{4,4096}\.[a-z0-9_-]{4,4096}\.[a-z0-9_-]{0,4096}"
    # the user information of a URL
    r"|(?<=://)[^\s/@:]{1,256}:[^\s/@]{1,256}(?=@)"
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
    if "=" not in query:
        return query
    return "&".join(_redact_pair(pair, keys) for pair in query.split("&"))


def _redact_pair(pair: str, keys: Collection[str] | None) -> str:
    key, separator, _ = pair.partition("=")
    if separator and _is_sensitive(unquote_plus(key, errors="replace"), keys):
        return f"{key}={REDACTED}"
    return pair


def _is_sensitive(name: str, keys: Collection[str] | None) -> bool:
    if keys is not None:
        return name in keys
    return name in SENSITIVE_QUERY_PARAMETERS or name.lower() in SECRET_QUERY_PARAMETERS
