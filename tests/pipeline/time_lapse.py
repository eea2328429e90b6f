"""The shipped pipeline with time run 30 times as fast: what takes 5 minutes is over in 10 seconds.

Every duration of rules, Prometheus and Alertmanager is divided by 30, and every number that stands for one:
thresholds, labels and expressions are the shipped ones. Alerts fire, and resolve, for the reasons for which
they do at full length. The five programs run with the shipped command lines; the collector has settings on
top.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
import lifecycle
import processes
import stack_programs
import yaml

from .otlp_payloads import Json
from .stack_fixture import CONFIG, binary, endpoints_of, eventually, running_stack
from .webhook import Webhook

FACTOR: Final = 30
MIN_INTERVAL_MS: Final = 1000  # of scrapes and evaluations: below that the programs are busy with themselves
READY_SECONDS: Final = 30.0

_MILLISECONDS: Final = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION: Final = re.compile(
    r"(\[|\boffset |\b(?:for|group_wait|scrape_timeout|(?:scrape_|evaluation_|group_|repeat_)?interval): )"
    r"(\d+)(ms|s|m|h|d)\b"
)
_EVENTS: Final = re.compile(r"\b(\d+)( \* (?:sum_over_time\(|route:))")
"""`300 * route:…:rate5m` is a number of requests in 300 s."""

QUEUE: Final[Json] = {"queue_size": 100_000}
"""Bytes; a queue that the shop's traffic fills within seconds."""


def quickened(text: str) -> str:
    """Returns a configuration, or rules, in which time runs `FACTOR` times as fast."""

    def shorter(match: re.Match[str]) -> str:
        least = MIN_INTERVAL_MS if match[1].startswith(("scrape_", "evaluation_", "interval")) else 1
        return f"{match[1]}{max(int(match[2]) * _MILLISECONDS[match[3]] // FACTOR, least)}ms"

    return _EVENTS.sub(lambda match: f"{int(match[1]) // FACTOR}{match[2]}", _DURATION.sub(shorter, text))


@dataclass
class TimeLapse:
    """A running stack; `endpoints` are those of `stack.py up --json`."""

    endpoints: dict[str, str]
    layout: stack_programs.Layout
    webhook: Webhook
    _children: list[subprocess.Popen[bytes]]

    def stop(self, name: str) -> None:
        """Ends a program, as its operator would."""
        records = processes.read_records(self.layout.state / "pids")
        processes.stop(record for record in records if record.name == name)
        for child in self._children:
            child.poll()

    def start(self, name: str, *more: str) -> None:
        """Starts a program that was stopped, with further arguments, and waits until it answers."""
        program = next(each for each in stack_programs.programs(self.layout) if each.name == name)
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "PIPELINE_"))}
        child = processes.start(
            [binary(name), *program.arguments, *more],
            kept | program.variables,
            self.layout.data(name),
            self.layout.log(name).with_suffix(f".{len(self._children)}.log"),
        )
        self._children.append(child)
        processes.write_record(self.layout.state / "pids", name, child.pid)
        assert eventually(lambda: lifecycle.is_ready(program), READY_SECONDS), self.logs(name)

    def restart_collector(self, **processor: Json) -> None:
        """Starts the collector anew: quick, with a small queue to Jaeger, and with settings of processors."""
        self.stop("otelcol")
        self.start("otelcol", "--config", f"yaml:{json.dumps(_collector_settings(processor))}")

    def logs(self, name: str) -> str:
        """Returns the end of what a program has printed since its last start."""
        newest = max(self.layout.log(name).parent.glob(f"{name}*.log"), key=lambda path: path.stat().st_mtime)
        return newest.read_text(errors="replace")[-3000:]

    def firing(self, name: str) -> list[dict[str, str]]:
        """Returns the labels of the alerts of a name that fire now."""
        return self._labels(f'ALERTS{{alertname="{name}",alertstate="firing"}}')

    def fired(self, name: str) -> list[dict[str, str]]:
        """Returns the labels of the alerts of a name that have ever fired."""
        return self._labels(f'last_over_time(ALERTS{{alertname="{name}",alertstate="firing"}}[1h])')

    def has(self, expr: str) -> bool:
        """Tells whether an expression finds series now."""
        return bool(self._labels(expr))

    def _labels(self, expr: str) -> list[dict[str, str]]:
        url = f"{self.endpoints['prometheus']}/api/v1/query"
        found = httpx.get(url, params={"query": expr}, timeout=30).json()["data"]["result"]
        return [series["metric"] for series in found]

    def quicken(self) -> None:
        """Puts quick rules and configurations in the place of the shipped ones, and has them read."""
        folder = self.layout.state / "prometheus"
        (folder / "rules").unlink()
        (folder / "rules").mkdir()
        for rules in (CONFIG / "rules").glob("*.yaml"):
            (folder / "rules" / rules.name).write_text(quickened(rules.read_text()))
        (folder / "prometheus.yaml").unlink()
        (folder / "prometheus.yaml").write_text(quickened((CONFIG / "prometheus.yaml").read_text()))
        receivers = self.layout.state / "alertmanager.yaml"
        receivers.write_text(quickened(receivers.read_text()))
        for record in processes.read_records(self.layout.state / "pids"):
            if record.name in {"prometheus", "alertmanager"}:
                os.kill(record.pid, signal.SIGHUP)


def _collector_settings(processors: dict[str, Json]) -> Json:
    shipped = yaml.safe_load((CONFIG / "otelcol.yaml").read_text())
    return {
        "connectors": {name: {"metrics_flush_interval": "500ms"} for name in shipped.get("connectors", {})},
        "exporters": {"otlp_grpc/jaeger": {"sending_queue": QUEUE}},
        "processors": processors,
    }


@contextmanager
def time_lapse(folder: Path) -> Iterator[TimeLapse]:
    """Runs a stack of its own until the block ends."""
    state, webhook = folder / "stack", Webhook()
    children: list[subprocess.Popen[bytes]] = []
    try:
        with running_stack(state, "--alert-webhook", webhook.url) as told:
            layout = stack_programs.Layout(state, told["port_offset"])
            running = TimeLapse(endpoints_of(told), layout, webhook, children)
            running.quicken()
            running.restart_collector()
            yield running
    finally:
        for child in children:
            child.wait(READY_SECONDS)
        webhook.close()
        shutil.rmtree(state / "data", ignore_errors=True)
