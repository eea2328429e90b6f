"""Recognises what identifies one thing among many in a path, and puts `{id}` in its place."""

import re
from typing import Final

PLACEHOLDER: Final = "{id}"
"""What stands where an identifier stood; one for all shapes: each further one multiplies the results."""

MAX_TEMPLATE_CHARACTERS: Final = 256
"""A longer result ends at the last `/` or space before."""
_MAX_READ_CHARACTERS: Final = 4096

_PATH_END: Final = re.compile("[?#]")
_AUTHORITY: Final = re.compile("[A-Za-z][A-Za-z0-9+.-]*://[^/]*/?")

# Every pattern is anchored by `fullmatch`, and no two neighbouring parts can match the same character.
_SHAPES: Final = re.compile(
    # a number, a group of numbers, a date; none with a dot, as versions in routes have
    r"[+-]?[0-9][0-9,:_-]*"
    # a point in time
    r"|[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9:.]+(?:[Zz]|[+-][0-9:]+)?"
    # a UUID, as RFC 9562 writes it, as a URN or in braces
    r"|(?:[Uu][Rr][Nn]:[Uu][Uu][Ii][Dd]:|\{)?"
    r"[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}\}?"
    # a hash
    r"|(?:0[xX])?[0-9A-Fa-f]{16,}"
)
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+=%-]{20,}")
_LETTER_BESIDE_DIGIT: Final = re.compile(r"(?<=[A-Za-z])[0-9]|(?<=[0-9])[A-Za-z]")
_DIGIT: Final = re.compile(r"[0-9]")
_MIN_TOKEN_CHANGES: Final = 4
_MIN_TOKEN_DIGITS: Final = 3


def is_identifier(segment: str) -> bool:
    """Tells whether a segment of a path identifies one thing among many, and not a kind of things.

    True for numbers (`42`, `2026-11-21`), UUIDs, hashes (16 or more hexadecimal digits), e-mail addresses
    and tokens: 20 or more characters of `A-Za-z0-9._~+=%-` in which letters and digits alternate, such as
    ULIDs, JSON web tokens and base64. A token of few digits looks like a word and is not found. ASCII only.
    Linear in the length.
    """
    return _SHAPES.fullmatch(segment) is not None or _is_email(segment) or _is_token(segment)


def _is_email(segment: str) -> bool:
    user, at, domain = segment.replace("%40", "@").rpartition("@")
    return bool(user and at and "." in domain.strip(".")) and not segment.startswith("{")


def _is_token(segment: str) -> bool:
    return (
        _TOKEN.fullmatch(segment) is not None
        and len(_LETTER_BESIDE_DIGIT.findall(segment)) >= _MIN_TOKEN_CHANGES
        and len(_DIGIT.findall(segment)) >= _MIN_TOKEN_DIGITS
    )


def template(text: str) -> str:
    """Returns a text whose paths hold `{id}` where they held identifiers: `GET /users/{id}/orders`.

    A path is a word (what stands between spaces) with a `/`, up to its `?` or `#`. Only whole segments
    change, see `is_identifier`; scheme and authority of a URL, queries and words without a `/` stay. A
    template is its own template. Linear in the length; reads the first 4096 characters and returns at most
    256, whole segments where there are several. The same object where nothing changes.
    """
    if len(text) > _MAX_READ_CHARACTERS:
        text = text[:_MAX_READ_CHARACTERS]
    if "/" in text:
        text = _templated(text)
    return text if len(text) <= MAX_TEMPLATE_CHARACTERS else _shortened(text)


def _templated(text: str) -> str:
    words = text.split(" ")
    changed = [_template_of_word(word) if "/" in word else word for word in words]
    return text if changed == words else " ".join(changed)


def _template_of_word(word: str) -> str:
    end = _PATH_END.search(word)
    path, rest = (word, "") if end is None else (word[: end.start()], word[end.start() :])
    authority = _AUTHORITY.match(path)
    if authority is not None:
        origin, path = path[: authority.end()], path[authority.end() :]
    elif "/" in path:
        origin = ""
    else:
        return word
    segments = [PLACEHOLDER if is_identifier(segment) else segment for segment in path.split("/")]
    return f"{origin}{'/'.join(segments)}{rest}"


def _shortened(text: str) -> str:
    """Cuts before a segment or word that does not fit: a part of one may look like something else."""
    head = text[:MAX_TEMPLATE_CHARACTERS]
    cut = max(head.rfind("/"), head.rfind(" "))
    return head if cut < 0 else head[: cut or 1]
