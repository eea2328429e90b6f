"""The old HTTP conventions beside the stable ones, for dashboards that still read them.

On with `OTEL_SEMCONV_STABILITY_OPT_IN=http/dup`. The stock instrumentors put the client's Host header on
metrics (`http.host`, `http.server_name`); here they are on the span only, because they are not bounded.

Source: semantic conventions v1.20.0, http.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Final

from opentelemetry.context import Context
from opentelemetry.metrics import Meter
from opentelemetry.util.types import AttributeValue

from sightline.attributes import bounded_text, header_values
from sightline.types import Attributes, RawHeader, Scope
from sightline_processors.report import warn_once

OPT_IN_VARIABLE: Final = "OTEL_SEMCONV_STABILITY_OPT_IN"

_NAMES: Final[Mapping[str, str]] = {
    "http.request.method": "http.method",
    "url.scheme": "http.scheme",
    "network.protocol.version": "http.flavor",
    "user_agent.original": "http.user_agent",
    "network.peer.address": "net.peer.ip",
    "network.peer.port": "net.peer.port",
    "http.response.status_code": "http.status_code",
}


def is_duplicated() -> bool:
    """Tells whether the old conventions are asked for; says once what that costs."""
    chosen = {item.strip() for item in os.environ.get(OPT_IN_VARIABLE, "").split(",")}
    return "http/dup" in chosen


def renamed(stable: Mapping[str, AttributeValue]) -> Attributes:
    """Returns the attributes whose old form differs by its name alone."""
    return {_NAMES[name]: value for name, value in stable.items() if name in _NAMES}


def old_span_attributes(
    scope: Scope, headers: Sequence[RawHeader], stable: Mapping[str, AttributeValue]
) -> Attributes:
    """Returns the old attributes of a span that starts, with the values that the stock instrumentors give.

    Args:
        scope: ASGI scope.
        headers: `(name, value)` byte pairs, names lower-case.
        stable: The stable attributes; their query is redacted, and so is the old URL's.
    """
    address, port = scope.get("server") or ("0.0.0.0", 80)  # noqa: S104  the stock default
    bound = f"{address}" if port in (80, None) else f"{address}:{port}"
    hosts = header_values(headers, b"host")
    old = {
        **renamed(stable),
        "http.host": bounded_text(bound),
        "http.target": bounded_text(str(scope.get("path", ""))),
    }
    if port is not None:
        old["net.host.port"] = port
    if hosts:
        old["http.server_name"] = bounded_text(",".join(hosts))
    query = stable.get("url.query")
    url = f"{stable.get('url.scheme')}://{hosts[0] if hosts else bound}{scope.get('path', '')}"
    old["http.url"] = bounded_text(f"{url}?{query}" if query else url)
    return old


def old_metric_attributes(stable: Mapping[str, AttributeValue]) -> Attributes:
    """Returns the old names of a point's stable attributes; all of them from closed sets."""
    old = renamed(stable)
    if "http.route" in stable:
        old["http.target"] = stable["http.route"]
    return old


class OldMetrics:
    """Records the old histograms; durations are whole milliseconds, as they were."""

    def __init__(self, meter: Meter) -> None:
        warn_once(
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

    def record(
        self,
        seconds: float,
        request_bytes: int | None,
        response_bytes: int | None,
        stable: Mapping[str, AttributeValue],
        context: Context,
    ) -> None:
        """Records a request's duration, and the sizes that are known."""
        attributes = old_metric_attributes(stable)
        self._duration.record(round(seconds * 1000), attributes, context)
        if request_bytes is not None:
            self._request_size.record(request_bytes, attributes, context)
        if response_bytes is not None:
            self._response_size.record(response_bytes, attributes, context)
