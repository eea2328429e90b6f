"""Which names are followed by a secret: of query parameters, headers, attributes and keys in log bodies."""

import re
from collections.abc import Iterable
from fnmatch import translate
from typing import Final

REDACTED: Final = "REDACTED"
"""What stands in place of a secret. Source: semantic conventions v1.44.0, `url.query`."""

SENSITIVE_QUERY_PARAMETERS: Final = frozenset(
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

SECRET_QUERY_PARAMETERS: Final = frozenset(
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
"""Words that make the key of a query sensitive wherever they stand in it."""

_HEADER_WORDS: Final = (
    "auth", "cookie", "credential", "jwt", "key", "oidc", "passw", "secret", "session", "signature", "token",
)  # fmt: skip
"""Words that make a header one that carries a credential, wherever they stand in its name."""

_HEADER_ATTRIBUTES: Final = (
    "http.request.header.",
    "http.response.header.",
    "rpc.request.metadata.",
    "rpc.response.metadata.",
    "rpc.grpc.request.metadata.",
    "rpc.grpc.response.metadata.",
)
"""Beginnings of attributes that hold headers. Source: semantic conventions v1.44.0, http and rpc."""

_SECRET_ENDINGS: Final = (
    "accesskey", "accesskeyid", "accountkey", "apikey", "authorization", "cardnumber", "cookie", "cookies",
    "credential", "credentials", "encryptionkey", "jwt", "passcode", "passphrase", "passwd", "password",
    "passwords", "privatekey", "pwd", "secret", "secretkey", "secrets", "sessionid", "sessionkey",
    "signingkey", "token", "tokens",
)  # fmt: skip
"""Ends of attribute names and of keys in log bodies that are followed by a secret, without punctuation."""

_SECRET_NAMES: Final = frozenset({"auth", "cvc", "cvv", "cvv2", "otp", "pass", "session", "sid"})
"""Names, and last segments behind a dot, that count only as a whole."""

_SECRET_SUFFIXES: Final = ("-pass", "_pass")

_IDENTIFIERS: Final = frozenset({"session.id", "session.previous_id"})
"""Names that end like a secret and hold none. Source: semantic conventions v1.44.0, session registry."""

_MAX_JUDGED_CHARACTERS: Final = 256
"""Only the end of a longer name is judged."""

MAX_PATTERNS: Final = 64
"""Further key patterns that one redactor takes."""

_PATTERN = re.compile(r"(?=[*?._-]*[A-Za-z0-9])[A-Za-z0-9*?._-]{1,64}")


def is_secret_parameter(name: str) -> bool:
    """Tells whether a query parameter holds a secret by Sightline's lists; the name is decoded."""
    if name in SENSITIVE_QUERY_PARAMETERS:
        return True
    # `x-Api-Key`, `user[password]` and `accessToken` alike
    plain = _NOT_ALPHANUMERIC.sub("", name.lower())
    return plain in _PLAIN_SECRETS or any(word in plain for word in _SECRET_WORDS)


def carries_credential(header: str) -> bool:
    """Tells whether a header carries a credential, by its name in any case: `cookie`, `x-api-key` and so on.

    Such a header is masked whatever the settings say.
    """
    name = header[-_MAX_JUDGED_CHARACTERS:].lower()
    return any(word in name for word in _HEADER_WORDS)


def header_of(key: str) -> str | None:
    """Returns the header's name of an attribute that holds a header, lower-case; None for any other."""
    lowered = key.lower()
    for beginning in _HEADER_ATTRIBUTES:
        if lowered.startswith(beginning):
            return lowered[len(beginning) :]
    return None


def names_a_secret(key: str) -> bool:
    """Tells whether an attribute or an entry of a log body holds a secret: `db_password`, `user.accessToken`.

    Decided by the end of the name, without case and punctuation: `token.type` and `input_tokens.count` stay.
    """
    lowered = key[-_MAX_JUDGED_CHARACTERS:].lower()
    if lowered in _IDENTIFIERS:
        return False
    last = lowered.rpartition(".")[2]
    if last in _SECRET_NAMES or last.endswith(_SECRET_SUFFIXES):
        return True
    return _NOT_ALPHANUMERIC.sub("", lowered).endswith(_SECRET_ENDINGS)


def key_patterns(items: Iterable[str]) -> tuple[str, ...]:
    """Returns further key patterns, lower-case and without duplicates, in order.

    Args:
        items: Names with `*` and `?` as wildcards, such as `iban` or `card_*`; blanks around are dropped.

    Raises:
        ValueError: When one is no such name, or when there are more than 64. Starts with the rule, `must …`.
    """
    patterns = tuple(dict.fromkeys(item.strip().lower() for item in items if item.strip()))
    if any(not _PATTERN.fullmatch(pattern) for pattern in patterns):
        raise ValueError(
            "must be names of keys separated by commas: letters, digits and ._- with * and ? as wildcards, "
            "at most 64 characters each, at least one of them a letter or digit"
        )
    if len(patterns) > MAX_PATTERNS:
        raise ValueError(f"must be at most {MAX_PATTERNS} names of keys")
    return patterns


class ExtraKeys:
    """Matches names against further patterns; immutable, any thread.

    A name matches as a whole, by its last segment behind a dot, and, where it is the attribute of a header,
    by the header's name; case does not count, and `-` is the same as `_`.

    Args:
        items: As for `key_patterns`, which raises for what is wrong.
    """

    def __init__(self, items: Iterable[str]) -> None:
        self.patterns = key_patterns(items)
        expressions = "|".join(translate(pattern.replace("-", "_")) for pattern in self.patterns)
        self._match = re.compile(expressions).match if expressions else None
        self._hints = {max(re.split("[*?]", pattern.replace("-", "_")), key=len) for pattern in self.patterns}

    def may_stand_in(self, text: str) -> bool:
        """Tells whether a text holds the longest part without a wildcard of any pattern."""
        lowered = text.lower().replace("-", "_")
        return any(hint in lowered for hint in self._hints)

    def matches(self, key: str) -> bool:
        """Tells whether a name is one of those; linear in its length, at most 256 characters."""
        match = self._match
        if match is None:
            return False
        name = key[-_MAX_JUDGED_CHARACTERS:].lower().replace("-", "_")
        return any(match(part) for part in {name, name.rpartition(".")[2], header_of(name) or name})
