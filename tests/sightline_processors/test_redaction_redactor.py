"""The redactor: attributes, bodies and headers by their keys, within bounds."""

import enum
import threading
import time
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.attributes import BoundedAttributes

from sightline_processors.redaction import Redactor, key_patterns
from sightline_processors.redaction.redactor import MAX_CHARACTERS, MAX_DEPTH

REDACTOR = Redactor()


def redacted(**attributes):
    return dict(REDACTOR.attributes(attributes))


# Attributes


def test_attributes_without_secrets_are_the_same_object():
    attributes = {"http.request.method": "GET", "user.tier": "gold", "n": 7, "list": ("a", "b"), "raw": b"x"}
    assert REDACTOR.attributes(attributes) is attributes


@pytest.mark.parametrize(
    "key",
    [
        "password", "db_password", "user.accessToken", "x-api-key", "API_KEY", "aws.secret-access-key",
        "clientSecret", "csrftoken", "app.session_id", "card_number", "cvv", "auth", "SMTP_PASS",
        "refresh_tokens", "http.request.header.cookie", "http.response.header.set-cookie",
        "http.request.header.proxy-authorization", "rpc.grpc.request.metadata.authorization",
    ],
)  # fmt: skip
def test_values_of_keys_that_name_a_secret_are_replaced(key):
    assert REDACTOR.attributes({key: "a"}) == {key: "REDACTED"}
    assert REDACTOR.attributes({key: ("a", "b")}) == {key: ("REDACTED", "REDACTED")}


@pytest.mark.parametrize(
    "key",
    [
        "session.id", "gen_ai.token.type", "gen_ai.usage.input_tokens.count", "messaging.kafka.message.key",
        "author", "monkey", "db.system", "feature_flag.key", "http.request.header.accept", "code", "state",
        "tokenizer", "bypass",
    ],
)  # fmt: skip
def test_values_of_other_keys_stay(key):
    assert REDACTOR.attributes({key: "a"}) == {key: "a"}


def test_numbers_go_only_where_they_may_be_the_secret():
    assert redacted(otp=123456, smtp_pass=7, password=1.5, token=True, secret=None, **{"user.id": 7}) == {
        "otp": "REDACTED",
        "smtp_pass": "REDACTED",
        "password": 1.5,
        "token": True,
        "secret": None,
        "user.id": 7,
    }
    assert redacted(input_tokens=(100, 200)) == {"input_tokens": (100, 200)}
    assert redacted(input_tokens=100) == {"input_tokens": 100}


def test_what_is_masked_already_stays_as_it_is():
    attributes = {"http.request.header.authorization": ("[REDACTED]",), "password": "**********", "token": ""}
    assert REDACTOR.attributes(attributes) is attributes


def test_queries_are_redacted_by_their_own_rules_and_texts_by_theirs():
    assert redacted(
        **{"url.query": "code=1&a=2", "url.full": "https://x/?code=1&a=2", "note": "token=x"}
    ) == {
        "url.query": "code=REDACTED&a=2",
        "url.full": "https://x/?code=REDACTED&a=2",
        "note": "token=REDACTED",
    }


def test_a_correlation_id_stays_even_if_it_looks_like_a_card():
    attributes = {"sightline.correlation_id": "4111111111111111", "correlation_id": "4111111111111111"}
    assert REDACTOR.attributes(attributes) is attributes


@pytest.mark.parametrize("wrap", [dict, MappingProxyType, lambda items: BoundedAttributes(attributes=items)])
def test_every_mapping_of_the_sdk_is_read_and_none_is_modified(wrap):
    attributes = wrap({"a": 1, "password": "x", "b": ("token=y", "c")})
    assert dict(REDACTOR.attributes(attributes)) == {
        "a": 1,
        "password": "REDACTED",
        "b": ("token=REDACTED", "c"),
    }
    assert attributes["password"] == "x"


# Bodies


def test_bodies_are_redacted_at_every_level():
    body = {
        "user": {"name": "a", "password": "x"},
        "headers": [(b"cookie", b"a=b"), ["x-api-key", "k"], (b"host", b"x")],
        "notes": ["token=x", 7, None, b"Bearer abcdefgh1"],
        "count": 3,
    }
    assert REDACTOR.body(body) == {
        "user": {"name": "a", "password": "REDACTED"},
        "headers": [(b"cookie", "REDACTED"), ("x-api-key", "REDACTED"), (b"host", b"x")],
        "notes": ["token=REDACTED", 7, None, b"Bearer REDACTED"],
        "count": 3,
    }
    assert body["user"] == {"name": "a", "password": "x"}


@pytest.mark.parametrize(
    "body", [None, "a text", 7, 1.5, True, b"raw \xff", [1, 2], {"a": {"b": ["c"]}}, {1: "a"}, ()]
)
def test_a_body_without_secrets_is_the_same_object(body):
    assert REDACTOR.body(body) is body


class Secretive(str):
    __slots__ = ()

    def __contains__(self, item):
        raise AssertionError("an override must not be asked")


class Printed:
    def __str__(self):
        return "password=x"


class Unprintable:
    def __str__(self):
        raise ValueError("bang")


class Level(enum.StrEnum):
    HIGH = "token=x"


def test_values_of_other_types_are_judged_as_the_text_that_is_exported():
    assert REDACTOR.body(Secretive("password=x")) == "password=REDACTED"
    assert REDACTOR.body(Printed()) == "password=REDACTED"
    assert REDACTOR.body([Printed(), 1]) == ["password=REDACTED", 1]
    assert REDACTOR.body(Unprintable()) == "<unprintable>"
    assert REDACTOR.body(Level.HIGH) == "token=REDACTED"
    assert REDACTOR.body(ValueError("password=x")) == "password=REDACTED"


def test_what_is_too_deep_or_too_much_is_cut():
    deep: Any = "password=x"
    for _ in range(MAX_DEPTH + 1):
        deep = [deep]
    assert "[cut]" in repr(REDACTOR.body(deep))
    assert "hunter2" not in repr(REDACTOR.body({"a": "x" * 70_000, "b": ["password=hunter2 " * 4_000] * 10}))
    cut = REDACTOR.body(["é" * 60_000] * 10)
    assert cut == ["é" * 60_000] * 4 + ["[cut]"] * 6
    assert REDACTOR.body([{"a": "b"}] * MAX_CHARACTERS)[-1] == "[cut]"


def test_a_body_that_holds_itself_ends():
    body: dict[str, Any] = {"a": "token=x"}
    body["self"] = [body, body]
    started = time.process_time()
    redacted = REDACTOR.body(body)
    assert time.process_time() - started < 1
    assert redacted["a"] == "token=REDACTED"
    assert redacted["self"][1]["a"] == "token=REDACTED"


_SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
_BODIES = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.sampled_from(["password", "token", "n"]), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(_BODIES)
def test_no_body_raises_and_a_redacted_body_stays_as_it_is(body):
    once = REDACTOR.body(body)
    assert REDACTOR.body(once) == once


def planted(secret):
    """Bodies that hold one secret somewhere beneath a key that names it."""
    return st.recursive(
        st.just({"password": secret}) | st.just([b"cookie", secret]),
        lambda inner: (
            st.lists(inner, min_size=1, max_size=3)
            | st.dictionaries(st.text(), inner, min_size=1, max_size=3)
        ),
        max_leaves=5,
    )


@given(planted("hunter2sauce"))
def test_a_secret_beneath_its_key_never_survives(body):
    assert "hunter2sauce" not in repr(REDACTOR.body(body))


# Headers, further keys, and off


def test_headers_that_carry_credentials_are_masked_and_others_are_judged_as_text():
    assert REDACTOR.header("Authorization", "x") == "REDACTED"
    assert REDACTOR.header("X-Amz-Security-Token", "x") == "REDACTED"
    assert REDACTOR.header("accept", "text/html") == "text/html"
    assert REDACTOR.header("referer", "https://x/?code=1") == "https://x/?code=REDACTED"
    assert REDACTOR.header("cookie", "[REDACTED]") == "[REDACTED]"


def test_further_keys_count_everywhere():
    redactor = Redactor(extra_keys=("iban", "Card_*", "x-tenant"))
    assert redactor.attributes(
        {"user.iban": "DE1", "card-holder": 7, "ibans": "a", "http.request.header.x-tenant": "t"}
    ) == {
        "user.iban": "REDACTED",
        "card-holder": "REDACTED",
        "ibans": "a",
        "http.request.header.x-tenant": "REDACTED",
    }
    assert redactor.text("got iban=DE1, 'card_no': '1 2' and x-tenant: t; token=x ibans=a") == (
        "got iban=REDACTED, 'card_no': REDACTED and x-tenant: REDACTED; token=REDACTED ibans=a"
    )
    assert redactor.query("iban=DE1&page=2&code=3") == "iban=REDACTED&page=2&code=REDACTED"
    assert redactor.body({"a": {"IBAN": "DE1"}}) == {"a": {"IBAN": "REDACTED"}}
    assert redactor.header("X-Tenant", "t") == "REDACTED"
    assert REDACTOR.text("iban=DE1") == "iban=DE1"


@pytest.mark.parametrize(
    "items", [["a b"], ["*"], ["?._-"], ["[a]"], ["a" * 65], [f"k{n}" for n in range(65)]]
)
def test_patterns_that_are_none_are_refused_with_the_rule(items):
    with pytest.raises(ValueError, match=r"^must be"):
        key_patterns(items)
    with pytest.raises(ValueError, match=r"^must be"):
        Redactor(extra_keys=items)


def test_patterns_are_normalised():
    assert key_patterns([" IBAN", "iban", "", "card_*"]) == ("iban", "card_*")


def test_off_is_refused_for_headers_that_carry_credentials():
    off = Redactor(extra_keys=("iban",), enabled=False)
    attributes = {"password": "x", "iban": "y", "note": "token=z", "url.query": "code=1"}
    assert off.attributes(attributes) is attributes
    body = {"password": "x"}
    assert off.body(body) is body
    assert off.text("password=x") == "password=x"
    assert off.query("token=x") == "token=x"
    assert off.header("x-tenant", "token=x") == "token=x"
    assert off.header("Cookie", "a=b") == "REDACTED"
    assert off.attributes(
        {"http.request.header.authorization": ("Bearer x",), "http.request.header.a": ("b",)}
    ) == {
        "http.request.header.authorization": ("REDACTED",),
        "http.request.header.a": ("b",),
    }


def test_what_is_remembered_is_bounded():
    redactor = Redactor()
    for number in range(5_000):
        redactor.attributes({f"key{number}": f"value {number}", "k" * 200: "v" * 200})
    assert len(redactor._clean) <= 2_048
    remembered: Any = redactor._remembered
    assert remembered.cache_info().currsize <= 2_048
    assert all(len(text) <= 128 for text in redactor._clean)


def test_secrets_are_not_remembered():
    redactor = Redactor()
    redactor.text("password=hunter2")
    assert redactor._clean == set()


def test_any_number_of_threads_get_the_same_answers():
    redactor = Redactor(extra_keys=("iban",))
    wrong = []

    def work(seed):
        for number in range(1_500):
            if redactor.attributes({"a": f"token={seed}", "b": f"x{number * seed}", "iban": "1"}) != {
                "a": "token=REDACTED",
                "b": f"x{number * seed}",
                "iban": "REDACTED",
            }:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
