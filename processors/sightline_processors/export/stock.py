"""Reads where and how to send from the stock exporters, which know every variable and default.

An exporter that is not exactly the stock one (a subclass, a session or a transport of somebody's own, a
credential provider, a method that somebody has replaced) is not read: what it does cannot be done here.

The names are private: tested with opentelemetry-exporter-otlp 1.45.
"""

import os
from types import FunctionType
from typing import Any, Final

from opentelemetry.exporter.http.transport._requests import RequestsHTTPTransport
from opentelemetry.exporter.otlp.common.http import _OTLPHTTPClient
from opentelemetry.exporter.otlp.proto.http._common import _DEFAULT_MAX_REQUEST_SIZE
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.environment_variables import OTEL_EXPORTER_OTLP_PROTOCOL

from sightline_processors.export.deferred import DeferredSessions, DeferringTransport, plain_endpoint
from sightline_processors.export.http_transport import HttpEndpoint, HttpTransport
from sightline_processors.export.reasons import Signal
from sightline_processors.export.verdicts import Transport

_SIGNALS: Final[dict[type, Signal]] = {
    OTLPSpanExporter: "traces",
    OTLPLogExporter: "logs",
    OTLPMetricExporter: "metrics",
}


class NotStockError(Exception):
    """Is raised for an exporter that this package cannot stand in for; the message says why."""


def transport_of_environment(signal: Signal) -> Transport:
    """Returns where `OTEL_EXPORTER_OTLP_*` send a signal."""
    variables = (f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL", OTEL_EXPORTER_OTLP_PROTOCOL)
    protocol = next(filter(None, map(os.environ.get, variables)), "http/protobuf")
    if protocol.strip() == "grpc":
        from sightline_processors.export.stock_grpc import transport_of_grpc_environment  # noqa: PLC0415  an extra

        return transport_of_grpc_environment(signal)
    new: Any = next(cls for cls, each in _SIGNALS.items() if each == signal)
    exporter = new(**DeferredSessions().get(new, {}))
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
    if type(client) is not _OTLPHTTPClient or type(transport) not in (
        RequestsHTTPTransport,
        DeferringTransport,
    ):
        raise NotStockError("the exporter has a transport of its own")
    require_plain(client, "export", "_submit")
    require_plain(transport, "request")
    if getattr(exporter, "_max_request_size", None) != _DEFAULT_MAX_REQUEST_SIZE:
        raise NotStockError("the exporter has a limit of its own")
    if getattr(exporter, "_max_export_batch_size", None) is not None:
        raise NotStockError("the exporter splits its requests")
    if type(transport) is DeferringTransport and (endpoint := plain_endpoint(client)):
        return endpoint
    from sightline_processors.export.stock_session import endpoint_of_session  # noqa: PLC0415  imports `requests`

    return endpoint_of_session(transport._session, client)  # noqa: SLF001
