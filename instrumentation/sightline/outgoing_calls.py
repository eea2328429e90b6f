"""Keeps the correlation ID with the configured hosts where a client tells the propagator too little.

- httpx and aiohttp copy the headers of a request to where it is redirected: the ID is taken out again when
  that host is not configured.
- aiohttp injects before there is a Host header, and an unsampled span has no attributes: its own trace
  signals name the host.
"""

from typing import Any

import wrapt
from opentelemetry import propagate

from sightline.propagation import CorrelationPropagator
from sightline_processors.report import report


def watch_clients() -> None:
    """Patches httpx and aiohttp when they are imported; without a CorrelationPropagator nothing changes."""
    wrapt.register_post_import_hook(_wrap_httpx, "httpx._client")
    wrapt.register_post_import_hook(_wrap_aiohttp, "aiohttp.client")


def _settle(headers: Any, host: str | None, *, may_add: bool) -> None:
    """Takes the ID out for a host that is not configured, or puts it in where it is missing."""
    try:
        propagator = propagate.get_global_textmap()
        if not isinstance(propagator, CorrelationPropagator):
            return
        if not propagator.covers(host):
            propagator.withdraw(headers)
        elif may_add:
            propagator.add(headers)
    except Exception as error:  # noqa: BLE001  fail open: the call goes out as the client made it
        report("client-hosts", "could not check the host of an outgoing call", error=error)


def _wrap_httpx(module: Any) -> None:
    client: Any = getattr(module, "BaseClient", None)
    if client is None or not hasattr(
        client, "_redirect_headers"
    ):  # private: without it, a redirect keeps what httpx copies
        report("httpx", "this version of httpx is not known: a redirect may carry the correlation ID along")
        return
    if hasattr(client._redirect_headers, "__wrapped__"):  # noqa: SLF001
        return

    def redirect_headers(wrapped: Any, _: Any, args: Any, kwargs: Any) -> Any:
        headers = wrapped(*args, **kwargs)
        url = kwargs["url"] if "url" in kwargs else args[1]
        _settle(headers, url.host, may_add=False)
        return headers

    wrapt.wrap_function_wrapper(module, "BaseClient._redirect_headers", redirect_headers)


def _wrap_aiohttp(module: Any) -> None:
    if hasattr(module.ClientSession.__init__, "__wrapped__"):
        return
    # From the submodule: the package itself is still being imported.
    from aiohttp.tracing import TraceConfig  # noqa: PLC0415
    from yarl import URL  # noqa: PLC0415

    async def started(_session: Any, _context: Any, params: Any) -> None:
        _settle(params.headers, params.url.host, may_add=True)

    async def redirected(_session: Any, _context: Any, params: Any) -> None:
        location = params.response.headers.get("Location") or params.response.headers.get("URI")
        if location:
            _settle(params.headers, params.url.join(URL(location)).host, may_add=True)

    config = TraceConfig()
    config.on_request_start.append(started)
    config.on_request_redirect.append(redirected)
    config.freeze()

    def initialize(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> None:
        wrapped(*args, **kwargs)
        instance._trace_configs = [*instance._trace_configs, config]  # noqa: SLF001  after the application's own

    wrapt.wrap_function_wrapper(module, "ClientSession.__init__", initialize)
