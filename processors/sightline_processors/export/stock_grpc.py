"""Reads where and how to call from the stock exporters over gRPC; see `stock`."""

from typing import Any, Final

from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.grpc.exporter import _RETRYABLE_ERROR_CODES
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

from sightline_processors.export.grpc_transport import RETRYABLE, GrpcEndpoint, GrpcTransport
from sightline_processors.export.reasons import Signal
from sightline_processors.export.stock import NotStockError, require_plain

_SIGNALS: Final[dict[type, Signal]] = {
    OTLPSpanExporter: "traces",
    OTLPLogExporter: "logs",
    OTLPMetricExporter: "metrics",
}


def transport_of_grpc_environment(signal: Signal) -> GrpcTransport:
    """Returns where `OTEL_EXPORTER_OTLP_*` send a signal over gRPC."""
    exporter: Any = next(cls for cls, each in _SIGNALS.items() if each == signal)()
    transport = transport_of_grpc(exporter)
    exporter.shutdown()
    return transport


def transport_of_grpc(exporter: Any) -> GrpcTransport:
    """Returns what calls where a stock exporter would.

    Raises:
        NotStockError: When it is not exactly a stock exporter.
    """
    signal = _SIGNALS.get(type(exporter))
    if signal is None:
        raise NotStockError(f"{type(exporter).__qualname__} is not the stock exporter")
    require_plain(exporter, "export", "_export", "_translate_data")
    if getattr(exporter, "_max_export_batch_size", None) is not None:
        raise NotStockError("the exporter splits its requests")
    codes = exporter._retryable_error_codes  # noqa: SLF001  see the docstring of `stock`
    return GrpcTransport(
        signal,
        GrpcEndpoint(
            target=exporter._endpoint,  # noqa: SLF001
            credentials=None if exporter._insecure else exporter._credentials,  # noqa: SLF001
            metadata=tuple(exporter._headers),  # noqa: SLF001
            timeout_seconds=float(exporter._timeout),  # noqa: SLF001
            compression=exporter._compression,  # noqa: SLF001
            options=tuple(exporter._channel_options),  # noqa: SLF001
            retryable=RETRYABLE if codes == _RETRYABLE_ERROR_CODES else frozenset(codes),
        ),
    )
