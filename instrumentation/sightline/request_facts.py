"""What the requests of one connection share: how they are named, whom they come from, how they end.

A connection repeats method, scheme, addresses, Host and User-Agent with each request. What follows from these
is worked out once, the OTLP bytes included, and remembered by them. The number of what is remembered is
bounded, and so is its size: a request with long headers gets facts of its own.
"""

from collections.abc import Sequence
from operator import itemgetter
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final

from sightline.access_records import has_access_log
from sightline.active_requests import ActiveCount
from sightline.attributes import OTHER_METHOD, asked_authority, protocol_version_of
from sightline.endings import (
    CLIENT_DISCONNECT,
    COMPLETED,
    EXCLUDED,
    GONE,
    NESTED,
    SERVER_ERROR,
    STREAM,
    Ending,
)
from sightline.names import SCOPE_MOUNTS, SCOPE_ROUTE
from sightline.outcome import Outcome, span_name
from sightline.proxies import Hop, client_hop
from sightline.routes import route_template
from sightline.series import process_routes
from sightline.service_levels import NEVER_NS, Judgement
from sightline.span_bytes import client_bytes, server_bytes
from sightline.types import RawHeader, Scope
from sightline_processors.sla.verdict import Verdict

if TYPE_CHECKING:
    from sightline.recorder import Recorder

MAX_REMEMBERED: Final = 1024
"""Facts that are remembered; when there are more, all are forgotten and made anew."""
MAX_ENDINGS: Final = 10_000
"""Endings that are remembered for all of them together."""
MAX_HEADER_BYTES: Final = 300
"""Host and User-Agent headers up to this size are remembered."""


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
        has_access_log: Whether the server writes a record of each request with `logging`.
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
        "has_access_log",
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
        self.has_access_log = has_access_log()
        self.correlation_header = recorder.options.correlation_headers[0]
        self.pending = recorder.requests.pending
        self._protocol_version = protocol_version_of(scope)
        self._server_bytes = server_bytes(authority, hop.scheme, scope.get("server"))

    def ending(
        self, scope: Scope, status_code: int | None, reason: str, error_type: str | None, flags: int = 0
    ) -> Ending:
        """Returns how a request ended.

        Args:
            scope: The ASGI scope that was dispatched last.
            status_code: Of the response, or None where none was sent.
            reason: `sightline.end_reason`.
            error_type: From a bounded set, or None; a status of 500 or more is an error by itself.
            flags: `STREAM`, `EXCLUDED`, `GONE`, `NESTED`.
        """
        # Written out, because it is on the way of every request; `HttpExchange._complete` has it once more,
        # but for what is nested: with the flag in the key that look-up finds nothing.
        route, root, included, inclusion = scope.get("route"), scope.get("root_path"), None, 0
        if "fastapi" in scope:
            included = scope["fastapi"].get("effective_route_context")
            inclusion = id(included)
        key: tuple[Any, ...] = (id(route), inclusion, root, status_code, reason, error_type, flags)
        if flags & NESTED:
            key = (*key, id(scope.get(SCOPE_ROUTE)), scope.get(SCOPE_MOUNTS))
        found = self.endings.get(key)
        if found is None:
            found = self._ending(scope, status_code, reason, error_type, flags, (route, included))
            self.recorder.remembered_endings += 1
            if self.recorder.remembered_endings > MAX_ENDINGS:
                self.recorder.forget()
                self.endings.clear()
            self.endings[key] = found
        return found

    def verdict_so_far(self, scope: Scope, status_code: int, clock_started_ns: int, flags: int) -> str:
        """Returns the verdict on a request as it is when the server writes its access record."""
        ending = self.ending(scope, status_code, COMPLETED, None, flags)
        is_slow = perf_counter_ns() - clock_started_ns > ending.slow_over_ns
        return ending.slow.verdict if is_slow and ending.slow is not None else ending.verdict

    def _ending(
        self,
        scope: Scope,
        status_code: int | None,
        reason: str,
        error_type: str | None,
        flags: int,
        routing: tuple[Any, Any],
    ) -> Ending:
        if status_code is not None:
            status_code = int(status_code)  # an IntEnum, where the application sends one
        if flags & GONE and reason == COMPLETED:  # for a client that no longer receives it
            reason = error_type = CLIENT_DISCONNECT
        if error_type is None and status_code is not None and status_code >= SERVER_ERROR:
            error_type = str(status_code)
        status_code = self.recorder.statuses.bounded(status_code)
        route = route_template(scope)
        if route is not None:
            process_routes.reserve(route)
        outcome = self.recorder.outcome(
            self.method, self.scheme, self._protocol_version, route, status_code, error_type
        )
        judgement = self._judgement(outcome, route, status_code, reason, flags, routing)
        alive = (*routing, scope.get(SCOPE_ROUTE))
        ending = Ending(self, outcome, reason, judgement, judgement.verdict, alive)
        if judgement.slow_over_ns != NEVER_NS:
            slow = Ending(self, outcome, reason, judgement, Verdict.SLOW, alive)
            slow.watched_over_ns = self.recorder.alert_over_ns
            ending.watch(slow, judgement.slow_over_ns, self.recorder.alert_over_ns)
        elif not flags & ~NESTED:
            ending.watched_over_ns = self.recorder.alert_over_ns
        return ending

    def _judgement(
        self,
        outcome: Outcome,
        route: str | None,
        status_code: int | None,
        reason: str,
        flags: int,
        routing: tuple[Any, Any],
    ) -> Judgement:
        levels = self.recorder.levels
        route_object, included = routing
        tags = tuple(
            str(getattr(tag, "value", tag)) for tag in getattr(included or route_object, "tags", None) or ()
        )
        catalogue = levels.objectives.catalogue
        endpoint = getattr(route_object, "endpoint", None)
        objective = levels.objective(route, self.method, tags, endpoint, catalogue)
        return levels.judgement(
            objective,
            self.method,
            route,
            status_code,
            is_error=outcome.is_error and (status_code is None or status_code < SERVER_ERROR),
            is_excluded=bool(flags & EXCLUDED) or reason == CLIENT_DISCONNECT,
            is_eligible=not flags & STREAM,
            catalogue=catalogue,
        )

    def span_bytes(self, outcome: Outcome) -> bytes:
        """Returns name, kind and attributes of the spans of requests with an outcome, as OTLP fields."""
        return outcome.name_bytes + outcome.attribute_bytes + self._server_bytes


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
