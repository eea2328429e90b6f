"""A collector on loopback that misbehaves on request, and remembers what it has acknowledged."""

import gzip
import re
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsPartialSuccess,
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsPartialSuccess,
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

PROTOBUF: Final = ("content-type", "application/x-protobuf")
_LENGTH: Final = re.compile(rb"content-length: *([0-9]+)", re.IGNORECASE)


@dataclass(frozen=True)
class Request:
    """One request as it came: its path, headers by lower-case names, items by their IDs."""

    path: str
    headers: dict[str, str]
    body: bytes
    items: tuple[str, ...]
    target: str = ""


Behaviour = Callable[["FaultyCollector", socket.socket, Request], None]


def _traces(body: bytes) -> Iterable[str]:
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        for scope in resource.scope_spans:
            yield from (span.span_id.hex() for span in scope.spans)


def _logs(body: bytes) -> Iterable[str]:
    for resource in ExportLogsServiceRequest.FromString(body).resource_logs:
        for scope in resource.scope_logs:
            yield from (record.body.string_value for record in scope.log_records)


def _metrics(body: bytes) -> Iterable[str]:
    for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                yield from (f"{metric.name}@{point.time_unix_nano}" for point in metric.sum.data_points)


_DECODERS: Final = {"/v1/traces": _traces, "/v1/logs": _logs, "/v1/metrics": _metrics}


def partial_success(path: str, rejected: int) -> bytes:
    """Returns the body of an answer that rejects some items."""
    if path == "/v1/logs":
        logs = ExportLogsPartialSuccess(rejected_log_records=rejected, error_message="no room")
        return ExportLogsServiceResponse(partial_success=logs).SerializeToString()
    if path == "/v1/metrics":
        points = ExportMetricsPartialSuccess(rejected_data_points=rejected, error_message="no room")
        return ExportMetricsServiceResponse(partial_success=points).SerializeToString()
    spans = ExportTracePartialSuccess(rejected_spans=rejected, error_message="no room")
    return ExportTraceServiceResponse(partial_success=spans).SerializeToString()


def answer(
    connection: socket.socket, status: int, *headers: tuple[str, str], body: bytes = b"", length: int = -1
) -> None:
    """Sends one answer."""
    lines = [f"HTTP/1.1 {status} Whatever", *(f"{name}: {value}" for name, value in headers)]
    lines.append(f"content-length: {len(body) if length < 0 else length}")
    connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)


def accept(collector: "FaultyCollector", connection: socket.socket, request: Request) -> None:
    """Stores and acknowledges."""
    collector.store(request.items)
    answer(connection, 200, PROTOBUF)


def status(code: int, *headers: tuple[str, str], body: bytes = b"") -> Behaviour:
    """Answers with a status and stores nothing."""
    return lambda _, connection, __: answer(connection, code, *headers, body=body)


def reject(count: int) -> Behaviour:
    """Stores all but the last items, and says so."""

    def behave(collector: "FaultyCollector", connection: socket.socket, request: Request) -> None:
        collector.store(request.items[: max(0, len(request.items) - count)])
        answer(connection, 200, PROTOBUF, body=partial_success(request.path, count))

    return behave


def reset(_: "FaultyCollector", connection: socket.socket, __: Request) -> None:
    """Closes the connection with a reset instead of an answer."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    connection.close()


def hang_up(_: "FaultyCollector", connection: socket.socket, __: Request) -> None:
    """Closes the connection instead of an answer."""
    connection.close()


def silent(collector: "FaultyCollector", _: socket.socket, __: Request) -> None:
    """Never answers."""
    collector.ended.wait(60)


def drip(data: bytes, seconds: float = 0.2, head: bytes = b"") -> Behaviour:
    """Sends an answer byte by byte after its head, without an end in time."""

    def behave(collector: "FaultyCollector", connection: socket.socket, _: Request) -> None:
        connection.sendall(head)
        for number in range(len(data)):
            if collector.ended.wait(seconds):
                return
            connection.sendall(data[number : number + 1])

    return behave


def raw(data: bytes) -> Behaviour:
    """Sends bytes that need not be HTTP, and closes."""

    def behave(_: "FaultyCollector", connection: socket.socket, __: Request) -> None:
        connection.sendall(data)
        connection.close()

    return behave


@dataclass
class FaultyCollector:
    """Serves on a free loopback port while its `with` block runs.

    Attributes:
        script: What to do with the next requests, in this order; `then` for all after them.
        then: What to do when the script is over.
        stored: How often each item was acknowledged, by its ID.
        requests: Every request that was read whole.
        connections: How many connections were accepted.
        context: Makes it speak TLS.
        port: Where it listens; the system chooses when 0.
    """

    script: list[Behaviour] = field(default_factory=list)
    then: Behaviour = accept
    context: ssl.SSLContext | None = None
    port: int = 0
    stored: dict[str, int] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    ended: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> "FaultyCollector":
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=64)
        self.port = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            connection.close()

    @property
    def endpoint(self) -> str:
        """The value for `OTEL_EXPORTER_OTLP_ENDPOINT`."""
        return f"{'https' if self.context else 'http'}://127.0.0.1:{self.port}"

    def store(self, items: Iterable[str]) -> None:
        """Remembers items as acknowledged."""
        with self.lock:
            for item in items:
                self.stored[item] = self.stored.get(item, 0) + 1

    def wait_for(self, condition: Callable[[], Any], seconds: float = 10.0) -> bool:
        """Waits until a condition holds, at most so long; returns whether it does."""
        until = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > until:
                return False
            time.sleep(0.005)
        return True

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            if self.context is not None:
                connection = self.context.wrap_socket(connection, server_side=True)
                self._open.append(connection)
            rest = b""
            while (found := _read(connection, rest)) is not None:
                request, rest = found
                with self.lock:
                    self.requests.append(request)
                    behaviour = self.script.pop(0) if self.script else self.then
                behaviour(self, connection, request)
        except (OSError, ValueError):  # ValueError: TLS, closed at the end of the `with` block
            pass
        finally:
            connection.close()


def _read(connection: socket.socket, data: bytes) -> tuple[Request, bytes] | None:
    """Reads one request; None when the connection ends before."""
    while b"\r\n\r\n" not in data:
        if not (chunk := connection.recv(65536)):
            return None
        data += chunk
    head, _, rest = data.partition(b"\r\n\r\n")
    found = _LENGTH.search(head)
    length = int(found[1]) if found else 0
    while len(rest) < length:
        if not (chunk := connection.recv(1 << 20)):
            return None
        rest += chunk
    lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    target = lines[0].split()[1]
    path = "/" + target.partition("//")[2].partition("/")[2] if "//" in target else target
    body = _plain(headers.get("content-encoding", ""), rest[:length])
    items = tuple(_DECODERS[path](body)) if path in _DECODERS else ()
    return Request(path, headers, body, items, target), rest[length:]


def _plain(encoding: str, body: bytes) -> bytes:
    if encoding == "gzip":
        return gzip.decompress(body)
    return zlib.decompress(body) if encoding == "deflate" else body
