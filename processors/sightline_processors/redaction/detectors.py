"""What a secret looks like, wherever it stands: tokens, API keys, private keys, payment card numbers.

Every pattern is linear in the length of the text: its beginning is a literal, what follows is taken
possessively (never given back), or is bounded by a constant. Substrings are looked for first, because most
texts have none of them.
"""

import re
from typing import Final, NamedTuple

from sightline_processors.redaction.keys import REDACTED


class Detector(NamedTuple):
    """One kind of secret.

    Attributes:
        name: For tests and documentation.
        hints: One of these stands in every such secret.
        pattern: Matches the whole secret.
    """

    name: str
    hints: tuple[str, ...]
    pattern: re.Pattern[str]


_ALONE: Final = r"(?<![A-Za-z0-9])"

_WITH_HYPHEN: Final = (
    Detector(
        "private key block",
        ("-----BEGIN ",),
        # to its end, or, where that is missing, to the next block or the end of the text
        re.compile(
            r"-----BEGIN [A-Z0-9 ]{0,32}PRIVATE KEY(?: BLOCK)?-----(?:[^-]|-(?!----))*+"
            r"(?:-----END [A-Z0-9 ]{0,48}-----)?"
        ),
    ),
    Detector(
        "Slack token",
        ("xox", "xapp-"),
        re.compile(rf"{_ALONE}(?:xox[abeoprs](?:\.xox[bp])?|xapp)-[A-Za-z0-9-]{{10,}}+"),
    ),
    Detector("GitLab token", ("glpat-",), re.compile(rf"{_ALONE}glpat-[A-Za-z0-9_.-]{{20,}}+")),
    Detector("Google client secret", ("GOCSPX-",), re.compile(rf"{_ALONE}GOCSPX-[A-Za-z0-9_-]{{20,}}+")),
    Detector(
        "OpenAI or Anthropic key",
        ("sk-",),
        re.compile(rf"{_ALONE}sk-(?:(?:proj|svcacct|admin|ant)-[A-Za-z0-9_-]{{20,}}+|[A-Za-z0-9]{{32,}}+)"),
    ),
)
_WITH_UNDERSCORE: Final = (
    Detector(
        "GitHub token",
        ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
        re.compile(rf"{_ALONE}(?:gh[pousr]_[A-Za-z0-9]{{36,}}+|github_pat_[A-Za-z0-9_]{{22,}}+)"),
    ),
    Detector(
        "Stripe key",
        ("_live_", "_test_", "whsec_"),
        re.compile(rf"{_ALONE}(?:[prs]k_(?:live|test)_[A-Za-z0-9]{{10,}}+|whsec_[A-Za-z0-9+/=]{{16,}}+)"),
    ),
    Detector("npm token", ("npm_",), re.compile(rf"{_ALONE}npm_[A-Za-z0-9]{{36,}}+")),
)
_OTHERS: Final = (
    Detector(
        "JSON web token",
        ("eyJ",),
        # also the encrypted form in five parts, and the signed sessions of web frameworks
        re.compile(r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{4,}+(?:\.[A-Za-z0-9_-]*+){2,4}+"),
    ),
    Detector(
        "AWS access key ID",
        ("AKIA", "ASIA"),
        re.compile(rf"{_ALONE}A[KS]IA[A-Z0-9]{{16}}(?![A-Za-z0-9])"),
    ),
    Detector("Google API key", ("AIza",), re.compile(rf"{_ALONE}AIza[A-Za-z0-9_-]{{35}}")),
)
DETECTORS: Final = (*_WITH_HYPHEN, *_WITH_UNDERSCORE, *_OTHERS)
"""All kinds of secrets that are known by their shape, short of card numbers."""


def redact_secrets(text: str) -> str:
    """Replaces tokens, API keys and private keys by `REDACTED`; linear in the length of the text."""
    if "-" in text:
        text = _applied(_WITH_HYPHEN, text)
    if "_" in text:
        text = _applied(_WITH_UNDERSCORE, text)
    return _applied(_OTHERS, text)


def _applied(detectors: tuple[Detector, ...], text: str) -> str:
    for _, hints, pattern in detectors:
        for hint in hints:
            if hint in text:
                text = pattern.sub(REDACTED, text)
                break
    return text


_CARD = re.compile(
    # The first digit leads, so that a search skips to it; not inside of a word, a decimal or a phone number.
    r"[2-6](?<![\w.+][2-6])"
    r"(?:[0-9]{12,18}"
    r"|[0-9]{3}(?P<by_four>[ \u00a0-])(?:[0-9]{4}(?P=by_four)){2}[0-9]{4}(?:(?P=by_four)[0-9]{3})?"
    r"|[0-9]{3}(?P<by_six>[ \u00a0-])[0-9]{6}(?P=by_six)[0-9]{4,5})"
    r"(?!\w|\.[0-9])",
    re.ASCII,
)
"""Digits as cards have them: in one run of 13 to 19, or in groups of four, or 4-6-4 and 4-6-5."""

_NOT_A_DIGIT = re.compile("[^0-9]")
_ISSUED = re.compile(
    r"4(?:[0-9]{12}|[0-9]{15}|[0-9]{18})"  # Visa
    r"|(?:5[1-5][0-9]{2}|222[1-9]|22[3-9][0-9]|2[3-6][0-9]{2}|27[01][0-9]|2720)[0-9]{12}"  # Mastercard
    r"|3[47][0-9]{13}"  # American Express
    r"|3[0689][0-9]{12,17}|35[0-9]{14,17}"  # Diners Club, JCB
    r"|(?:5[06-8]|6[0-9])[0-9]{11,17}"  # Maestro, Discover, UnionPay
)
"""Beginnings and lengths of card numbers. Source: issuer ranges (ISO/IEC 7812) as brands publish them."""

_DOUBLED: Final = str.maketrans("0123456789", "0246813579")
_FOUR_BY_FOUR: Final = 19
MAX_MISSES: Final = 256
"""Sequences in a text that look like a card number and fail the check digit; further ones are not checked."""


def redact_cards(text: str) -> str:
    """Replaces payment card numbers by `REDACTED`: issuer range, length and check digit must fit.

    Linear in the length of the text. Of other numbers of 16 digits that begin with 4, one in ten fits by
    chance; timestamps begin with 1 and are left alone. After 256 sequences that only look like one, the check
    digit no longer counts: a text full of them costs no more.
    """
    match = _CARD.search(text)
    if match is None:
        return text
    parts: list[str] = []
    done = misses = 0
    while match is not None:
        end = _card_end(match) if misses < MAX_MISSES else match.end()
        if end:
            parts += (text[done : match.start()], REDACTED)
            done = end
        else:
            misses += 1
        # Another group may begin a card where this one does not.
        match = _CARD.search(text, end or match.start() + 1)
    parts.append(text[done:])
    return "".join(parts)


def _card_end(match: re.Match[str]) -> int:
    """Returns where a card number ends; 0 where there is none."""
    if is_card(_NOT_A_DIGIT.sub("", match[0])):
        return match.end()
    # four groups of four, and a check value behind them
    if match["by_four"] and is_card(_NOT_A_DIGIT.sub("", match[0][:_FOUR_BY_FOUR])):
        return match.start() + _FOUR_BY_FOUR
    return 0


def is_card(digits: str) -> bool:
    """Tells whether ASCII digits are a card number: issuer range, length, and check digit after Luhn."""
    if not _ISSUED.fullmatch(digits):
        return False
    return (sum(map(int, digits[::-2])) + sum(map(int, digits[-2::-2].translate(_DOUBLED)))) % 10 == 0
