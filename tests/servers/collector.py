"""A collector that is slow at the wrong moment and knows which process used which connection."""

import gzip
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from otlp_receiver import Store

HOLD_TIMEOUT_SECONDS: Final = 30


class SlowCollector:
    """Keeps the first export of metrics waiting for its answer until `release` is set.

    Attributes:
        store: What has arrived, the export that waits included.
        endpoint: The value for `OTEL_EXPORTER_OTLP_ENDPOINT`.
        release: Lets the first export of metrics have its answer.
        instances: The `service.instance.id`s that came over each connection.
    """

    def __init__(self) -> None:
        self.store = Store()
        self.release = threading.Event()
        self.instances: defaultdict[tuple[str, int], set[str]] = defaultdict(set)
        self._first = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> "SlowCollector":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def take(self, client: tuple[str, int], path: str, body: bytes) -> None:
        """Stores one export; returns when it may be answered."""
        arrived = Store()
        arrived.add(path, body)
        for item in (*arrived.spans, *arrived.metrics, *arrived.logs):
            self.instances[client].add(item.resource["service.instance.id"])
        self.store.add(path, body)
        if arrived.metrics and self._first.acquire(blocking=False):
            self.release.wait(HOLD_TIMEOUT_SECONDS)


def _handler(collector: SlowCollector) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            collector.take(self.client_address, self.path, body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Keeps quiet."""

    return Handler
