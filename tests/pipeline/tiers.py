"""One agent, two gateways and a sink, as real collectors on free loopback ports."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from .otlp_payloads import Json, attributes, resource
from .ports import HOST, free_addresses
from .stack_fixture import CONFIG, binary, eventually

# What the shipped gateway does every 15 and 30 seconds, soon enough for a test.
FAST = """
connectors:
  span_metrics: {metrics_flush_interval: 1s}
  service_graph: {metrics_flush_interval: 1s, store: {ttl: 3s}}
processors:
  tail_sampling: {decision_wait: 2s, decision_wait_after_root_received: 1s}
"""

# Writes each gateway's traces to a file of its own.
SINK = """
receivers:
  otlp/1: {protocols: {grpc: {endpoint: "${env:SINK_1}", max_recv_msg_size_mib: 16}}}
  otlp/2: {protocols: {grpc: {endpoint: "${env:SINK_2}", max_recv_msg_size_mib: 16}}}
exporters:
  file/1: {path: ./traces-1.jsonl, flush_interval: 100ms}
  file/2: {path: ./traces-2.jsonl, flush_interval: 100ms}
extensions:
  health_check: {endpoint: "${env:PIPELINE_COLLECTOR_HEALTH}"}
service:
  extensions: [health_check]
  pipelines:
    traces/1: {receivers: [otlp/1], exporters: [file/1]}
    traces/2: {receivers: [otlp/2], exporters: [file/2]}
  telemetry: {metrics: {level: none}}
"""


@dataclass
class Collector:
    """One collector: its files, its variables, its folder; it can be killed and started again.

    Attributes:
        name: The folder's name.
        files: What `--config` names, in this order.
        folder: Where it works and keeps its queues.
        variables: On top of PATH and of ports for its health and its own metrics.
    """

    name: str
    files: list[Path]
    folder: Path
    variables: dict[str, str]
    process: subprocess.Popen[bytes] | None = field(default=None)

    def start(self) -> None:
        """Starts it and waits until all its pipelines run."""
        self.folder.mkdir(exist_ok=True)
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command(), cwd=self.folder, env=self.environment(), stdout=log, stderr=log
            )
        if not eventually(self.healthy, 20):
            pytest.fail(f"{self.name}: {(self.folder / 'log').read_text()[-2000:]}")

    def command(self) -> list[str]:
        """Returns the command line."""
        return [binary("otelcol"), *(f"--config={file}" for file in self.files)]

    def environment(self) -> dict[str, str]:
        """Returns the variables of the process; nothing of the caller's but PATH."""
        if "PIPELINE_COLLECTOR_HEALTH" not in self.variables:
            health, metrics = free_addresses(2)
            self.variables["PIPELINE_COLLECTOR_HEALTH"] = health
            self.variables["PIPELINE_COLLECTOR_METRICS_PORT"] = metrics.rpartition(":")[2]
            self.variables["PIPELINE_COLLECTOR_QUEUES"] = str(self.folder / "queues")
        return {"PATH": os.environ["PATH"]} | self.variables

    def healthy(self) -> bool:
        """Asks its health endpoint."""
        try:
            return httpx.get(f"http://{self.variables['PIPELINE_COLLECTOR_HEALTH']}").status_code == 200
        except httpx.TransportError:
            return False

    def own_metric(self, name: str) -> float:
        """Returns the sum of a metric of the collector itself over its series."""
        page = httpx.get(f"http://{HOST}:{self.variables['PIPELINE_COLLECTOR_METRICS_PORT']}/metrics").text
        return sum(float(line.rpartition(" ")[2]) for line in page.splitlines() if line.startswith(name))

    def end(self, with_signal: signal.Signals) -> None:
        """Signals the process and waits for its end."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(with_signal)
            self.process.wait(30)


@dataclass
class Tiers:
    """The four processes, and what came out of them."""

    agent: Collector
    gateways: list[Collector]
    sink: Collector

    def post(self, signal_name: str, request: Json) -> None:
        """Posts to the agent, which must acknowledge all of it."""
        answer = httpx.post(
            f"http://{self.agent.variables['PIPELINE_OTLP_HTTP']}/v1/{signal_name}", json=request
        )
        assert (answer.status_code, answer.json()) == (200, {"partialSuccess": {}}), answer.text

    def arrived(self, gateway: int) -> list[Json]:
        """Returns all spans that a gateway has sent on so far; its number is 1 or 2."""
        return list(_spans(self.sink.folder / f"traces-{gateway}.jsonl"))

    def trace_ids(self, gateway: int) -> list[str]:
        """Returns the trace ID of each span that a gateway has sent on so far."""
        return [span["traceId"] for span in self.arrived(gateway)]

    def all_trace_ids(self) -> list[str]:
        """Returns the trace ID of each span that came out of either gateway."""
        return [*self.trace_ids(1), *self.trace_ids(2)]


def _spans(file: Path) -> Iterator[Json]:
    if not file.exists():
        return
    for line in file.read_text().splitlines():
        for resource_spans in json.loads(line)["resourceSpans"]:
            for scope_spans in resource_spans["scopeSpans"]:
                yield from scope_spans["spans"]


def span(trace_id: str, span_id: str, **more: Any) -> Json:
    """Returns a finished root SERVER span of 20 ms; `more` are further fields, or others in their place."""
    now = time.time_ns()
    return {
        "traceId": trace_id,
        "spanId": span_id,
        "name": "GET /orders/{id}",
        "kind": 2,
        "startTimeUnixNano": str(now - 20_000_000),
        "endTimeUnixNano": str(now),
        "attributes": attributes({"sightline.sla.outcome": "ok"}),
    } | more


def request_of(service: str, spans: list[Json]) -> Json:
    """Returns a request with spans of one service."""
    return {
        "resourceSpans": [
            {"resource": resource(service), "scopeSpans": [{"scope": {"name": "test"}, "spans": spans}]}
        ]
    }


def build_tiers(folder: Path, stack: dict[str, str], **of_gateway: str) -> Tiers:
    """Returns the four collectors, not started.

    Args:
        folder: What they write to.
        stack: Endpoints of the running stack, for metrics and logs.
        of_gateway: Further variables of both gateways.
    """
    (folder / "fast.yaml").write_text(FAST)
    (folder / "sink.yaml").write_text(SINK)
    sinks, listens = free_addresses(2), free_addresses(2)
    gateways = [
        Collector(
            f"gateway-{number}",
            [CONFIG / "gateway.yaml", folder / "fast.yaml"],
            folder / f"gateway-{number}",
            {
                "PIPELINE_GATEWAY_ID": f"gateway-{number}",
                "PIPELINE_GATEWAY_LISTEN": listen,
                "PIPELINE_JAEGER_OTLP": sink,
                "PIPELINE_PROMETHEUS_OTLP": stack["prometheus"] + "/api/v1/otlp",
                "PIPELINE_LOKI_OTLP": stack["loki"] + "/otlp",
            }
            | of_gateway,
        )
        for number, listen, sink in zip((1, 2), listens, sinks, strict=True)
    ]
    sink = Collector(
        "sink", [folder / "sink.yaml"], folder / "sink", {"SINK_1": sinks[0], "SINK_2": sinks[1]}
    )
    return Tiers(_agent(folder, listens), gateways, sink)


def _agent(folder: Path, listens: list[str]) -> Collector:
    names = ("PIPELINE_OTLP_GRPC", "PIPELINE_OTLP_HTTP", "PIPELINE_RELAY_1", "PIPELINE_RELAY_2")
    gateways = dict(zip(("PIPELINE_GATEWAY_1", "PIPELINE_GATEWAY_2"), listens, strict=True))
    return Collector(
        "agent",
        [CONFIG / "agent.yaml", CONFIG / "overlays/fixed-gateways.yaml"],
        folder / "agent",
        dict(zip(names, free_addresses(4), strict=True)) | gateways | {"PIPELINE_GATEWAY": listens[0]},
    )
