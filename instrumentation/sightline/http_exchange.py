"""One HTTP exchange, from the first byte of the request to the last byte of the response.

The exchange is itself the `send` callable that the application gets. It ends exactly once, in `_end`:
at the last body byte, or when the application returns or raises without having sent one. An exception
that a server-error middleware turns into a 500 arrives after that byte; the clock has stopped by then,
and the exchange waits for it (`_may_still_raise`).
"""

import asyncio
import sys
import time
from typing import Final

from opentelemetry.semconv.attributes.http_attributes import HTTP_REQUEST_METHOD
from opentelemetry.semconv.attributes.url_attributes import URL_SCHEME

from sightline.attributes import OTHER_METHOD
from sightline.exchange import CANCELLED, CLIENT_DISCONNECT, COMPLETED, ERROR, SERVER_ERROR, Exchange
from sightline.options import CaptureOptions
from sightline.recorder import Recorder
from sightline.report import report
from sightline.types import Attributes, Message, Receive, Scope, Send

INCOMPLETE_RESPONSE: Final = "incomplete_response"


class HttpExchange(Exchange):
    """Follows one HTTP request."""

    __slots__ = (
        "_active_attributes",
        "_clock_stopped_ns",
        "_disconnected",
        "_first_byte_ns",
        "_has_length",
        "_is_stream",
        "_request_bytes",
        "_request_complete",
        "_response_bytes",
        "_status_code",
        "_trailers",
    )

    def __init__(
        self, options: CaptureOptions, recorder: Recorder, scope: Scope, receive: Receive, send: Send
    ) -> None:
        method = scope["method"] if scope["method"] in options.methods else OTHER_METHOD
        super().__init__(options, recorder, scope, receive, send, method=method)
        self._status_code: int | None = None
        self._request_bytes = 0
        self._response_bytes: int | None = 0
        self._request_complete = self._disconnected = self._trailers = False
        self._has_length = self._is_stream = False
        self._first_byte_ns: int | None = None
        self._clock_stopped_ns: int | None = None
        self._active_attributes: Attributes = {
            HTTP_REQUEST_METHOD: self._method,
            URL_SCHEME: self._hop.scheme,
        }
        recorder.active_requests.add(1, self._active_attributes, self.context)

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
            last = self._body(message)
        elif kind == "http.response.start":
            message = self._start(message)
        elif kind == "http.response.trailers":
            last = not message.get("more_trailers", False)
        elif kind in ("http.response.pathsend", "http.response.zerocopysend"):
            self._response_bytes = None  # the server sends a file of a size that is not told
            last = not (message.get("more_body", False) or self._trailers)
        if self._options.client_response_hook is not None:
            self._call_hook(self._options.client_response_hook, self.scope, message)
        return message, last

    def _start(self, message: Message) -> Message:
        self._status_code = int(message["status"])
        self._trailers = bool(message.get("trailers", False))
        message = self._with_correlation_header(message)
        self._has_length = any(bytes(name).lower() == b"content-length" for name, _ in message["headers"])
        self._capture_response_headers(message["headers"])
        return message

    def _body(self, message: Message) -> bool:
        more = message.get("more_body", False)
        if self._first_byte_ns is None:
            self._first_byte_ns = time.perf_counter_ns()
            # A body of a length that is not known beforehand, sent in pieces.
            self._is_stream = more and not self._has_length
        if self._response_bytes is not None and self._method != "HEAD":
            self._response_bytes += len(message.get("body", b""))
        return not (more or self._trailers)

    def _stop(self) -> None:
        """Stops the clock at the last byte, and ends the exchange unless its error is still on the way."""
        if self._clock_stopped_ns is not None:
            return
        self._clock_stopped_ns = time.perf_counter_ns()
        if self._disconnected:  # a middleware completes what the client no longer receives
            self._end(CLIENT_DISCONNECT, error_type=CLIENT_DISCONNECT)
        elif not self._may_still_raise():
            self._end(COMPLETED)

    def _may_still_raise(self) -> bool:
        """Tells whether this 5xx is sent from within an `except` block, which may raise again."""
        return (self._status_code or 0) >= SERVER_ERROR and sys.exc_info()[1] is not None

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
        if self._disconnected and isinstance(error, Exception | asyncio.CancelledError):
            self._end(CLIENT_DISCONNECT, error_type=CLIENT_DISCONNECT)
        elif isinstance(error, asyncio.CancelledError):
            self._end(CANCELLED, error_type=self._recorder.error_type(error))
        else:
            error_type, description = self._record_exception(error)
            self._end(ERROR, error_type=error_type, description=description)

    def _end(self, reason: str, *, error_type: str | None = None, description: str | None = None) -> None:
        """Ends span and metrics with the same two clock readings; runs once per exchange."""
        self.is_over = True
        stopped_ns = self._clock_stopped_ns or time.perf_counter_ns()
        duration_ns = stopped_ns - self._clock_started_ns
        recorder = self._recorder
        outcome = self._outcome(self._status_code, error_type)
        response_bytes = self._response_bytes if self._status_code is not None else None
        recorder.record_request(
            duration_ns / 1e9, self._known_request_bytes(), response_bytes, outcome, self.context
        )
        if self._is_stream and self._first_byte_ns is not None:
            recorder.record_first_byte(
                (self._first_byte_ns - self._clock_started_ns) / 1e9, outcome, reason, self.context
            )
        recorder.active_requests.add(-1, self._active_attributes, self.context)
        self._end_span(outcome, reason, {}, description=description, duration_ns=duration_ns)

    def _known_request_bytes(self) -> int | None:
        """Returns the size of the request's body, or None where the application did not read all of it.

        What a client announces does not count: one request could ruin the sum of the histogram.
        """
        return self._request_bytes if self._request_complete else None
