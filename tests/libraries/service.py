"""Runs the application under `opentelemetry-instrument uvicorn`, and the service that it calls."""

import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote, unquote

from opentelemetry.proto.trace.v1.trace_pb2 import Span
from otlp_receiver import Item, OtlpReceiver, Store, attributes
from shop_process import end, free_port

APPS: Final = Path(__file__).parent / "apps"
HEADER: Final = "x-correlation-id"
START_TIMEOUT_SECONDS: Final = 60.0
STOP_TIMEOUT_SECONDS: Final = 15.0
ARRIVAL_TIMEOUT_SECONDS: Final = 20.0
DELAY_MS: Final = 100
SLOW_SECONDS: Final = 0.4
"""How long the called service takes to answer at `/slow`."""

T = TypeVar("T")


@dataclass(frozen=True)
class Downstream:
    """What the called service has received: the headers of each request, names lower-case."""

    port: int
    requests: list[dict[str, str]] = field(default_factory=list)

    def url(self, host: str = "127.0.0.1") -> str:
        """Returns the address of the service by one of its names."""
        return f"http://{host}:{self.port}/stock"

    def slow_url(self) -> str:
        """Returns an address of the service that takes `SLOW_SECONDS` to answer."""
        return f"http://127.0.0.1:{self.port}/slow?token=hunter2"

    def redirect(self, target: str) -> str:
        """Returns an address of the service, as 127.0.0.1, that redirects to another one."""
        return f"http://127.0.0.1:{self.port}/redirect?{quote(target)}"


@contextmanager
def downstream() -> Iterator[Downstream]:
    """Runs the service that the application calls."""
    received: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            received.append({name.lower(): value for name, value in self.headers.items()})
            path, _, target = self.path.partition("?")
            if path == "/slow":
                time.sleep(SLOW_SECONDS)
            if path == "/redirect":
                self.send_response(302)
                self.send_header("Location", unquote(target))
            else:
                self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Keeps quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield Downstream(server.server_port, received)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass(frozen=True)
class Service:
    """The running application and what has arrived from it."""

    port: int
    store: Store
    stderr: Path

    def get(self, path: str, correlation_id: str) -> Any:
        """Sends a request and returns the body of its answer, which must be 200."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", path, headers={HEADER: correlation_id})
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
        assert response.status == 200, f"{response.status} {body!r}\n{self.stderr.read_text()}"
        return json.loads(body)

    def request(self, correlation_id: str) -> Span:
        """Returns the SERVER span of a request, once it and everything before it has arrived."""
        found = eventually(
            lambda: [
                item.data
                for item in list(self.store.spans)
                if attributes(item.data.attributes).get("sightline.correlation_id") == correlation_id
            ]
        )
        (span,) = found
        assert isinstance(span, Span)
        return span

    def calls(self, correlation_id: str) -> list[Item]:
        """Returns the CLIENT spans in the trace of a request, in the order in which they started."""
        request = self.request(correlation_id)
        spans = [item for item in list(self.store.spans) if item.data.trace_id == request.trace_id]
        clients = [item for item in spans if item.data.kind == Span.SPAN_KIND_CLIENT]
        return sorted(clients, key=lambda item: item.data.start_time_unix_nano)

    def logs(self, correlation_id: str) -> list[Item]:
        """Returns the log records that carry a correlation ID."""
        return [
            item
            for item in list(self.store.logs)
            if attributes(item.data.attributes).get("correlation_id") == correlation_id
        ]


def eventually(question: Callable[[], T], seconds: float = ARRIVAL_TIMEOUT_SECONDS) -> T:
    """Asks until the answer is true in the sense of `bool`, at most so long; returns the last answer."""
    deadline = time.monotonic() + seconds
    while not (answer := question()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return answer


@contextmanager
def serving(programs: Path, folder: Path, variables: Mapping[str, str]) -> Iterator[Service]:
    """Runs the application until the block ends.

    Args:
        programs: The folder of programs of its environment.
        folder: A folder of this server alone.
        variables: Environment variables; the caller's `OTEL_*` and `SIGHTLINE_*` are left out.
    """
    port, stderr = free_port(), folder / "stderr"
    command: list[str | Path] = [
        programs / "opentelemetry-instrument",
        "uvicorn",
        "shop:app",
        "--port",
        str(port),
    ]
    with OtlpReceiver() as receiver:
        with stderr.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=APPS,
                env=_environment(programs, receiver.endpoint, variables),
                stdout=subprocess.DEVNULL,
                stderr=output,
            )
        service = Service(port, receiver.store, stderr)
        try:
            _wait_until_up(process, service)
            yield service
        finally:
            end(process, STOP_TIMEOUT_SECONDS)


def _environment(programs: Path, endpoint: str, variables: Mapping[str, str]) -> dict[str, str]:
    foreign = ("OTEL_", "SIGHTLINE_", "FASTAPI_", "PYTHON", "UVICORN_", "VIRTUAL_ENV", "PG")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return {
        **kept,
        "PATH": f"{programs}{os.pathsep}{kept.get('PATH', '')}",
        "NO_PROXY": "127.0.0.1,localhost",
        "OTEL_SERVICE_NAME": "shop",
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_BSP_SCHEDULE_DELAY": str(DELAY_MS),
        "OTEL_BLRP_SCHEDULE_DELAY": str(DELAY_MS),
        **variables,
    }


def _wait_until_up(process: "subprocess.Popen[bytes]", service: Service) -> None:
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", service.port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"the application did not start:\n{service.stderr.read_text()}")
