"""A collector and its sink as processes, for the benchmark of the collector."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.servers import free_ports

ROOT: Final = Path(__file__).resolve().parents[1]
BACKENDS: Final = ROOT / "collector-config" / "native" / "backends.py"
_HOST: Final = "127.0.0.1"
_START_SECONDS: Final = 20
_ARRIVAL_SECONDS: Final = 60


@dataclass(frozen=True)
class Sink:
    """Where spans arrive over gRPC, and metrics and logs over HTTP.

    Attributes:
        grpc: host:port.
        http: host:port.
    """

    grpc: str
    http: str

    @classmethod
    @contextmanager
    def started(cls) -> Iterator["Sink"]:
        """Yields a running one."""
        command = [sys.executable, "-m", "benchmarks.collector_sink"]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            grpc, http = json.loads(process.stdout.readline())
            yield cls(f"{_HOST}:{grpc}", f"{_HOST}:{http}")
        finally:
            process.kill()
            process.wait()

    def spans(self) -> int:
        """Returns how many spans have arrived."""
        return int(get(f"http://{self.http}/spans"))

    def stop(self) -> None:
        """Takes no more spans."""
        get(f"http://{self.http}/stop")

    def wait_for(self, spans: int) -> None:
        """Returns once so many have arrived.

        Raises:
            RuntimeError: When they have not after a minute.
        """
        deadline = time.monotonic() + _ARRIVAL_SECONDS
        while (arrived := self.spans()) < spans:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{spans - arrived} spans have not arrived")
            time.sleep(0.02)


@dataclass(frozen=True)
class Collector:
    """A running collector.

    Attributes:
        pid: Its process.
        otlp_http: host:port that it takes OTLP at.
        sink: Where it sends to.
    """

    pid: int
    otlp_http: str
    sink: Sink

    @classmethod
    @contextmanager
    def started(
        cls, file: Path, variables: Mapping[str, str], folder: Path, sink: Sink
    ) -> Iterator["Collector"]:
        """Yields one that is ready, with a configuration, on ports and with queues of its own.

        Raises:
            RuntimeError: When it does not start; says why.
        """
        grpc, http, health, metrics = free_ports(4)
        environment = {
            "PATH": os.environ["PATH"],
            "PIPELINE_OTLP_GRPC": f"{_HOST}:{grpc}",
            "PIPELINE_OTLP_HTTP": f"{_HOST}:{http}",
            "PIPELINE_COLLECTOR_HEALTH": f"{_HOST}:{health}",
            "PIPELINE_COLLECTOR_METRICS_PORT": str(metrics),
            "PIPELINE_COLLECTOR_QUEUES": str(folder / "queues"),
            "PIPELINE_JAEGER_OTLP": sink.grpc,
            "PIPELINE_PROMETHEUS_OTLP": f"http://{sink.http}/api/v1/otlp",
            "PIPELINE_LOKI_OTLP": f"http://{sink.http}/otlp",
        }
        log = folder / "log"
        with log.open("wb") as output:
            command = [binary("otelcol"), f"--config={file}"]
            process = subprocess.Popen(
                command, cwd=folder, env=environment | dict(variables), stdout=output, stderr=output
            )
        try:
            _wait_until_healthy(f"http://{_HOST}:{health}", process, log)
            yield cls(process.pid, f"{_HOST}:{http}", sink)
        finally:
            process.kill()
            process.wait()

    def peak_mb(self) -> float:
        """Returns the most memory that it has held, pages of files included, in MB."""
        return self._status("VmHWM")

    def resident_mb(self) -> float:
        """Returns the memory that it holds, pages of files included, in MB."""
        return self._status("VmRSS")

    def anonymous_mb(self) -> float:
        """Returns the memory that it holds and the system cannot take back, in MB."""
        return self._status("RssAnon")

    def _status(self, name: str) -> float:
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition(f"{name}:")[2].split()[0]) * 1024 / 1e6


def binary(name: str) -> str:
    """Returns the path of a program that is built."""
    command = [sys.executable, str(BACKENDS), "path", name]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _wait_until_healthy(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            get(url)
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(log.read_text()[-500:])


def get(url: str) -> str:
    """Returns what an URL answers."""
    with urllib.request.urlopen(url, timeout=30) as answer:
        text: str = answer.read().decode()
    return text
