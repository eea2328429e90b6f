"""Lets `requests` say what it would send: user information, netrc, proxies, authorities; see `stock`."""

from typing import Any

import requests
from requests.adapters import HTTPAdapter
from requests.utils import get_auth_from_url, prepend_scheme_if_needed, select_proxy, urldefragauth

from sightline_processors.export.deferred import sent_headers
from sightline_processors.export.http_transport import HttpEndpoint
from sightline_processors.export.stock import NotStockError, require_plain


def endpoint_of_session(session: requests.Session, client: Any) -> HttpEndpoint:
    """Returns where a client with a session of `requests` sends, and what `requests` adds to it.

    Raises:
        NotStockError: When the session is somebody's own, or `requests` would do what cannot be done here.
    """
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
        headers=sent_headers(headers),
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
