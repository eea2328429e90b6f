"""One HTTP exchange, from the first byte of the request to the last byte of the response.

The exchange is itself the `send` callable that the application gets. It ends exactly once, in `_end`:
at the last body byte, or when the application returns or raises without having sent one. An exception
that a server-error middleware turns into a 500 arrives after that byte; the clock has stopped by then,
and the exchange waits for it (`_may_still_raise`).
"""

import asyncio
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from opentelemetry import context as otel_context
from opentelemetry import propagate
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import Getter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.semconv.attributes.exception_attributes import (
    EXCEPTION_MESSAGE,
    EXCEPTION_STACKTRACE,
    EXCEPTION_TYPE,
)
from opentelemetry.semconv.attributes.http_attributes import HTTP_REQUEST_METHOD
from opentelemetry.semconv.attributes.url_attributes import URL_SCHEME
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from sightline import correlation, names
from sightline.attributes import (
    OTHER_METHOD,
    bounded_text,
    protocol_version_of,
    request_attributes,
    scheme_of,
)
from sightline.options import CaptureOptions
from sightline.recorder import OutcomeKey, Recorder, qualified_name, span_name
from sightline.report import report
from sightline.routes import route_template
from sightline.types import Attributes, Message, RawHeader, Receive, Scope, Send

COMPLETED: Final = "completed"
CLIENT_DISCONNECT: Final = "client_disconnect"
ERROR: Final = "error"
CANCELLED: Final = "cancelled"

SERVER_ERROR: Final = 500
MAX_STACKTRACE_CHARACTERS: Final = 16_384
MASKED: Final = "[REDACTED]"
_LENGTH = re.compile(rb"[0-9]{1,18}")


class _HeaderGetter(Getter[Sequence[RawHeader]]):
    """Reads ASGI headers for the propagators."""

    def get(self, carrier: Sequence[RawHeader], key: str) -> list[str] | None:
        name = key.lower().encode("latin-1")
        values = [value.decode("latin-1") for header, value in carrier if header == name]
        if name == b"traceparent" and len(values) > 1:
            return None  # W3C trace context: more than one traceparent restarts the trace
        return values or None

    def keys(self, carrier: Sequence[RawHeader]) -> list[str]:
        return [header.decode("latin-1") for header, _ in carrier]


_getter = _HeaderGetter()
_ids = RandomIdGenerator()


class Exchange:
    """Follows one request; created by the middleware, used by one task at a time, never shared.

    Attributes:
        scope: The ASGI scope that was dispatched last; replaced when a middleware copied it.
        context: What the application runs in: the caller's context with span and correlation ID.
        correlation_id: The request's ID, taken or generated.
        span: The SERVER span, or a non-recording one for excluded requests.
    """

    __slots__ = (
        "_clock_started_ns",
        "_clock_stopped_ns",
        "_disconnected",
        "_early_name",
        "_ended",
        "_method",
        "_options",
        "_receive",
        "_recorder",
        "_request_bytes",
        "_request_complete",
        "_response_attributes",
        "_response_bytes",
        "_send",
        "_started_unix_ns",
        "_status_code",
        "_trailers",
        "context",
        "correlation_id",
        "scope",
        "span",
    )

    def __init__(
        self, options: CaptureOptions, recorder: Recorder, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self._options = options
        self._recorder = recorder
        self.scope = scope
        self._receive = receive
        self._send = send
        method = scope["method"]
        self._method: str = method if method in options.methods else OTHER_METHOD
        self._status_code: int | None = None
        self._request_bytes = 0
        self._response_bytes: int | None = 0
        self._request_complete = self._disconnected = self._ended = self._trailers = False
        self._response_attributes: Attributes = {}
        self._clock_stopped_ns: int | None = None
        headers = list(scope["headers"])
        self._early_name = span_name(self._method, None)
        self._started_unix_ns = time.time_ns()
        self._clock_started_ns = time.perf_counter_ns()
        parent = propagate.extract(headers, otel_context.get_current(), getter=_getter)
        self.span: Span = self._start_span(parent, headers)
        self.correlation_id = self._correlation_id(headers)
        self.span.set_attribute(names.CORRELATION_ID, self.correlation_id)
        self.context: Context = otel_context.set_value(
            correlation.CONTEXT_KEY, self.correlation_id, set_span_in_context(self.span, parent)
        )
        recorder.active_requests.add(1, self._active_attributes(), self.context)
        if options.server_request_hook is not None:
            self._call_hook(options.server_request_hook, scope)

    def _start_span(self, parent: Context, headers: Sequence[RawHeader]) -> Span:
        options = self._options
        if options.excluded_urls.url_disabled(_full_url(self.scope)):
            # Counted but not traced: an unsampled parent keeps the children out as well.
            unsampled = SpanContext(
                _ids.generate_trace_id(), _ids.generate_span_id(), is_remote=False, trace_flags=TraceFlags(0)
            )
            return NonRecordingSpan(unsampled)
        attributes = request_attributes(self.scope, headers, self._method)
        if options.captured_request_headers is not None:
            attributes.update(_captured(options, "request", headers))
        return self._recorder.tracer.start_span(
            self._early_name, parent, SpanKind.SERVER, attributes, start_time=self._started_unix_ns
        )

    def _correlation_id(self, headers: Sequence[RawHeader]) -> str:
        chosen, rejected = correlation.choose(
            headers, [name.encode() for name in self._options.settings.correlation_headers]
        )
        if rejected:
            self._recorder.correlation_rejected.add(1)
            report(
                "correlation", "replaced a correlation ID that is not valid (see the reference for its form)"
            )
        if chosen is not None:
            return chosen
        span_context = self.span.get_span_context()
        return f"{span_context.trace_id:032x}" if span_context.is_valid else correlation.generate()

    def _active_attributes(self) -> Attributes:
        return {HTTP_REQUEST_METHOD: self._method, URL_SCHEME: scheme_of(self.scope)}

    def _call_hook(self, hook: Callable[..., None], *arguments: object) -> None:
        try:
            hook(self.span, *arguments)
        except Exception as error:  # noqa: BLE001  a user's hook must not break the request
            report("hook", "a request or response hook raised; the request goes on", error=error)

    async def receive(self) -> Message:
        """Passes one message on to the application and counts the body's bytes."""
        message = await self._receive()
        kind = message["type"]
        if kind == "http.request":
            self._request_bytes += len(message.get("body", b""))
            self._request_complete = not message.get("more_body", False)
        elif kind == "http.disconnect" and self._clock_stopped_ns is None:
            self._disconnected = True
        if self._options.client_request_hook is not None:
            self._call_hook(self._options.client_request_hook, self.scope, message)
        return message

    async def __call__(self, message: Message) -> None:
        """Passes one message of the application on to the server; is the application's `send`."""
        last = False
        try:
            message, last = self._outgoing(message)
        except Exception as error:  # noqa: BLE001  fail open: the message goes out as it came
            report("send", "could not read a response message; it is sent untouched", error=error)
        try:
            await self._send(message)
        except OSError:
            self._disconnected = True  # ASGI 2.4: the server says so by raising
            raise
        if last:
            try:
                self._stop()
            except Exception as error:  # noqa: BLE001  fail open: the response has been sent
                report("stop", "could not finish the telemetry of a request", error=error)

    def _outgoing(self, message: Message) -> tuple[Message, bool]:
        """Returns the message to send and whether it is the last one of the response."""
        kind = message["type"]
        last = False
        if kind == "http.response.body":
            if self._response_bytes is not None and self._method != "HEAD":
                self._response_bytes += len(message.get("body", b""))
            last = not (message.get("more_body", False) or self._trailers)
        elif kind == "http.response.start":
            self._status_code = message["status"]
            self._trailers = bool(message.get("trailers", False))
            message = self._with_correlation_header(message)
            if self._options.captured_response_headers is not None:
                self._response_attributes = _captured(self._options, "response", message["headers"])
        elif kind == "http.response.trailers":
            last = not message.get("more_trailers", False)
        elif kind == "http.response.pathsend":
            self._response_bytes = None  # the server sends a file of a size that is not told
            last = not self._trailers
        if self._options.client_response_hook is not None:
            self._call_hook(self._options.client_response_hook, self.scope, message)
        return message, last

    def _with_correlation_header(self, message: Message) -> Message:
        """Returns the message with the correlation header, unless the application set one itself."""
        name = self._options.settings.correlation_headers[0].encode()
        headers = list(message.get("headers", ()))
        if all(bytes(key).lower() != name for key, _ in headers):
            headers.append((name, self.correlation_id.encode("ascii")))
        return {**message, "headers": headers}

    def _stop(self) -> None:
        """Stops the clock at the last byte, and ends the exchange unless its error is still on the way."""
        if self._clock_stopped_ns is not None:
            return
        self._clock_stopped_ns = time.perf_counter_ns()
        if not self._may_still_raise():
            self._end(COMPLETED)

    def _may_still_raise(self) -> bool:
        """Tells whether this 5xx is sent from within an `except` block, which may raise again."""
        return (self._status_code or 0) >= SERVER_ERROR and sys.exc_info()[1] is not None

    def returned(self) -> None:
        """Ends the exchange when the application returned without completing its response."""
        if self._ended:
            return
        if self._clock_stopped_ns is not None:
            self._end(COMPLETED)
        elif self._disconnected:
            self._end(CLIENT_DISCONNECT, error_type=CLIENT_DISCONNECT)
        else:
            self._end(ERROR, error_type="incomplete_response")

    def raised(self, error: BaseException) -> None:
        """Ends the exchange when the application raised; an exchange that is over stays as it is."""
        if self._ended:
            return
        if self._disconnected and isinstance(error, Exception | asyncio.CancelledError):
            self._end(CLIENT_DISCONNECT, error_type=CLIENT_DISCONNECT)
        elif isinstance(error, asyncio.CancelledError):
            self._end(CANCELLED, error_type=self._recorder.error_type(error))
        else:
            self._record_exception(error)
            self._end(ERROR, error_type=self._recorder.error_type(error), description=str(error))

    def _record_exception(self, error: BaseException) -> None:
        if not self.span.is_recording():
            return
        stacktrace = "".join(traceback.format_exception(error))
        self.span.add_event(
            "exception",
            {
                EXCEPTION_TYPE: qualified_name(type(error)),
                EXCEPTION_MESSAGE: bounded_text(str(error)),
                EXCEPTION_STACKTRACE: stacktrace[-MAX_STACKTRACE_CHARACTERS:],
            },
        )

    def _end(self, reason: str, *, error_type: str | None = None, description: str = "") -> None:
        """Ends span and metrics with the same two clock readings; runs once per exchange."""
        self._ended = True
        stopped_ns = self._clock_stopped_ns or time.perf_counter_ns()
        duration_ns = stopped_ns - self._clock_started_ns
        status_code = self._status_code
        if error_type is None and status_code is not None and status_code >= SERVER_ERROR:
            error_type = str(status_code)
        outcome = self._recorder.outcome(
            OutcomeKey(
                self._method,
                scheme_of(self.scope),
                protocol_version_of(self.scope),
                route_template(self.scope),
                status_code,
                error_type,
            )
        )
        metric_attributes = outcome.metric_attributes
        self._recorder.duration.record(duration_ns / 1e9, metric_attributes, self.context)
        self._record_body_sizes(metric_attributes)
        self._recorder.active_requests.add(-1, self._active_attributes(), self.context)
        span = self.span
        if span.is_recording():
            span.set_attributes({**outcome.span_attributes, **self._response_attributes})
            span.set_attribute(names.END_REASON, reason)
            if getattr(span, "name", self._early_name) == self._early_name:
                span.update_name(outcome.span_name)
            if error_type is not None:
                span.set_status(Status(StatusCode.ERROR, bounded_text(description) or None))
        span.end(self._started_unix_ns + duration_ns)

    def _record_body_sizes(self, metric_attributes: Attributes) -> None:
        """Records the sizes that are known; an unknown one is absent, not 0."""
        request_bytes = self._known_request_bytes()
        if request_bytes is not None:
            self._recorder.request_body_size.record(request_bytes, metric_attributes, self.context)
        if self._status_code is not None and self._response_bytes is not None:
            self._recorder.response_body_size.record(self._response_bytes, metric_attributes, self.context)

    def _known_request_bytes(self) -> int | None:
        if self._request_complete:
            return self._request_bytes
        lengths = [value for name, value in self.scope["headers"] if name == b"content-length"]
        return int(lengths[0]) if len(lengths) == 1 and _LENGTH.fullmatch(lengths[0]) else None


def _full_url(scope: Scope) -> str:
    """Returns the URL that excluded-URL patterns are matched against, as the stock instrumentors build it."""
    host, port = scope.get("server") or ("0.0.0.0", 80)  # noqa: S104  the stock default, only matched
    authority = host if port in (80, None) else f"{host}:{port}"
    return f"{scope.get('scheme', 'http')}://{authority}{scope.get('path', '')}"


def _captured(options: CaptureOptions, side: str, headers: Iterable[RawHeader]) -> Attributes:
    """Returns `http.{request,response}.header.<name>` attributes for the configured headers."""
    wanted = options.captured_request_headers if side == "request" else options.captured_response_headers
    captured: dict[str, list[str]] = {}
    for raw_name, raw_value in headers:
        name = raw_name.decode("latin-1").lower()
        if wanted is None or not wanted.fullmatch(name):
            continue
        value = (
            MASKED if options.masked_headers.fullmatch(name) else bounded_text(raw_value.decode("latin-1"))
        )
        captured.setdefault(f"http.{side}.header.{name}", []).append(value)
    return dict(captured)
