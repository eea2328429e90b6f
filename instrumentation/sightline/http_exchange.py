"""One HTTP exchange, from the first byte of the request to the last byte of the response.

It ends exactly once, in `_end` or `_complete`: at the last body byte, or when the application returns or
raises without having sent one. An exception that a server-error middleware turns into a 500 arrives after
that byte; the clock has stopped by then, and the exchange waits for it (`send`).
"""

# ruff: noqa: SLF001  `open_request` is the constructor of what was made ahead; the SDK hides what it looks at

import asyncio
import sys
import traceback
from collections.abc import Awaitable
from time import perf_counter_ns, time_ns
from typing import Final

from opentelemetry import propagate
from opentelemetry.context import Context
from opentelemetry.instrumentation import propagators
from opentelemetry.trace import NonRecordingSpan

from sightline.access_records import tell_access_log
from sightline.endings import (
    CANCELLED,
    CLIENT_DISCONNECT,
    COMPLETED,
    ERROR,
    GONE,
    SERVER_ERROR,
    STREAM,
    Ending,
)
from sightline.exchange import NO_ATTRIBUTES, Exchange
from sightline.recorder import Recorder
from sightline.request_facts import connection_of, facts_of
from sightline.request_metrics import PENDING_MASK, Measurement
from sightline.saturation import snapshot
from sightline.server_span import ServerSpan, requested, target_of
from sightline.server_tracer import ServerTracer
from sightline.types import Message, Receive, Scope, Send
from sightline_processors.report import report

_NOT_FINISHED: Final = "could not finish the telemetry of a request"
INCOMPLETE_RESPONSE: Final = "incomplete_response"
WITHOUT_BODY: Final = frozenset({204, 304})
SENT_AT_ONCE_BYTES: Final = 65_536
"""A whole body up to this size does not wait for the client: servers keep as much in their buffers."""


class HttpExchange(Exchange):
    """Follows one HTTP request."""

    # Defaults of what few requests change or read: to find one here takes longer than to assign.
    _status_code: int | None = None
    _received_bytes = _body_bytes = 0
    _response_bytes: int | None = 0
    _disconnected = _trailers = _sends_file = _ends_early = False
    _first_byte_ns: int | None = None
    _clock_stopped_ns: int | None = None
    _is_stream = False

    def _opened(self) -> None:
        self._count(1)

    def _count(self, amount: int) -> None:
        """Counts the request with an instrument: 1 when it starts, -1 when it ends."""
        shared = self._shared
        counted = self._recorder.requests.counted
        if counted is not None:
            counted.add(amount, shared.method, shared.scheme, self.context)

    async def receive(self) -> Message:
        """Passes one message on to the application and counts the body's bytes."""
        message = await self._receive()
        kind = message["type"]
        if kind == "http.request":
            self._received_bytes += len(message.get("body", b""))
            if not message.get("more_body", False):
                # What a client announces does not count: one request could ruin the sum of the histogram.
                self._request_bytes = self._received_bytes
        elif kind == "http.disconnect" and self._clock_stopped_ns is None:
            self._disconnected = True
            self._ends_early = False
            self._flags |= GONE
        if self._options.client_request_hook is not None:
            self._call_hook(self._options.client_request_hook, self.scope, message)
        return message

    def send(self, message: Message) -> Awaitable[None]:  # noqa: C901, PLR0912  the way of each response
        """Passes one message of the application on to the server; is the application's `send`."""
        # Not a coroutine itself: most messages go on with nothing left to do after them.
        try:
            kind = message["type"]
            if kind == "http.response.body":
                if self._ends_early and ("more_body" not in message or not message["more_body"]):
                    self._ends_early = False
                    size = len(message["body"]) if "body" in message else 0
                    if size <= SENT_AT_ONCE_BYTES:
                        try:
                            self._complete(size)
                        except Exception as error:  # noqa: BLE001  fail open: the response is sent
                            report("stop", _NOT_FINISHED, error=error)
                        send = self._send  # before the call: as a method it is looked up the long way
                        return send(message)
                is_last = self._body(message)
            elif kind == "http.response.start":
                shared = self._shared
                headers = message.get("headers") or ()
                present = dict(headers)
                if (
                    b"content-length" in present
                    and shared.correlation_header not in present
                    and propagators._RESPONSE_PROPAGATOR is None  # behind a mere function
                ):
                    ours = (shared.correlation_header, self._correlation_bytes)
                    message = {**message}  # and then the item: in one expression it takes half as long again
                    message["headers"] = [*headers, ours]
                else:
                    message = self._with_correlation_header(message)
                status = self._status_code = message["status"]
                if shared.has_access_log:
                    self._tell_access_log(status)
                # Not where an `except` block that may raise again sends a 5xx, and not where more is to come.
                if status < SERVER_ERROR and shared.is_plain and "trailers" not in message:
                    self._ends_early = True
                    send = self._send
                    return send(message)
                self._look_at_start(message)
                is_last = False
            else:
                is_last = self._other(message, kind)
            if self._options.client_response_hook is not None:
                self._call_hook(self._options.client_response_hook, self.scope, message)
            if is_last:
                return self._send_last(message)
        except Exception as error:  # noqa: BLE001  fail open: the message goes out as it came
            report("send", "could not read a response message; it is sent untouched", error=error)
        return self._send_watched(message) if self._shared.send_raises else self._send(message)

    async def _send_watched(self, message: Message) -> None:
        try:
            await self._send(message)
        except OSError:
            self._disconnected = True  # ASGI 2.4: the server says so by raising
            raise

    async def _send_last(self, message: Message) -> None:
        """Sends the last message, and ends the exchange unless its error is still on the way."""
        try:
            await self._send(message)
        except OSError:
            self._disconnected = True
            raise
        if self._clock_stopped_ns is None and not self.is_over:
            try:
                self._clock_stopped_ns = perf_counter_ns()
                if self._disconnected:  # a middleware completes what the client no longer receives
                    self._end(CLIENT_DISCONNECT, error_type=CLIENT_DISCONNECT)
                elif (self._status_code or 0) < SERVER_ERROR or sys.exc_info()[1] is None:
                    self._end(COMPLETED)  # not where an `except` block that may raise again sends a 5xx
            except Exception as error:  # noqa: BLE001  fail open: the response has been sent
                report("stop", _NOT_FINISHED, error=error)

    def _tell_access_log(self, status_code: int) -> None:
        """Leaves what the server's access record, which it writes about now, needs for the verdict."""
        # What has a body of unknown length may be a stream, which is never slow.
        may_stream = not self._has_length and status_code not in WITHOUT_BODY
        tell_access_log(
            self.context,
            self._shared.verdict_so_far,
            self.scope,
            status_code,
            self._clock_started_ns,
            self._flags | STREAM * may_stream,
        )

    def _look_at_start(self, message: Message) -> None:
        """Reads what few responses, or few set-ups, have in their first message."""
        self._trailers = bool(message.get("trailers", False))
        capture = self._options.captured_response_headers
        if capture is not None:
            self._response_attributes = capture.attributes(message["headers"])

    def _body(self, message: Message) -> bool:
        """Counts a piece of the body; returns whether it is the last of the response."""
        self._ends_early = False
        self._body_bytes += len(message.get("body", b""))
        if not self._sends_file:
            self._response_bytes = self._body_bytes
        if not message.get("more_body", False):
            return not self._trailers
        if self._first_byte_ns is None:
            self._first_byte()
        return False

    def _first_byte(self) -> None:
        self._first_byte_ns = perf_counter_ns()
        # A body of a length that is not known beforehand, sent in pieces.
        self._is_stream = not self._has_length

    def _other(self, message: Message, kind: str) -> bool:
        """Reads a message of an extension; returns whether it is the last one of the response."""
        if kind == "http.response.trailers":
            return not message.get("more_trailers", False)
        if kind in ("http.response.pathsend", "http.response.zerocopysend"):
            self._sends_file = True
            self._response_bytes = None  # is not told
            return not (message.get("more_body", False) or self._trailers)
        return False

    def returned(self) -> None:
        """Ends the exchange when the application returned without completing its response."""
        if self.is_over:
            return
        if self._clock_stopped_ns is not None:
            self._end(COMPLETED)
        elif self._disconnected:
            self._end(CLIENT_DISCONNECT, error_type=CLIENT_DISCONNECT)
        else:
            self._end(ERROR, error_type=INCOMPLETE_RESPONSE)

    def raised(self, error: BaseException) -> None:
        """Ends the exchange when the application raised; an exchange that is over stays as it is."""
        if self.is_over:
            return
        if isinstance(error, OSError) and self._is_from_send(error):
            self._disconnected = True
        if self._disconnected and isinstance(error, Exception | asyncio.CancelledError):
            self._end(CLIENT_DISCONNECT, error_type=CLIENT_DISCONNECT)
        elif isinstance(error, asyncio.CancelledError):
            self._end(CANCELLED, error_type=self._recorder.error_type(error))
        else:
            error_type, description = self._record_exception(error)
            self._end(ERROR, error_type=error_type, description=description)

    def _is_from_send(self, error: OSError) -> bool:
        """Tells whether the server's `send` raised: the client is gone, whatever ASGI the server speaks."""
        code = getattr(getattr(self._send, "__func__", self._send), "__code__", None)
        frames = traceback.walk_tb(error.__traceback__)
        return code is not None and any(frame.f_code is code for frame, _ in frames)

    def _complete(self, response_bytes: int) -> None:
        """Ends a request whose whole response is about to be sent: `_end`, without what is not so then."""
        clock_ended_ns = perf_counter_ns()
        self.is_over = True
        duration_ns = clock_ended_ns - self._clock_started_ns
        shared = self._shared
        scope, included = self.scope, 0  # the look-up of `SharedFacts.ending`, without its call
        if "fastapi" in scope:
            included = id(scope["fastapi"].get("effective_route_context"))
        ending = shared.endings.get(
            (
                id(scope.get("route")),
                included,
                scope.get("root_path"),
                self._status_code,
                COMPLETED,
                None,
                self._flags,
            )
        )
        if ending is None:
            ending = shared.ending(scope, self._status_code, COMPLETED, None, self._flags)
        if duration_ns > ending.watched_over_ns:
            self._end_after(duration_ns, response_bytes)
            return
        span = self.span
        is_held_back = False
        if type(span) is ServerSpan:
            ended_unix_ns = span._start_time + duration_ns
            if span._built is None and span._end_time is None and span._direct is not None:
                span._end_time = ended_unix_ns  # `finish`, without its call
                span._ending = ending
                is_held_back = True
            else:
                is_held_back = span.finish(ending, NO_ATTRIBUTES, None, ended_unix_ns)
        elif not isinstance(span, NonRecordingSpan):
            self._end_after(duration_ns, response_bytes)
            return
        measurement = (
            ending, duration_ns, self._request_bytes, response_bytes, span, clock_ended_ns, is_held_back
        )  # fmt: skip
        if ending.is_buffered:
            pending = shared.pending
            pending.append(measurement)
            if len(pending) & PENDING_MASK < 2:  # noqa: PLR2004  the first, or one too many
                self._recorder.requests.attend()
        else:
            self._record(measurement)

    def _end_after(self, duration_ns: int, response_bytes: int) -> None:
        """Ends a request whose whole response is about to be sent, with more to do than for most."""
        self._response_bytes = response_bytes
        self._clock_stopped_ns = self._clock_started_ns + duration_ns
        self._end(COMPLETED)

    def _end(self, reason: str, *, error_type: str | None = None, description: str | None = None) -> None:
        """Ends span and metrics with the same two clock readings; runs once per exchange."""
        self.is_over = True
        shared = self._shared
        clock_ended_ns = self._clock_stopped_ns or perf_counter_ns()
        duration_ns = clock_ended_ns - self._clock_started_ns
        ending = shared.ending(
            self.scope, self._status_code, reason, error_type, self._flags | STREAM * self._is_stream
        )
        if duration_ns > ending.watched_over_ns:
            ending = self._took_long(ending, duration_ns)
        span = self.span
        is_held_back = False
        if type(span) is ServerSpan:
            ended_unix_ns = span._start_time + duration_ns
            is_held_back = span.finish(ending, self._response_attributes, description, ended_unix_ns)
        elif not isinstance(span, NonRecordingSpan):
            self._end_span(ending, NO_ATTRIBUTES, description=description, duration_ns=duration_ns)
        measurement = (
            ending,
            duration_ns,
            self._request_bytes,
            self._response_bytes,
            span,
            clock_ended_ns,
            is_held_back,
        )
        if ending.is_buffered:
            shared.pending.append(measurement)
            if len(shared.pending) & PENDING_MASK < 2:  # noqa: PLR2004  likewise
                self._recorder.requests.attend()
        else:
            self._record(measurement)
        if self._is_stream:
            self._record_stream(ending)

    def _took_long(self, ending: Ending, duration_ns: int) -> Ending:
        """Returns how a request ended that took long; its span says how busy the process was."""
        if ending.slow is not None and duration_ns > ending.slow_over_ns:
            ending = ending.slow
        recorder, status_code = self._recorder, self._status_code
        seconds = duration_ns / 1e9
        busy = snapshot(duration_seconds=seconds, queue_seconds=self._queue_seconds)
        self._response_attributes = {**self._response_attributes, **busy}
        if duration_ns > recorder.alert_over_ns:
            recorder.alerts.alert_slow_request(
                duration_seconds=seconds,
                threshold_seconds=recorder.alert_over_ns / 1e9,
                context=self.context,
                method=self._shared.method,
                route=ending.outcome.route,
                status_code=None if status_code is None else int(status_code),
                correlation_id=self.correlation_id,
                more=busy,
            )
        return ending

    def _record(self, measurement: Measurement) -> None:
        """Records a request by itself, where it cannot wait for others."""
        ending, duration_ns, request_bytes, response_bytes, span, _, is_held_back = measurement
        ending.recording.record(measurement, self.context)
        ending.cell.add(ending.verdict, [duration_ns / 1e9])
        if is_held_back:
            span.hand_over()
        if self._shared.active is not None:
            self._shared.active.ended()
        else:
            self._count(-1)
        old = self._recorder.old_metrics
        if old is not None:
            attributes = ending.outcome.metric_attributes
            old.record(duration_ns / 1e9, request_bytes, response_bytes, attributes, self.context)

    def _record_stream(self, ending: Ending) -> None:
        """Records the first byte of a stream."""
        if self._first_byte_ns is not None:
            seconds = (self._first_byte_ns - self._clock_started_ns) / 1e9
            self._recorder.record_first_byte(seconds, ending.outcome, ending.reason, self.context)


def open_request(
    recorder: Recorder, roots: ServerTracer, current: Context, scope: Scope, receive: Receive, send: Send
) -> HttpExchange:
    """Opens a request outside of any other, where nobody is told of its beginning.

    One that brings neither trace nor correlation ID gets an exchange that was made ahead. That is the way of
    most requests: in one piece, because each call on it is felt in `make bench`.
    """
    clock_started_ns = perf_counter_ns()
    tracer = roots.tracer
    headers = scope["headers"]
    if (
        propagate._HTTP_TEXT_FORMAT is not recorder.w3c_propagator
        or tracer.span_processor._span_processors is not roots.known
        or not tracer._tracer_config.is_enabled
        or type(headers) is not list
    ):
        return HttpExchange(recorder, current, scope, receive, send)
    by_name = dict(headers)
    if len(by_name) < len(headers) or not by_name.keys().isdisjoint(recorder.telling_headers):
        return HttpExchange(recorder, current, scope, receive, send, by_name)
    try:
        facts = recorder.facts[by_name.get(b"host"), by_name.get(b"user-agent"), connection_of(scope)]
    except (KeyError, TypeError):
        facts = facts_of(recorder, scope, headers, by_name)
    shared = facts.shared
    if not shared.is_usual:
        return HttpExchange(recorder, current, scope, receive, send, by_name)
    exchange: HttpExchange
    try:
        exchange, span = roots.ready.pop()
    except IndexError:
        exchange, span = roots.make_ready(HttpExchange)
    exchange.scope = scope
    exchange._receive = receive
    exchange._send = send
    exchange._shared = shared
    exchange._clock_started_ns = clock_started_ns
    shared.active.started += 1  # type: ignore[union-attr]  # there is one where there are roots
    if span is not None:
        span._facts = facts
        span._start_time = time_ns()
        try:
            span._target = requested(scope)
        except KeyError:  # ASGI does not ask for all of them
            span._target = target_of(scope)
    return exchange
