"""Records an exception once: as a span event, as a log record, or as both.

`OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN` chooses: unset for the span event, `logs` for the log record,
`logs/dup` for both. Messages and stack traces are redacted and bounded.

Source: semantic conventions v1.44.0, exceptions-spans and exceptions-logs; http-exceptions for the event's
name and severity.
"""

import os
import time
import traceback
from collections import deque
from typing import Final

from opentelemetry._logs import Logger, LogRecord, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.semconv.attributes.exception_attributes import (
    EXCEPTION_MESSAGE,
    EXCEPTION_STACKTRACE,
    EXCEPTION_TYPE,
)
from opentelemetry.trace import Span

from sightline import names
from sightline.attributes import bounded_text, encodable
from sightline.correlation import correlation_id_of
from sightline.options import process_redactor
from sightline.recorder import qualified_name
from sightline.types import Attributes

SIGNAL_VARIABLE: Final = "OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN"
EVENT_NAME: Final = "http.server.request.exception"
MAX_STACKTRACE_CHARACTERS: Final = 16_384
MAX_GROUP_DEPTH: Final = 8

_RECORDED: Final = "_sightline_recorded"


def record(
    error: BaseException,
    span: Span,
    context: Context,
    logger: Logger,
    *,
    event_name: str = EVENT_NAME,
    by_server: bool = False,
) -> None:
    """Records one exception with the span in which it happened, unless it has been recorded already.

    An `HTTPException` that the application turns into its answer is control flow and does not come here.

    Args:
        error: The exception; a group that holds a single exception counts as that exception.
        span: Gets the event.
        context: The context of the span, which gives the log record its IDs.
        logger: Gets the log record.
        event_name: Name of the log record.
        by_server: The server's own log record of it has neither exception nor IDs (granian): ours goes to the
            logs in its place, whatever the variable says.
    """
    error = unwrapped(error)
    trace_id = span.get_span_context().trace_id
    if not isinstance(error, Exception) or _mark_of(error)[:1] == (trace_id,):
        return
    to_span, to_logs = _signals()
    if by_server:
        to_logs = True
        _expected.append(None)
    attributes = exception_attributes(error)
    if to_span and span.is_recording():
        span.add_event("exception", attributes)
    if to_logs:
        _emit(logger, context, event_name, attributes)
    _mark(error, trace_id, in_logs=to_logs)


def unwrapped(error: BaseException) -> BaseException:
    """Returns the exception inside groups of one, as task groups wrap what an application raised."""
    depth = 0
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1 and depth < MAX_GROUP_DEPTH:
        error = error.exceptions[0]
        depth += 1
    return error


def message_of(error: BaseException) -> str:
    """Returns an exception's message, redacted and bounded."""
    # Cut before the redaction, which then costs a bounded time, and again: a replacement may be longer.
    try:
        text = str(error)
    except Exception:  # noqa: BLE001  a __str__ of the application's own
        text = "(its message cannot be read)"
    return bounded_text(process_redactor().text(bounded_text(text)))


_expected: deque[None] = deque(maxlen=1000)
"""One item for each record of the server's that stands for an exception recorded already."""


def answered_by_server() -> bool:
    """Tells whether a record that the server has just written stands for one that has been recorded."""
    try:
        _expected.pop()
    except IndexError:
        return False
    return True


def is_recorded_in_logs(error: BaseException | None, trace_id: int) -> bool:
    """Tells whether an exception has been recorded as a log record in a trace."""
    return error is not None and _mark_of(unwrapped(error)) == (trace_id, True)


def _mark_of(error: BaseException) -> tuple[int, bool] | tuple[()]:
    """Returns the trace in which an exception was recorded last, and whether logs got it.

    By trace: an application may raise one and the same object in many requests.
    """
    mark = getattr(error, _RECORDED, ())
    return mark if isinstance(mark, tuple) else ()


def _mark(error: BaseException, trace_id: int, *, in_logs: bool) -> None:
    try:
        setattr(error, _RECORDED, (trace_id, in_logs))
    except Exception:  # noqa: BLE001  a class with __slots__, or with a __setattr__ of its own
        return


def _signals() -> tuple[bool, bool]:
    """Returns whether spans and logs get exceptions."""
    chosen = {item.strip() for item in os.environ.get(SIGNAL_VARIABLE, "").split(",")}
    if "logs/dup" in chosen:
        return True, True
    return "logs" not in chosen, "logs" in chosen


def exception_attributes(error: BaseException) -> Attributes:
    """Returns class, message and, where it was raised, stack trace of an exception, redacted and bounded."""
    attributes: Attributes = {
        EXCEPTION_TYPE: qualified_name(type(error)),
        EXCEPTION_MESSAGE: message_of(error),
    }
    if error.__traceback__ is not None:
        stacktrace = "".join(traceback.format_exception(error))
        # The end of a stack trace says where it happened: the beginning is what goes.
        attributes[EXCEPTION_STACKTRACE] = encodable(
            process_redactor().text(stacktrace[-MAX_STACKTRACE_CHARACTERS:])
        )
    return attributes


def _emit(logger: Logger, context: Context, event_name: str, attributes: Attributes) -> None:
    correlation_id = correlation_id_of(context)
    if correlation_id is not None:
        attributes = {**attributes, names.LOG_CORRELATION_ID: correlation_id}
    now = time.time_ns()
    logger.emit(
        LogRecord(
            timestamp=now,
            observed_timestamp=now,
            context=context,
            severity_number=SeverityNumber.ERROR,
            severity_text="ERROR",
            body="unhandled exception",
            attributes=attributes,
            event_name=event_name,
        )
    )
