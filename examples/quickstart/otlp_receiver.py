"""A receiver for OTLP over http/protobuf on loopback, kept in memory and bounded.

It stands in for the collector where only Python is installed: `make demo` prints from it, and tests
assert on it. Nothing is authenticated, so it listens on loopback only.
"""

import gzip
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

MAX_BODY_BYTES: Final = 8 * 1024 * 1024
MAX_ITEMS: Final = 10_000
"""Bound of each signal; the oldest items go first."""


@dataclass(frozen=True, slots=True)
class Item:
    """One span, metric or log record, with the resource that sent it.

    Attributes:
        resource: Resource attributes.
        scope: Name of the instrumentation scope.
        data: The protobuf message (`Span`, `Metric` or `LogRecord`).
    """

    resource: dict[str, Any]
    scope: str
    data: Any


def attributes(pairs: Any) -> dict[str, Any]:
    """Returns OTLP key-value pairs as a dictionary."""
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        pairs: list[KeyValue] = list(value.kvlist_value.values)
        return {pair.key: _value(pair.value) for pair in pairs}
    return getattr(value, kind) if kind else None


@dataclass
class Store:
    """Holds the last `MAX_ITEMS` items of each signal; safe from any thread."""

    spans: deque[Item] = field(default_factory=lambda: deque(maxlen=MAX_ITEMS))
    metrics: deque[Item] = field(default_factory=lambda: deque(maxlen=MAX_ITEMS))
    logs: deque[Item] = field(default_factory=lambda: deque(maxlen=MAX_ITEMS))

    def add(self, path: str, body: bytes) -> None:
        """Decodes one export request.

        Raises:
            DecodeError: When the body is not the message that the path asks for.
            KeyError: When the path is not one of OTLP.
        """
        routes: dict[str, tuple[deque[Item], Callable[[], Iterator[Item]]]] = {
            "/v1/traces": (self.spans, lambda: _spans(ExportTraceServiceRequest.FromString(body))),
            "/v1/metrics": (self.metrics, lambda: _metrics(ExportMetricsServiceRequest.FromString(body))),
            "/v1/logs": (self.logs, lambda: _logs(ExportLogsServiceRequest.FromString(body))),
        }
        target, decode = routes[path]
        target.extend(decode())


def _spans(request: ExportTraceServiceRequest) -> Iterator[Item]:
    for resource in request.resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Item(attributes(resource.resource.attributes), scope.scope.name, span)


def _metrics(request: ExportMetricsServiceRequest) -> Iterator[Item]:
    for resource in request.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                yield Item(attributes(resource.resource.attributes), scope.scope.name, metric)


def _logs(request: ExportLogsServiceRequest) -> Iterator[Item]:
    for resource in request.resource_logs:
        for scope in resource.scope_logs:
            for record in scope.log_records:
                yield Item(attributes(resource.resource.attributes), scope.scope.name, record)


class OtlpReceiver:
    """Serves OTLP on a free loopback port while its `with` block runs.

    Attributes:
        store: What has arrived.
        endpoint: The value for `OTEL_EXPORTER_OTLP_ENDPOINT`.
    """

    def __init__(self, port: int = 0) -> None:
        self.store = Store()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), _handler(self.store))
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> "OtlpReceiver":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler(store: Store) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            if length > MAX_BODY_BYTES:
                self._answer(413)
                self.close_connection = True
                return
            body = self.rfile.read(length)
            try:
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                store.add(self.path, body)
            except KeyError:
                self._answer(404)
            except (DecodeError, OSError, EOFError):
                self._answer(400)
            else:
                self._answer(200)

        def _answer(self, status: int) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Keeps quiet: the demo's output is the point."""

    return Handler
