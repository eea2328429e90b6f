"""The one-node collector as shipped; files stand for the back ends, and the connectors count every second."""

from __future__ import annotations

import json
import secrets
import signal
from collections.abc import Iterator

import httpx
import pytest

from .otlp_payloads import Json, resource, trace_request
from .ports import free_addresses
from .stack_fixture import CONFIG, eventually
from .tiers import Collector

TO_FILES = """
connectors:
  span_metrics: {metrics_flush_interval: 1s}
  service_graph: {metrics_flush_interval: 1s, store: {ttl: 1s}, store_expiration_loop: 500ms}
exporters:
  file/traces: {path: ./traces, flush_interval: 50ms}
  file/metrics: {path: ./metrics, flush_interval: 50ms}
  file/logs: {path: ./logs, flush_interval: 50ms}
service:
  pipelines:
    traces: {exporters: [file/traces, span_metrics, service_graph]}
    metrics: {exporters: [file/metrics]}
    metrics/of_spans: {exporters: [file/metrics]}
    logs: {exporters: [file/logs]}
"""


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """The shipped profile, with files in place of the back ends."""
    folder = tmp_path_factory.mktemp("profile")
    (folder / "to-files.yaml").write_text(TO_FILES)
    addresses = dict(zip(("PIPELINE_OTLP_GRPC", "PIPELINE_OTLP_HTTP"), free_addresses(2), strict=True))
    started = Collector("otelcol", [CONFIG / "otelcol.yaml", folder / "to-files.yaml"], folder, addresses)
    started.start()
    yield started
    started.end(signal.SIGTERM)


def post(collector: Collector, kind: str, request: Json) -> None:
    answer = httpx.post(f"http://{collector.variables['PIPELINE_OTLP_HTTP']}/v1/{kind}", json=request)
    assert (answer.status_code, answer.json()) == (200, {"partialSuccess": {}})


def lines(collector: Collector, kind: str, containing: str) -> list[str]:
    """Returns what has come out with a text in it, waiting for the first of it."""
    file = collector.folder / kind

    def found() -> list[str]:
        return [line for line in file.read_text().splitlines() if containing in line] if file.exists() else []

    return eventually(found, 10)


def through(collector: Collector, kind: str, request: Json) -> str:
    """Posts a request of a new service and returns it as it comes out; `SERVICE` stands for the name."""
    service = f"svc-{secrets.token_hex(4)}"
    post(collector, kind, json.loads(json.dumps(request).replace("SERVICE", service)))
    return lines(collector, kind, service)[0]


def span_with(**values: str) -> Json:
    return trace_request(resource("SERVICE"), secrets.token_hex(16), secrets.token_hex(8), **values)
