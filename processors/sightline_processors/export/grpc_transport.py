"""OTLP over gRPC: the same encoded requests, as raw bytes on one channel.

Imported only where `grpcio` is installed and asked for.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import grpc  # type: ignore[import-untyped]  # its authors publish no types
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]  # no types either
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # no types either

from sightline_processors.export import reasons
from sightline_processors.export.answers import rejected_items
from sightline_processors.export.reasons import Signal
from sightline_processors.export.verdicts import Delivered, Destination, Drop, Retry, Verdict

RETRYABLE: Final = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
"""`RESOURCE_EXHAUSTED` is one only with a `RetryInfo`. Source: OTLP specification 1.5, "Failures"."""

_SERVICES: Final[dict[Signal, tuple[str, str]]] = {
    "traces": ("trace.v1.TraceService", "otlp_grpc_span_exporter"),
    "metrics": ("metrics.v1.MetricsService", "otlp_grpc_metric_exporter"),
    "logs": ("logs.v1.LogsService", "otlp_grpc_log_exporter"),
}
_DETAILS: Final = "grpc-status-details-bin"
_RETRY_INFO: Final = "google.rpc.retryinfo-bin"
"""Where the stock exporter looks for a `RetryInfo`."""
_PROTOBUF: Final = "application/x-protobuf"


_inherited: list[Any] = []
"""Channels of the process above: closing or collecting one would call into threads of gRPC that are gone."""


@dataclass(frozen=True, slots=True)
class GrpcEndpoint:
    """Says where and how to call; credentials are not in its `repr`.

    Attributes:
        target: Host and port, as gRPC takes them.
        credentials: Of a secure channel; None for an insecure one.
        metadata: Names and values of headers.
        timeout_seconds: Longest time of one attempt.
        compression: gRPC's.
        options: gRPC's channel options.
        retryable: Statuses that ask for a retry.
    """

    target: str
    credentials: grpc.ChannelCredentials | None = field(default=None, repr=False)
    metadata: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    timeout_seconds: float = 10.0
    compression: grpc.Compression = grpc.Compression.NoCompression
    options: tuple[tuple[str, Any], ...] = ()
    retryable: frozenset[grpc.StatusCode] = RETRYABLE


class GrpcTransport:
    """Posts the requests of one signal to one server; see `verdicts.Transport`.

    Args:
        signal: What the server takes.
        endpoint: Where and how.
    """

    def __init__(self, signal: Signal, endpoint: GrpcEndpoint) -> None:
        service, component = _SERVICES[signal]
        shown = f"grpc://{endpoint.target.rpartition('@')[2]}"
        parts = urlsplit(f"//{endpoint.target.rpartition('/')[2]}")
        self.destination = Destination(
            signal,
            shown,
            hashlib.sha256(shown.encode()).hexdigest(),
            component,
            parts.hostname,
            _port(parts),
            endpoint.timeout_seconds,
        )
        self._method = f"/opentelemetry.proto.collector.{service}/Export"
        self._settings = endpoint
        self._channel: Any = None

    def forget(self) -> None:
        """Leaves the channel to the process above, in one that was forked from it."""
        _inherited.append(self._channel)
        self._channel = None

    def close(self) -> None:
        """Closes the channel; the next attempt opens a new one."""
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    abort = close

    def post(self, request: bytes, seconds: float) -> Verdict:
        """Sends one encoded request; returns within the seconds and never raises."""
        try:
            call = self._open().unary_unary(self._method)
            answer = call(request, timeout=seconds, metadata=self._settings.metadata)
        except grpc.RpcError as error:
            return self._failed(error)
        except Exception as error:  # noqa: BLE001  a channel that was closed meanwhile, or metadata that gRPC refuses
            self.close()
            return Retry(reasons.UNREACHABLE, detail=type(error).__qualname__)
        rejected = rejected_items(self.destination.signal, _PROTOBUF, answer)
        return Drop(reasons.NOT_OTLP, "status OK") if rejected is None else Delivered(rejected)

    def _open(self) -> Any:
        if self._channel is None:
            settings = self._settings
            if settings.credentials is None:
                self._channel = grpc.insecure_channel(
                    settings.target, compression=settings.compression, options=settings.options
                )
            else:
                self._channel = grpc.secure_channel(
                    settings.target,
                    settings.credentials,
                    compression=settings.compression,
                    options=settings.options,
                )
        return self._channel

    def _failed(self, error: Any) -> Verdict:
        code = error.code()
        detail = f"status {code.name}"
        wait = _retry_delay(error.trailing_metadata() or ())
        is_throttled = code is grpc.StatusCode.RESOURCE_EXHAUSTED and wait is not None
        if code not in self._settings.retryable and not is_throttled:
            return Drop(reasons.REFUSED, detail)
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return Retry(reasons.TIMEOUT, wait or 0.0, detail)
        if code is grpc.StatusCode.UNAVAILABLE and wait is None:
            self.close()  # connects anew at once, where gRPC itself would wait for its own backoff
            return Retry(reasons.UNREACHABLE, 0.0, detail)
        return Retry(reasons.UNAVAILABLE, wait or 0.0, detail)


def _retry_delay(metadata: Iterable[tuple[str, str | bytes]]) -> float | None:
    """Returns the seconds that a `RetryInfo` in the trailers asks for, 0 or more; None without one."""
    for name, value in metadata:
        if name in (_DETAILS, _RETRY_INFO) and isinstance(value, bytes):
            info = _retry_info(name, value)
            if info is not None:
                seconds: float = info.retry_delay.seconds + info.retry_delay.nanos / 1e9
                return max(0.0, seconds)
    return None


def _retry_info(name: str, value: bytes) -> RetryInfo | None:
    try:
        if name == _RETRY_INFO:
            return RetryInfo.FromString(value)
        for detail in Status.FromString(value).details:
            info = RetryInfo()
            if detail.Unpack(info):
                return info
    except DecodeError:
        return None
    return None


def _port(parts: Any) -> int | None:
    try:
        port: int | None = parts.port
    except ValueError:
        return None
    return port
