"""The receiver of every variant: a process of its own that answers as their back ends do, and counts.

It listens on loopback, over HTTP and, where a certificate is given, over TLS as well. `/counts` answers with
what has arrived, `/reset` starts anew.
"""

import argparse
import asyncio
import gzip
import json
import socket
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs

import uvicorn
from benchmarks.intake import Intake

OTLP_ANSWER: Final = (b"application/x-protobuf", b"")
JSON: Final = b"application/json"

DATADOG_INFO: Final = {
    "version": "7.70.0",
    "endpoints": ["/v0.4/traces", "/v0.5/traces", "/telemetry/proxy/"],
    "client_drop_p0s": False,
}
NEWRELIC_ANSWERS: Final[Mapping[str, Any]] = {
    "preconnect": {"redirect_host": "localhost"},
    "connect": {"agent_run_id": "1", "collect_traces": True, "collect_errors": True, "messages": []},
    "get_agent_commands": [],
}
"""What New Relic's collector says; null to all other methods."""

ANSWERS: Final[Mapping[str, tuple[bytes, bytes]]] = {
    "/v1/": OTLP_ANSWER,
    "/info": (JSON, json.dumps(DATADOG_INFO).encode()),
    "/v0.4/traces": (JSON, b'{"rate_by_service":{}}'),
    "/v0.5/traces": (JSON, b'{"rate_by_service":{}}'),
    "/": (JSON, b"{}"),
}
"""Content type and body by the beginning of the path; the first that fits."""


class Sink:
    """An ASGI application.

    Attributes:
        intake: What has arrived since the last reset.
    """

    def __init__(self) -> None:
        self.intake = Intake()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answers one request, once it has been counted: what is acknowledged is in the counts."""
        body = await _body(receive)
        kind, answer = self._answer(scope, body)
        headers = [(b"content-type", kind), (b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    def _answer(self, scope: Any, body: bytes) -> tuple[bytes, bytes]:
        path = scope["path"]
        if path == "/counts":
            return JSON, json.dumps(self.intake.counts()).encode()
        if path == "/reset":
            self.intake = Intake()
            return JSON, b"{}"
        method = None
        if path == "/agent_listener/invoke_raw_method":
            method = parse_qs(scope["query_string"].decode())["method"][0]
            path = f"/newrelic/{method}"
        self.intake.add(path, _decompressed(dict(scope["headers"]), body))
        if method is not None:
            return JSON, json.dumps({"return_value": NEWRELIC_ANSWERS.get(method)}).encode()
        return next(answer for prefix, answer in ANSWERS.items() if path.startswith(prefix))


async def _body(receive: Any) -> bytes:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


def _decompressed(headers: Mapping[bytes, bytes], body: bytes) -> bytes:
    encoding = headers.get(b"content-encoding", b"").lower()
    if encoding == b"gzip":
        return gzip.decompress(body)
    return zlib.decompress(body) if encoding == b"deflate" else body


async def _serve(app: Sink, listener: socket.socket, certificates: Path | None) -> None:
    tls = {}
    if certificates is not None:
        tls = {"ssl_certfile": certificates / "server.pem", "ssl_keyfile": certificates / "server.key"}
    options: dict[str, Any] = {
        "log_level": "warning",
        "access_log": False,
        "lifespan": "off",
        "ws": "none",
        **tls,
    }
    await uvicorn.Server(uvicorn.Config(app, **options)).serve(sockets=[listener])


def _listener() -> socket.socket:
    listener = socket.create_server(("127.0.0.1", 0))
    # Head and body of an answer leave as two segments: without this the second waits 40 ms for the first.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


async def _serve_all(certificates: Path | None) -> None:
    app = Sink()
    servers = [(_listener(), None)] + ([] if certificates is None else [(_listener(), certificates)])
    print(json.dumps([listener.getsockname()[1] for listener, _ in servers]), flush=True)
    await asyncio.gather(*(_serve(app, *server) for server in servers))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--certificates", type=Path, help="folder with server.pem and server.key")
    asyncio.run(_serve_all(parser.parse_args().certificates))
