"""OTLP over HTTP: one kept connection, one hard deadline per attempt, no redirects.

It speaks HTTP/1.1 on a socket of its own: the libraries bound each operation on a socket, not an attempt as a
whole, so that an endpoint that sends a byte per second would hold them for hours.
"""

import gzip
import hashlib
import http.client
import io
import socket
import ssl
import zlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from sightline_processors.export import reasons
from sightline_processors.export.answers import MAX_BODY_BYTES, verdict_of_http
from sightline_processors.export.reasons import Signal
from sightline_processors.export.sockets import Answer, Deadline, connect, is_quiet, receive, send
from sightline_processors.export.verdicts import Destination, Retry, Verdict

_PORTS: Final = {"http": 80, "https": 443}
_MOST_HEADERS: Final = 100
"""More of them `http.client` refuses."""
_COMPONENTS: Final[dict[Signal, str]] = {
    "traces": "otlp_http_span_exporter",
    "metrics": "otlp_http_metric_exporter",
    "logs": "otlp_http_log_exporter",
}


@dataclass(frozen=True, slots=True)
class HttpEndpoint:
    """Says where and how to post; credentials are not in its `repr`.

    Attributes:
        url: `http` or `https`, without user information.
        headers: Names and values, the content type and a content encoding included.
        timeout_seconds: Longest time of one attempt.
        compression: `none`, `gzip` or `deflate`.
        verify: File or folder of the certificate authorities that are trusted; empty for those of `certifi`.
        client_certificate: File of the client's certificate and of its key, each empty where there is none.
        proxy: URL of the HTTP proxy; empty where there is none.
        proxy_headers: Names and values for the proxy.
    """

    url: str
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    timeout_seconds: float = 10.0
    compression: str = "none"
    verify: str = ""
    client_certificate: tuple[str, str] = ("", "")
    proxy: str = field(default="", repr=False)
    proxy_headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)


class HttpTransport:
    """Posts the requests of one signal to one URL; see `verdicts.Transport`.

    Args:
        signal: What the URL takes.
        endpoint: Where and how.

    Raises:
        ValueError: When URL or headers cannot be sent.
    """

    def __init__(self, signal: Signal, endpoint: HttpEndpoint) -> None:
        parts = urlsplit(endpoint.url)
        if parts.scheme not in _PORTS or not parts.hostname:
            raise ValueError("an OTLP endpoint must be an http or https URL")
        host = parts.netloc.rpartition("@")[2]
        self._address, self._port = parts.hostname, parts.port or _PORTS[parts.scheme]
        self.destination = Destination(
            signal,
            f"{parts.scheme}://{host}{parts.path}",
            hashlib.sha256(endpoint.url.encode()).hexdigest(),
            _COMPONENTS[signal],
            self._address,
            self._port,
            endpoint.timeout_seconds,
        )
        self._settings = endpoint
        self._is_secure = parts.scheme == "https"
        if self._is_secure:
            self._tls_context = _import_tls_context()
        self._proxy = urlsplit(endpoint.proxy) if endpoint.proxy else None
        self._head = _head(endpoint, is_absolute=self._proxy is not None and not self._is_secure)
        self._connection: socket.socket | None = None
        self._opened: list[socket.socket] = []
        self._is_aborted = False

    def forget(self) -> None:
        """Leaves the connection to the process above, in one that was forked from it."""
        self._is_aborted = False
        self.close()

    def close(self) -> None:
        """Closes the connection; the next attempt opens a new one."""
        for connection in (*self._opened, *filter(None, [self._connection])):
            with suppress(OSError):
                connection.close()
        self._connection = None
        self._opened = []

    def abort(self) -> None:
        """Ends an attempt that is under way in another thread, for good."""
        self._is_aborted = True
        for connection in (*self._opened, *filter(None, [self._connection])):
            with suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)  # TLS itself would go on in clear text

    def post(self, request: bytes, seconds: float) -> Verdict:
        """Sends one encoded request; returns within the seconds and never raises."""
        try:
            return self._post(request, Deadline(seconds))
        except TimeoutError:
            self.close()
            return Retry(reasons.TIMEOUT, detail=f"{seconds:.3g} s")
        except Exception as error:  # noqa: BLE001  whatever the network, TLS or the parser of answers raises
            self.close()
            return Retry(reasons.UNREACHABLE, detail=_cause_of(error))

    def _post(self, request: bytes, deadline: Deadline) -> Verdict:
        body = _compressed(request, self._settings.compression)
        message = (b"%scontent-length: %d\r\n\r\n" % (self._head, len(body)), body)  # not a copy of it all
        if self._connection is not None and is_quiet(self._connection):
            try:
                return self._exchange(self._connection, message, deadline)
            except ConnectionError:
                if self._is_aborted:
                    raise
                # The other side has closed what was kept: once more, on a new connection.
        self.close()
        return self._exchange(self._connect(deadline), message, deadline)

    def _exchange(
        self, connection: socket.socket, message: tuple[bytes, bytes], deadline: Deadline
    ) -> Verdict:
        broken: OSError | None = None
        try:
            send(connection, message, deadline)
        except ConnectionError as error:
            broken = error  # an endpoint may answer, with a refusal, before it has read everything
        try:
            first = receive(connection, deadline)
            acknowledgement = None if broken else _acknowledgement(first)
            if acknowledgement is not None:
                return verdict_of_http(self.destination.signal, http.client.OK, *acknowledgement)
            response = _Response(connection, deadline, first)
            body = response.read_body()
        except (ConnectionError, http.client.HTTPException) as error:
            raise broken or error from None
        if broken is not None or response.will_close or not response.isclosed():
            self.close()
        headers = {name.lower(): value for name, value in response.headers.items()}
        return verdict_of_http(self.destination.signal, response.status, headers, body)

    def _connect(self, deadline: Deadline) -> socket.socket:
        if self._proxy is not None:
            port = self._proxy.port or _PORTS["http"]
            connection = connect(str(self._proxy.hostname), port, deadline, self._opened)
        else:
            connection = connect(self._address, self._port, deadline, self._opened)
        try:
            if self._is_secure:
                connection = self._secured(connection, deadline)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        self._opened = []
        return connection

    def _secured(self, connection: socket.socket, deadline: Deadline) -> ssl.SSLSocket:
        if self._proxy is not None:
            self._ask_for_tunnel(connection, deadline)
        context = self._tls_context(self._settings.verify, self._settings.client_certificate)
        connection.settimeout(deadline.left())
        secured = context.wrap_socket(
            connection, server_hostname=self._address, do_handshake_on_connect=False
        )
        self._opened = [secured]
        secured.settimeout(deadline.left())
        secured.do_handshake()
        return secured

    def _ask_for_tunnel(self, connection: socket.socket, deadline: Deadline) -> None:
        host = f"[{self._address}]" if ":" in self._address else self._address
        target = f"{host}:{self._port}"
        lines = [f"CONNECT {target} HTTP/1.1", f"host: {target}", *_lines(self._settings.proxy_headers)]
        send(connection, ["\r\n".join([*lines, "", ""]).encode("latin-1")], deadline)
        response = _Response(connection, deadline, receive(connection, deadline))
        response.begin()
        if response.status != http.client.OK:
            raise ConnectionRefusedError(f"the proxy answered {response.status}")


class _Response(http.client.HTTPResponse):
    """Reads one answer by a deadline."""

    def __init__(self, connection: socket.socket, deadline: Deadline, first: bytes) -> None:
        answer: Any = Answer(connection, deadline, first)
        super().__init__(answer, method="POST")

    def read_body(self) -> bytes:
        """Reads head and body, of the body at most `MAX_BODY_BYTES` + 1 bytes.

        Raises:
            OSError: When the connection breaks or the deadline passes.
            http.client.HTTPException: When the answer is not HTTP, or ends early.
        """
        self.begin()
        body = self.read(MAX_BODY_BYTES + 1)
        if self.length and len(body) <= MAX_BODY_BYTES:
            raise http.client.IncompleteRead(b"", self.length)
        return body


def _acknowledgement(received: bytes) -> tuple[dict[str, str], bytes] | None:
    """Returns headers and body of a plain 200 that is here as a whole; None for whatever else it may be.

    That is what a collector answers to nearly every request, and `http.client` takes 0.4 ms of the requests'
    time to read it; it reads all other answers.
    """
    head, end, body = received.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    fields = [line.partition(":") for line in lines]
    headers = {name.lower(): value.lstrip(" \t") for name, _, value in fields}
    if (
        end
        and status.startswith("HTTP/1.1 200 ")
        and head.count(b"\r") == head.count(b"\n") == len(headers) == len(lines) < _MOST_HEADERS
        and all(colon and name.isascii() and name.replace("-", "").isalnum() for name, colon, _ in fields)
        and headers.keys().isdisjoint(("connection", "transfer-encoding"))
        and headers.get("content-length") == str(len(body))
    ):
        return headers, body
    return None


def _head(endpoint: HttpEndpoint, *, is_absolute: bool) -> bytes:
    """Returns request line and headers, all that does not depend on the body.

    Raises:
        ValueError: When a header cannot be sent.
    """
    parts = urlsplit(endpoint.url)
    target = parts.path or "/"
    if parts.query:
        target = f"{target}?{parts.query}"
    host = parts.netloc.rpartition("@")[2]
    if is_absolute:
        target = f"{parts.scheme}://{host}{target}"
    headers = {name.lower(): value for name, value in endpoint.headers}
    headers.setdefault("host", host)
    if is_absolute:
        headers.update({name.lower(): value for name, value in endpoint.proxy_headers})
    lines = [f"POST {target} HTTP/1.1", *_lines(headers.items())]
    if any(set("\r\n\0") & set(line) for line in lines):
        raise ValueError("a header of an OTLP endpoint holds a line break")
    return "\r\n".join([*lines, ""]).encode("latin-1")


def _lines(headers: Iterable[tuple[str, str]]) -> list[str]:
    return [f"{name}: {value}" for name, value in headers]


def _compressed(request: bytes, compression: str) -> bytes:
    if compression == "gzip":
        return gzip.compress(request, compresslevel=6, mtime=0)
    if compression == "deflate":
        return zlib.compress(request)
    return request


def _import_tls_context() -> Callable[[str, tuple[str, str]], ssl.SSLContext]:
    from sightline_processors.export.tls import tls_context  # noqa: PLC0415  imports `requests`, a tenth of a start

    return tls_context


def _cause_of(error: Exception) -> str:
    """Returns the class of an error, and what the system or TLS says about it."""
    text = getattr(error, "verify_message", None) or getattr(error, "strerror", None)
    name = type(error).__qualname__
    return f"{name}: {text}" if text and isinstance(error, OSError | io.UnsupportedOperation) else name
