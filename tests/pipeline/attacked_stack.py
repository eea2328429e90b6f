"""A stack that is attacked, and the honest client who must not notice."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import processes

from . import attacks
from .stack_fixture import eventually

MEBIBYTE = 2**20
# What compose.yaml gives the collector; its memory_limiter and its body limits keep it below.
CONTAINER_LIMIT_BYTES = 512 * MEBIBYTE
SIGNALS = ("traces", "metrics", "logs")
PROTOBUF = {"Content-Type": "application/x-protobuf"}

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class Target:
    """The collector of a running stack.

    Attributes:
        url: Where it receives over HTTP.
        grpc_address: (host, port) of its gRPC.
        pid: Its process.
    """

    def __init__(self, endpoints: dict[str, Any]) -> None:
        self.endpoints = endpoints
        self.url = str(endpoints["otlp_http"])
        host, _, port = str(endpoints["otlp_grpc"]).rpartition("/")[2].rpartition(":")
        self.grpc_address = (host, int(port))
        records = processes.read_records(Path(endpoints["state_dir"]) / "pids")
        self.programs = {record.name: record for record in records}
        self.pid = self.programs["otelcol"].pid

    def post(self, signal: str, content: bytes, **headers: str) -> httpx.Response:
        """Sends a body; names of headers are written with `_`."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        url = f"{self.url}/v1/{signal}"
        return httpx.post(url, content=content, headers=PROTOBUF | given, timeout=60)

    def count(self, name: str, program: str = "collector", **labels: str) -> float:
        """Returns the sum of a program's own counter over the series that have these labels."""
        port = {"collector": 8888, "jaeger": 14269}[program] + int(self.endpoints["port_offset"])
        text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        lines = re.findall(rf"^{name}(?:\{{(.*)\}})? (\S+)$", text, re.MULTILINE)
        return sum(float(value) for found, value in lines if all(label in found for label in wanted))

    def peak_bytes(self) -> int:
        """Returns the most memory that was resident since `forget_peak`."""
        return peak_bytes(self.pid)

    def forget_peak(self) -> None:
        """Begins a new peak. Source: proc_pid_clear_refs(5), value 5."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def cpu_seconds(self) -> float:
        """Returns the CPU time of the collector so far. Source: proc_pid_stat(5), fields 14 and 15."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND

    def is_running(self) -> bool:
        """Tells whether the collector is the process that was started first, and every back end too."""
        return all(processes.is_running(record) for record in self.programs.values())

    def connect(self, *, http: bool = False) -> socket.socket:
        """Opens a bare connection, to gRPC unless told otherwise."""
        host, port = self.grpc_address
        if http:
            port = int(self.url.rpartition(":")[2])
        return socket.create_connection((host, port), timeout=20)

    def call(self, content: bytes, encoding: str) -> None:
        """Makes a compressed gRPC call of at most 16 kB and listens until nothing more comes."""
        with self.connect() as connection:
            head = attacks.http2_opening() + attacks.http2_headers(1, encoding)
            connection.sendall(head + attacks.http2_message(1, content, compressed=True))
            connection.settimeout(1)
            with contextlib.suppress(OSError):
                while connection.recv(65536):
                    pass


class HonestClient:
    """Sends five items of each signal per second, and knows which were acknowledged.

    Attributes:
        service: Its name.
        acknowledged: IDs by signal, in the order of their sending.
        refusals: Statuses of what was not acknowledged, by signal.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self.service = f"honest-{secrets.token_hex(4)}"
        self.acknowledged: dict[str, list[str]] = {signal: [] for signal in SIGNALS}
        self.refusals: dict[str, list[str]] = {signal: [] for signal in SIGNALS}
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(signal,)) for signal in SIGNALS]

    def __enter__(self) -> HonestClient:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _send(self, signal: str) -> None:
        url = f"{self.target.url}/v1/{signal}"
        with httpx.Client(headers=PROTOBUF, timeout=30) as client:
            while not self._ended.wait(0.2):
                identifier = secrets.token_hex(16)
                try:
                    status = str(client.post(url, content=self._item(signal, identifier)).status_code)
                except httpx.HTTPError as error:
                    status = type(error).__name__
                if status == "200":
                    self.acknowledged[signal].append(identifier)
                else:
                    self.refusals[signal].append(status)

    def _item(self, signal: str, identifier: str) -> bytes:
        if signal == "traces":
            item = attacks.span(name=b"honest", trace_id=bytes.fromhex(identifier))
        elif signal == "metrics":
            labels = attacks.point_attribute("id", attacks.text(identifier))
            item = attacks.gauge("honest", attacks.point(1.0, labels))
        else:
            item = attacks.log_record(attacks.text(identifier))
        return attacks.request(self.service, item)

    def is_acknowledged(self, seconds: float = 30.0) -> bool:
        """Tells whether of each signal something sent from now on is acknowledged."""
        before = {signal: len(self.acknowledged[signal]) for signal in SIGNALS}
        return eventually(
            lambda: all(len(self.acknowledged[name]) > before[name] for name in SIGNALS), seconds
        )

    def is_served(self, seconds: float = 30.0) -> dict[str, bool]:
        """Tells for each signal whether something sent from now on is acknowledged and then found."""
        before = {signal: len(self.acknowledged[signal]) for signal in SIGNALS}
        served = {}
        for signal, already in before.items():

            def found(signal: str = signal, already: int = already) -> bool:
                new = self.acknowledged[signal][already:]
                return bool(new) and self.is_found(signal, new[0])

            served[signal] = eventually(found, seconds)
        return served

    def is_found(self, signal: str, identifier: str) -> bool:
        """Asks the back end for one item."""
        if signal == "traces":
            url = f"{self.target.endpoints['jaeger']}/api/traces/{identifier}"
            return httpx.get(url, timeout=20).status_code == httpx.codes.OK
        if signal == "metrics":
            return bool(self._series(f', id="{identifier}"'))
        return bool(self._lines(f'|= "{identifier}"'))

    def found(self, signal: str) -> set[str]:
        """Returns the IDs of all that arrived."""
        if signal == "traces":
            query = {"service": self.service, "limit": "5000", "lookback": "1h"}
            answer = httpx.get(f"{self.target.endpoints['jaeger']}/api/traces", params=query, timeout=30)
            return {trace["traceID"] for trace in answer.json()["data"]}
        if signal == "metrics":
            return {series["metric"]["id"] for series in self._series()}
        return {value[1] for stream in self._lines() for value in stream["values"]}

    def _series(self, matcher: str = "") -> list[dict[str, Any]]:
        query = f'last_over_time(honest{{service_name="{self.service}"{matcher}}}[1h])'
        url = f"{self.target.endpoints['prometheus']}/api/v1/query"
        answer = httpx.get(url, params={"query": query}, timeout=20)
        result: list[dict[str, Any]] = answer.json()["data"]["result"]
        return result

    def _lines(self, pipeline: str = "") -> list[dict[str, Any]]:
        query = {"query": f'{{service_name="{self.service}"}} {pipeline}', "limit": "5000"}
        url = f"{self.target.endpoints['loki']}/loki/api/v1/query_range"
        answer = httpx.get(url, params=query, timeout=20)
        result: list[dict[str, Any]] = answer.json()["data"]["result"]
        return result


def peak_bytes(pid: int) -> int:
    """Returns the most memory of a process that was resident. Source: proc_pid_status(5), VmHWM."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024


@contextlib.contextmanager
def counting(
    target: Target, name: str, at_least: float, program: str = "collector", **labels: str
) -> Iterator[None]:
    """Asserts that a counter of the pipeline itself rises while the body runs, or soon after."""
    before = target.count(name, program, **labels)
    yield
    risen = eventually(lambda: target.count(name, program, **labels) - before >= at_least, 15)
    assert risen, (name, labels, before, target.count(name, program, **labels))


def measure_cost(target: Target, posts: int = 40, spans: int = 512) -> float:
    """Returns the collector's CPU seconds per span, of posts as an SDK makes them; the better of two runs."""
    body = attacks.request("speed", *(attacks.span() for _ in range(spans)))
    costs = []
    for _ in range(2):
        wait_until_sent(target)
        before = target.cpu_seconds()
        for _ in range(posts):
            assert target.post("traces", body).status_code == httpx.codes.OK
        wait_until_sent(target)
        costs.append((target.cpu_seconds() - before) / (posts * spans))
    return min(costs)


def wait_until_sent(target: Target) -> None:
    """Waits until the queues hold no more than what is always under way."""
    assert eventually(lambda: target.count("otelcol_exporter_queue_size") < 50_000, 30)
