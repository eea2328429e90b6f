"""One WebSocket connection, from its handshake to its close.

It has one SERVER span, which ends with the first close: the application's, the client's, or an error.
The handshake's status is 101, or what refused it. Messages are counted and flushed at most once a second,
so that a connection that stays open for days is visible while it is. Spans of messages are an option and
bounded.
"""

import asyncio
import time
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.semconv.attributes.network_attributes import NETWORK_PROTOCOL_NAME
from opentelemetry.trace import Span

from sightline import names
from sightline.endings import CANCELLED, CLIENT_DISCONNECT, COMPLETED, ERROR, STREAM
from sightline.exchange import Exchange
from sightline.outcome import route_attributes
from sightline.recorder import Recorder
from sightline.routes import route_template
from sightline.types import Attributes, Message, Receive, Scope, Send
from sightline_processors.report import report

SWITCHING_PROTOCOLS: Final = 101
FORBIDDEN: Final = 403
NORMAL_CODES: Final = frozenset({1000, 1001, 1005, 1012})
"""Normal closure, going away, a close without a code, and a restart of the service.

Source: RFC 6455, section 7.4.1; the registry of WebSocket close codes for 1012."""
ABNORMAL_CLOSURE: Final = 1006
FIRST_APPLICATION_CODE: Final = 3000
FIRST_CODE: Final = 1000
LAST_CODE: Final = 4999
ABNORMAL_CLOSE: Final = "abnormal_close"
MAX_MESSAGE_SPANS: Final = 100
"""Message spans per connection; further messages are counted only."""
FLUSH_NS: Final = 1_000_000_000

RECEIVE: Final = "receive"
TRANSMIT: Final = "transmit"
DIRECTION: Final = "network.io.direction"


class WebSocketExchange(Exchange):
    """Follows one WebSocket connection."""

    def __init__(
        self, recorder: Recorder, current: Context, scope: Scope, receive: Receive, send: Send
    ) -> None:
        super().__init__(recorder, current, scope, receive, send)
        self.span.set_attribute(NETWORK_PROTOCOL_NAME, "websocket")
        self._accepted = self._disconnected = False
        self._status_code: int | None = None
        self._route_attributes: Attributes = {}
        self._messages = {RECEIVE: 0, TRANSMIT: 0}
        self._bytes = {RECEIVE: 0, TRANSMIT: 0}
        self._flushed_ns = self._clock_started_ns
        self._message_spans = MAX_MESSAGE_SPANS if self._options.settings.websocket_message_spans else 0
        self._message_span: Span | None = None

    async def receive(self) -> Message:
        """Passes one message on to the application; a disconnect ends the exchange."""
        self._end_message_span()
        message = await self._receive()
        try:
            self._incoming(message)
        except Exception as error:  # noqa: BLE001  fail open: the message goes on as it came
            report("websocket", "could not read a WebSocket message; it goes on untouched", error=error)
        return message

    def _incoming(self, message: Message) -> None:
        kind = message["type"]
        if kind == "websocket.receive":
            size = _payload_bytes(message)
            self._count(RECEIVE, size)
            self._message_span = self._start_message_span(RECEIVE, size)
        elif kind == "websocket.disconnect":
            code = _close_code(message.get("code"), ABNORMAL_CLOSURE)
            reason = COMPLETED if _close_class(code) != "abnormal" else CLIENT_DISCONNECT
            self._end(reason, close_code=code)
        if self._options.client_request_hook is not None:
            self._call_hook(self._options.client_request_hook, self.scope, message)

    async def send(self, message: Message) -> None:
        """Passes one message of the application on to the server; a close ends the exchange."""
        span = None
        try:
            message, span = self._outgoing(message)
        except Exception as error:  # noqa: BLE001  fail open: the message goes out as it came
            report("websocket", "could not read a WebSocket message; it goes on untouched", error=error)
        try:
            await self._send(message)
        except OSError:
            self._disconnected = True  # ASGI 2.4: the server says so by raising
            raise
        finally:
            if span is not None:
                span.end()
        try:
            self._sent(message)
        except Exception as error:  # noqa: BLE001  fail open: the message has been sent
            report("stop", "could not finish the telemetry of a connection", error=error)

    def _outgoing(self, message: Message) -> tuple[Message, Span | None]:
        """Returns the message to send and the span of the sending, if there is one."""
        kind = message["type"]
        span = None
        if kind == "websocket.send":
            size = _payload_bytes(message)
            self._count(TRANSMIT, size)
            span = self._start_message_span(TRANSMIT, size)
        elif kind == "websocket.accept":
            message = self._with_correlation_header(message)
            self._accept(message)
        elif kind == "websocket.http.response.start":
            message = self._with_correlation_header(message)
            self._status_code = message["status"]
            self._capture_headers(message)
        if self._options.client_response_hook is not None:
            self._call_hook(self._options.client_response_hook, self.scope, message)
        return message, span

    def _accept(self, message: Message) -> None:
        self._accepted = True
        self._status_code = SWITCHING_PROTOCOLS
        self._capture_headers(message)
        self._route_attributes = route_attributes(route_template(self.scope))
        self._recorder.websocket_active.add(1, self._route_attributes, self.context)

    def _capture_headers(self, message: Message) -> None:
        capture = self._options.captured_response_headers
        if capture is not None:
            self._response_attributes = capture.attributes(message["headers"])

    def _sent(self, message: Message) -> None:
        kind = message["type"]
        if kind == "websocket.close" and self._accepted:
            self._end(COMPLETED, close_code=_close_code(message.get("code"), 1000))
        elif kind == "websocket.close":
            self._status_code = FORBIDDEN
            self._end(COMPLETED)
        elif kind == "websocket.http.response.body" and not message.get("more_body", False):
            self._end(COMPLETED)

    def returned(self) -> None:
        """Ends the exchange when the application returned without closing; the server closes normally."""
        if self._disconnected:
            self._end(CLIENT_DISCONNECT, close_code=ABNORMAL_CLOSURE)
        else:
            self._end(COMPLETED, close_code=1000 if self._accepted else None)

    def raised(self, error: BaseException) -> None:
        """Ends the exchange when the application raised; an exchange that is over stays as it is."""
        if self.is_over:
            return
        if self._disconnected:
            self._end(CLIENT_DISCONNECT, close_code=ABNORMAL_CLOSURE)
            return
        if isinstance(error, asyncio.CancelledError):
            self._end(CANCELLED, error_type=self._recorder.error_type(error))
            return
        error_type, description = self._record_exception(error)
        self._end(ERROR, error_type=error_type, description=description)

    def _end(
        self,
        reason: str,
        *,
        close_code: int | None = None,
        error_type: str | None = None,
        description: str | None = None,
    ) -> None:
        """Ends span and metrics; runs once per exchange, at the first close."""
        if self.is_over:
            return
        self.is_over = True
        duration_ns = time.perf_counter_ns() - self._clock_started_ns
        close_class = _close_class(close_code) if self._accepted else "refused"
        if error_type is None and close_class == "abnormal":
            error_type = ABNORMAL_CLOSE
        self._end_message_span()
        self._flush()
        ending = self._shared.ending(self.scope, self._status_code, reason, error_type, self._flags | STREAM)
        ending.cell.add(ending.verdict, [duration_ns / 1e9])
        outcome = ending.outcome
        if self._accepted:
            self._recorder.websocket_active.add(-1, self._route_attributes, self.context)
            close_class = "abnormal" if outcome.is_error else close_class
        self._recorder.websocket_duration.record(
            duration_ns / 1e9,
            {**outcome.route_attributes, names.WEBSOCKET_CLOSE_CLASS: close_class},
            self.context,
        )
        more: Attributes = {} if close_code is None else {names.WEBSOCKET_CLOSE_CODE: close_code}
        self._end_span(ending, more, description=description, duration_ns=duration_ns)

    def _count(self, direction: str, size: int) -> None:
        self._messages[direction] += 1
        self._bytes[direction] += size
        if time.perf_counter_ns() - self._flushed_ns >= FLUSH_NS:
            self._flush()

    def _flush(self) -> None:
        """Hands the counts since the last flush to the counters."""
        self._flushed_ns = time.perf_counter_ns()
        for direction, messages in self._messages.items():
            if messages:
                attributes = {**self._route_attributes, DIRECTION: direction}
                self._recorder.websocket_messages.add(messages, attributes, self.context)
                self._recorder.websocket_io.add(self._bytes[direction], attributes, self.context)
        self._messages = dict.fromkeys(self._messages, 0)
        self._bytes = dict.fromkeys(self._bytes, 0)

    def _start_message_span(self, direction: str, size: int) -> Span | None:
        """Starts the span of one message: while it is handled, or while it is sent."""
        if self._message_spans <= 0:
            return None
        self._message_spans -= 1
        attributes: Attributes = {DIRECTION: direction, "messaging.message.body.size": size}
        return self._recorder.tracer.start_span(f"websocket {direction}", self.context, attributes=attributes)

    def _end_message_span(self) -> None:
        """Ends the span of the message that the application has handled; it asks for the next one now."""
        if self._message_span is not None:
            self._message_span.end()
            self._message_span = None


def _payload_bytes(message: Any) -> int:
    data = message.get("bytes")
    return len(data) if data is not None else len((message.get("text") or "").encode("utf-8", "replace"))


def _close_code(code: object, default: int) -> int:
    """Returns a close code as a message carries it; one that cannot be on the wire is the default."""
    return code if isinstance(code, int) and FIRST_CODE <= code <= LAST_CODE else default


def _close_class(code: int | None) -> str:
    if code is None or code in NORMAL_CODES:
        return "normal"
    return "application" if code >= FIRST_APPLICATION_CODE else "abnormal"
