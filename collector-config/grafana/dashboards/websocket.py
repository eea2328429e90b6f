"""WebSocket and streaming: open connections, how they end, what they carry, how soon streams begin."""

from typing import Final

from dashboards.board import Dashboard, Row
from dashboards.panels import Query, heatmap, stat, timeseries
from dashboards.queries import ROUTE, or_zero, per_second, quantile, select, share
from dashboards.tables import Column, Label, table
from dashboards.variables import OF_SERVICES, routes

_ACTIVE: Final = "sightline_websocket_active"
_DURATION: Final = "sightline_websocket_duration_seconds"
_ENDED: Final = f"{_DURATION}_count"
_MESSAGES: Final = "sightline_websocket_messages_total"
_BYTES: Final = "sightline_websocket_io_bytes_total"
_FIRST_BYTE: Final = "sightline_stream_first_byte_seconds"
_ABNORMAL: Final = 'sightline_websocket_close_class="abnormal"'
_REFUSED: Final = 'sightline_websocket_close_class="refused"'
_DIRECTION: Final = "network_io_direction"
_ROUTES: Final = "service_name, http_route"
_LEGEND: Final = "{{service_name}} {{http_route}}"
_RANGE: Final = "$__range"
_RATIO_STEPS: Final = ((0.01, "orange"), (0.05, "red"))


def _closes(*matchers: str, by: str = "", over: str = "$__rate_interval") -> str:
    return per_second(_ENDED, ROUTE, *matchers, by=by, over=over)


def _abnormal(by: str = "", over: str = "$__rate_interval") -> str:
    return share(_closes(_ABNORMAL, by=by, over=over), _closes(by=by, over=over))


_NOW = Row(
    "Now",
    (
        stat(
            "Open",
            "Connections that are open.",
            "short",
            Query(f"sum({select(_ACTIVE, ROUTE)})"),
            first="blue",
        ),
        stat("Closes", "Connections that end, per second.", "cps", Query(_closes()), first="blue"),
        stat(
            "Abnormal",
            "Ratio of connections that ended with a code that is neither normal nor the application's.",
            "percentunit",
            Query(_abnormal()),
            steps=_RATIO_STEPS,
        ),
        stat(
            "Refused",
            "Ratio of handshakes that were refused: authentication, or a client that is too old.",
            "percentunit",
            Query(share(_closes(_REFUSED), _closes())),
            steps=_RATIO_STEPS,
        ),
        stat(
            "Messages",
            "Per second, both directions.",
            "cps",
            Query(per_second(_MESSAGES, ROUTE)),
            first="blue",
        ),
        stat(
            "First byte, p95",
            "Streamed responses: 95 of 100 begin sooner than this.",
            "s",
            Query(quantile(0.95, _FIRST_BYTE, ROUTE)),
            steps=((0.5, "orange"), (1.0, "red")),
        ),
    ),
)

_CONNECTIONS = Row(
    "Connections",
    (
        timeseries(
            "Open connections",
            "By route. A cliff is a release or a proxy that restarts.",
            "short",
            Query(f"sum by ({_ROUTES}) ({select(_ACTIVE, ROUTE)})", _LEGEND),
        ),
        timeseries(
            "How connections end",
            "Per second: normal, abnormal (1006, 1011, …), the application's own codes, refused handshakes.",
            "cps",
            Query(_closes(by="sightline_websocket_close_class"), "{{sightline_websocket_close_class}}"),
            stacked=True,
        ),
        timeseries(
            "Abnormal closes",
            "Ratio by route.",
            "percentunit",
            Query(_abnormal(by=_ROUTES), _LEGEND),
            steps=_RATIO_STEPS,
        ),
        heatmap(
            "Length of connections",
            "How long connections lived; many of one length are a time-out somewhere between.",
            "s",
            Query(per_second(f"{_DURATION}_bucket", ROUTE, by="le"), "{{le}}"),
        ),
        timeseries(
            "Median length",
            "By route.",
            "s",
            Query(quantile(0.5, _DURATION, ROUTE, by=_ROUTES), _LEGEND),
            width=12,
        ),
    ),
)

_TRAFFIC = Row(
    "Messages",
    (
        timeseries(
            "Messages",
            "Per second: receive is from clients, transmit is to them.",
            "cps",
            Query(per_second(_MESSAGES, ROUTE, by=_DIRECTION), f"{{{{{_DIRECTION}}}}}"),
        ),
        timeseries(
            "Payload",
            "Bytes per second, without frames.",
            "Bps",
            Query(per_second(_BYTES, ROUTE, by=_DIRECTION), f"{{{{{_DIRECTION}}}}}"),
        ),
        timeseries(
            "Size of a message",
            "Mean of the payload.",
            "bytes",
            Query(
                share(per_second(_BYTES, ROUTE, by=_DIRECTION), per_second(_MESSAGES, ROUTE, by=_DIRECTION)),
                f"{{{{{_DIRECTION}}}}}",
            ),
        ),
        table(
            "Routes",
            "Over the time shown.",
            (
                Label("service_name", "Service"),
                Label("http_route", "Route"),
            ),
            (
                Column("Open", "short", f"sum by ({_ROUTES}) ({select(_ACTIVE, ROUTE)})"),
                Column("Closes/s", "cps", _closes(by=_ROUTES, over=_RANGE)),
                Column("Abnormal", "percentunit", _abnormal(by=_ROUTES, over=_RANGE), _RATIO_STEPS),
                Column("Median length", "s", quantile(0.5, _DURATION, ROUTE, by=_ROUTES, over=_RANGE)),
                Column("Messages/s", "cps", per_second(_MESSAGES, ROUTE, by=_ROUTES, over=_RANGE)),
            ),
        ),
    ),
)

_STREAMS = Row(
    "Streamed responses",
    (
        timeseries(
            "First byte",
            "From the request's start to the first byte of its body.",
            "s",
            Query(quantile(0.5, _FIRST_BYTE, ROUTE), "p50"),
            Query(quantile(0.95, _FIRST_BYTE, ROUTE), "p95", exemplar=True),
        ),
        timeseries(
            "First byte, p95 by route",
            "Which stream begins late.",
            "s",
            Query(quantile(0.95, _FIRST_BYTE, ROUTE, by=_ROUTES), _LEGEND),
        ),
        timeseries(
            "How streams end",
            "Per second; client_disconnect is a client that went away, which is how most event streams end.",
            "cps",
            Query(
                or_zero(per_second(f"{_FIRST_BYTE}_count", ROUTE, by="sightline_end_reason")),
                "{{sightline_end_reason}}",
            ),
            stacked=True,
        ),
    ),
)

DASHBOARD = Dashboard(
    uid="sightline-websocket",
    title="WebSocket and streaming",
    description="Long-lived exchanges: how many are open, how they end, what they carry.",
    rows=(_NOW, _CONNECTIONS, _TRAFFIC, _STREAMS),
    variables=(
        *OF_SERVICES,
        routes(_ACTIVE, f"{_FIRST_BYTE}_count"),
    ),
)
