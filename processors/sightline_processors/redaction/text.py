"""Redaction of free text: messages, stack traces, log bodies, attribute values.

Most texts hold nothing to hide, so each step first looks for a substring without which it has nothing to do.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from sightline_processors.redaction.detectors import redact_cards, redact_secrets
from sightline_processors.redaction.keys import REDACTED
from sightline_processors.redaction.query import redact_query

MAX_CHARACTERS: Final = 65_536
"""The longest text that is scanned and kept as a whole; of a longer one, head and tail are."""

HEAD_CHARACTERS: Final = 40_960
TAIL_CHARACTERS: Final = 16_384
"""What is kept of a longer text: stack traces end with what went wrong."""

_MARGIN_CHARACTERS: Final = 4_096
"""Scanned beyond head and tail, and not kept: a secret across the cut is seen whole, not by half."""

_SEPARATOR: Final = (
    # key=value, "key": value, \"key\": value, key => value, [key]=value
    r"(?:(?:\\{0,4}[\"'])?\]?\s{0,4}[=:]{1,3}>?\s{0,4}"
    # (b'key', b'value'), as headers are printed
    r"|[\"']\s{0,4},\s{0,4}(?=[bru]?[\"']))"
)
_KEY = re.compile(
    # each alternative begins with a letter, so that a search skips to those
    r"(?:passwords?|passwd|pwd|passphrase|passcode|secrets?|token|cookies?|session(?:[_-]?id)?|authorization|jwt"
    r"|credentials?|a(?:pi|ccess|ccount)[_-]?key(?:[_-]?id)?|encryption[_-]?key|private[_-]?key"
    r"|s(?:ecret|igning)[_-]?key)" + _SEPARATOR
)
"""The end of a key that names a secret, and what separates it from the value; for text in lower case."""

_KEY_HINTS: Final = (
    "key", "token", "pass", "secret", "session", "cookie", "authorization", "credential", "jwt", "pwd",
)  # fmt: skip
_ANY_KEY = re.compile(rf"(?<![\w.-])(?P<key>[\w.-]{{1,128}}+){_SEPARATOR}")

_QUOTED: Final = r"[bBrRuU]{0,2}(?:\"(?:[^\"\\]|\\[\s\S])*+\"?|'(?:[^'\\]|\\[\s\S])*+'?)"
_VALUE = re.compile(
    rf"{_QUOTED}"
    # a quoted value inside of a quoted text
    r"|\\{1,8}[\"'][^\"'\\]*+"
    # a list, a mapping, a tuple
    r"|[\[({][^\])}]*+[\])}]?"
    # schemes whose credential goes on to the end of the line
    r"|(?i:digest|hawk|oauth|signature|aws4-hmac-sha256)\s{1,4}[^\r\n]*+"
    # one word, and what stands in parentheses behind it: Secret('value')
    rf"|(?:(?i:bearer|basic|token|negotiate)\s{{1,4}})?[^\s\"'&,;(]++(?:\((?:{_QUOTED})?[^\s\"'&,;]*+)?"
)
_COOKIES = re.compile(rf"{_QUOTED}|[\[({{][^\])}}]*+[\])}}]?|[^\s\"'&,;]++(?:;\s{{0,4}}[^\s\"'&,;]++)*+")

_SCHEME = re.compile(r"b(?<!\wb)(?:earer|asic)\s{1,4}(?P<token>[a-z0-9._~+/=-]{8,}+)")
_USER_INFORMATION = re.compile(r"(?<=://)[^\s/:@\"'<>]{0,4096}+:[^\s/\"'<>]{1,4096}(?=@)")
_QUERY = re.compile(r"\?[^\s\"'<>()\[\]{}\\]++")
_MAX_NESTED_KEYS: Final = 4
_ASCII_LOWER: Final = {ord(letter): ord(letter.lower()) for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}


def redact_text(text: str) -> str:
    """Replaces credentials in free text, such as an exception's message, by `REDACTED`.

    Finds values behind keys that name a secret (`password=…`, `"api_key": …`, `Cookie: …`), bearer and basic
    credentials, the user information and the secret parameters of URLs, JSON web tokens, well-known API keys,
    private keys and payment card numbers. A value that only a blank separates from its key is not recognised.

    Linear in the length of the text, and at most 65,536 characters are looked at: of a longer text, the first
    40,960 and the last 16,384 are kept, with `[n characters cut]` between them. The result is at most four
    times as long as what is kept.

    Returns:
        The same object where there is nothing to replace.
    """
    return bounded_redaction(text, redact_whole)


def bounded_redaction(text: str, redact: Callable[[str], str]) -> str:
    """Returns a text redacted by a function that never gets more than 45,056 characters of a long one."""
    if len(text) <= MAX_CHARACTERS:
        return redact(text)
    head = redact(text[: HEAD_CHARACTERS + _MARGIN_CHARACTERS])[:-_MARGIN_CHARACTERS]
    tail = redact(text[-(TAIL_CHARACTERS + _MARGIN_CHARACTERS) :])[_MARGIN_CHARACTERS:]
    return f"{head}[{len(text) - HEAD_CHARACTERS - TAIL_CHARACTERS} characters cut]{tail}"


def redact_whole(text: str) -> str:
    """Does what `redact_text` does, without its bound."""
    # Private keys first: what follows would take the first line of one for the whole value.
    redacted = _without_credentials(redact_secrets(text))
    if "://" in redacted and "@" in redacted:
        redacted = _USER_INFORMATION.sub(f"{REDACTED}:{REDACTED}", redacted)
    if "?" in redacted and "=" in redacted:
        redacted = _QUERY.sub(_redacted_query, redacted)
    redacted = redact_cards(redacted)
    return text if redacted == text else redacted


def _without_credentials(text: str) -> str:
    lowered = _lowered(text)
    if "bearer" in lowered or "basic" in lowered:
        text = _replaced(text, _tokens(text, lowered))
        lowered = _lowered(text)
    for hint in _KEY_HINTS:
        if hint in lowered:
            return _replaced(text, _values(text, _keys(lowered)))
    return text


def redact_keys(text: str, is_key: Callable[[str], bool]) -> str:
    """Replaces the values behind the keys that a function knows; keys of up to 128 characters."""
    keys = ((key.end(), _VALUE) for key in _ANY_KEY.finditer(text) if is_key(key["key"]))
    return _replaced(text, _values(text, keys))


def _replaced(text: str, spans: Iterable[tuple[int, int]]) -> str:
    """Returns a text with `REDACTED` in place of spans, which ascend; one may begin inside of another."""
    parts: list[str] = []
    done = 0
    for start, end in spans:
        if start > done or not parts:
            parts += (text[done:start], REDACTED)
        done = max(done, end)
    parts.append(text[done:])
    return "".join(parts)


def _lowered(text: str) -> str:
    """Returns a text in lower case with every character at its place."""
    lowered = text.lower()
    # a few letters become two in lower case
    return lowered if len(lowered) == len(text) else text.translate(_ASCII_LOWER)


def _keys(lowered: str) -> Iterator[tuple[int, re.Pattern[str]]]:
    """Yields where each value begins, and what it looks like."""
    for key in _KEY.finditer(lowered):
        yield key.end(), _COOKIES if key[0].startswith("cookie") else _VALUE


def _values(text: str, keys: Iterable[tuple[int, re.Pattern[str]]]) -> Iterator[tuple[int, int]]:
    done = nested = 0
    for end, pattern in keys:
        # A value may hold keys whose values end later; without the bound, `key=key=key=` costs its square.
        nested = nested + 1 if end < done else 0
        if nested <= _MAX_NESTED_KEYS and (value := pattern.match(text, end)):
            done = max(done, value.end())
            yield value.span()


def _tokens(text: str, lowered: str) -> Iterator[tuple[int, int]]:
    for match in _SCHEME.finditer(lowered):
        start, end = match.span("token")
        # "Basic authentication" is no credential: those have digits, padding, or capitals inside.
        if lowered.startswith("bearer", match.start()) or not _is_a_word(text[start:end]):
            yield start, end


def _is_a_word(token: str) -> bool:
    return token.isalpha() and token[1:].islower()


def _redacted_query(match: re.Match[str]) -> str:
    return f"?{redact_query(match[0][1:])}"
