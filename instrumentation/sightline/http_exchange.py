"""One HTTP exchange, from the first byte of the request to the last byte of the response.

The exchange is itself the `send` callable that the application gets. It ends exactly once, in `_end`:
at the last body byte, or when the application returns or raises without having sent one. An exception
that a server-error middleware turns into a 500 arrives after that byte; the clock has stopped by then,
and the exchange waits for it (`__call__`).
"""

import asyncio
import sys
import time
import traceback
from collections.abc import Awaitable
from typing import Final

from opentelemetry.trace import NonRecordingSpan

from sightline.exchange import CANCELLED, CLIENT_DISCONNECT, COMPLETED, ERROR, NO_ATTRIBUTES, Exchange
from sightline.request_facts import SERVER_ERROR, Ending
from sightline.request_metrics import MAX_PENDING, Measurement
from sightline.server_span import ServerSpan
from sightline.types import Message
from sightline_processors.report import report

INCOMPLETE_RESPONSE: Final = "incomplete_response"


class HttpExchange(Exchange):
    """Follows one HTTP request."""

    # Defaults of what few requests change: an assignment less for all others.
    _status_code: int | None = None
    _request_bytes = _response_bytes = 0
    _request_complete = _disconnected = _trailers = _is_stream = _sends_file = False
    _first_byte_ns: int | None = None
    _clock_stopped_ns: int | None = None

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
            self._request_bytes += len(message.get("body", b""))
            self._request_complete = not message.get("more_body", False)
        elif kind == "http.disconnect" and self._clock_stopped_ns is None:
            self._disconnected = True
        if self._options.client_request_hook is not None:
            self._call_hook(self._options.client_request_hook, self.scope, message)
        return message

    def __call__(self, message: Message) -> Awaitable[None]:
        """Passes one message of the application on to the server; is the application's `send`."""
        # Not a coroutine itself: most messages go on with nothing left to do after them.
        try:
            kind = message["type"]
            last = False
            if kind == "http.response.body":
                self._response_bytes += len(message.get("body", b""))
                if message.get("more_body", False):
                    if self._first_byte_ns is None:
                        self._first_byte()
                else:
                    last = not self._trailers
            elif kind == "http.response.start":
                message = self._start(message)
            else:
                last = self._other(message, kind)
            if self._options.client_response_hook is not None:
                self._call_hook(self._options.client_response_hook, self.scope, message)
            if last:
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
        if self._clock_stopped_ns is None:
            try:
                self._clock_stopped_ns = time.perf_counter_ns()
                if self._disconnected:  # a middleware completes what the client no longer receives
                    self._end(CLIENT_DISCONNECT, error_type=CLIENT_DISCONNECT)
                elif (self._status_code or 0) < SERVER_ERROR or sys.exc_info()[1] is None:
                    self._end(COMPLETED)  # not where an `except` block that may raise again sends a 5xx
            except Exception as error:  # noqa: BLE001  fail open: the response has been sent
                report("stop", "could not finish the telemetry of a request", error=error)

    def _start(self, message: Message) -> Message:
        self._status_code = int(message["status"])
        if "trailers" in message:
            self._trailers = bool(message["trailers"])
        message = self._with_correlation_header(message)
        capture = self._options.captured_response_headers
        if capture is not None:
            self._response_attributes = capture.attributes(message["headers"])
        return message

    def _first_byte(self) -> None:
        self._first_byte_ns = time.perf_counter_ns()
        # A body of a length that is not known beforehand, sent in pieces.
        self._is_stream = not self._has_length

    def _other(self, message: Message, kind: str) -> bool:
        """Reads a message of an extension; returns whether it is the last one of the response."""
        if kind == "http.response.trailers":
            return not message.get("more_trailers", False)
        if kind in ("http.response.pathsend", "http.response.zerocopysend"):
            self._sends_file = True  # of a size that is not told
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

    def _end(self, reason: str, *, error_type: str | None = None, description: str | None = None) -> None:
        """Ends span and metrics with the same two clock readings; runs once per exchange."""
        self.is_over = True
        shared = self._shared
        duration_ns = (self._clock_stopped_ns or time.perf_counter_ns()) - self._clock_started_ns
        ended_unix_ns = self._started_unix_ns + duration_ns
        ending = shared.ending(self.scope, self._status_code, reason, error_type)
        measurement = (
            ending.recording,
            duration_ns / 1e9,
            # What a client announces does not count: one request could ruin the sum of the histogram.
            self._request_bytes if self._request_complete else None,
            None
            if self._sends_file or self._status_code is None
            else self._response_bytes
            if shared.method != "HEAD"
            else 0,
            self._span_context,
            ended_unix_ns,
        )
        if ending.recording.is_buffered:
            requests = self._recorder.requests
            requests.pending.append(measurement)
            if len(requests.pending) >= MAX_PENDING:
                requests.aggregate()
        else:
            ending.recording.record(measurement, self.context)
        if self._is_stream or self._recorder.old_metrics is not None:
            self._record_more(ending, measurement)
        if shared.active is not None:
            shared.active[0] -= 1
        else:
            self._count(-1)
        span = self.span
        if type(span) is ServerSpan:
            span.finish(ending, self._response_attributes, description, ended_unix_ns)
        elif type(span) is not NonRecordingSpan:
            self._end_span(ending, NO_ATTRIBUTES, description=description, duration_ns=duration_ns)

    def _record_more(self, ending: Ending, measurement: Measurement) -> None:
        """Records what few requests have: the first byte of a stream, and the metrics of old."""
        recorder = self._recorder
        if self._is_stream and self._first_byte_ns is not None:
            seconds = (self._first_byte_ns - self._clock_started_ns) / 1e9
            recorder.record_first_byte(seconds, ending.outcome, ending.reason, self.context)
        if recorder.old_metrics is not None:
            _, seconds, request_bytes, response_bytes, _, _ = measurement
            attributes = ending.outcome.metric_attributes
            recorder.old_metrics.record(seconds, request_bytes, response_bytes, attributes, self.context)
