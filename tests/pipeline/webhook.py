"""Somebody who is told: an HTTP server on loopback to which Alertmanager POSTs."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from .otlp_payloads import Json


class Webhook:
    """Takes notifications and keeps them, in the order in which they came."""

    def __init__(self) -> None:
        notified: list[Json] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                notified.append(body | {"at": datetime.now(UTC).isoformat()})
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._notified = notified
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/"

    def close(self) -> None:
        """Ends the server."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def alerts(self, name: str, status: str) -> Iterator[Json]:
        """Yields alerts of a name that were told of as `firing` or `resolved`; `at` says when."""
        for notification in list(self._notified):
            for alert in notification["alerts"]:
                if (alert["labels"]["alertname"], alert["status"]) == (name, status):
                    yield alert | {"at": notification["at"]}

    def told(self) -> set[tuple[str, str]]:
        """Returns names and statuses of all alerts that were told of."""
        return {
            (alert["labels"]["alertname"], alert["status"])
            for notification in list(self._notified)
            for alert in notification["alerts"]
        }
