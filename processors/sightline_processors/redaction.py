"""Redaction of values that must not leave the process."""

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


def redact_query(query: str) -> str:
    """Replaces the values of sensitive keys in a query string by `REDACTED`; keys and order stay.

    Linear in the length of the query; no decoding except of percent-encoded keys.
    """
    if "=" not in query:
        return query
    return "&".join(map(_redact_pair, query.split("&")))


def _redact_pair(pair: str) -> str:
    key, separator, _ = pair.partition("=")
    if not separator:
        return pair
    name = unquote_plus(key, errors="replace")
    if name in SENSITIVE_QUERY_PARAMETERS or name.lower() in SECRET_QUERY_PARAMETERS:
        return f"{key}={REDACTED}"
    return pair
