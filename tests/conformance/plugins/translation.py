"""The documented differences between Sightline and the stock classes, translated for the stock tests.

Sightline's answers go through unchanged except for these, which its documentation lists; the class that does
nothing gets the same translation, so that nothing which is only translated counts:

1. One span per request: the spans of the single `send` and `receive` messages are made here.
2. The span's name never holds the path: where there is no route, the stock name is set through the hook.
3. The correlation header is taken out of what the test sees.
4. Attributes beyond the stock ones (`sightline.*`, `network.peer.*`) are taken out of what the test sees, and
   `client.port`, which the conventions call opt-in, is set through the hook.
5. Captured headers are shown under the stock key, with `_` where the conventions keep `-`.
6. Metrics beyond the stock ones (`sightline.*`) are taken out of what the test sees.
7. A request ends before its short body is sent: its span is shown after those of its messages.
8. Where `http/dup` is forced, the stable half of it is taken out for tests of the old conventions only.
"""

from collections.abc import Callable, Sequence
from typing import Any

from opentelemetry import trace
from opentelemetry.instrumentation.utils import is_http_instrumentation_enabled
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricsData
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

CORRELATION_HEADER = b"x-correlation-id"
STABLE_PREFIXES = (
    "http.request.method", "http.response.status_code", "url.", "server.", "client.", "network.",
    "user_agent.", "error.type",
)  # fmt: skip
ADDED_PREFIXES = ("sightline.", "network.peer.")
IN_SCOPE = "conformance.translated"

HEADER_PREFIXES = ("http.request.header.", "http.response.header.")

conventions = "old"
"""What the running test is about: `old`, `new` or `both`."""


def named(details: Callable[[Any], Any], hook: Any) -> Any:
    """Returns a hook that names the span as the stock class does, and then calls the test's hook."""

    def server_request_hook(span: Any, scope: Any) -> None:
        name, attributes = details(scope)
        span.update_name(name)
        span.set_attributes(attributes)
        if conventions != "old" and scope.get("client"):
            span.set_attribute("client.port", scope["client"][1])
        if hook is not None:
            hook(span, scope)

    return server_request_hook


class MessageSpans:
    """Makes the spans of single messages, outside of what is judged, and takes the correlation header out."""

    def __init__(
        self,
        app: Any,
        details: Callable[[Any], Any],
        provider: Any = None,
        excluded: Sequence[str] | None = None,
    ) -> None:
        self.app = app
        self.details = details
        self.provider = provider
        self.excluded = excluded or ()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serves one ASGI connection; one that is translated already passes through."""
        if not is_http_instrumentation_enabled():
            await self.app(scope, receive, send)
            return
        if scope["type"] not in ("http", "websocket") or IN_SCOPE in scope:
            await self.app(scope, receive, send)
            return
        scope[IN_SCOPE] = True
        name = f"{self.details(scope)[0]} {scope['type']}"

        async def traced_receive() -> Any:
            if "receive" in self.excluded:
                return await receive()
            with self._span(f"{name} receive") as span:
                message = await receive()
                self._describe(span, message, websocket_status=message["type"] == "websocket.receive")
            return message

        async def traced_send(message: Any) -> None:
            message = without_correlation_header(message)
            if "send" in self.excluded:
                await send(message)
                return
            with self._span(f"{name} send") as span:
                self._describe(span, message, websocket_status=message["type"] == "websocket.send")
                await send(message)

        try:
            await self.app(scope, traced_receive, traced_send)
        finally:
            del scope[IN_SCOPE]  # a test may use its scope again

    def _span(self, name: str) -> Any:
        parent = trace.get_current_span()
        # Sightline's span may have ended when the last message is sent: its flag is what counts.
        context = parent.get_span_context()
        is_unsampled = context.is_valid and not context.trace_flags.sampled
        provider = trace.NoOpTracerProvider() if is_unsampled else self.provider
        return trace.get_tracer("sightline", tracer_provider=provider).start_as_current_span(name)

    @staticmethod
    def _describe(span: Any, message: Any, *, websocket_status: bool) -> None:
        status = 200 if websocket_status else message.get("status")
        if status is not None:
            if conventions != "new":
                span.set_attribute("http.status_code", status)
            if conventions != "old":
                span.set_attribute("http.response.status_code", status)
        span.set_attribute("asgi.event.type", message["type"])


def without_correlation_header(message: Any) -> Any:
    """Returns a message without Sightline's header."""
    if "headers" not in message:
        return message
    kept = [header for header in message["headers"] if bytes(header[0]).lower() != CORRELATION_HEADER]
    return {**message, "headers": kept}


def install(*, drop_stable: bool) -> None:
    """Makes the in-memory exporter show spans without what is translated."""
    original = InMemorySpanExporter.get_finished_spans

    def get_finished_spans(self: Any) -> tuple[ReadableSpan, ...]:
        dropped = ADDED_PREFIXES + (STABLE_PREFIXES if drop_stable and conventions == "old" else ())
        return tuple(_without(span, dropped) for span in _requests_last(original(self)))

    InMemorySpanExporter.get_finished_spans = get_finished_spans  # type: ignore[method-assign]
    collected = InMemoryMetricReader.get_metrics_data

    def get_metrics_data(self: Any) -> MetricsData | None:
        data = collected(self)
        for resource in data.resource_metrics if data is not None else ():
            for scope in resource.scope_metrics:
                kept = [each for each in scope.metrics if not each.name.startswith(ADDED_PREFIXES)]
                object.__setattr__(scope, "metrics", kept)  # a frozen class
        return data

    InMemoryMetricReader.get_metrics_data = get_metrics_data  # type: ignore[method-assign]


def _requests_last(spans: Sequence[ReadableSpan]) -> list[ReadableSpan]:
    """Returns the spans in their order, each behind the spans of the messages that were sent in it."""
    places: dict[int, float] = {}
    for place, span in enumerate(spans):
        if span.parent is not None and span.name.endswith(" send"):
            places[span.parent.span_id] = place + 0.5
    indices = {id(span): index for index, span in enumerate(spans)}
    return sorted(spans, key=lambda each: max(indices[id(each)], places.get(_span_id(each), 0)))


def _span_id(span: ReadableSpan) -> int:
    return span.context.span_id if span.context is not None else 0


def _without(span: ReadableSpan, dropped: tuple[str, ...]) -> ReadableSpan:
    kept = {
        name.replace("-", "_") if name.startswith(HEADER_PREFIXES) else name: value
        for name, value in (span.attributes or {}).items()
        if not name.startswith(dropped)
    }
    return ReadableSpan(
        span.name,
        span.get_span_context(),
        span.parent,
        span.resource,
        kept,
        span.events,
        span.links,
        span.kind,
        None,
        span.status,
        span.start_time,
        span.end_time,
        span.instrumentation_scope,
    )
