"""Correlation and export of stdlib `logging` records, without touching levels, handlers or formats.

Two methods of `logging.Logger` are wrapped. `makeRecord` puts `correlation_id`, `trace_id` and `span_id`
on each record, so that any formatter can print them. `callHandlers`, which each record passes once
whatever its logger propagates to, exports it; no handler is added anywhere, so an application's own
logging set-up works as if nothing were installed, and there is one copy of each record by construction.
"""

import logging
import os
import re
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import wraps
from typing import Any, Final

from opentelemetry import context as otel_context
from opentelemetry._logs import LoggerProvider, LogRecord, get_logger_provider
from opentelemetry.context import Context
from opentelemetry.instrumentation.logging.environment_variables import (
    OTEL_PYTHON_LOG_AUTO_INSTRUMENTATION,
    OTEL_PYTHON_LOG_CODE_ATTRIBUTES,
    OTEL_PYTHON_LOG_HANDLER_LEVEL,
)
from opentelemetry.instrumentation.logging.handler import LoggingHandler
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.sdk import _logs as sdk_logs
from opentelemetry.trace import get_current_span
from opentelemetry.util.types import AnyValue

from sightline.access_records import ACCESS_LOGGERS, verdict_so_far
from sightline.attributes import encodable
from sightline.correlation import correlation_id_of
from sightline.exceptions import answered_by_server, exception_attributes, is_recorded_in_logs
from sightline.names import LOG_CORRELATION_ID
from sightline.options import process_redactor
from sightline_processors.report import report, warn_once
from sightline_processors.sla.verdict import OUTCOME_ATTRIBUTE

ABSENT: Final = "-"
"""Value of the record attributes outside a request, as access logs write it."""

SERVER_LOGGERS: Final = frozenset({"uvicorn.error", "gunicorn.error", "hypercorn.error"})
"""Loggers of the servers, whose record of an exception would be the second one in logs."""

_FORMAT_ONLY = frozenset(
    {"otelTraceID", "otelSpanID", "otelTraceSampled", "otelServiceName", "color_message"}
)
"""Record attributes that an exported record carries in fields of its own, or that only colour a console."""

_TARGET_QUERY = re.compile(r"\?([^\s\"]*)")
_CONTEXT_ATTRIBUTE = "_sightline_context"
_OTEL_HANDLERS: tuple[type[logging.Handler], ...] = tuple(
    cls for cls in (LoggingHandler, getattr(sdk_logs, "LoggingHandler", None)) if cls is not None
)


_finished: ContextVar[Context | None] = ContextVar("sightline_finished", default=None)
"""The request that has just ended in this task: granian writes its access record after the application."""

_GRANIAN_ERROR_LOGGER: Final = "_granian.utils"
_GRANIAN_ERROR: Final = "Application callable raised an exception"


remember_finished = _finished.set
"""Lets the access record that the server writes in this task, after the request, carry its IDs."""


def remember_context(error: BaseException, context: Context) -> None:
    """Lets a record about this exception, logged by the server after the request, carry its IDs."""
    try:
        setattr(error, _CONTEXT_ATTRIBUTE, context)
    except Exception:  # noqa: BLE001  a class with __slots__, or with a __setattr__ of its own
        return


def _context_of(record: logging.LogRecord) -> Context:
    """Returns the context that a record belongs to: the current one, or that of its exception."""
    current = otel_context.get_current()
    if correlation_id_of(current) is None and record.name in ACCESS_LOGGERS:
        return _finished.get() or current
    if correlation_id_of(current) is None and record.exc_info:
        remembered = getattr(record.exc_info[1], _CONTEXT_ATTRIBUTE, None)
        return remembered if isinstance(remembered, Context) else current
    return current


def _ids_of(context: Context) -> dict[str, str]:
    """Returns trace ID and span ID of a context, as hex digits."""
    span_context = get_current_span(context).get_span_context()
    if not span_context.is_valid:
        return {"trace_id": ABSENT, "span_id": ABSENT}
    return {"trace_id": f"{span_context.trace_id:032x}", "span_id": f"{span_context.span_id:016x}"}


def _add_ids(record: logging.LogRecord) -> None:
    """Sets the three attributes, on access records the verdict too; what came as `extra` stays."""
    context = _context_of(record)
    fields = record.__dict__
    fields.setdefault(LOG_CORRELATION_ID, correlation_id_of(context) or ABSENT)
    for name, value in _ids_of(context).items():
        fields.setdefault(name, value)
    if record.name in ACCESS_LOGGERS and (verdict := verdict_so_far(context)) is not None:
        fields.setdefault(OUTCOME_ATTRIBUTE, verdict)


class RecordBridge(LoggingHandler):
    """Translates records to OpenTelemetry and hands them to a LoggerProvider; never put on a logger."""

    def __init__(self, *, access_log: bool, logger_provider: LoggerProvider | None = None) -> None:
        """Reads the stock instrumentor's variables for level and code attributes.

        Args:
            access_log: Export the records of `ACCESS_LOGGERS` too.
            logger_provider: None for the global one.
        """
        super().__init__(
            level=_handler_level(),
            logger_provider=logger_provider or get_logger_provider(),
            log_code_attributes=os.environ.get(OTEL_PYTHON_LOG_CODE_ATTRIBUTES, "").strip().lower() == "true",
        )
        self._access_log = access_log

    def export(self, source: logging.Logger, record: logging.LogRecord) -> None:
        """Exports one record, unless a stock handler on its way does, or an exporter wrote it."""
        if self._is_emitting.get():
            return  # a warning about the record that is being exported
        if record.levelno < self.level or (record.name in ACCESS_LOGGERS and not self._access_log):
            return
        if _is_granian_error(record) and answered_by_server():
            return
        if not is_instrumentation_enabled() or _has_stock_handler(source):
            return
        context = _context_of(record)
        if record.name in SERVER_LOGGERS and _is_recorded(record, context):
            return
        token = otel_context.attach(context)
        try:
            self.emit(record)
        finally:
            otel_context.detach(token)

    def _translate(self, record: logging.LogRecord) -> LogRecord:
        translated = super()._translate(record)
        if isinstance(translated.body, str):
            translated.body = encodable(translated.body)
            if record.name in ACCESS_LOGGERS:
                translated.body = _TARGET_QUERY.sub(
                    lambda match: f"?{process_redactor().query(match[1])}", translated.body
                )
        return translated

    def _get_attributes(self, record: logging.LogRecord) -> tuple[dict[str, AnyValue], str | None]:
        attributes, event_name = super()._get_attributes(record)
        own = _ids_of(otel_context.get_current())  # the record's context: `export` has attached it
        attributes = {
            name: value
            for name, value in attributes.items()
            if name not in _FORMAT_ONLY and own.get(name) != value
        }
        if record.exc_info and record.exc_info[1] is not None:
            attributes.update(exception_attributes(record.exc_info[1]))  # stock: neither bounded nor redacted
        if attributes.get(LOG_CORRELATION_ID) == ABSENT:
            del attributes[LOG_CORRELATION_ID]
        return attributes, event_name


def _is_granian_error(record: logging.LogRecord) -> bool:
    """Tells a record of an unhandled error that granian writes from Rust, with neither exception nor IDs."""
    return record.name == _GRANIAN_ERROR_LOGGER and record.getMessage().startswith(_GRANIAN_ERROR)


def _is_recorded(record: logging.LogRecord, context: Context) -> bool:
    trace_id = get_current_span(context).get_span_context().trace_id
    return is_recorded_in_logs(record.exc_info[1] if record.exc_info else None, trace_id)


def _handler_level() -> int:
    name = os.environ.get(OTEL_PYTHON_LOG_HANDLER_LEVEL, "").strip().upper()
    if not name:
        return logging.NOTSET
    level = logging.getLevelNamesMapping().get(name)
    if level is None:
        warn_once(
            "%s must be a level name, got %r (from the environment); exporting every level; "
            "for example %s=info",
            OTEL_PYTHON_LOG_HANDLER_LEVEL,
            name,
            OTEL_PYTHON_LOG_HANDLER_LEVEL,
        )
    return level or logging.NOTSET


def _has_stock_handler(source: logging.Logger) -> bool:
    """Tells whether a stock OpenTelemetry handler receives the records of a logger."""
    return any(isinstance(handler, _OTEL_HANDLERS) for handler in _handlers(source))


def _handlers(source: logging.Logger | None) -> Iterator[logging.Handler]:
    while source is not None:
        yield from source.handlers
        source = source.parent if source.propagate else None


_installed: dict[str, Callable[..., Any]] = {}
_bridges: list[RecordBridge] = []
"""What exports records; the last one does, so that a capture in a test can stand in for a while."""


def is_logging_wrapped() -> bool:
    """Tells whether the records of this process carry IDs."""
    return bool(_installed)


def add_ids_to_records() -> None:
    """Wraps `Logger.makeRecord` once per process."""
    if "makeRecord" in _installed:
        return
    make_record = _installed["makeRecord"] = logging.Logger.makeRecord

    @wraps(make_record)
    def wrapper(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make_record(*args, **kwargs)
        try:
            _add_ids(record)
        except Exception as error:  # noqa: BLE001  fail open: the record is logged without IDs
            report("record", "could not add IDs to a log record", error=error)
        return record

    logging.Logger.makeRecord = wrapper  # type: ignore[method-assign]


def export_records(*, access_log: bool, logger_provider: LoggerProvider | None = None) -> None:
    """Wraps `Logger.callHandlers` once per process, unless `OTEL_PYTHON_LOG_AUTO_INSTRUMENTATION=false`."""
    switch = os.environ.get(OTEL_PYTHON_LOG_AUTO_INSTRUMENTATION, "true").strip().lower()
    if _bridges or switch != "true":
        return
    push_bridge(RecordBridge(access_log=access_log, logger_provider=logger_provider))


def push_bridge(bridge: RecordBridge) -> None:
    """Has records exported by a bridge, in place of the one before, until `pop_bridge`."""
    _bridges.append(bridge)
    if "callHandlers" in _installed:
        return
    call_handlers = _installed["callHandlers"] = logging.Logger.callHandlers

    @wraps(call_handlers)
    def wrapper(self: logging.Logger, record: logging.LogRecord) -> None:
        call_handlers(self, record)
        try:
            if _bridges:
                _bridges[-1].export(self, record)
        except Exception as error:  # noqa: BLE001  fail open: the application's handlers have run
            report("bridge", "could not export a log record", error=error)

    logging.Logger.callHandlers = wrapper  # type: ignore[method-assign]


def pop_bridge() -> None:
    """Gives the bridge before its place back; without one, the wrap is undone."""
    if _bridges:
        _bridges.pop()
    if not _bridges and "callHandlers" in _installed:
        logging.Logger.callHandlers = _installed.pop("callHandlers")  # type: ignore[method-assign]


def restore_logging() -> None:
    """Undoes both wraps."""
    _bridges.clear()
    for name, original in _installed.items():
        setattr(logging.Logger, name, original)
    _installed.clear()
