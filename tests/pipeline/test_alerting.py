"""Alerts for real: metrics into Prometheus, notifications out of Alertmanager's webhook, and of their end.

The shipped configuration runs as it is but for time: what waits minutes waits a second here.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import lifecycle
import processes
import pytest
import stack_programs

from .otlp_payloads import Json, attributes, resource
from .stack_fixture import CONFIG, binary, eventually

pytestmark = pytest.mark.stack

SOON_SECONDS = 30.0
PROGRAMS = {"prometheus", "alertmanager"}
SERVICE = "shop"

History = list[tuple[int, float]]
"""Values, each with its age in seconds, the oldest first."""


class Listener:
    """An HTTP server on loopback that takes notifications, and answers scrapes with no metrics."""

    def __init__(self, port: int = 0) -> None:
        self.notified: list[Json] = []
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                listener.notified.append(body)
                self.answer()

            def do_GET(self) -> None:
                self.answer()

            def answer(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def alerts(self) -> Iterator[Json]:
        """Yields alerts in the order in which they were told of."""
        for notification in list(self.notified):
            yield from notification["alerts"]

    def told(self, name: str, status: str) -> Json | None:
        """Returns the first alert of a name that was `firing` or `resolved`."""
        found = (a for a in self.alerts() if (a["labels"]["alertname"], a["status"]) == (name, status))
        return next(found, None)


@dataclass
class Alerting:
    """Prometheus, Alertmanager, the webhook, and a program that is scraped."""

    prometheus: str
    webhook: Listener
    scraped: Listener

    def push(self, name: str, *series: tuple[dict[str, str], History], gauge: bool = False) -> None:
        """Writes values of series of one metric, in one request: no rule sees one without the others."""
        now = time.time_ns()
        points = [
            {
                "startTimeUnixNano": str(now - 3_600_000_000_000),
                "timeUnixNano": str(now - age * 1_000_000_000),
                "asDouble": value,
                "attributes": attributes(labels),
            }
            for labels, history in series
            for age, value in history
        ]
        kind = (
            {"gauge": {"dataPoints": points}}
            if gauge
            else {"sum": {"aggregationTemporality": 2, "isMonotonic": True, "dataPoints": points}}
        )
        metric = {"name": name, "unit": "1" if gauge else "{item}", **kind}
        scope = {"scope": {"name": "test"}, "metrics": [metric]}
        request = {"resourceMetrics": [{"resource": resource(SERVICE), "scopeMetrics": [scope]}]}
        answer = httpx.post(f"{self.prometheus}/api/v1/otlp/v1/metrics", json=request)
        assert answer.is_success, answer.text

    def push_requests(self, **histories: History) -> None:
        """Writes numbers of requests by outcome."""
        objective = {"sightline.sla.objective": "default"}
        series = [
            (objective | {"sightline.sla.outcome": outcome}, history)
            for outcome, history in histories.items()
        ]
        self.push("sightline.sla.requests", *series)

    def wait_for(self, name: str, status: str) -> Json:
        """Returns the alert when the webhook has been told of it."""
        found = eventually(lambda: self.webhook.told(name, status), SOON_SECONDS)
        told = [(alert["labels"]["alertname"], alert["status"]) for alert in self.webhook.alerts()]
        assert found, f"{name} {status} was not told of; told: {told}"
        return found


def in_a_hurry(text: str) -> str:
    """Returns a configuration in which what waits is over in a second, and windows of drops are 10 s long."""
    waits = "(?:scrape_|evaluation_|group_)?interval|scrape_timeout|group_wait|for"
    text = re.sub(rf"\b({waits}): \w+", r"\1: 1s", text)
    text = text.replace("30 * sum_over_time", "sum_over_time")  # of a group whose interval was 30 s
    return text.replace("offset 10m", "offset 10s").replace("[10m]", "[10s]")


def prepare(layout: stack_programs.Layout, webhook: Listener, scraped: Listener) -> None:
    """Lays out a state folder as `stack.py up` does, then shortens the times in it."""
    for name in PROGRAMS:
        layout.data(name).mkdir(parents=True)
    stack_programs.write_targets(layout)
    stack_programs.write_alert_receiver(layout, f"http://127.0.0.1:{webhook.port}/")
    folder = layout.state / "prometheus"
    target = f'- targets: ["127.0.0.1:{scraped.port}"]\n  labels: {{job: loki}}\n'
    (folder / "targets" / "pipeline.yaml").write_text(target)
    (folder / "rules").unlink()
    (folder / "rules").mkdir()
    for rules in (CONFIG / "rules").glob("*.yaml"):
        (folder / "rules" / rules.name).write_text(in_a_hurry(rules.read_text()))
    (folder / "prometheus.yaml").unlink()
    (folder / "prometheus.yaml").write_text(in_a_hurry((CONFIG / "prometheus.yaml").read_text()))
    receiver = layout.state / "alertmanager.yaml"
    receiver.write_text(in_a_hurry(receiver.read_text()))


@pytest.fixture
def alerting(tmp_path: Path) -> Iterator[Alerting]:
    """Runs the two programs beside each other on free ports."""
    layout = stack_programs.Layout(tmp_path, lifecycle.free_offset())
    webhook, scraped = Listener(), Listener()
    prepare(layout, webhook, scraped)
    programs = [program for program in stack_programs.programs(layout) if program.name in PROGRAMS]
    running = [
        processes.start(
            [binary(program.name), *program.arguments],
            {**os.environ, **program.variables},
            layout.data(program.name),
            tmp_path / f"{program.name}.log",
        )
        for program in programs
    ]
    try:
        for program in programs:
            ready = eventually(lambda: lifecycle.is_ready(program), SOON_SECONDS)  # noqa: B023  asked at once
            assert ready, (tmp_path / f"{program.name}.log").read_text()[-2000:]
        running_pair = Alerting(layout.url("prometheus"), webhook, scraped)
        yield running_pair
        running_pair.scraped.close()
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait(20)
        webhook.close()
        scraped.close()  # once more does no harm


def test_objective_drop_and_down_alerts_are_told_to_the_webhook_and_so_is_their_end(
    alerting: Alerting,
) -> None:
    ages = range(300, -1, -15)
    target = [(age, 0.999) for age in ages]
    alerting.push(
        "sightline.sla.target",
        ({"sightline.sla.objective": "default", "sightline.sla.kind": "availability"}, target),
        gauge=True,
    )
    alerting.push_requests(
        ok=[(age, (300 - age) * 9.0) for age in ages], failed=[(age, 300.0 - age) for age in ages]
    )
    reason = {"signal": "traces", "reason": "queue_full"}
    alerting.push("sightline.telemetry.dropped", (reason, [(0, 512.0)]))
    port = alerting.scraped.port
    alerting.scraped.close()

    burn = alerting.wait_for("SLOBudgetBurnFast", "firing")
    drop = alerting.wait_for("TelemetryDropped", "firing")
    down = alerting.wait_for("PipelineProgramDown", "firing")

    assert (burn["labels"]["severity"], burn["labels"]["service_name"]) == ("page", SERVICE)
    assert "10% of the requests of the last hour were bad" in burn["annotations"]["summary"]
    assert drop["annotations"]["summary"] == (
        "shop has dropped 512 items of traces in the last 10 minutes, reason queue_full."
    )
    assert down["labels"]["job"] == "loki"
    tickets = {"SLOBudgetBurnSlow", "SLOBudgetBurnGradual"}
    assert not [alert for alert in alerting.webhook.alerts() if alert["labels"]["alertname"] in tickets]

    alerting.push_requests(ok=[(0, 1e8)])
    alerting.scraped = Listener(port)

    for name in ("SLOBudgetBurnFast", "TelemetryDropped", "PipelineProgramDown"):
        alerting.wait_for(name, "resolved")


def test_without_a_webhook_nobody_is_told_and_no_address_is_kept(tmp_path: Path) -> None:
    layout = stack_programs.Layout(tmp_path, 0)
    layout.data("alertmanager").mkdir(parents=True)
    secret = layout.data("alertmanager") / "webhook-url"

    stack_programs.write_alert_receiver(layout, "http://127.0.0.1:1/secret")
    told = (layout.state / "alertmanager.yaml").read_text()
    assert (secret.read_text(), secret.stat().st_mode & 0o777) == ("http://127.0.0.1:1/secret", 0o600)
    stack_programs.write_alert_receiver(layout, None)

    assert not secret.exists()
    assert told.splitlines() != (CONFIG / "alertmanager.yaml").read_text().splitlines()
    assert (layout.state / "alertmanager.yaml").read_text() == (CONFIG / "alertmanager.yaml").read_text()
    assert "secret" not in told.replace("are secrets", "")
