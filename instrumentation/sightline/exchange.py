"""What an HTTP request and a WebSocket connection have in common: how they begin, and their span's end.

`HttpExchange` and `WebSocketExchange` add how their messages are read. An exchange ends exactly once.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from opentelemetry import context as otel_context
from opentelemetry import propagate
from opentelemetry.context import Context
from opentelemetry.instrumentation.propagators import get_global_response_propagator
from opentelemetry.propagators.textmap import Setter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
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

from sightline import correlation, exceptions, names
from sightline.attributes import captured_headers, full_url, protocol_version_of, request_attributes
from sightline.context_headers import HeaderGetter
from sightline.old_conventions import old_span_attributes
from sightline.options import OPTIONS_KEY, CaptureOptions
from sightline.proxies import Hop, client_hop
from sightline.recorder import Outcome, OutcomeKey, Recorder, span_name
from sightline.report import report
from sightline.routes import route_template
from sightline.types import Attributes, Message, RawHeader, Receive, Scope, Send

COMPLETED: Final = "completed"
CLIENT_DISCONNECT: Final = "client_disconnect"
ERROR: Final = "error"
CANCELLED: Final = "cancelled"

SERVER_ERROR: Final = 500


class _HeaderAppender(Setter[list[Any]]):
    """Appends what a response propagator has to say; a header is a list, as the stock one's."""

    def set(self, carrier: list[Any], key: str, value: str) -> None:
        carrier.append([key.lower().encode("latin-1"), value.encode("latin-1")])


_append_header = _HeaderAppender()
_getter = HeaderGetter()
_ids = RandomIdGenerator()


class Exchange(ABC):
    """Follows one request or connection; used by one task at a time, never shared.

    Attributes:
        scope: The ASGI scope that was dispatched last; replaced when a middleware copied it.
        context: What the application runs in: the caller's context with span and correlation ID.
        correlation_id: The request's ID, taken or generated.
        span: The SERVER span, or a non-recording one for excluded requests.
        is_over: Whether the exchange has ended.
    """

    __slots__ = (
        "_clock_started_ns",
        "_early_name",
        "_hop",
        "_method",
        "_options",
        "_receive",
        "_recorder",
        "_response_attributes",
        "_send",
        "_started_unix_ns",
        "context",
        "correlation_id",
        "is_over",
        "scope",
        "span",
    )

    def __init__(
        self,
        options: CaptureOptions,
        recorder: Recorder,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        method: str,
    ) -> None:
        self._options = options
        self._recorder = recorder
        self.scope = scope
        self._receive = receive
        self._send = send
        self._method = method
        self._response_attributes: Attributes = {}
        self.is_over = False
        headers = scope["headers"] = list(scope["headers"])  # ASGI allows an iterable that is read once
        self._early_name = span_name(method, None)
        self._started_unix_ns = time.time_ns()
        self._clock_started_ns = time.perf_counter_ns()
        self._hop: Hop = client_hop(scope, headers, options.settings.trusted_proxies)
        parent = propagate.extract(headers, otel_context.get_current(), getter=_getter)
        self.span: Span = self._start_span(parent, headers)
        self.correlation_id = self._correlation_id(headers)
        self.span.set_attribute(names.CORRELATION_ID, self.correlation_id)
        self.context: Context = Context(
            {
                **set_span_in_context(self.span, parent),
                correlation.CONTEXT_KEY: self.correlation_id,
                OPTIONS_KEY: options,
            }
        )

    def _start_span(self, parent: Context, headers: Sequence[RawHeader]) -> Span:
        options = self._options
        if options.excluded_urls.url_disabled(full_url(self.scope)):
            # Counted but not traced: an unsampled parent keeps the children out as well.
            unsampled = SpanContext(
                _ids.generate_trace_id(), _ids.generate_span_id(), is_remote=False, trace_flags=TraceFlags(0)
            )
            return NonRecordingSpan(unsampled)
        attributes = request_attributes(
            self.scope, headers, self._method, self._hop, options.redacted_query_parameters
        )
        if options.captured_request_headers is not None:
            attributes.update(
                captured_headers("request", headers, options.captured_request_headers, options.masked_headers)
            )
        if self._recorder.old_metrics is not None:
            attributes.update(old_span_attributes(self.scope, headers, attributes))
        return self._recorder.tracer.start_span(
            self._early_name, parent, SpanKind.SERVER, attributes, start_time=self._started_unix_ns
        )

    def _correlation_id(self, headers: Sequence[RawHeader]) -> str:
        chosen, rejected = correlation.choose(headers, self._options.correlation_headers)
        if rejected:
            self._recorder.correlation_rejected.add(1)
            report(
                "correlation",
                "replaced a correlation ID that is not valid; an ID is 1 to 128 of A-Za-z0-9._:/+=@-",
            )
        if chosen is not None:
            return chosen
        span_context = self.span.get_span_context()
        return f"{span_context.trace_id:032x}" if span_context.is_valid else correlation.generate()

    def begin(self) -> None:
        """Calls the user's hook, once the exchange is complete."""
        if self._options.server_request_hook is not None:
            self._call_hook(self._options.server_request_hook, self.scope)

    @abstractmethod
    def returned(self) -> None:
        """Ends the exchange after the application returned."""

    @abstractmethod
    def raised(self, error: BaseException) -> None:
        """Ends the exchange after the application raised."""

    @abstractmethod
    async def receive(self) -> Message:
        """Passes one message on to the application; is its `receive`."""

    @abstractmethod
    async def __call__(self, message: Message) -> None:
        """Passes one message of the application on to the server; is its `send`."""

    def _call_hook(self, hook: Callable[..., Any], *arguments: object) -> None:
        try:
            hook(self.span, *arguments)
        except Exception as error:  # noqa: BLE001  a user's hook must not break the request
            report("hook", "a request or response hook raised; the request goes on", error=error)

    def _with_correlation_header(self, message: Message) -> Message:
        """Returns the message with the correlation header, unless the application set one itself."""
        name = self._options.correlation_headers[0]
        headers = list(message.get("headers") or ())
        if all(bytes(key).lower() != name for key, _ in headers):
            headers.append((name, self.correlation_id.encode("ascii")))
        propagator = get_global_response_propagator()  # type: ignore[no-untyped-call]
        if propagator is not None:
            propagator.inject(headers, self.context, _append_header)
        return {**message, "headers": headers}

    def _capture_response_headers(self, headers: Iterable[RawHeader]) -> None:
        options = self._options
        if options.captured_response_headers is not None:
            self._response_attributes = captured_headers(
                "response", headers, options.captured_response_headers, options.masked_headers
            )

    def _record_exception(self, error: BaseException) -> tuple[str, str]:
        """Records an exception; returns its `error.type` and the description of the span's status."""
        try:
            exceptions.record(
                error,
                self.span,
                self.context,
                self._recorder.logger,
                by_server="granian" in type(getattr(self._receive, "__self__", None)).__module__,
            )
        except Exception as failure:  # noqa: BLE001  fail open: the exchange ends with its metrics
            report("exception", "could not record an exception", error=failure)
        error = exceptions.unwrapped(error)
        return self._recorder.error_type(error), exceptions.message_of(error)

    def _outcome(self, status_code: int | None, error_type: str | None) -> Outcome:
        """Returns the outcome; a status of 500 or more is an error by itself."""
        if error_type is None and status_code is not None and status_code >= SERVER_ERROR:
            error_type = str(status_code)
        return self._recorder.outcome(
            OutcomeKey(
                self._method,
                self._hop.scheme,
                protocol_version_of(self.scope),
                route_template(self.scope),
                status_code,
                error_type,
            )
        )

    def _end_span(
        self, outcome: Outcome, reason: str, more: Attributes, *, description: str | None, duration_ns: int
    ) -> None:
        span = self.span
        if span.is_recording():
            span.set_attributes({**outcome.span_attributes, **self._response_attributes, **more})
            span.set_attribute(names.END_REASON, reason)
            if getattr(span, "name", self._early_name) == self._early_name:
                span.update_name(outcome.span_name)
            if outcome.is_error:
                span.set_status(Status(StatusCode.ERROR, description or None))
        span.end(self._started_unix_ns + duration_ns)
