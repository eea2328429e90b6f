"""The bytes of the attributes that a request's span carries, made once where requests share them.

Each function returns whole `Span.attributes` fields (OTLP, field 9), ready to be joined. Values of clients
are bounded; what is cached is bounded in number and forgotten as a whole when the bound is reached.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from opentelemetry.semconv.attributes.network_attributes import NETWORK_PEER_PORT
from opentelemetry.semconv.attributes.url_attributes import URL_PATH, URL_QUERY
from opentelemetry.semconv.attributes.user_agent_attributes import USER_AGENT_ORIGINAL
from opentelemetry.util.types import AnyValue

from sightline import names
from sightline.attributes import MAX_VALUE_CHARACTERS, bounded_text, peer_attributes, server_attributes
from sightline_processors.otlp import wire
from sightline_processors.otlp.attributes import text_head
from sightline_processors.otlp.values import encode_key

MAX_CACHED: Final = 1024
TABLE: Final = 256
"""Lengths whose prefix is at hand; longer values get theirs made."""


_fields = wire.attribute_fields(wire.SPAN_ATTRIBUTES)


class TextAttribute:
    """Encodes the values of one attribute; what stands before the value depends on its length alone.

    Attributes:
        prefixes: By the length of the value, below `TABLE`.
    """

    __slots__ = ("_key", "prefixes")

    def __init__(self, key: str) -> None:
        self._key = encode_key(key)
        self.prefixes = [text_head(wire.SPAN_ATTRIBUTES, self._key, length) for length in range(TABLE)]

    def encode(self, value: bytes) -> bytes:
        """Returns the field for a value; beyond the bound it is cut, and beyond ASCII read as Latin-1."""
        if len(value) < TABLE and value.isascii():
            return self.prefixes[len(value)] + value
        return self.encode_text(value[:MAX_VALUE_CHARACTERS].decode("latin-1"))

    def encode_text(self, text: str) -> bytes:
        """Returns the field for a text; beyond the bound it is cut."""
        value = bounded_text(text).encode()
        return text_head(wire.SPAN_ATTRIBUTES, self._key, len(value)) + value


url_path = TextAttribute(URL_PATH)
url_query = TextAttribute(URL_QUERY)
correlation_id = TextAttribute(names.CORRELATION_ID)
user_agent = TextAttribute(USER_AGENT_ORIGINAL)


def attributes_bytes(attributes: Mapping[str, AnyValue]) -> bytes:
    """Returns the fields of some attributes."""
    parts: list[bytes] = []
    _fields.append_to(parts, attributes)
    return b"".join(parts)


@lru_cache(MAX_CACHED)
def _addresses_bytes(peer: object, client: str | None) -> bytes:
    return attributes_bytes(peer_attributes(peer, None, client))


def server_bytes(authority: str | None, scheme: str, bound: Sequence[Any] | None) -> bytes:
    """Returns the fields of `server_attributes`."""
    return attributes_bytes(server_attributes(authority, scheme, tuple(bound) if bound else None))


def client_bytes(client: Sequence[Any] | None, address: str | None, agent: bytes | None) -> bytes:
    """Returns peer, client and user agent of a request.

    Args:
        client: The socket's peer, as in the ASGI scope.
        address: The client's, as seen through the trusted proxies.
        agent: The first User-Agent header.
    """
    encoded = user_agent.encode(agent) if agent is not None else b""
    if client:
        encoded += _addresses_bytes(client[0], address)  # without the port, which each connection has anew
        if client[1]:
            encoded += _fields.encode(NETWORK_PEER_PORT, int(client[1]))
    return encoded
