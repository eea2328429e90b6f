"""Who the client is, when proxies that the operator trusts stand in between.

Without `SIGHTLINE_TRUSTED_PROXIES` no forwarded header counts, and the client is the socket's peer. With it,
the client is the right-most hop that is not a trusted proxy, and scheme and host are the ones that the
trusted proxies report.

Source: RFC 7239 (Forwarded); X-Forwarded-For, -Proto and -Host as nginx and Envoy write them.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

from sightline.attributes import header_values, scheme_of
from sightline.types import RawHeader, Scope

Network = IPv4Network | IPv6Network

MAX_HOPS: Final = 32
"""Forwarded hops that are read, from the right; an attacker can only prepend."""

_SCHEMES = frozenset({"http", "https", "ws", "wss"})
_ELEMENT = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*")+')
_PAIR = re.compile(
    r'(?:^|;)\s*(?P<name>[A-Za-z]+)=(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<token>[^\s;,"]*))\s*(?=;|$)'
)


@dataclass(frozen=True, slots=True)
class Hop:
    """The client as seen through the trusted proxies.

    Attributes:
        address: The client's address; None where the server does not know its peer.
        scheme: What the client used: `http`, `https`, `ws`, `wss` or `_OTHER`.
        host: The authority that the client asked for, as a trusted proxy reports it, or None.
    """

    address: str | None
    scheme: str
    host: str | None = None


@dataclass(frozen=True, slots=True)
class _Forwarded:
    address: str
    scheme: str | None = None
    host: str | None = None


def client_hop(scope: Scope, headers: Sequence[RawHeader], trusted: Sequence[Network]) -> Hop:
    """Returns the client of a request.

    Args:
        scope: ASGI scope; `client` is what the server says, which for uvicorn may already be rewritten.
        headers: `(name, value)` byte pairs, names lower-case.
        trusted: Networks of the proxies whose headers count.
    """
    client = scope.get("client")
    direct = _direct_hop(client[0] if client else None, scope.get("scheme", "http"))
    peer = direct.address
    if not trusted or peer is None or not is_trusted(peer, tuple(trusted)):
        return direct
    scheme = direct.scheme
    found = _last_untrusted(peer, _forwarded(headers), tuple(trusted))
    return Hop(found.address, _same_kind(found.scheme, scheme), found.host)


@lru_cache(maxsize=1024)
def _direct_hop(peer: object, scheme: str) -> Hop:
    """Returns the client of a request that came without proxies."""
    return Hop(None if peer is None else str(peer), scheme_of({"scheme": scheme}))


def _last_untrusted(peer: str, hops: Sequence[_Forwarded], trusted: tuple[Network, ...]) -> _Forwarded:
    """Walks from the peer towards the client and stops at the first hop that is not a trusted proxy.

    What a hop says about itself stands in the element that the next proxy, a trusted one, has added.
    """
    found = _Forwarded(peer)
    for hop in reversed(hops[-MAX_HOPS:]):
        address = _address(hop.address)
        if address is None:  # "unknown" or an obfuscated name: the trail ends here
            return _Forwarded(found.address, hop.scheme or found.scheme, hop.host or found.host)
        found = _Forwarded(str(address), hop.scheme or found.scheme, hop.host or found.host)
        if not is_trusted(found.address, trusted):
            break
    return found


def _forwarded(headers: Sequence[RawHeader]) -> list[_Forwarded]:
    """Returns the hops that the headers name, the client's own first; none where they contradict."""
    standard = ",".join(header_values(headers, b"forwarded"))
    addresses = _list(headers, b"x-forwarded-for")
    if standard:
        elements = [_element(element) for element in _ELEMENT.findall(standard)[-MAX_HOPS:]]
        if addresses and (not elements or _address(elements[-1].address) != _address(addresses[-1])):
            return []  # a proxy writes one of the two and passes the client's other on: neither counts
        return elements
    # The proxy in front of the application writes these two; a list ends with its value.
    schemes, hosts = _list(headers, b"x-forwarded-proto"), _list(headers, b"x-forwarded-host")
    hops = [_Forwarded(address) for address in addresses[-MAX_HOPS:]] or [_Forwarded("unknown")]
    hops[-1] = _Forwarded(hops[-1].address, schemes[-1] if schemes else None, hosts[-1] if hosts else None)
    return hops


def _list(headers: Sequence[RawHeader], name: bytes) -> list[str]:
    return [item.strip() for item in ",".join(header_values(headers, name)).split(",") if item.strip()]


def _element(element: str) -> _Forwarded:
    pairs: dict[str, str] = {}
    for match in _PAIR.finditer(element):
        value = match["quoted"] if match["quoted"] is not None else match["token"]
        if pairs.setdefault(match["name"].lower(), value) != value:
            return _Forwarded("unknown")  # RFC 7239: each parameter occurs once
    return _Forwarded(pairs.get("for", "unknown"), pairs.get("proto"), pairs.get("host"))


def _same_kind(forwarded: str | None, scheme: str) -> str:
    """Returns the forwarded scheme where it is a known one, in its WebSocket form for WebSockets."""
    if forwarded is None or forwarded.lower() not in _SCHEMES:
        return scheme
    forwarded = forwarded.lower()
    if scheme in ("ws", "wss"):
        return {"http": "ws", "https": "wss"}.get(forwarded, forwarded)
    return forwarded


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """Reads `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1` and `[2001:db8::1]:80`; None for anything else."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address


@lru_cache(maxsize=1024)
def is_trusted(address: str, trusted: tuple[Network, ...]) -> bool:
    """Tells whether an address is in one of the trusted networks."""
    parsed = _address(address)
    if parsed is None:
        return False
    return any(parsed.version == network.version and parsed in network for network in trusted)
