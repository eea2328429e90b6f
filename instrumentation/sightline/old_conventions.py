"""The old HTTP conventions beside the stable ones, for dashboards that still read them.

On with `OTEL_SEMCONV_STABILITY_OPT_IN=http/dup`. The stock instrumentors put the client's Host header on
these metrics (`http.host`, `http.server_name`); here they are left out, because they are not bounded.

Source: semantic conventions v1.20.0, http.
"""

import os
from collections.abc import Mapping
from typing import Final

from opentelemetry.context import Context
from opentelemetry.metrics import Meter
from opentelemetry.util.types import AttributeValue

from sightline.attributes import DEFAULT_PORTS
from sightline.report import logger
from sightline.types import Attributes

OPT_IN_VARIABLE: Final = "OTEL_SEMCONV_STABILITY_OPT_IN"

_SPAN_NAMES: Final[Mapping[str, str]] = {
    "http.request.method": "http.method",
    "url.scheme": "http.scheme",
    "network.protocol.version": "http.flavor",
    "user_agent.original": "http.user_agent",
    "server.address": "http.host",
    "server.port": "net.host.port",
    "network.peer.address": "net.peer.ip",
    "network.peer.port": "net.peer.port",
    "http.response.status_code": "http.status_code",
}
_METRIC_NAMES: Final = frozenset(
    {
        "http.request.method",
        "url.scheme",
        "network.protocol.version",
        "server.port",
        "http.response.status_code",
    }
)


def is_duplicated() -> bool:
    """Tells whether the old conventions are asked for; says once what that costs."""
    chosen = {item.strip() for item in os.environ.get(OPT_IN_VARIABLE, "").split(",")}
    return "http/dup" in chosen


def old_span_attributes(stable: Mapping[str, AttributeValue]) -> Attributes:
    """Returns the old names of a span's stable attributes."""
    old = {_SPAN_NAMES[name]: value for name, value in stable.items() if name in _SPAN_NAMES}
    path, query = stable.get("url.path"), stable.get("url.query")
    if path is not None:
        target = f"{path}?{query}" if query else f"{path}"
        old["http.target"] = target
        scheme, port = stable.get("url.scheme"), stable.get("server.port")
        authority = f"{stable.get('server.address', '')}"
        if port is not None and port != DEFAULT_PORTS.get(f"{scheme}"):
            authority = f"{authority}:{port}"
        old["http.url"] = f"{scheme}://{authority}{target}"
    return old


def old_metric_attributes(stable: Mapping[str, AttributeValue]) -> Attributes:
    """Returns the old names of a point's stable attributes; all of them from closed sets."""
    old = {_SPAN_NAMES[name]: value for name, value in stable.items() if name in _METRIC_NAMES}
    if "http.route" in stable:
        old["http.target"] = stable["http.route"]
    return old


class OldMetrics:
    """Records the old histograms; durations are whole milliseconds, as they were."""

    def __init__(self, meter: Meter) -> None:
        logger.warning(
            "%s=http/dup: the old HTTP metrics are emitted beside the stable ones and double the series; "
            "unset it once no dashboard reads http_server_duration_milliseconds",
            OPT_IN_VARIABLE,
        )
        self._duration = meter.create_histogram(
            "http.server.duration", unit="ms", description="Measures the duration of inbound HTTP requests."
        )
        self._request_size = meter.create_histogram(
            "http.server.request.size", unit="By", description="Measures the size of HTTP request messages."
        )
        self._response_size = meter.create_histogram(
            "http.server.response.size", unit="By", description="Measures the size of HTTP response messages."
        )

    def record_duration(self, seconds: float, stable: Mapping[str, AttributeValue], context: Context) -> None:
        """Records a request's duration."""
        self._duration.record(round(seconds * 1000), old_metric_attributes(stable), context)

    def record_sizes(
        self,
        request_bytes: int | None,
        response_bytes: int | None,
        stable: Mapping[str, AttributeValue],
        context: Context,
    ) -> None:
        """Records the sizes that are known."""
        attributes = old_metric_attributes(stable)
        if request_bytes is not None:
            self._request_size.record(request_bytes, attributes, context)
        if response_bytes is not None:
            self._response_size.record(response_bytes, attributes, context)
