"""What secrets look like: each kind is found, what only resembles one is not, and no input makes it slow."""

import re
import time
from re import _constants as codes  # type: ignore[attr-defined]  # the parse tree has no public name
from re import _parser as parser  # type: ignore[attr-defined]  # as above

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sightline_processors import redact_text
from sightline_processors.redaction import Redactor, detectors, text

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


def joined(*parts):
    """Joins the parts of an invented key, so that no scanner takes this file for a leak."""
    return "".join(parts)


SECRETS = {
    "JSON web token": "eyJhbGciOi.eyJzdWIiOi.c2lnbmF0dXJl",
    "encrypted JSON web token": "eyJhbGciOiJkaXIi..aXY.Y2lwaGVy.dGFn",
    "AWS access key ID": joined("AKIA", "IOSFODNN7EXAMPLE"),
    "temporary AWS access key ID": joined("ASIA", "IOSFODNN7EXAMPLE"),
    "GitHub token": joined("ghp_", LETTERS[:36]),
    "fine-grained GitHub token": joined("github_pat_", LETTERS[:30], "_", LETTERS[:30]),
    "GitLab token": joined("glpat-", LETTERS[:20]),
    "Slack token": joined("xoxb-", "123456789012-abcDEF123456"),
    "Slack app token": joined("xapp-", "1-A111-222-abcdef"),
    "Stripe key": joined("sk_live_", LETTERS[:24]),
    "restricted Stripe key": joined("rk_test_", LETTERS[:24]),
    "Stripe webhook secret": joined("whsec_", LETTERS[:32]),
    "Google API key": joined("AIza", LETTERS[:35]),
    "Google client secret": joined("GOCSPX-", LETTERS[:28]),
    "OpenAI key": joined("sk-proj-", LETTERS[:40]),
    "older OpenAI key": joined("sk-", LETTERS[:48]),
    "Anthropic key": joined("sk-ant-", "api03-", LETTERS[:40]),
    "npm token": joined("npm_", LETTERS[:36]),
    "private key": "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4\n\nMIIE+/=\n-----END RSA PRIVATE KEY-----",
    "PGP key": "-----BEGIN PGP PRIVATE KEY BLOCK-----\\nxcFG\\n-----END PGP PRIVATE KEY BLOCK-----",
    "Visa": "4111111111111111",
    "Visa in groups": "4111 1111 1111 1111",
    "Visa with hyphens": "4111-1111-1111-1111",
    "old Visa": "4222222222222",
    "Mastercard": "5555555555554444",
    "newer Mastercard": "2223003122003222",
    "American Express": "378282246310005",
    "American Express in groups": "3782 822463 10005",
    "Diners Club in groups": "3056 930902 5904",
    "Discover": "6011111111111117",
    "JCB": "3530111333300000",
}


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS.keys())
@pytest.mark.parametrize("around", ["{}", "found {} there", '{{"x": "{}"}}', "x={},", "({}).", "a/{}|b"])
def test_each_kind_is_found_wherever_it_stands(secret, around):
    assert redact_text(around.format(secret)) == around.format("REDACTED")


@pytest.mark.parametrize(
    "harmless",
    [
        "4111111111111112",  # check digit
        "1234567890123452",  # issuer
        "1700000000003",  # a time in milliseconds that passes Luhn
        "0.4111111111111111",
        "4111111111111111.5",
        "order4111111111111111",
        "4bf92f3577b34da6a3ce929d0e0e4736",
        "+4917012345678",
        "4111 11111111 1111",
        "AKIASHORT",
        "XAKIAIOSFODNN7EXAMPLEX",
        "eyJ.eyJ",
        "task-sk-learn and risk-free",
        "ghp_short",
        "xox-1",
        "-----BEGIN CERTIFICATE-----\nMIIE\n-----END CERTIFICATE-----",
        "-----BEGIN PUBLIC KEY-----\nMIIE\n-----END PUBLIC KEY-----",
        "2026-01-01T10:00:00.123456 200 OK",
    ],
)
def test_what_only_resembles_a_secret_stays(harmless):
    assert redact_text(harmless) is harmless


def test_a_card_is_found_behind_and_before_other_digits():
    assert redact_text("5555 4111 1111 1111 1111 12/27") == "5555 REDACTED 12/27"
    assert redact_text("4111 1111 1111 1111 123") == "REDACTED 123"


def test_a_private_key_without_its_end_goes_as_a_whole():
    assert redact_text("x -----BEGIN PRIVATE KEY-----\nMIIE\nabc def") == "x REDACTED"
    assert redact_text("private_key: -----BEGIN PRIVATE KEY-----\nMIIE\nabc") == "private_key: REDACTED"


def test_every_hint_stands_in_a_secret_of_its_kind():
    hints = {hint for each in detectors.DETECTORS for hint in each.hints}
    assert {hint for hint in hints if not any(hint in secret for secret in SECRETS.values())} == {
        "gho_",
        "ghr_",
        "ghs_",
        "ghu_",
    }
    for hint in ("gho_", "ghr_", "ghs_", "ghu_"):
        assert redact_text(hint + LETTERS[:36]) == "REDACTED"


def luhn_of_the_textbook(digits):
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if place % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


@given(st.integers(0, 10**15 - 1).map("4{:015}".format))
def test_the_check_digit_is_that_of_the_textbook(digits):
    assert detectors.is_card(digits) == luhn_of_the_textbook(digits)


def test_a_text_full_of_sequences_like_cards_is_redacted_unchecked_at_its_end():
    redacted = detectors.redact_cards("4111111111111112 " * (detectors.MAX_MISSES + 2))
    assert redacted == "4111111111111112 " * detectors.MAX_MISSES + "REDACTED REDACTED "


@given(st.text(alphabet="ab .-:=\"'\n", max_size=40), st.sampled_from(sorted(SECRETS.values())))
def test_no_surrounding_hides_a_secret(around, secret):
    body = max(re.split(r"[^A-Za-z0-9]", secret), key=len)
    assert body not in redact_text(f"{around} {secret} {around}")


# Linear time

PATTERNS = {
    f"{module.__name__}.{name}": value
    for module in (detectors, text)
    for name, value in vars(module).items()
    if isinstance(value, re.Pattern)
} | {each.name: each.pattern for each in detectors.DETECTORS}

_REPEATS = {codes.MAX_REPEAT, codes.MIN_REPEAT}


def repeats_of(tree, is_atomic=False):
    """Yields the bounds of all repetitions that may give back what they took."""
    for operation, argument in tree:
        atomic = is_atomic or operation in (codes.POSSESSIVE_REPEAT, codes.ATOMIC_GROUP)
        if operation in _REPEATS and not atomic:
            yield int(argument[1])
        for inner in _trees_in(argument):
            yield from repeats_of(inner, atomic)


def _trees_in(argument):
    if isinstance(argument, parser.SubPattern):
        yield argument
    elif isinstance(argument, list | tuple):
        for each in argument:
            yield from _trees_in(each)


@pytest.mark.parametrize("name", PATTERNS)
def test_no_pattern_gives_back_more_than_a_bounded_number_of_characters(name):
    pattern = PATTERNS[name]
    bounds = list(repeats_of(parser.parse(pattern.pattern, pattern.flags & ~re.UNICODE)))
    assert all(bound <= 4096 for bound in bounds)
    assert sum(bound > 48 for bound in bounds) <= 1


def test_the_proof_sees_what_backtracks():
    assert max(repeats_of(parser.parse("(?:a+)+b"))) > 4096
    assert list(repeats_of(parser.parse("(?:a++)*+b"))) == []


FRAGMENTS = [
    "password=", 'token": "', "'", '\\"', "(", "[", "cookie: a=b; ", "basic a", "digest ", "://", "a:", "?",
    "-", "-----BEGIN PRIVATE KEY-----", "eyJaaaa", ".", "sk-proj-", "4111 ", "card_x=", " ",
]  # fmt: skip
HOSTILE_CHARACTERS = 30_000
TIMES_AS_LONG = 12
"""Linear patterns take up to three times as long as for the usual text, quadratic ones more than 100."""


def seconds_of(redactor, hostile):
    started = time.process_time()
    redactor._redact_whole(hostile)
    return time.process_time() - started


@pytest.fixture(scope="module")
def limit_seconds():
    redactor = Redactor()
    usual = "password=hunter2 of user 7; " * (HOSTILE_CHARACTERS // 28)
    return TIMES_AS_LONG * min(seconds_of(redactor, usual) for _ in range(5))


@pytest.mark.parametrize("second", FRAGMENTS)
def test_no_repetition_of_fragments_costs_more_than_its_length(second, limit_seconds):
    redactor = Redactor(extra_keys=("card_*", "*iban*x*"))
    for first in FRAGMENTS:
        hostile = (first + second) * (HOSTILE_CHARACTERS // len(first + second))
        # the least of several: another process may have had the core
        assert any(seconds_of(redactor, hostile) < limit_seconds for _ in range(4)), first


@pytest.mark.parametrize("hostile", ["a_", "eyJ", "-eyJaaaa", "bearer ", "password", "-", "token=[", "?a=b"])
def test_ten_times_the_text_takes_about_ten_times_as_long(hostile):
    redactor = Redactor(extra_keys=("card_*",))
    short, long = (hostile * (size // len(hostile)) for size in (12_000, 120_000))
    one = max(0.0005, min(seconds_of(redactor, short) for _ in range(3)))
    ten = min(seconds_of(redactor, long) for _ in range(2))
    assert ten < 40 * one  # quadratic: 100


def test_the_cost_of_any_text_is_that_of_65536_characters():
    text = "password=hunter2 4111 eyJaaaa " * 100_000
    started = time.process_time()
    redact_text(text)
    assert time.process_time() - started < 1
