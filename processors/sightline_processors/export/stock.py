"""Reads where and how to send from the stock exporters, which know every variable and default.

An exporter that is not exactly the stock one (a subclass, a session or a transport of somebody's own, a
credential provider, a method that somebody has replaced) is not read: what it does cannot be done here.

The names are private: tested with opentelemetry-exporter-otlp 1.45.
"""

import os
from types import FunctionType
from typing import Any, Final

import requests
from opentelemetry.exporter.http.transport._requests import RequestsHTTPTransport
from opentelemetry.exporter.otlp.common.http import _OTLPHTTPClient
from opentelemetry.exporter.otlp.proto.http._common import _DEFAULT_MAX_REQUEST_SIZE
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.environment_variables import OTEL_EXPORTER_OTLP_PROTOCOL
from requests.adapters import HTTPAdapter
from requests.utils import get_auth_from_url, prepend_scheme_if_needed, select_proxy, urldefragauth

from sightline_processors.export.http_transport import HttpEndpoint, HttpTransport
from sightline_processors.export.reasons import Signal
from sightline_processors.export.verdicts import Transport

_SIGNALS: Final[dict[type, Signal]] = {
    OTLPSpanExporter: "traces",
    OTLPLogExporter: "logs",
    OTLPMetricExporter: "metrics",
}
_OWN_HEADERS: Final = frozenset({"content-length", "connection", "accept-encoding"})


class NotStockError(Exception):
    """Is raised for an exporter that this package cannot stand in for; the message says why."""


def transport_of_environment(signal: Signal) -> Transport:
    """Returns where `OTEL_EXPORTER_OTLP_*` send a signal."""
    variables = (f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL", OTEL_EXPORTER_OTLP_PROTOCOL)
    protocol = next(filter(None, map(os.environ.get, variables)), "http/protobuf")
    if protocol.strip() == "grpc":
        from sightline_processors.export.stock_grpc import transport_of_grpc_environment  # noqa: PLC0415  an extra

        return transport_of_grpc_environment(signal)
    exporter: Any = next(cls for cls, each in _SIGNALS.items() if each == signal)()
    transport = transport_of(exporter)
    exporter.shutdown()
    return transport


def transport_of(exporter: object) -> Transport:
    """Returns what posts to where a stock exporter would.

    Raises:
        NotStockError: When it is not exactly a stock exporter.
    """
    if type(exporter) in _SIGNALS:
        return HttpTransport(_SIGNALS[type(exporter)], _endpoint_of(exporter))
    if type(exporter).__module__.startswith("opentelemetry.exporter.otlp.proto.grpc"):
        from sightline_processors.export.stock_grpc import transport_of_grpc  # noqa: PLC0415  an extra

        return transport_of_grpc(exporter)
    raise NotStockError(f"{type(exporter).__qualname__} is not an exporter of OTLP that is known here")


def require_plain(item: object, *methods: str) -> None:
    """Checks that nobody has replaced methods of an object or of its class.

    Raises:
        NotStockError: When somebody has.
    """
    for method in methods:
        owner = next((cls for cls in type(item).__mro__ if method in vars(cls)), None)
        is_plain = owner is not None and type(vars(owner)[method]) is FunctionType
        if not is_plain or method in getattr(item, "__dict__", {}):
            raise NotStockError(f"{type(item).__qualname__}.{method} was replaced")


def _endpoint_of(exporter: Any) -> HttpEndpoint:
    require_plain(exporter, "export")
    client = exporter._client  # noqa: SLF001  see the module's docstring
    transport = client._transport  # noqa: SLF001
    if type(client) is not _OTLPHTTPClient or type(transport) is not RequestsHTTPTransport:
        raise NotStockError("the exporter has a transport of its own")
    require_plain(client, "export", "_submit")
    require_plain(transport, "request")
    if getattr(exporter, "_max_request_size", None) != _DEFAULT_MAX_REQUEST_SIZE:
        raise NotStockError("the exporter has a limit of its own")
    if getattr(exporter, "_max_export_batch_size", None) is not None:
        raise NotStockError("the exporter splits its requests")
    return _resolved(transport._session, client)  # noqa: SLF001


def _resolved(session: requests.Session, client: Any) -> HttpEndpoint:
    """Lets `requests` say what it would send: user information, netrc, proxies, authorities."""
    _require_stock_session(session)
    try:
        prepared = session.prepare_request(
            requests.Request("POST", client._endpoint, headers=client._headers)  # noqa: SLF001
        )
    except (requests.RequestException, ValueError) as error:
        raise NotStockError("requests refuses the endpoint or the headers") from error
    url = urldefragauth(str(prepared.url))
    settings = session.merge_environment_settings(str(prepared.url), {}, None, None, None)
    verify = settings["verify"]
    if verify is False:
        raise NotStockError("certificates are not to be verified")
    proxy, proxy_headers = _proxy_of(str(prepared.url), settings["proxies"])
    headers = ((str(name).lower(), _text(value)) for name, value in prepared.headers.items())
    return HttpEndpoint(
        url=url,
        headers=(
            *((name, value) for name, value in headers if name not in _OWN_HEADERS),
            ("accept-encoding", "identity"),
        ),
        timeout_seconds=float(client._timeout),  # noqa: SLF001
        compression=str(client._compression.value),  # noqa: SLF001
        verify="" if verify is True else str(verify),
        client_certificate=_pair(settings["cert"]),
        proxy=proxy,
        proxy_headers=proxy_headers,
    )


def _require_stock_session(session: requests.Session) -> None:
    """Raises `NotStockError` for a session that a credential provider, or anybody else, has made."""
    fresh = requests.Session()
    require_plain(session, "request", "send", "prepare_request", "merge_environment_settings")
    same = ("auth", "headers", "params", "proxies", "hooks", "stream", "trust_env", "max_redirects")
    adapters = [type(adapter) for adapter in session.adapters.values()]
    if (
        type(session) is not requests.Session
        or any(getattr(session, name) != getattr(fresh, name) for name in same)
        or len(session.cookies)
        or list(session.adapters) != list(fresh.adapters)
        or adapters != [HTTPAdapter, HTTPAdapter]
    ):
        raise NotStockError("the exporter has a session of its own")


def _proxy_of(url: str, proxies: dict[str, str]) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Returns the HTTP proxy for a URL, and what to send it; empty where there is none."""
    found = select_proxy(url, proxies)
    if not found:
        return "", ()
    proxy = prepend_scheme_if_needed(found, "http")
    if not proxy.startswith("http://"):
        raise NotStockError("the proxy speaks something else than plain HTTP")
    headers = HTTPAdapter().proxy_headers(proxy) if any(get_auth_from_url(proxy)) else {}
    return proxy, tuple((name.lower(), _text(value)) for name, value in headers.items())


def _pair(certificate: Any) -> tuple[str, str]:
    if not certificate:
        return "", ""
    if isinstance(certificate, tuple | list):
        first, second = certificate
        return str(first), str(second or "")
    return str(certificate), ""


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
