"""How long a request waited between the proxy in front of the application and the application.

A proxy writes when it received the request, as Unix time, into `X-Request-Start` or `X-Queue-Start`. The
difference to the application's own clock is the time in the proxy's queue, on the network, in the socket's
backlog and on the event loop before the first line of Sightline ran: none of it is in the request's duration.
Both clocks are wall clocks of two machines: the value is as exact as their synchronisation.

The headers count only where the peer is one of `SIGHTLINE_TRUSTED_PROXIES`, which has to set them itself: one
that passes on what the client sent lets the client choose the value. Where the server has already put the
client's address in the place of the peer's (uvicorn's `--forwarded-allow-ips`), the peer is not known, and
there is no queue time.

Source: Heroku, "HTTP routing" (`X-Request-Start`, milliseconds); nginx `$msec` (`t=` and seconds with three
decimals); Apache mod_headers `%t` (`t=` and microseconds); New Relic, "Request queue server configuration".
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from opentelemetry.trace import SpanContext

from sightline.proxies import Network, is_trusted
from sightline.seconds_histogram import SecondsHistogram
from sightline.types import Scope
from sightline_processors.report import report

MAX_QUEUE_SECONDS: Final = 3600.0
"""Longest time that is believed; a start before it is another clock, or made up, and counts as none."""

MAX_PEERS: Final = 1024
"""Peers that are judged once for each application; when there are more, all are forgotten."""

_HEADERS: Final = (b"x-request-start", b"x-queue-start")
_START: Final = re.compile(rb"[ \t]{0,8}(?:t=)?([0-9]{10,19})(?:\.([0-9]{1,9}))?[ \t]{0,8}")
_UNIT_NS: Final = {10: 1_000_000_000, 13: 1_000_000, 16: 1_000, 19: 1}
"""Nanoseconds of one unit, by the digits that Unix time has in it from 2001 to 2286."""


def queue_time(headers_by_name: Mapping[bytes, bytes], received_unix_ns: int) -> float | None:
    """Returns how long a request waited in front of the application, 0 to `MAX_QUEUE_SECONDS` seconds.

    A start in the future is a clock that runs ahead, and gives 0. None is returned where neither header can
    be read, and for a start that is more than `MAX_QUEUE_SECONDS` ago. Whether the peer may say so is not
    asked here: `RequestQueue.seconds` does. The time that it takes does not depend on a header's length.

    Args:
        headers_by_name: The headers by name, lower-case; of one that was sent more often the last, which is
            the nearest proxy's.
        received_unix_ns: When the application received the request, Unix nanoseconds.
    """
    for name in _HEADERS:
        started_unix_ns = _unix_ns(headers_by_name[name]) if name in headers_by_name else None
        if started_unix_ns is not None:
            seconds = max(0, received_unix_ns - started_unix_ns) / 1e9
            return seconds if seconds <= MAX_QUEUE_SECONDS else None
    return None


def _unix_ns(value: bytes) -> int | None:
    """Reads `t=1700000000.123`, `1700000000123` and the like; None for anything else."""
    match = _START.fullmatch(value)
    unit_ns = _UNIT_NS.get(len(match[1])) if match is not None else None
    if match is None or unit_ns is None:
        return None
    fraction = int((match[2] or b"0").ljust(9, b"0"))
    return int(match[1]) * unit_ns + fraction * unit_ns // 1_000_000_000


class RequestQueue:
    """Reads and records what the requests of one application waited in front of it; any thread.

    Args:
        trusted: Networks of the proxies whose headers count.
        times: Takes the values.
    """

    def __init__(self, trusted: Sequence[Network], times: SecondsHistogram) -> None:
        self._trusted = tuple(trusted)
        self._peers: dict[str, bool] = {}
        self._times = times

    def seconds(
        self, scope: Scope, headers_by_name: Mapping[bytes, bytes], received_unix_ns: int
    ) -> float | None:
        """Returns `queue_time` of a request whose peer is a trusted proxy, None for others; never raises.

        Args:
            scope: The ASGI scope; `client` is the peer.
            headers_by_name: The headers by name, lower-case.
            received_unix_ns: When the application received the request, Unix nanoseconds.
        """
        try:
            client = scope.get("client")
            if not client or not self._is_proxy(client[0]):
                return None
            return queue_time(headers_by_name, received_unix_ns)
        except Exception as error:  # noqa: BLE001  fail open: a server that departs from ASGI
            report("saturation", "could not read the queue time of a request", error=error)
            return None

    def record(self, seconds: float, span_context: SpanContext, received_unix_ns: int) -> None:
        """Records the queue time of one request; never raises.

        Args:
            seconds: What `seconds` returned.
            span_context: The SERVER span's, for the exemplar.
            received_unix_ns: When the application received the request, Unix nanoseconds.
        """
        trace_id, span_id, flags = span_context[0], span_context[1], span_context[3]
        self._times.record(seconds, (trace_id, span_id, received_unix_ns, flags & 1))

    def _is_proxy(self, peer: str) -> bool:
        found = self._peers.get(peer)
        if found is None:
            if len(self._peers) >= MAX_PEERS:
                self._peers.clear()
            found = self._peers[peer] = is_trusted(peer, self._trusted)
        return found
