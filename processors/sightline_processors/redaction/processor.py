"""Redaction in a pipeline of the SDK: of spans as they start and as they are exported, of log records."""

from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.context import Context
from opentelemetry.sdk._logs import LoggerProvider, LogRecordProcessor, ReadWriteLogRecord
from opentelemetry.sdk.trace import Event, ReadableSpan, Span, SpanProcessor
from opentelemetry.trace import Link, Status

from sightline_processors.redaction.keys import REDACTED
from sightline_processors.redaction.redactor import Redactor
from sightline_processors.report import report
from sightline_processors.tracing.rewriting import changed
from sightline_processors.tracing.slotted_span import SlottedSpan

_SPAN_MESSAGE = "a span could not be redacted at its start; it is when it is exported"
_LOG_MESSAGE = "a log record could not be redacted; what could not be judged is left out"


class RedactionProcessor(SpanProcessor):
    """Redacts spans: name and attributes at the start, everything at the export; any thread, nothing raises.

    The SDK lets nobody edit an ended span. So this is a span processor, for what a span starts with, and a
    `SpanRewriter`, for what it was given later: name, attributes, events (`exception.message`,
    `exception.stacktrace`), attributes of links, description of the status. A pipeline whose exporter
    rewrites (`OtlpSpanProcessor.span_rewriters`, `RewritingSpanExporter`) needs only that; register it as a
    processor as well, before the others, for exporters that do not.

    Args:
        redactor: The built-in lists when omitted.
    """

    def __init__(self, redactor: Redactor | None = None) -> None:
        self._redactor = Redactor() if redactor is None else redactor

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Redacts the name and the attributes that a span starts with."""
        del parent_context
        try:
            self._redact_start(span)
        except Exception as error:  # noqa: BLE001  a request must not fail for its telemetry
            report("redaction", _SPAN_MESSAGE, error=error)

    def _redact_start(self, span: Span) -> None:
        name = self._redactor.text(span.name)
        if name is not span.name:
            span.update_name(name)
        # The public property would replace a plain dict by the SDK's checked mapping, for good.
        attributes = getattr(span, "_attributes", None) or span.attributes or {}
        redacted = self._redactor.attributes(attributes)
        if redacted is not attributes:
            for key, value in redacted.items():
                if value is not attributes[key]:
                    span.set_attribute(key, value)

    def rewrite(self, span: ReadableSpan) -> ReadableSpan:
        """Returns the span to export: the same one where there is nothing to hide."""
        changes: dict[str, Any] = {}
        if (name := self._redactor.text(span.name)) is not span.name:
            changes["name"] = name
        # The public properties make a view of what the span holds: most spans are looked at for less.
        plain = span._attributes if isinstance(span, SlottedSpan) else None  # noqa: SLF001
        attributes = plain if type(plain) is dict else span.attributes or {}
        if (redacted := self._redactor.attributes(attributes)) is not attributes:
            changes["attributes"] = redacted
        if not isinstance(span, SlottedSpan) or span.has_parts:
            for part in ("events", "links"):
                items = getattr(span, part)
                if items and (others := self._each(items)) is not items:
                    changes[part] = others
        if (status := self._status(span.status)) is not span.status:
            changes["status"] = status
        return changed(span, **changes) if changes else span

    def _each(self, items: Sequence[Any]) -> Sequence[Any]:
        others = [self._of(item) for item in items]
        return items if all(other is item for other, item in zip(others, items, strict=True)) else others

    def _of(self, item: Event | Link) -> Event | Link:
        """Returns an event or a link with attributes that hold nothing to hide."""
        attributes = item.attributes
        redacted = self._redactor.attributes(attributes) if attributes else attributes
        if redacted is attributes:
            return item
        kept = _with_count(redacted, attributes)
        if isinstance(item, Link):
            return Link(item.context, kept)
        return Event(item.name, kept, item.timestamp)

    def _status(self, status: Status) -> Status:
        if not status.description:
            return status
        description = self._redactor.text(status.description)
        return status if description is status.description else Status(status.status_code, description)


def _with_count(redacted: Mapping[str, Any] | None, original: Any) -> BoundedAttributes:
    """Returns attributes that say as many were dropped as the original ones do."""
    attributes = BoundedAttributes(attributes=redacted)
    attributes.dropped = getattr(original, "dropped", 0)
    return attributes


class RedactionLogProcessor(LogRecordProcessor):
    """Redacts the body and the attributes of log records, in place; any thread, nothing raises.

    Processors get a record in the order of their registration: this one must come before those that export.
    `redact_logs_of` puts it there.

    Args:
        redactor: The built-in lists when omitted.
    """

    def __init__(self, redactor: Redactor | None = None) -> None:
        self._redactor = Redactor() if redactor is None else redactor

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        """Redacts a record; a part that cannot be judged is left out."""
        record = log_record.log_record
        try:
            record.body = self._redactor.body(record.body)
        except Exception as error:  # noqa: BLE001  a request must not fail for its telemetry
            record.body = REDACTED
            report("redaction", _LOG_MESSAGE, error=error)
        try:
            self._redact_attributes(record.attributes)
        except Exception as error:  # noqa: BLE001  as above
            record.attributes = {}
            report("redaction", _LOG_MESSAGE, error=error)

    def _redact_attributes(self, attributes: Any) -> None:
        if not attributes:
            return
        redacted = self._redactor.attributes(attributes)
        if redacted is not attributes:
            for key, value in redacted.items():
                if value is not attributes[key]:
                    attributes[key] = value

    def shutdown(self) -> None:
        """Does nothing: no record is held back."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Returns True: no record is held back."""
        del timeout_millis
        return True


def redact_logs_of(provider: LoggerProvider, redactor: Redactor | None = None) -> RedactionLogProcessor:
    """Registers a `RedactionLogProcessor` before all other processors of a provider, once.

    The SDK has no way to be first: its tuple of processors is private (opentelemetry-sdk 1.45). Where it is
    another one, the processor is registered as the last, which one line in the log says.

    Args:
        provider: Of the SDK.
        redactor: The built-in lists when omitted; not used where the provider has such a processor.

    Returns:
        The provider's processor.
    """
    multi: Any = provider._multi_log_record_processor  # noqa: SLF001  see above
    registered = getattr(multi, "_log_record_processors", ())
    for each in registered:
        if isinstance(each, RedactionLogProcessor):
            return each
    processor = RedactionLogProcessor(redactor)
    provider.add_log_record_processor(processor)
    try:
        with multi._lock:  # noqa: SLF001  see above
            others = tuple(each for each in multi._log_record_processors if each is not processor)  # noqa: SLF001
            multi._log_record_processors = (processor, *others)  # noqa: SLF001  see above
    except (AttributeError, TypeError) as error:
        report("redaction", "log records are redacted only after the processors before", error=error)
    return processor
