"""The back ends of the collector's benchmark: a process that takes OTLP over gRPC and HTTP, and counts spans.

It answers at once. `GET /spans` gives how many spans have arrived over gRPC, `GET /stop` closes the gRPC
port, so that a queue fills. It prints both ports, gRPC first.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import grpc  # type: ignore[import-untyped]  # grpcio has no annotations

MARK: Final = b"sightline.correlation_id"
"""Every span of the benchmark has it once; looking for it costs less than parsing."""

_SERVICE: Final = "opentelemetry.proto.collector.trace.v1.TraceService"
_LARGEST_MESSAGE_BYTES: Final = 64 * 2**20


class Spans:
    """Counts the spans that arrive; any thread."""

    def __init__(self) -> None:
        self._batches: list[int] = []

    def export(self, request: bytes, _context: grpc.ServicerContext) -> bytes:
        """Counts one request; its answer is the empty message."""
        self._batches.append(request.count(MARK))
        return b""

    def total(self) -> int:
        """Returns how many have arrived."""
        return sum(self._batches)


def grpc_server(spans: Spans) -> tuple[grpc.Server, int]:
    """Returns a running server and its port."""
    server = grpc.server(
        ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", _LARGEST_MESSAGE_BYTES)]
    )
    method = grpc.unary_unary_rpc_method_handler(spans.export)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(_SERVICE, {"Export": method})])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port


def http_server(spans: Spans, server: grpc.Server) -> ThreadingHTTPServer:
    """Returns a server that takes what Prometheus and Loki are sent, and answers about the spans."""

    class Answer(BaseHTTPRequestHandler):
        """Answers one request."""

        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            """Takes what is sent."""
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self._answer(b"", "application/x-protobuf")

        def do_GET(self) -> None:
            """Says how many spans have arrived."""
            if self.path == "/stop":
                server.stop(None)
            self._answer(json.dumps(spans.total()).encode(), "application/json")

        def _answer(self, body: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    return ThreadingHTTPServer(("127.0.0.1", 0), Answer)


def main() -> None:
    """Serves until it is ended."""
    spans = Spans()
    server, port = grpc_server(spans)
    web = http_server(spans, server)
    print(json.dumps([port, web.server_address[1]]), flush=True)
    web.serve_forever()


if __name__ == "__main__":
    main()
