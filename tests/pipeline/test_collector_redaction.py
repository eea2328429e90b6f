"""The one-node collector hides what no SDK should have sent, and leaves alone what only looks like it."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

import httpx
import pytest
import yaml

from . import attacks
from .otlp_payloads import attributes, log_request, resource
from .profile_collector import collector, span_with, through
from .stack_fixture import CONFIG
from .tiers import Collector, request_of, span

__all__ = ["collector"]

pytestmark = pytest.mark.stack

TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl"
FREE_TEXT = {
    "db.query.summary", "db.query.text", "exception.message", "exception.stacktrace", "url.full", "url.path",
    "url.query", "user_agent.original",
}  # fmt: skip

HIDDEN = {
    "password": ("login failed: password=hunter2-x for joe", "hunter2-x"),
    "upper case": ("DB_PASSWORD=hunter2-x", "hunter2-x"),
    "json": ('{"client_secret": "hunter2-x", "a": 1}', "hunter2-x"),
    "query": ("page=2&access_token=hunter2-x&sort=name", "hunter2-x"),
    "API key": ("x-api-key: hunter2-x", "hunter2-x"),
    "header": ("Authorization: Bearer hunter2-x-y-z", "hunter2-x"),
    "bearer": ("sent bearer hunter2-x-y-z", "hunter2-x"),
    "basic": ("Basic aHVudGVyMjpodW50ZXIy", "aHVudGVy"),
    "cookie": ("Cookie: a=hunter2-x; b=hunter3-x", "hunter3-x"),
    "URL": ("postgresql://shop:hunter2-x@db/orders", "hunter2-x"),
    "web token": (f"/reset/{TOKEN}", "eyJ"),
    "private key": ("-----BEGIN PRIVATE KEY-----\nMIIEvQ\n-----END PRIVATE KEY-----", "MIIEvQ"),
    "AWS": ("AKIAIOSFODNN7EXAMPLE", "AKIA"),
    "GitHub": (f"ghp_{'a1' * 18}", "ghp_"),
    "Stripe": ("sk_live_4eC39HqLyjWDarjtT1", "4eC39"),
    "card": ("4111 1111 1111 1111", "1111"),
    "card in text": ("paid with 4111111111111111 today", "41111"),
    "e-mail": ("joe.doe@example.org", "joe.doe"),
    "e-mail in text": ("mail to joe.doe@example.org failed", "joe.doe"),
    "e-mail in path": ("/users/joe.doe@example.org/orders", "joe.doe"),
}

KEPT = [
    "/orders/8412/items", "page=2&sort=name", "GET /tokens/{id}", "SELECT id FROM orders WHERE id = %s",
    "c32923cecd92e1391c7c6271910dc38f", "1795297134103812559", "Basic authentication is required",
    "0273325b-aa5b-46a8-bc0f-a0e5cbf81c1a", "order 8412 was paid", "https://shop.example/a?b=c",
]  # fmt: skip


@pytest.mark.parametrize(("text", "secret"), HIDDEN.values(), ids=HIDDEN)
def test_secret_in_an_attribute_is_hidden(collector: Collector, text: str, secret: str) -> None:
    found = through(collector, "traces", span_with(note=text))

    assert secret not in found
    assert "****" in found


@pytest.mark.parametrize(("text", "secret"), HIDDEN.values(), ids=HIDDEN)
def test_secret_in_a_log_body_is_hidden(collector: Collector, text: str, secret: str) -> None:
    found = through(collector, "logs", log_request(resource("SERVICE"), [(text, {"note": text})]))

    assert secret not in found


def test_what_is_no_secret_stays(collector: Collector) -> None:
    values = {f"note.{number}": text for number, text in enumerate(KEPT)}
    values |= {
        "url.path": KEPT[0],
        "gen_ai.usage.input_tokens": "17",
        "session.id": "a",
        "db.query.text": KEPT[3],
    }

    found = through(collector, "traces", span_with(**values))

    assert "****" not in found
    assert all(json.dumps(text) in found for text in KEPT)


@pytest.mark.parametrize(
    "key",
    [
        "password", "db.passwd", "PASSWORD", "client_secret", "user.accessToken", "api-key", "API_KEY",
        "auth.jwt", "http.request.header.x-auth-user", "http.request.header.cookie", "aws.access_key_id",
        "card_number",
    ],
)  # fmt: skip
def test_value_of_a_key_that_names_a_secret_is_hidden(collector: Collector, key: str) -> None:
    found = through(collector, "traces", span_with(**{key: "plain-value"}))

    assert "plain-value" not in found


def test_message_of_a_failed_span_is_looked_at(collector: Collector) -> None:
    failed = span(
        secrets.token_hex(16), secrets.token_hex(8), status={"code": 2, "message": f"password=abc {TOKEN}"}
    )

    assert '"message":"password=**** ****"' in through(collector, "traces", request_of("SERVICE", [failed]))


def test_mapping_as_log_body_loses_secrets_and_keeps_the_rest(collector: Collector) -> None:
    request = log_request(resource("SERVICE"), [("", {})])
    entries = attributes({"password": "abcdef", "note": "token=uvwxyz", "order": "8412"})
    request["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]["body"] = {"kvlistValue": {"values": entries}}

    found = json.loads(through(collector, "logs", request))

    record = found["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]
    values = {entry["key"]: entry["value"] for entry in record["body"]["kvlistValue"]["values"]}
    assert values == {"note": {"stringValue": "token=****"}, "order": {"stringValue": "8412"}}
    assert record.get("attributes", []) == []


def peak_mib(collector: Collector) -> int:
    assert collector.process
    status = Path(f"/proc/{collector.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


def test_nested_log_body_costs_no_memory_of_its_own(collector: Collector) -> None:
    # The redaction processor would write down the way from the top for each level: 1 GB for 20,000.
    request = attacks.request("nested", attacks.log_record(attacks.nested_value(20_000)))
    before = peak_mib(collector)

    answer = httpx.post(
        f"http://{collector.variables['PIPELINE_OTLP_HTTP']}/v1/logs",
        content=request,
        headers={"content-type": "application/x-protobuf"},
    )

    assert answer.status_code == 200
    assert peak_mib(collector) < before + 150


def test_only_free_text_is_looked_at_among_the_keys_that_are_known() -> None:
    processors = yaml.safe_load((CONFIG / "otelcol.yaml").read_text())["processors"]
    by_key, by_value = (set(processors[f"redaction/{part}"]["ignored_keys"]) for part in ("keys", "values"))

    assert by_key - by_value == FREE_TEXT
    assert by_value <= by_key
