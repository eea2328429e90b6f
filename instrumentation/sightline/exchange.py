"""What an HTTP request and a WebSocket connection have in common: how they begin, and their span's end.

`HttpExchange` and `WebSocketExchange` add how their messages are read. An exchange ends exactly once.
"""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import perf_counter_ns, time_ns
from typing import Any, Final

from opentelemetry import propagate
from opentelemetry.context import Context
from opentelemetry.instrumentation import propagators
from opentelemetry.propagators.textmap import Setter
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    Status,
    StatusCode,
    TraceFlags,
)

from sightline import correlation, exceptions, names
from sightline.attributes import full_url
from sightline.endings import EXCLUDED, NESTED, Ending
from sightline.options import CaptureOptions
from sightline.recorder import Recorder
from sightline.request_context import request_context
from sightline.request_facts import RequestFacts, connection_of, facts_of
from sightline.server_span import ServerSpan
from sightline.types import Attributes, Message, RawHeader, Receive, Scope, Send, ServerRequestHook
from sightline_processors.report import report
from sightline_processors.tracing.ids import random_span_id, random_trace_id

NO_ATTRIBUTES: Final[Attributes] = {}


class _HeaderAppender(Setter[list[Any]]):
    """Appends what a response propagator has to say; a header is a list, as the stock one's."""

    def set(self, carrier: list[Any], key: str, value: str) -> None:
        carrier.append([key.lower().encode("latin-1"), value.encode("latin-1")])


_append_header = _HeaderAppender()


def _unsampled() -> Span:
    """Returns the span of an excluded request: an unsampled parent keeps the children out as well."""
    return NonRecordingSpan(
        SpanContext(random_trace_id(), random_span_id(), is_remote=False, trace_flags=TraceFlags(0))
    )


class Exchange(ABC):
    """Follows one request or connection; used by one task at a time, never shared.

    Attributes:
        scope: The ASGI scope that was dispatched last; replaced when a middleware copied it.
        context: What the application runs in: the caller's context with span and correlation ID.
        span: The SERVER span, or a non-recording one for excluded requests.
        is_over: Whether the exchange has ended.
    """

    # Set where they are otherwise, and not read before on the way of most requests.
    is_over = False
    _has_length = True
    _response_attributes: Attributes = NO_ATTRIBUTES
    _queue_seconds: float | None = None

    span: Span
    context: Context
    _correlation_bytes: bytes
    _request_bytes: int | None
    _flags: int

    def __init__(
        self,
        recorder: Recorder,
        current: Context,
        scope: Scope,
        receive: Receive,
        send: Send,
        by_name: dict[bytes, bytes] | None = None,
    ) -> None:
        self._started_unix_ns = time_ns()
        self._clock_started_ns = perf_counter_ns()
        self.scope = scope
        self._receive = receive
        self._send = send
        self._request_bytes = None
        self._flags = 0
        headers = scope["headers"]
        if type(headers) is not list:
            headers = scope["headers"] = list(headers)  # ASGI allows an iterable that is read once
        if by_name is None:
            by_name = dict(headers)
        try:
            facts = recorder.facts[by_name.get(b"host"), by_name.get(b"user-agent"), connection_of(scope)]
        except (KeyError, TypeError):
            facts = facts_of(recorder, scope, headers, by_name)
        else:
            if len(by_name) < len(headers):
                facts = facts_of(recorder, scope, headers, by_name)
        shared = self._shared = facts.shared
        brings = not by_name.keys().isdisjoint(recorder.telling_headers)
        if brings or propagate._HTTP_TEXT_FORMAT is not recorder.w3c_propagator:  # noqa: SLF001
            current = recorder.extract(headers, by_name, current)
        self._start(facts, headers, by_name, current)
        if shared.active is not None:
            shared.active.started += 1
        else:
            self._opened()

    def _start(
        self,
        facts: RequestFacts,
        headers: Sequence[RawHeader],
        by_name: Mapping[bytes, bytes],
        current: Context,
    ) -> None:
        """Starts the span for this one request: for its parent, its correlation ID, or its attributes."""
        recorder = self._recorder
        if recorder.is_plain:
            span = recorder.server_tracer.start(facts, self.scope, current, self._started_unix_ns)
        else:
            span = self._start_span(facts, headers, current)
        self.span = span
        identity = self._correlation_bytes = self._identify(span, headers, by_name)
        self.context = request_context(current, span, identity.decode(), recorder.options)

    def _start_span(self, facts: RequestFacts, headers: Sequence[RawHeader], current: Context) -> Span:
        """Starts the span where probes are told apart, headers captured or proxies asked for their time."""
        recorder, scope = self._recorder, self.scope
        by_name = dict(headers)
        if recorder.excludes(scope, by_name):
            self._flags |= EXCLUDED
        options = recorder.options
        if options.excludes_urls and options.excluded_urls.url_disabled(full_url(scope)):
            self._flags |= EXCLUDED
            return _unsampled()
        capture = options.captured_request_headers
        captured = None if capture is None else capture.attributes(headers)
        span = recorder.server_tracer.start(facts, scope, current, self._started_unix_ns, captured)
        queue = recorder.request_queue
        if queue is not None:
            self._queue_seconds = queue.seconds(scope, by_name, self._started_unix_ns)
            if self._queue_seconds is not None:
                queue.record(self._queue_seconds, span.get_span_context(), self._started_unix_ns)
        return span

    def _opened(self) -> None:  # noqa: B027  few have something to do here
        """Counts what has begun, where the facts of the connection do not."""

    @property
    def _recorder(self) -> Recorder:
        return self._shared.recorder

    @property
    def _options(self) -> CaptureOptions:
        return self._shared.recorder.options

    @property
    def correlation_id(self) -> str:
        """The request's ID, taken or generated."""
        return self._correlation_bytes.decode("ascii")

    def _identify(self, span: Span, headers: Sequence[RawHeader], by_name: Mapping[bytes, bytes]) -> bytes:
        """Returns the ID that the request brings, or a generated one; the span gets it."""
        identity = None
        if not by_name.keys().isdisjoint(self._options.correlation_headers):
            identity = self._received_id(headers)
        if identity is None and type(span) is ServerSpan and span._built is None:  # noqa: SLF001
            return span.correlation_bytes
        if identity is None:
            identity = b"%032x" % (span.get_span_context().trace_id or random_trace_id())
        if type(span) is ServerSpan and span._built is None:  # noqa: SLF001
            span.correlation_bytes = identity
        elif not isinstance(span, NonRecordingSpan):
            span.set_attribute(names.CORRELATION_ID, identity.decode("ascii"))
        return identity

    def _received_id(self, headers: Sequence[RawHeader]) -> bytes | None:
        """Returns the ID that the request brings; None where it is not valid."""
        chosen, rejected = correlation.choose(headers, self._options.correlation_headers)
        if rejected:
            self._recorder.correlation_rejected.add(1)
            report(
                "correlation",
                "replaced a correlation ID that is not valid; an ID is 1 to 128 of A-Za-z0-9._:/+=@-",
            )
        return chosen

    def nest(self) -> None:
        """Is told that the scope has got `SCOPE_ROUTE` or `SCOPE_MOUNTS`."""
        self._flags |= NESTED

    def begin(self, hook: ServerRequestHook) -> None:
        """Calls the user's hook, once the exchange is complete."""
        self._call_hook(hook, self.scope)

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
    def send(self, message: Message) -> Awaitable[None]:
        """Passes one message of the application on to the server; is its `send`."""

    def _call_hook(self, hook: Callable[..., Any], *arguments: object) -> None:
        try:
            hook(self.span, *arguments)
        except Exception as error:  # noqa: BLE001  a user's hook must not break the request
            report("hook", "a request or response hook raised; the request goes on", error=error)

    def _with_correlation_header(self, message: Message) -> Message:
        """Returns the message with the correlation header, unless the application set one itself."""
        name = self._shared.correlation_header
        headers = message.get("headers") or ()
        present = dict(headers)
        if b"content-length" not in present:
            if not b"".join(present).islower():
                # ASGI says lower case; not every application does.
                present = {bytes(key).lower(): value for key, value in headers}
            self._has_length = b"content-length" in present
        headers = [*headers] if name in present else [*headers, (name, self._correlation_bytes)]
        propagator = propagators._RESPONSE_PROPAGATOR  # noqa: SLF001  behind a function that only returns it
        if propagator is not None:
            propagator.inject(headers, self.context, _append_header)
        return {**message, "headers": headers}

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

    def _end_span(
        self, ending: Ending, more: Attributes, *, description: str | None, duration_ns: int
    ) -> None:
        span = self.span
        end_time = self._started_unix_ns + duration_ns
        if self._response_attributes:
            more = {**self._response_attributes, **more}
        if type(span) is ServerSpan:
            if span.finish(ending, more, description, end_time):
                span.hand_over()
            return
        outcome = ending.outcome
        if span.is_recording():  # of another SDK
            span.set_attributes({**outcome.span_attributes, **more, **ending.attributes})
            if getattr(span, "name", None) in (None, self._shared.early_name):
                span.update_name(outcome.span_name)
            if outcome.is_error:
                span.set_status(Status(StatusCode.ERROR, description or None))
        span.end(end_time)
