"""Span and metric attributes of one HTTP request, to the letter of the semantic conventions.

Everything here is a pure function of the ASGI scope. Values that a client controls go on the span only,
bounded in length; metric attributes come from closed sets.

Source: semantic conventions v1.44.0, http-spans and http-metrics.
"""

import os
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from opentelemetry.semconv.attributes.client_attributes import CLIENT_ADDRESS
from opentelemetry.semconv.attributes.http_attributes import HTTP_REQUEST_METHOD, HTTP_REQUEST_METHOD_ORIGINAL
from opentelemetry.semconv.attributes.network_attributes import (
    NETWORK_PEER_ADDRESS,
    NETWORK_PEER_PORT,
    NETWORK_PROTOCOL_VERSION,
)
from opentelemetry.semconv.attributes.server_attributes import SERVER_ADDRESS, SERVER_PORT
from opentelemetry.semconv.attributes.url_attributes import URL_PATH, URL_QUERY, URL_SCHEME
from opentelemetry.semconv.attributes.user_agent_attributes import USER_AGENT_ORIGINAL

from sightline.types import Attributes, RawHeader, Scope

if TYPE_CHECKING:
    from sightline.proxies import Hop
from sightline_processors import redact_query

MAX_VALUE_CHARACTERS: Final = 2048
"""Bound of each client-controlled attribute value; longer ones are cut."""

OTHER_METHOD: Final = "_OTHER"
KNOWN_METHODS: Final = frozenset(
    {"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"}
)
KNOWN_METHODS_VARIABLE: Final = "OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS"

DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_SCHEMES = frozenset(DEFAULT_PORTS)
_PROTOCOL_VERSIONS = {"1.0": "1.0", "1.1": "1.1", "2": "2", "2.0": "2", "3": "3", "3.0": "3"}
_AUTHORITY = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._~-]{1,253})(?::(?P<port>[0-9]{1,5}))?")
_MAX_PORT = 65535


def known_methods() -> frozenset[str]:
    """Returns the methods that keep their name; the variable replaces the whole set."""
    configured = os.environ.get(KNOWN_METHODS_VARIABLE, "")
    return frozenset(method.strip() for method in configured.split(",") if method.strip()) or KNOWN_METHODS


def bounded_text(value: str) -> str:
    """Returns a value cut to the bound and free of lone surrogates, which OTLP cannot carry."""
    return encodable(value[:MAX_VALUE_CHARACTERS])


def encodable(value: str) -> str:
    """Returns a text without lone surrogates, each of which would cost the batch that it is exported in."""
    return value if value.isascii() else value.encode("utf-8", "replace").decode("utf-8")


def header_values(headers: Sequence[RawHeader], name: bytes) -> list[str]:
    """Returns every value of a header, in order; bytes beyond ASCII are read as Latin-1."""
    return [value.decode("latin-1") for key, value in headers if key == name]


def scheme_of(scope: Scope) -> str:
    """Returns `http`, `https`, `ws` or `wss`; anything else that a server passes is `_OTHER`."""
    scheme = scope.get("scheme", "http")
    return scheme if scheme in _SCHEMES else OTHER_METHOD


def protocol_version_of(scope: Scope) -> str | None:
    """Returns `1.0`, `1.1`, `2` or `3`, or None when unknown."""
    return _PROTOCOL_VERSIONS.get(scope.get("http_version", ""))


def split_authority(authority: str) -> tuple[str, int | None] | None:
    """Splits `host:port` into an address without brackets and a port; None when it is not valid.

    Source: RFC 3986, section 3.2, without user information.
    """
    match = _AUTHORITY.fullmatch(authority)
    if match is None:
        return None
    port = int(match["port"]) if match["port"] else None
    if port is not None and port > _MAX_PORT:
        return None
    return match["host"].strip("[]"), port


def asked_authority(headers: Sequence[RawHeader], forwarded_host: str | None) -> str | None:
    """Returns the authority that the client asked for; None where it is missing or sent more than once.

    Args:
        headers: `(name, value)` byte pairs, names lower-case.
        forwarded_host: What a trusted proxy reports; goes before the Host header.
    """
    if forwarded_host:
        return forwarded_host
    hosts = header_values(headers, b"host")
    return hosts[0] if len(hosts) == 1 else None


def server_attributes(
    authority: str | None, scheme: str, bound: tuple[object, int | None] | None
) -> Attributes:
    """Returns `server.address` and `server.port`: what the client asked for, else what the server bound.

    Args:
        authority: `host` or `host:port`; one that is not valid does not count.
        scheme: Gives the default port.
        bound: The server's own address, as in the ASGI scope.
    """
    server = split_authority(authority) if authority is not None else None
    if server is None:
        if not bound:
            return {}
        server = (str(bound[0]), bound[1])
    address, port = server
    attributes: Attributes = {SERVER_ADDRESS: bounded_text(address)}
    if port is None and not address.startswith("/"):  # a Unix socket has none
        port = DEFAULT_PORTS.get(scheme)
    if port is not None:
        attributes[SERVER_PORT] = port
    return attributes


def peer_attributes(address: object, port: object, client: str | None) -> Attributes:
    """Returns the socket's peer, and the client that trusted proxies report.

    Args:
        address: Of the peer, as in the ASGI scope.
        port: Of the peer; 0 or None for none.
        client: The client's address, or None where it is not known.
    """
    attributes: Attributes = {NETWORK_PEER_ADDRESS: bounded_text(str(address))}
    if port:
        attributes[NETWORK_PEER_PORT] = int(port)  # type: ignore[call-overload]
    if client is not None:
        attributes[CLIENT_ADDRESS] = bounded_text(client)
    return attributes


def raw_path(scope: Scope) -> str:
    """Returns the path as it was sent, percent-encoding kept, without the query."""
    raw = scope.get("raw_path")
    if isinstance(raw, bytes) and raw:
        return raw.partition(b"?")[0].decode("latin-1")
    return str(scope.get("path", ""))


def full_url(scope: Scope) -> str:
    """Returns the URL that excluded-URL patterns are searched in: scheme, bound address and path.

    The address is the server's own, so that no client can exclude itself by its Host header.
    """
    host, port = scope.get("server") or ("0.0.0.0", 80)  # noqa: S104  the stock default, only matched
    authority = host if port in (80, None) else f"{host}:{port}"
    return f"{scope.get('scheme', 'http')}://{authority}{scope.get('path', '')}"


def request_attributes(
    scope: Scope,
    headers: Sequence[RawHeader],
    method: str,
    hop: "Hop",
    redact: Callable[[str], str] = redact_query,
) -> Attributes:
    """Returns the attributes that are known when the span starts, so that samplers can read them.

    Args:
        scope: ASGI scope of type `http` or `websocket`.
        headers: `(name, value)` byte pairs, names lower-case.
        method: The method from the known set, or `_OTHER`.
        hop: The client as seen through the trusted proxies.
        redact: Redacts the query string.
    """
    attributes: Attributes = {
        HTTP_REQUEST_METHOD: method,
        URL_SCHEME: hop.scheme,
        URL_PATH: bounded_text(raw_path(scope)),
    }
    original = scope.get("method", method)
    if method != original:
        attributes[HTTP_REQUEST_METHOD_ORIGINAL] = bounded_text(original)
    if query := scope.get("query_string"):
        redacted = redact(query.decode("latin-1"))
        attributes[URL_QUERY] = bounded_text(redacted)
    if version := protocol_version_of(scope):
        attributes[NETWORK_PROTOCOL_VERSION] = version
    if agents := header_values(headers, b"user-agent"):
        attributes[USER_AGENT_ORIGINAL] = bounded_text(agents[0])
    authority = asked_authority(headers, hop.host)
    attributes.update(server_attributes(authority, hop.scheme, scope.get("server")))
    if peer := scope.get("client"):
        attributes.update(peer_attributes(peer[0], peer[1], hop.address))
    return attributes
