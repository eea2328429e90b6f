"""The pipeline's programs as the benchmark starts them: the whole stack, or an agent and gateways."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.collector_process import Sink, binary, get
from benchmarks.processes import cpu_seconds
from benchmarks.servers import free_port, free_ports

ROOT: Final = Path(__file__).resolve().parents[1]
CONFIG: Final = ROOT / "collector-config"
NATIVE: Final = CONFIG / "native"
_HOST: Final = "127.0.0.1"
_METRICS_PORTS: Final = {"otelcol": 8888, "jaeger": 14269, "prometheus": 9090, "loki": 3100}
"""Ports that the programs show their own metrics at, without the stack's offset."""

AGENT_RUNTIME: Final = {"GOGC": "400", "GOMEMLIMIT": "180MiB"}
GATEWAY_RUNTIME: Final = {"GOGC": "400", "GOMEMLIMIT": "740MiB"}
"""What docs/how-to/go-to-two-tiers.md starts them with."""


@dataclass
class Program:
    """A running program.

    Attributes:
        name: Its binary.
        pid: Its process.
        metrics: host:port of its own metrics.
        idle: CPU seconds that it takes per second of doing nothing.
    """

    name: str
    pid: int
    metrics: str
    idle: float = field(default=0.0)

    def cpu(self) -> float:
        """Returns the CPU seconds that it has taken."""
        return cpu_seconds(self.pid)

    def resident_mb(self) -> float:
        """Returns the memory that it holds, pages of files included, in MB."""
        return self._status("VmRSS")

    def peak_mb(self) -> float:
        """Returns the most that it has held, in MB."""
        return self._status("VmHWM")

    def own(self, name: str) -> float:
        """Returns the sum of those of its own metrics whose name begins so."""
        lines = get(f"http://{self.metrics}/metrics").splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

    def live_mb(self) -> float:
        """Returns its live objects after a collection of garbage, in MB; where it serves Go's profiles."""
        text = get(f"http://{self.metrics}/debug/pprof/heap?gc=1&debug=1")
        return int(text.partition("# HeapAlloc = ")[2].split()[0]) / 1e6

    def flush(self) -> None:
        """Makes Loki write what it holds in memory."""
        urllib.request.urlopen(urllib.request.Request(f"http://{self.metrics}/flush", method="POST")).close()

    def _status(self, name: str) -> float:
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition(f"{name}:")[2].split()[0]) * 1024 / 1e6


@dataclass
class Stack:
    """The running stack.

    Attributes:
        state: Its folder.
        otlp: host:port that the collector takes OTLP at.
        programs: By name.
    """

    state: Path
    otlp: str
    programs: dict[str, Program]

    @classmethod
    @contextmanager
    def started(cls, state: Path, jaeger: str) -> Iterator["Stack"]:
        """Yields one on free ports, in a folder of its own; ended before, or at the end.

        Args:
            state: The folder; made if it is not there.
            jaeger: The configuration file of Jaeger.

        Raises:
            RuntimeError: When it does not start; says why.
        """
        where = ("--state-dir", str(state))
        try:
            text = _stack("up", *where, "--port-offset", "auto", "--fresh", "--json", jaeger=jaeger)
            answer = json.loads(text)
            pids = {name: int(record["pid"]) for name, record in _records(state).items()}
            ports = {name: port + answer["port_offset"] for name, port in _METRICS_PORTS.items()}
            programs = {name: Program(name, pids[name], f"{_HOST}:{port}") for name, port in ports.items()}
            yield cls(state, answer["otlp_http"].removeprefix("http://"), programs)
        finally:
            _stack("down", *where, jaeger=jaeger)

    def end(self) -> None:
        """Stops the programs: what they hold in memory is then on the disk, as far as they ever write it."""
        _stack("down", "--state-dir", str(self.state), jaeger="jaeger.yaml")

    def data(self, program: str) -> Path:
        """Returns the folder that a program writes to."""
        return self.state / "data" / program


@dataclass
class Tiers:
    """A running agent and its gateways, with a sink behind them."""

    otlp: str
    agent: Program
    gateways: list[Program]

    @classmethod
    @contextmanager
    def started(cls, folder: Path, gateways: int, sampled: str) -> Iterator["Tiers"]:
        """Yields an agent for one gateway, or with the overlay for two fixed ones.

        Args:
            folder: What they work in.
            gateways: 1 or 2.
            sampled: What the gateways keep of traces without an event, in percent.
        """
        with ExitStack() as places:
            sink = places.enter_context(Sink.started())
            listens = [f"{_HOST}:{port}" for port in free_ports(2)]
            running = [
                places.enter_context(_collector(folder, f"gateway-{number}", ["gateway.yaml"], variables))
                for number, variables in enumerate(
                    _gateway(sink, each, sampled) for each in listens[:gateways]
                )
            ]
            address = f"{_HOST}:{free_port()}"
            files = ["agent.yaml", "overlays/fixed-gateways.yaml"][:gateways]
            agent = _collector(folder, "agent", files, _agent(address, listens))
            yield cls(address, places.enter_context(agent), running)


def _gateway(sink: Sink, listens: str, sampled: str) -> dict[str, str]:
    return {
        "PIPELINE_GATEWAY_ID": listens,
        "PIPELINE_GATEWAY_LISTEN": listens,
        "PIPELINE_JAEGER_OTLP": sink.grpc,
        "PIPELINE_PROMETHEUS_OTLP": f"http://{sink.http}/api/v1/otlp",
        "PIPELINE_LOKI_OTLP": f"http://{sink.http}/otlp",
        "PIPELINE_SAMPLING_PERCENTAGE": sampled,
        "PIPELINE_SAMPLING_SPANS_PER_SECOND": "1000000",
        **GATEWAY_RUNTIME,
    }


def _agent(address: str, listens: Sequence[str]) -> dict[str, str]:
    places = ("PIPELINE_OTLP_GRPC", "PIPELINE_RELAY_1", "PIPELINE_RELAY_2")
    return {
        "PIPELINE_OTLP_HTTP": address,
        "PIPELINE_GATEWAY": listens[0],
        "PIPELINE_GATEWAY_1": listens[0],
        "PIPELINE_GATEWAY_2": listens[1],
        **{place: f"{_HOST}:{free_port()}" for place in places},
        **AGENT_RUNTIME,
    }


@contextmanager
def _collector(folder: Path, name: str, files: Sequence[str], variables: dict[str, str]) -> Iterator[Program]:
    place = folder / name
    place.mkdir()
    health, metrics = free_ports(2)
    environment = {
        "PATH": os.environ["PATH"],
        "PIPELINE_COLLECTOR_HEALTH": f"{_HOST}:{health}",
        "PIPELINE_COLLECTOR_METRICS_PORT": str(metrics),
        "PIPELINE_COLLECTOR_QUEUES": str(place / "queues"),
        **variables,
    }
    command = [binary("otelcol"), *(f"--config={CONFIG / file}" for file in files)]
    log = place / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=place, env=environment, stdout=output, stderr=output)
    try:
        wait_until(lambda: _answers(f"http://{_HOST}:{health}"), f"{name} does not start: {log}")
        yield Program("otelcol", process.pid, f"{_HOST}:{metrics}")
    finally:
        process.kill()
        process.wait()


def wait_until(question: Callable[[], bool], failure: str, seconds: float = 60.0) -> None:
    """Returns once the answer is yes.

    Raises:
        RuntimeError: When it is not for so long; says `failure`.
    """
    deadline = time.monotonic() + seconds
    while not question():
        if time.monotonic() > deadline:
            raise RuntimeError(failure)
        time.sleep(0.1)


def is_still(figure: Callable[[], float]) -> bool:
    """Tells whether a figure is above 0 and the same after a second and a half."""
    before = figure()
    time.sleep(1.5)
    return 0 < before == figure()


def _answers(url: str) -> bool:
    with suppress(OSError):
        get(url)
        return True
    return False


def _stack(*arguments: str, jaeger: str) -> str:
    command = [sys.executable, str(NATIVE / "stack.py"), *arguments]
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PIPELINE_")}
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env=variables | {"SIGHTLINE_STACK_JAEGER": jaeger},
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
    return done.stdout


def _records(state: Path) -> dict[str, dict[str, str | int]]:
    return {file.stem: json.loads(file.read_text()) for file in (state / "pids").glob("*.json")}
