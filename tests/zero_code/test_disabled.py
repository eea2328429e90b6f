"""Telemetry switched off: by `OTEL_SDK_DISABLED` as if nothing were installed, by `none` signal by signal."""

import json
import re
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from uvicorn_process import Server, Setup, eventually, observed

PATHS = ("/ok", "/sync", "/number/x", "/nowhere", "/root-warning", "/fail", "/inside")


@pytest.fixture(scope="module")
def plain() -> "Seen":
    """Returns how the application behaves without `opentelemetry-instrument`."""
    with observed(instrumented=False) as setup:
        return _seen(setup.server)


@pytest.fixture(scope="module", params=["true", " True "])
def disabled(request: pytest.FixtureRequest) -> Iterator[Setup]:
    """Yields the application under `opentelemetry-instrument`, switched off."""
    with observed(variables={"OTEL_SDK_DISABLED": request.param}) as setup:
        yield setup


class Seen(NamedTuple):
    """What a client and an operator see of a server: its responses, and all lines that it prints."""

    answers: list[tuple[str, int, list[bytes], bytes]]
    printed: list[str]


def _seen(server: Server) -> Seen:
    found = [(path, server.get(path, ("x-correlation-id", "sent"))) for path in PATHS]
    answers = [
        (path, answer.status, [name for name, _ in answer.headers], answer.body) for path, answer in found
    ]
    eventually(lambda: server.stdout.count("HTTP/1.1") == len(PATHS), 3)
    # Ports and process IDs differ from run to run.
    printed = [
        re.sub(r":\d{4,5}\b|\[\d+\]", "N", line) for line in (server.stdout + server.stderr).splitlines()
    ]
    return Seen(answers, printed)


def test_disabled_sdk_changes_neither_responses_nor_output(plain: Seen, disabled: Setup) -> None:
    seen = _seen(disabled.server)
    assert seen.answers == plain.answers
    assert seen.printed == plain.printed


def test_disabled_sdk_patches_nothing(disabled: Setup) -> None:
    inside = json.loads(disabled.server.get("/inside").body)
    assert inside["call_module"] == "fastapi.applications"
    assert inside["record_attributes"] == []
    assert inside["make_record_is_original"] is True
    assert inside["call_handlers_is_original"] is True
    assert inside["record_factory_is_original"] is True


def test_disabled_sdk_exports_nothing(disabled: Setup) -> None:
    disabled.server.get("/ok")
    time.sleep(0.5)  # ten times the delay of a batch, twice the interval of metrics
    assert [*disabled.store.spans, *disabled.store.metrics, *disabled.store.logs] == []


@pytest.mark.parametrize(
    ("silent", "arrive"),
    [("traces", {"metrics", "logs"}), ("metrics", {"spans", "logs"}), ("logs", {"spans", "metrics"})],
)
def test_exporter_none_silences_its_signal_only(silent: str, arrive: set[str]) -> None:
    with observed(variables={f"OTEL_{silent.upper()}_EXPORTER": "none"}) as setup:
        response = setup.server.get("/ok", ("x-correlation-id", "served"))
        assert (response.status, response.correlation_id) == (200, "served")
        assert eventually(lambda: _arrived(setup) >= arrive)
        time.sleep(0.5)
        assert _arrived(setup) == arrive
        assert "Traceback" not in setup.server.stderr
        assert "OTEL_" not in setup.server.stderr


def test_all_exporters_none_serve_with_the_header_and_send_nothing() -> None:
    variables = {f"OTEL_{signal}_EXPORTER": "none" for signal in ("TRACES", "METRICS", "LOGS")}
    with observed(variables=variables) as setup:
        taken = setup.server.get("/ok", ("x-correlation-id", "served"))
        made = setup.server.get("/ok")
        time.sleep(0.5)
        assert (taken.status, taken.correlation_id) == (200, "served")
        assert re.fullmatch("[0-9a-f]{32}", made.correlation_id)
        assert _arrived(setup) == set()
        assert "Traceback" not in setup.server.stderr


def _arrived(setup: Setup) -> set[str]:
    signals: dict[str, Any] = {
        "spans": setup.store.spans,
        "metrics": setup.store.metrics,
        "logs": setup.store.logs,
    }
    return {name for name, items in signals.items() if items}
