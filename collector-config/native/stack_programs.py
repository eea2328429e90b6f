"""The five programs of the stack: ports, command lines, variables, and what shows that they are ready."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

CONFIG = Path(__file__).resolve().parent.parent

HOST = "127.0.0.1"

# Every port that a program of the stack listens on; `--port-offset` is added to all of them.
PORTS = {
    "otlp_grpc": 4317,
    "otlp_http": 4318,
    "collector_health": 13133,
    "collector_metrics": 8888,
    "jaeger_otlp": 14317,
    "jaeger": 16686,
    "jaeger_grpc": 16685,
    "jaeger_metrics": 14269,
    "prometheus": 9090,
    "loki": 3100,
    "loki_grpc": 9095,
    "alertmanager": 9093,
}

# What `--json` gives to other programs.
ENDPOINTS = ("otlp_http", "otlp_grpc", "prometheus", "loki", "jaeger", "alertmanager", "collector_health")

LARGEST_OFFSET = 65535 - max(PORTS.values())

# Any valid query makes Loki ask its front end, querier, ingester and store; `/ready` alone asks none of them.
_LOKI_QUERY = "/loki/api/v1/query_range?query=%7Bservice_name%3D%22none%22%7D&limit=1"


@dataclass(frozen=True)
class Layout:
    """Where one stack lives: a folder for its files and an offset for its ports."""

    state: Path
    offset: int

    def port(self, name: str) -> int:
        """Returns the port of a key of `PORTS`."""
        return PORTS[name] + self.offset

    def address(self, name: str) -> str:
        """Returns host:port of a key of `PORTS`."""
        return f"{HOST}:{self.port(name)}"

    def url(self, name: str) -> str:
        """Returns http://host:port of a key of `PORTS`."""
        return f"http://{self.address(name)}"

    def data(self, program: str) -> Path:
        """Returns the folder that a program writes to and works in."""
        return self.state / "data" / program

    def log(self, program: str) -> Path:
        """Returns the file that takes a program's output."""
        return self.state / "logs" / f"{program}.log"

    def endpoints(self) -> dict[str, str]:
        """Returns the URLs that others need, by the names of `ENDPOINTS`."""
        return {name: self.url(name) for name in ENDPOINTS}


@dataclass(frozen=True)
class Program:
    """One program as it is to be started.

    Attributes:
        name: Its binary, its log file, its data folder.
        ports: Keys of `PORTS` that it listens on.
        arguments: The command line after the binary.
        variables: Set on top of the caller's environment.
        probes: URLs that all answer 200 once it is ready.
    """

    name: str
    ports: tuple[str, ...]
    arguments: tuple[str, ...]
    probes: tuple[str, ...]
    variables: dict[str, str] = field(default_factory=dict)


def programs(layout: Layout) -> list[Program]:
    """Returns the programs in the order of their start: those that store first, the collector last."""
    return [_jaeger(layout), _loki(layout), _prometheus(layout), _alertmanager(layout), _collector(layout)]


def write_targets(layout: Layout) -> None:
    """Lays out the folder of Prometheus' configuration.

    It holds links to the shipped file and rules, and the targets with this stack's ports: the file knows no
    variables.
    """
    folder = _prometheus_folder(layout)
    (folder / "targets").mkdir(parents=True, exist_ok=True)
    for shipped in ("prometheus.yaml", "rules"):
        link = folder / shipped
        link.unlink(missing_ok=True)
        link.symlink_to(CONFIG / shipped)
    for targets in sorted((CONFIG / "targets").glob("*.yaml")):
        (folder / "targets" / targets.name).write_text(_shift(targets.read_text(), layout.offset))


def write_alert_receiver(layout: Layout, webhook: str | None) -> None:
    """Writes Alertmanager's configuration: the shipped one, which tells nobody unless there is a webhook.

    Args:
        layout: Whose configuration it is.
        webhook: URL that notifications are POSTed to; kept in a file of mode 0600, as it may hold a secret.
    """
    text = (CONFIG / "alertmanager.yaml").read_text()
    secret = layout.data("alertmanager") / "webhook-url"
    secret.unlink(missing_ok=True)
    if webhook:
        text = text.replace("receiver: nobody", "receiver: webhook", 1)
        secret.touch(mode=0o600)
        secret.write_text(webhook)
    _alertmanager_file(layout).write_text(text)


def _shift(text: str, offset: int) -> str:
    return re.sub(rf"{re.escape(HOST)}:(\d+)", lambda match: f"{HOST}:{int(match[1]) + offset}", text)


def _prometheus_folder(layout: Layout) -> Path:
    return layout.state / "prometheus"


def _alertmanager_file(layout: Layout) -> Path:
    return layout.state / "alertmanager.yaml"


def _jaeger(layout: Layout) -> Program:
    return Program(
        name="jaeger",
        ports=("jaeger_otlp", "jaeger", "jaeger_grpc", "jaeger_metrics"),
        arguments=("--config", str(CONFIG / os.environ.get("SIGHTLINE_STACK_JAEGER", "jaeger.yaml"))),
        probes=(layout.url("jaeger") + "/api/services",),
        variables={
            "PIPELINE_JAEGER_OTLP_LISTEN": layout.address("jaeger_otlp"),
            "PIPELINE_JAEGER_QUERY_HTTP": layout.address("jaeger"),
            "PIPELINE_JAEGER_QUERY_GRPC": layout.address("jaeger_grpc"),
            "PIPELINE_JAEGER_METRICS_PORT": str(layout.port("jaeger_metrics")),
            "PIPELINE_JAEGER_DATA": str(layout.data("jaeger")),
            "PIPELINE_PROMETHEUS_QUERY": layout.url("prometheus"),
            "GOMEMLIMIT": "500MiB",
        },
    )


def _loki(layout: Layout) -> Program:
    return Program(
        name="loki",
        ports=("loki", "loki_grpc"),
        arguments=(f"-config.file={CONFIG / 'loki.yaml'}", "-config.expand-env=true"),
        probes=(layout.url("loki") + "/ready", layout.url("loki") + _LOKI_QUERY),
        variables={
            "PIPELINE_LOKI_HTTP_PORT": str(layout.port("loki")),
            "PIPELINE_LOKI_GRPC_PORT": str(layout.port("loki_grpc")),
            "PIPELINE_LOKI_DATA": str(layout.data("loki")),
            "PIPELINE_LOKI_RULES": str(CONFIG / "loki-rules"),
            "PIPELINE_PROMETHEUS_REMOTE_WRITE": layout.url("prometheus") + "/api/v1/write",
        },
    )


def _prometheus(layout: Layout) -> Program:
    return Program(
        name="prometheus",
        ports=("prometheus",),
        arguments=(
            f"--config.file={_prometheus_folder(layout) / 'prometheus.yaml'}",
            f"--web.listen-address={layout.address('prometheus')}",
            f"--storage.tsdb.path={layout.data('prometheus')}",
            "--web.enable-otlp-receiver",
            "--web.enable-remote-write-receiver",
            "--enable-feature=exemplar-storage",
        ),
        probes=(layout.url("prometheus") + "/-/ready", layout.url("prometheus") + "/api/v1/query?query=1"),
    )


def _alertmanager(layout: Layout) -> Program:
    return Program(
        name="alertmanager",
        ports=("alertmanager",),
        arguments=(
            f"--config.file={_alertmanager_file(layout)}",
            f"--web.listen-address={layout.address('alertmanager')}",
            f"--storage.path={layout.data('alertmanager')}",
            "--cluster.listen-address=",
        ),
        probes=(layout.url("alertmanager") + "/-/ready", layout.url("alertmanager") + "/api/v2/status"),
    )


def _collector(layout: Layout) -> Program:
    return Program(
        name="otelcol",
        ports=("otlp_grpc", "otlp_http", "collector_health", "collector_metrics"),
        arguments=("--config", str(CONFIG / "otelcol.yaml")),
        probes=(layout.url("collector_health"), layout.url("collector_metrics") + "/metrics"),
        variables={
            "PIPELINE_OTLP_GRPC": layout.address("otlp_grpc"),
            "PIPELINE_OTLP_HTTP": layout.address("otlp_http"),
            "PIPELINE_COLLECTOR_HEALTH": layout.address("collector_health"),
            "PIPELINE_COLLECTOR_METRICS_PORT": str(layout.port("collector_metrics")),
            "PIPELINE_COLLECTOR_QUEUES": str(layout.data("otelcol")),
            "PIPELINE_JAEGER_OTLP": layout.address("jaeger_otlp"),
            "PIPELINE_PROMETHEUS_OTLP": layout.url("prometheus") + "/api/v1/otlp",
            "PIPELINE_LOKI_OTLP": layout.url("loki") + "/otlp",
            # Read together with memory_limiter of otelcol.yaml; its header says why.
            "GOMEMLIMIT": "240MiB",
            "GOGC": "400",
        },
    )
