"""Starts an application under `opentelemetry-instrument uvicorn` and talks to it, over raw sockets too."""

import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from opentelemetry.proto.trace.v1.trace_pb2 import Span
from otlp_receiver import Item, OtlpReceiver, Store, attributes
from shop_process import end, free_port

APPS: Final = Path(__file__).parent / "apps"
BIN: Final = Path(sys.executable).parent
START_TIMEOUT_SECONDS: Final = 40.0
STOP_TIMEOUT_SECONDS: Final = 15.0
ARRIVAL_TIMEOUT_SECONDS: Final = 20.0

FAST: Final = {
    "OTEL_BSP_SCHEDULE_DELAY": "50",
    "OTEL_BLRP_SCHEDULE_DELAY": "50",
    "OTEL_METRIC_EXPORT_INTERVAL": "250",
}
"""Makes telemetry arrive soon, in milliseconds; the defaults are right for a service and slow for a test."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Response:
    """One response as it came over the socket; header names are lower-case, values raw bytes."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes

    def values(self, name: str) -> list[bytes]:
        """Returns every value of a header."""
        return [value for key, value in self.headers if key == name.encode()]

    @property
    def correlation_id(self) -> str:
        """The correlation ID that was sent back, exactly once."""
        (value,) = self.values("x-correlation-id")
        return value.decode("latin-1")


@dataclass(frozen=True)
class Server:
    """One running server."""

    port: int
    process: "subprocess.Popen[bytes]"
    folder: Path

    @property
    def stdout(self) -> str:
        """What the server has printed on stdout so far; bytes that are not UTF-8 stay visible."""
        return (self.folder / "stdout").read_bytes().decode("utf-8", "backslashreplace")

    @property
    def stderr(self) -> str:
        """What the server has printed on stderr so far."""
        return (self.folder / "stderr").read_bytes().decode("utf-8", "backslashreplace")

    def get(self, path: str = "/ok", *headers: tuple[str, str | bytes]) -> Response:
        """Sends a well-formed request; header values go out as they are."""
        lines = [b"host: 127.0.0.1"]
        for name, value in headers:
            raw = value if isinstance(value, bytes) else value.encode("latin-1")
            lines.append(name.encode("latin-1") + b": " + raw)
        return self.send(path.encode("latin-1"), lines)

    def send(
        self,
        target: bytes,
        header_lines: list[bytes],
        *,
        version: bytes = b"HTTP/1.1",
        method: bytes = b"GET",
    ) -> Response:
        """Sends a request made of the given bytes and reads until the server closes the connection."""
        request_line = b" ".join((method, target, version))
        head = b"\r\n".join([request_line, *header_lines, b"connection: close", b"", b""])
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
            connection.sendall(head)
            return _read_response(connection)


def _read_response(connection: socket.socket) -> Response:
    raw = b""
    while chunk := connection.recv(65536):
        raw += chunk
    head, _, body = raw.partition(b"\r\n\r\n")
    status_line, *lines = head.split(b"\r\n")
    headers = [
        (name.strip().lower(), value.strip()) for name, _, value in (line.partition(b":") for line in lines)
    ]
    return Response(int(status_line.split()[1]), headers, body)


@contextmanager
def serving(
    app: str = "app:app",
    *arguments: str,
    endpoint: str | None = None,
    variables: Mapping[str, str] | None = None,
    instrumented: bool = True,
) -> Iterator[Server]:
    """Runs a server until the block ends.

    Args:
        app: An application in `apps/`, as uvicorn names it.
        *arguments: Further arguments of uvicorn.
        endpoint: Where the telemetry goes; nothing is set when omitted.
        variables: Environment variables; the caller's `OTEL_*` and `SIGHTLINE_*` are left out.
        instrumented: Whether `opentelemetry-instrument` runs the server.
    """
    with tempfile.TemporaryDirectory(prefix="sightline-zero-code-") as name:
        folder, port = Path(name), free_port()
        command: list[str | Path] = [
            BIN / "uvicorn",
            app,
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            *arguments,
        ]
        if instrumented:
            command[0] = "uvicorn"
            command.insert(0, BIN / "opentelemetry-instrument")
        settings = {**FAST, "OTEL_SERVICE_NAME": "zero-code"}
        if endpoint is not None:
            settings["OTEL_EXPORTER_OTLP_ENDPOINT"] = endpoint
        with (folder / "stdout").open("wb") as stdout, (folder / "stderr").open("wb") as stderr:
            process = subprocess.Popen(
                command,
                cwd=APPS,
                env={**_clean_environment(), **settings, **(variables or {})},
                stdout=stdout,
                stderr=stderr,
            )
        server = Server(port, process, folder)
        try:
            _wait_until_up(server)
            yield server
        finally:
            end(process, STOP_TIMEOUT_SECONDS)


def _clean_environment() -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OTEL_", "SIGHTLINE_", "PYTHON"))
    }
    return {
        **kept,
        "PATH": f"{BIN}{os.pathsep}{kept.get('PATH', '')}",
        "NO_PROXY": "127.0.0.1",
        "PYTHONUNBUFFERED": "1",
    }


def _wait_until_up(server: Server) -> None:
    """Waits for the listening socket, without a request that would leave telemetry."""
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while time.monotonic() < deadline and server.process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", server.port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"the server did not start:\n{server.stdout}\n{server.stderr}")


def eventually(question: Callable[[], T], seconds: float = ARRIVAL_TIMEOUT_SECONDS) -> T:
    """Asks until the answer is true in the sense of `bool`, at most so long; returns the last answer."""
    deadline = time.monotonic() + seconds
    while not (answer := question()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return answer


class Arrived:
    """Asks what has arrived at a receiver, by correlation ID."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def spans(self, correlation_id: str) -> list[Item]:
        """Returns the spans that carry the ID."""
        return [
            item
            for item in list(self._store.spans)
            if _carries(item, "sightline.correlation_id", correlation_id)
        ]

    def span(self, correlation_id: str) -> Item:
        """Returns the one SERVER span that carries the ID, once it is there."""
        (span,) = eventually(
            lambda: [item for item in self.spans(correlation_id) if item.data.kind == Span.SPAN_KIND_SERVER]
        )
        return span

    def logs(self, correlation_id: str) -> list[Item]:
        """Returns the log records that carry the ID."""
        return [item for item in list(self._store.logs) if _carries(item, "correlation_id", correlation_id)]

    def metric_names(self) -> set[str]:
        """Returns the names of all metrics so far."""
        return {item.data.name for item in list(self._store.metrics)}

    def points(self, metric: str) -> list[dict[str, Any]]:
        """Returns the attributes of all data points of a histogram or sum, one dictionary for each export."""
        return [
            attributes(point.attributes)
            for item in list(self._store.metrics)
            if item.data.name == metric
            for point in (item.data.histogram.data_points or item.data.sum.data_points)
        ]

    def raw(self) -> bytes:
        """Returns everything as it was encoded, to search for values that must not be there."""
        items = [*self._store.spans, *self._store.metrics, *self._store.logs]
        return b"\n".join(
            [
                *(item.data.SerializeToString() for item in items),
                *(repr(item.resource).encode() for item in items),
            ]
        )

    def settle(self, server: Server) -> None:
        """Returns when the spans, logs and metrics of all earlier requests are here.

        Spans and logs leave in order, so those of a last request arrive after all others; metrics are there
        when a data point is younger than that request.
        """
        last = f"settle-{secrets.token_hex(8)}"
        server.get("/ok", ("x-correlation-id", last))
        now = time.time_ns()
        assert eventually(lambda: self.spans(last) and self.logs(last)), (
            f"no telemetry of {last}\n{server.stderr}"
        )
        assert eventually(lambda: self._newest_point_ns() > now), f"no metrics after {last}\n{server.stderr}"

    def _newest_point_ns(self) -> int:
        histograms = [
            item.data.histogram for item in list(self._store.metrics) if item.data.HasField("histogram")
        ]
        return max(
            (point.time_unix_nano for histogram in histograms for point in histogram.data_points), default=0
        )


def _carries(item: Item, name: str, value: str) -> bool:
    return bool(attributes(item.data.attributes).get(name) == value)


@dataclass(frozen=True, repr=False)
class Setup:
    """A running server, and what has arrived from it."""

    server: Server
    arrived: Arrived
    store: Store


@contextmanager
def observed(
    app: str = "app:app",
    *arguments: str,
    variables: Mapping[str, str] | None = None,
    instrumented: bool = True,
) -> Iterator[Setup]:
    """Runs a server whose telemetry goes to a receiver of its own; takes the arguments of `serving`."""
    with (
        OtlpReceiver() as receiver,
        serving(
            app, *arguments, endpoint=receiver.endpoint, variables=variables, instrumented=instrumented
        ) as server,
    ):
        yield Setup(server, Arrived(receiver.store), receiver.store)
