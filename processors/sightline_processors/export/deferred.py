"""Stock exporters over HTTP that do without `requests` until they have to send.

`requests` and what it imports are a tenth of a start and some megabytes. A stock exporter makes its session
when it is constructed, to keep it for its first request. One that is constructed with a `DeferringTransport`
makes it when somebody looks at it; `stock` reads from the exporter where it would send, and nobody does.

Only where `requests` would add nothing of its own, such as a proxy: `requests_is_needed` tells.

The names are private: tested with opentelemetry-exporter-otlp 1.45.
"""

import os
import re
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from types import FunctionType
from typing import Any, Final

from opentelemetry.exporter.http.transport._requests import RequestsHTTPTransport

from sightline_processors.export.http_transport import HttpEndpoint

_TELLING_ENDINGS: Final = ("_PROXY", "_CERTIFICATE", "_CLIENT_KEY", "_CREDENTIAL_PROVIDER", "NETRC")
"""Of variables that `requests` or the session of a stock exporter look at."""

_AUTHORITY_VARIABLES: Final = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""They say whom `requests` trusts, where there is TLS."""

_CREDENTIAL_FILES: Final = (".netrc", "_netrc")

_PLAIN_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
_PLAIN_PORT: Final = r"(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3})"
_PLAIN_URL: Final = re.compile(
    rf"https?://{_PLAIN_LABEL}(?:\.{_PLAIN_LABEL})*(?::{_PLAIN_PORT})?(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+"
)
"""URLs that `requests` sends as they are: it resolves segments of dots, and refuses ports above 65,535."""

_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9-]+")
_HEADER_VALUE: Final = re.compile(r"(?:\S[^\r\n]*)?")

_OWN_HEADERS: Final = frozenset({"content-length", "connection", "accept-encoding"})


class DeferringTransport(RequestsHTTPTransport):
    """The transport of a stock exporter, with a session that is made when somebody looks at it.

    Attributes:
        is_closed: Whether its exporter was shut down.
    """

    def __init__(self) -> None:  # not the one above it, which makes the session
        self.is_closed = False

    @cached_property
    def _session(self) -> Any:  # type: ignore[override]  # made once, and then an attribute like the stock one
        return RequestsHTTPTransport()._session  # noqa: SLF001  see the module's docstring

    @property
    def has_session(self) -> bool:
        """Whether somebody has looked at it."""
        return "_session" in vars(self)

    def close(self) -> None:
        """Closes the session, if there is one."""
        self.is_closed = True
        if self.has_session:
            super().close()


class DeferredSessions:
    """The arguments for the exporters that the SDK constructs: stock ones over HTTP defer their session.

    Stands for the mapping by class that the SDK takes, but looks when an exporter is constructed: until
    then, the SDK's other plugins may set variables.
    """

    def __init__(self) -> None:
        self._transports: list[DeferringTransport] = []

    def get(self, cls: type, default: dict[str, Any]) -> dict[str, Any]:
        """Returns the arguments for a class of exporters; the default where its session must not wait."""
        if not _takes_transport(cls) or requests_is_needed():
            return default
        self._transports.append(DeferringTransport())
        return {"_transport": self._transports[-1]}

    def open_those_in_use(self) -> None:
        """Makes the sessions of exporters that stay: in their threads, a fork could meet the import."""
        for transport in self._transports:
            if not transport.is_closed:
                with suppress(Exception):  # what fails here fails, and is told, at its first request
                    _ = transport._session  # noqa: SLF001


def _takes_transport(cls: type) -> bool:
    """Tells whether a class is a stock exporter over HTTP, whose constructor nobody has wrapped."""
    new = vars(cls).get("__init__")
    return (
        cls.__module__.startswith("opentelemetry.exporter.otlp.proto.http.")
        and type(new) is FunctionType
        and "_transport" in (new.__kwdefaults__ or {})
    )


def requests_is_needed() -> bool:
    """Tells whether `requests`, or the session of a stock exporter, may know more than the exporter.

    Where `requests` is imported already, somebody may have changed it, and there is nothing to save.
    """
    return (
        sys.platform != "linux"  # other systems keep proxies elsewhere
        or "requests" in sys.modules
        or any(name.upper().endswith(_TELLING_ENDINGS) for name in os.environ)
        or _has_credential_file()
    )


def plain_endpoint(client: Any) -> HttpEndpoint | None:
    """Returns where the client of a deferring exporter sends; None where `requests` has to say it."""
    url: str = client._endpoint  # noqa: SLF001  see the module's docstring
    headers: Mapping[str, str] = client._headers  # noqa: SLF001
    has_authorities = url.startswith("https:") and any(map(os.environ.get, _AUTHORITY_VARIABLES))
    if (
        requests_is_needed()
        or client._transport.has_session  # noqa: SLF001
        or has_authorities
        or not _PLAIN_URL.fullmatch(url)
        or not all(map(_is_plain, headers.items()))
    ):
        return None
    return HttpEndpoint(
        url=url,
        headers=sent_headers(
            {"accept": "*/*", **{name.lower(): value for name, value in headers.items()}}.items()
        ),
        timeout_seconds=float(client._timeout),  # noqa: SLF001
        compression=str(client._compression.value),  # noqa: SLF001
    )


def sent_headers(headers: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Returns what is sent of the headers of `requests`, in lower case: not what concerns its connection."""
    return (
        *((name, value) for name, value in headers if name not in _OWN_HEADERS),
        ("accept-encoding", "identity"),
    )


def _is_plain(header: tuple[str, str]) -> bool:
    name, value = header
    return bool(_HEADER_NAME.fullmatch(name) and _HEADER_VALUE.fullmatch(value))


def _has_credential_file() -> bool:
    try:
        return any((Path.home() / name).exists() for name in _CREDENTIAL_FILES)
    except (OSError, RuntimeError):  # no home, or one that cannot be looked into
        return True
