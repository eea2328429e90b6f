"""What the requests of one connection share: how they are named, whom they come from, how they end.

A connection repeats method, scheme, addresses, Host and User-Agent with each request. What follows from these
is worked out once, the OTLP bytes included, and remembered by them. The number of what is remembered is
bounded, and so is its size: a request with long headers gets facts of its own.
"""

from collections.abc import Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from sightline import names
from sightline.attributes import OTHER_METHOD, asked_authority, protocol_version_of
from sightline.names import SCOPE_MOUNTS, SCOPE_ROUTE
from sightline.outcome import Outcome, span_name
from sightline.proxies import Hop, client_hop
from sightline.request_metrics import ActiveCount, RequestRecording
from sightline.routes import route_template
from sightline.span_bytes import attributes_bytes, client_bytes, server_bytes
from sightline.types import RawHeader, Scope

if TYPE_CHECKING:
    from sightline.recorder import Recorder

MAX_REMEMBERED: Final = 1024
"""Facts that are remembered; when there are more, all are forgotten and made anew."""
MAX_ENDINGS: Final = 10_000
"""Endings that are remembered for all of them together."""
MAX_HEADER_BYTES: Final = 300
"""Host and User-Agent headers up to this size are remembered."""

SERVER_ERROR: Final = 500


class Ending:
    """How a request of a connection ended: its outcome, and the bytes of its span but for its own values.

    Attributes:
        outcome: What all requests with the outcome share.
        reason: `sightline.end_reason`.
        span_bytes: Name, kind and attributes but for those of the client, as OTLP fields.
        recording: Takes the measurements.
        is_buffered: Whether it takes them by the hundred, and nothing else takes them one by one.
        active: Where the end is counted; None where an instrument counts it.
    """

    __slots__ = ("_alive", "active", "is_buffered", "outcome", "reason", "recording", "span_bytes")

    def __init__(
        self,
        outcome: Outcome,
        reason: str,
        span_bytes: bytes,
        recording: RequestRecording,
        shared: "SharedFacts",
        alive: tuple[Any, ...],
    ) -> None:
        self.active: ActiveCount | None = shared.active
        self.is_buffered = (
            recording.is_buffered and shared.active is not None and shared.recorder.old_metrics is None
        )
        self.outcome = outcome
        self.reason = reason
        self.span_bytes = span_bytes
        self.recording = recording
        self._alive = alive  # so that no other route gets the identity that this is remembered by


class SharedFacts:
    """Holds what follows from method, scheme, protocol version and server; never changed but for `endings`.

    Attributes:
        recorder: Of the application.
        method: From the known set, or `_OTHER`.
        scheme: What the client used: `http`, `https`, `ws`, `wss` or `_OTHER`.
        correlation_header: The name of the one that responses carry.
        early_name: The span's name before a route is known.
        is_usual: Whether the bytes say all of the attributes.
        active: Counts active requests; None where an instrument does.
        endings: By route, status, reason and error type.
        is_plain: Whether nobody looks at responses, and nothing is learnt from the sending of a short one.
        pending: The requests that wait for their recording.
        send_raises: Whether the server's `send` tells by raising that the client is gone.
    """

    __slots__ = (
        "_protocol_version",
        "_server_bytes",
        "active",
        "correlation_header",
        "early_name",
        "endings",
        "is_plain",
        "is_usual",
        "method",
        "pending",
        "recorder",
        "scheme",
        "send_raises",
    )

    def __init__(self, recorder: "Recorder", scope: Scope, hop: Hop, authority: str | None) -> None:
        method = scope.get("method", "GET")
        self.recorder = recorder
        self.method = method if method in recorder.options.methods else OTHER_METHOD
        self.scheme = hop.scheme
        self.early_name = span_name(self.method, None)
        self.is_usual = method == self.method and recorder.old_metrics is None
        active = recorder.requests.active if scope["type"] == "http" else None
        self.active: ActiveCount | None = None if active is None else active.count_of(self.method, hop.scheme)
        self.endings: dict[tuple[Any, ...], Ending] = {}
        self.send_raises = _spec_version(scope) >= _RAISING_VERSION
        self.is_plain = (
            not self.send_raises
            and recorder.options.client_response_hook is None
            and recorder.options.captured_response_headers is None
        )
        self.correlation_header = recorder.options.correlation_headers[0]
        self.pending = recorder.requests.pending
        self._protocol_version = protocol_version_of(scope)
        self._server_bytes = server_bytes(authority, hop.scheme, scope.get("server"))

    def ending(self, scope: Scope, status_code: int | None, reason: str, error_type: str | None) -> Ending:
        """Returns how a request ended.

        Args:
            scope: The ASGI scope that was dispatched last.
            status_code: Of the response, or None where none was sent.
            reason: `sightline.end_reason`.
            error_type: From a bounded set, or None; a status of 500 or more is an error by itself.
        """
        # Written out, because it is on the way of every request.
        try:
            route, of_fastapi, root = _routing_of(scope)
            included = of_fastapi.get("effective_route_context")
        except (KeyError, AttributeError):  # nothing was found, or by something else than FastAPI
            route, root, included = scope.get("route"), scope.get("root_path"), None
        key: tuple[Any, ...] = (id(route), id(included), root, status_code, reason, error_type)
        if SCOPE_ROUTE in scope or SCOPE_MOUNTS in scope:
            key = (*key, id(scope.get(SCOPE_ROUTE)), scope.get(SCOPE_MOUNTS))
        found = self.endings.get(key)
        if found is None:
            alive = (route, scope.get(SCOPE_ROUTE), included)
            found = self._ending(scope, status_code, reason, error_type, alive)
            self.recorder.remembered_endings += 1
            if self.recorder.remembered_endings > MAX_ENDINGS:
                self.recorder.forget()
                self.endings.clear()
            self.endings[key] = found
        return found

    def _ending(
        self,
        scope: Scope,
        status_code: int | None,
        reason: str,
        error_type: str | None,
        alive: tuple[Any, ...],
    ) -> Ending:
        if error_type is None and status_code is not None and status_code >= SERVER_ERROR:
            error_type = str(status_code)
        outcome = self.recorder.outcome(
            self.method,
            self.scheme,
            self._protocol_version,
            route_template(scope),
            status_code,
            error_type,
        )
        reason_bytes = attributes_bytes({names.END_REASON: reason})
        span_bytes = outcome.name_bytes + outcome.attribute_bytes + self._server_bytes + reason_bytes
        return Ending(outcome, reason, span_bytes, self.recorder.recording(outcome), self, alive)


_routing_of = itemgetter("route", "fastapi", "root_path")

_FROM_SCOPE: Final = ("type", "method", "http_version", "scheme", "client", "server")
_FROM_HEADERS: Final = frozenset({b"host", b"user-agent"})


_RAISING_VERSION: Final = (2, 4)


def _spec_version(scope: Scope) -> tuple[int, ...]:
    """Returns the version of the ASGI HTTP specification that the server speaks, the oldest if silent."""
    version = str(scope.get("asgi", {}).get("spec_version", "2.0"))
    return tuple(int(part) for part in version.split(".") if part.isdecimal())


class RequestFacts:
    """Holds what follows from a connection and the headers that it repeats.

    Attributes:
        shared: What other connections have too.
        hop: The client as seen through the trusted proxies.
        scope: What the facts follow from, as an ASGI scope.
        headers: Host and User-Agent as `(name, value)` byte pairs, as often as they were sent.
        client_bytes: Peer, client and user agent, as OTLP fields.
    """

    __slots__ = ("client_bytes", "headers", "hop", "scope", "shared")

    def __init__(self, shared: SharedFacts, scope: Scope, headers: Sequence[RawHeader], hop: Hop) -> None:
        self.shared = shared
        self.hop = hop
        self.scope: Scope = {name: scope[name] for name in _FROM_SCOPE if name in scope}
        self.headers = [(name, value) for name, value in headers if name in _FROM_HEADERS]
        agents = [value for name, value in self.headers if name == b"user-agent"]
        self.client_bytes = client_bytes(scope.get("client"), hop.address, agents[0] if agents else None)


def facts_of(
    recorder: "Recorder", scope: Scope, headers: Sequence[RawHeader], by_name: dict[bytes, bytes]
) -> RequestFacts:
    """Returns the facts of a request that are not at hand.

    Args:
        recorder: Of the application; remembers them by Host, User-Agent and connection.
        scope: The ASGI scope as the server gave it.
        headers: `(name, value)` byte pairs, names lower-case.
        by_name: The headers by name.
    """
    host, agent = by_name.get(b"host"), by_name.get(b"user-agent")
    hop = client_hop(scope, headers, recorder.options.settings.trusted_proxies)
    is_single = len(by_name) == len(headers)
    authority = asked_authority(headers, hop.host)
    found = RequestFacts(_shared_facts(recorder, scope, hop, authority), scope, headers, hop)
    is_small = len(host or b"") + len(agent or b"") <= MAX_HEADER_BYTES
    # Behind proxies that are trusted, a client is known by more than its connection.
    if is_single and is_small and not recorder.options.settings.trusted_proxies:
        try:
            _remember(recorder.facts, (host, agent, connection_of(scope)), found)
        except (KeyError, TypeError):  # a server that gives its addresses as lists, or leaves out what it may
            return found
    return found


def _shared_facts(recorder: "Recorder", scope: Scope, hop: Hop, authority: str | None) -> SharedFacts:
    if authority is not None and len(authority) > MAX_HEADER_BYTES:
        authority = None  # not valid, and too long to remember
    bound = scope.get("server")
    key = (authority, hop.scheme, scope.get("method"), scope.get("http_version"), scope["type"])
    key = (*key, *(bound or ()))
    found = recorder.shared_facts.get(key)
    if found is None:
        found = SharedFacts(recorder, scope, hop, authority)
        _remember(recorder.shared_facts, key, found)
    return found


def _remember(facts: dict[tuple[Any, ...], Any], key: tuple[Any, ...], found: object) -> None:
    if len(facts) >= MAX_REMEMBERED:
        facts.clear()
    facts[key] = found


connection_of = itemgetter("client", "server", "method", "scheme", "http_version", "type")
"""Returns what a scope says of its connection; raises KeyError where the server leaves it out."""
