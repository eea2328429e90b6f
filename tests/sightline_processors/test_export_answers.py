"""Which answers are a delivery, which ask for a retry, and which mean that the batch is lost."""

import math
from email.utils import formatdate
from time import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.sightline_processors.faulty_collector import partial_success

from sightline_processors.export import SIGNALS, Delivered, Drop, Retry
from sightline_processors.export.answers import (
    MAX_BODY_BYTES,
    rejected_items,
    retry_after_seconds,
    verdict_of_http,
)
from sightline_processors.export.backoff import Backoff

PROTOBUF = "application/x-protobuf"
HTML = b"<!DOCTYPE html><html><body>Log in to the network</body></html>"


def verdict(status, body=b"", content_type=PROTOBUF, **headers):
    return verdict_of_http("traces", status, {"content-type": content_type, **headers}, body)


@pytest.mark.parametrize("status", [200, 202, 204])
def test_success_with_an_empty_body_is_a_delivery(status):
    assert verdict(status) == Delivered(0)
    assert verdict(status, content_type="") == Delivered(0)


@pytest.mark.parametrize("signal", SIGNALS)
def test_a_partial_success_says_how_many_items_are_lost(signal):
    body = partial_success(f"/v1/{signal}", 7)
    assert rejected_items(signal, PROTOBUF, body) == 7
    assert rejected_items(signal, "application/x-protobuf; charset=utf-8", body) == 7


@pytest.mark.parametrize("signal", SIGNALS)
def test_a_remark_without_rejected_items_is_a_delivery(signal):
    assert rejected_items(signal, PROTOBUF, partial_success(f"/v1/{signal}", 0)) == 0


def test_a_negative_number_of_rejected_items_is_none():
    assert rejected_items("traces", PROTOBUF, partial_success("/v1/traces", -5)) == 0


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (HTML, "text/html"),
        (HTML, PROTOBUF),
        (HTML, ""),
        (b"ok", "text/plain"),
        (b"ok", ""),
        (b"\xff\xff\xff", PROTOBUF),
        (b'{"status": "success"}', "application/json"),
        (b"[]", "application/json"),
        (b'{"partialSuccess": 7}', "application/json"),
        (b'{"partialSuccess": {"rejectedSpans": "many"}}', "application/json"),
        (b"[" * 60_000, "application/json"),
        (b"\x00" * (MAX_BODY_BYTES + 1), PROTOBUF),
    ],
)
def test_success_with_a_body_that_is_not_otlp_is_no_delivery(body, content_type):
    assert verdict(200, body, content_type) == Drop("not_otlp", "status 200")


@pytest.mark.parametrize(
    ("body", "rejected"),
    [
        (b"{}", 0),
        (b'{"partialSuccess": {}}', 0),
        (b'{"partialSuccess": null}', 0),
        (b'{"partialSuccess": {"rejectedSpans": "3", "errorMessage": "full"}}', 3),
        (b'{"partialSuccess": {"rejectedSpans": 3}}', 3),
    ],
)
def test_an_answer_in_the_json_of_otlp_is_a_delivery(body, rejected):
    assert verdict(200, body, "application/json") == Delivered(rejected)


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308])
def test_a_redirect_is_no_delivery_and_asks_for_a_retry(status):
    assert verdict(status, location="http://elsewhere/") == Retry("redirected", 0, f"status {status}")


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_these_statuses_ask_for_a_retry(status):
    assert verdict(status, HTML, "text/html") == Retry("unavailable", 0.0, f"status {status}")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 408, 413, 415, 500, 501, 505, 599])
def test_these_statuses_ask_for_no_retry(status):
    assert verdict(status) == Drop("refused", f"status {status}")


def test_the_wait_that_the_endpoint_asks_for_is_known():
    headers = {"retry-after": "12"}
    assert verdict_of_http("logs", 429, headers, b"") == Retry("unavailable", 12.0, "status 429")


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, 0), ("", 0), ("0", 0), ("3", 3), (" 3 ", 3), ("1.5", 1.5), ("-7", 0), ("soon", 0), ("nan", 0),
        ("inf", 0), ("-inf", 0), ("1e999", 0), ("9" * 5000, 0), ("٣", 3), ("3;4", 0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0), ("Wed, 99 Foo 99999 99:99:99 GMT", 0),
        ("Wed, 21 Oct 99999999999 07:28:00 GMT", 0), ("\x00", 0),
    ],
)  # fmt: skip
def test_odd_waits_are_ignored(value, seconds):
    assert retry_after_seconds(value) == seconds


def test_a_huge_wait_is_left_to_the_deadline():
    assert retry_after_seconds("86400000") == 86_400_000


def test_a_date_asks_to_wait_until_then():
    assert retry_after_seconds(formatdate(time() + 30, usegmt=True)) == pytest.approx(30, abs=1.5)


@given(st.text(max_size=40))
@settings(deadline=None)
def test_any_wait_is_a_finite_number_of_zero_or_more(value):
    seconds = retry_after_seconds(value)
    assert seconds >= 0
    assert math.isfinite(seconds)


@given(st.binary(max_size=200), st.sampled_from([PROTOBUF, "application/json", "text/html", ""]))
@settings(deadline=None)
def test_any_body_is_read_without_an_error(body, content_type):
    rejected = rejected_items("traces", content_type, body)
    assert rejected is None or rejected >= 0


@given(st.integers(0, 10**6))
@settings(deadline=None)
def test_waits_between_attempts_are_bounded(attempts):
    backoff = Backoff(1.0, 10.0)
    assert 0 <= backoff.seconds(attempts) <= min(10.0, 2.0 ** min(max(attempts - 1, 0), 4))
