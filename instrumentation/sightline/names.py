"""Names of the telemetry that Sightline emits beyond the stable semantic conventions.

Standard names come from `opentelemetry.semconv`; everything in this module is ours or, where it says
so, a name of the conventions that is still in development.
"""

from typing import Final

# Span attributes
CORRELATION_ID: Final = "sightline.correlation_id"
"""The request's correlation ID, 1 to 128 characters of `A-Za-z0-9._:/+=@-`."""
END_REASON: Final = "sightline.end_reason"
"""How the exchange ended: `completed`, `client_disconnect`, `error` or `cancelled`."""

TRACKING_ID: Final = "sightline.tracking_id"
"""What `sightline.background.spawn` returned, 32 hex digits; on the span of each attempt."""
ATTEMPT: Final = "sightline.attempt"
"""Number of an attempt of background work, from 1."""
WEBSOCKET_CLOSE_CODE: Final = "sightline.websocket.close_code"
"""Close code of a WebSocket connection (RFC 6455, section 7.4), int."""
WEBSOCKET_CLOSE_CLASS: Final = "sightline.websocket.close_class"
"""`normal` (1000, 1001, 1005, 1012), `abnormal` (others below 3000), `application` (from 3000), `refused`."""

# Log attribute
LOG_CORRELATION_ID: Final = "correlation_id"

# Metrics: name, unit, description
CORRELATION_REJECTED: Final = "sightline.correlation.rejected"
"""Counter, `{request}`, no attributes: requests whose correlation header was present but not valid."""

TELEMETRY_ERRORS: Final = "sightline.telemetry.errors"
"""Counter, `{error}`, by kind: failures of telemetry, a user's hooks and processors included."""

STREAM_FIRST_BYTE: Final = "sightline.stream.first_byte"
"""Histogram, `s`: from the request's start to the first body byte, of responses without a length."""
WEBSOCKET_ACTIVE: Final = "sightline.websocket.active"
"""Up-down counter, `{connection}`: accepted connections."""
WEBSOCKET_DURATION: Final = "sightline.websocket.duration"
"""Histogram, `s`: from handshake to close, refused handshakes included."""
WEBSOCKET_MESSAGES: Final = "sightline.websocket.messages"
"""Counter, `{message}`, by direction."""
WEBSOCKET_IO: Final = "sightline.websocket.io"
"""Counter, `By`: payload bytes, by direction."""
EVENT_LOOP_LAG: Final = "sightline.event_loop.lag"
"""Histogram, `s`, no attributes: how late the timers of event loops are.

On the span of a slow request: float, seconds, the most while the request ran.
"""
THREADS_WAITING: Final = "sightline.threads.waiting"
"""Gauge, `{task}`, no attributes: what waits for a thread, on all event loops of the process.

On the span of a slow request: int, the most while the request ran, on the request's loop.
"""
REQUEST_QUEUE_TIME: Final = "sightline.request.queue_time"
"""Histogram, `s`, no attributes: what requests waited in front of the application, 0 to 1 h.

On the span of a slow request: float, seconds.
"""
BACKGROUND_DURATION: Final = "sightline.background.duration"
"""Histogram, `s`: background tasks, by function."""
TELEMETRY_DROPPED: Final = "sightline.telemetry.dropped"
"""Counter, `{item}`, by `signal` and `reason`; made by `sightline_processors.export.self_metrics`."""

# Of the conventions, in development (http-metrics, v1.44.0)
ACTIVE_REQUESTS: Final = "http.server.active_requests"
REQUEST_BODY_SIZE: Final = "http.server.request.body.size"
RESPONSE_BODY_SIZE: Final = "http.server.response.body.size"

# ASGI scope keys
FASTAPI_MARKER: Final = "fastapi.telemetry"
"""By which FastAPI knows that a request is traced and measured already."""
SCOPE_EXCHANGE: Final = "sightline.exchange"
"""Marks a scope that Sightline already captures; its value is the exchange."""
SCOPE_MOUNTS: Final = "sightline.mounts"
"""Path templates of the mounts that the request went through, outermost first."""
SCOPE_ROUTE: Final = "sightline.route"
"""The route object that handled the request, where Starlette does not leave it in the scope."""
