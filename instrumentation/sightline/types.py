"""ASGI and OpenTelemetry shapes that several modules share.

Source: the ASGI specification 3.0 (HTTP and WebSocket message formats, 2.5).
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from opentelemetry.trace import Span
from opentelemetry.util.types import AttributeValue

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

RawHeader = tuple[bytes, bytes]
"""One ASGI header: name (lower-case in requests) and value, both raw bytes."""

Attributes = dict[str, AttributeValue]

ServerRequestHook = Callable[[Span, dict[str, Any]], None]
"""Called with the SERVER span and the ASGI scope, once per request."""

ClientHook = Callable[[Span, dict[str, Any], dict[str, Any]], None]
"""Called with the SERVER span, the ASGI scope and one ASGI message."""
