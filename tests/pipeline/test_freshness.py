"""From a request to the answer of a query: the shop as a user starts it, with no interval set."""

from __future__ import annotations

import os
import secrets
import time
from pathlib import Path

import httpx
import pytest
from shop_process import running_shop
from telemetry_sources import StackSource

from .stack_fixture import eventually

pytestmark = pytest.mark.stack

REQUESTS = 8
PAUSE_SECONDS = 1.6  # all within the first export interval of metrics, so that the first one waits longest
LIMIT_SECONDS = {"traces": 5.0, "logs": 5.0, "metrics": 20.0}

Delays = dict[str, dict[str, float]]
"""By signal and correlation ID: seconds from the request to the answer that has it."""


def look(source: StackSource, sent: dict[str, float], seen: Delays) -> None:
    """Notes what a query finds for the first time."""
    for name, find in (("traces", source.spans), ("logs", source.logs)):
        for correlation_id in [one for one in sent if one not in seen[name]]:
            if find(correlation_id):
                seen[name][correlation_id] = time.monotonic() - sent[correlation_id]
    point = source.point("/items/{item_id}", "GET")
    for correlation_id in list(sent)[: point.count if point else 0]:
        seen["metrics"].setdefault(correlation_id, time.monotonic() - sent[correlation_id])


def measure(shop: str, source: StackSource) -> Delays:
    """Sends requests one after the other and looks for all of them meanwhile."""
    sent: dict[str, float] = {}
    seen: Delays = {name: {} for name in LIMIT_SECONDS}
    due = time.monotonic()

    def finished() -> bool:
        nonlocal due
        if len(sent) < REQUESTS and time.monotonic() >= due:
            correlation_id = f"fresh-{secrets.token_hex(6)}"
            httpx.get(f"{shop}/items/2", headers={"x-correlation-id": correlation_id}).raise_for_status()
            sent[correlation_id] = time.monotonic()
            due += PAUSE_SECONDS
        look(source, sent, seen)
        return all(len(found) == REQUESTS for found in seen.values())

    eventually(finished, REQUESTS * PAUSE_SECONDS + max(LIMIT_SECONDS.values()))
    return seen


def test_a_request_is_found_in_time_at_the_default_intervals(
    stack: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith(("OTEL_", "SIGHTLINE_"))]:
        monkeypatch.delenv(name)
    service = f"fresh-{secrets.token_hex(3)}"
    settings = {"OTEL_SERVICE_NAME": service, "OTEL_EXPORTER_OTLP_ENDPOINT": stack["otlp_http"]}
    with (
        (tmp_path / "shop.log").open("w") as log,
        running_shop(settings, log) as shop,
        StackSource(stack, service, time.time() - 60) as source,
    ):
        seen = measure(shop, source)

    longest = {name: max(found.values(), default=float("inf")) for name, found in seen.items()}
    assert {name: len(found) for name, found in seen.items()} == dict.fromkeys(LIMIT_SECONDS, REQUESTS)
    assert all(longest[name] < limit for name, limit in LIMIT_SECONDS.items()), longest
