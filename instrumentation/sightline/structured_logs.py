"""Correlation and export of structlog events and loguru records, with no code in the application.

structlog: `BoundLoggerBase._process_event`, which each event passes, runs the application's own processors
with two of ours among them. One adds the IDs, the other remembers the event as it is before it is rendered.
An event that goes on to `logging` or loguru is exported there; any other is exported here.

loguru: `Logger._log` gets the IDs as the lowest layer of `extra`, and a last patcher that keeps the record.

Bridges between the three make copies. The record that came first is the one that is exported: while its
handlers or sinks run, a context variable holds it, and a record with its text is taken for its copy.
"""

import copy
import inspect
import logging
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from functools import wraps
from itertools import islice
from types import FunctionType
from typing import Any, Final

import wrapt
from opentelemetry import context as otel_context
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.instrumentation.logging.environment_variables import OTEL_PYTHON_LOG_AUTO_INSTRUMENTATION
from opentelemetry.trace import get_current_span
from opentelemetry.util.types import AnyValue

from sightline import logs
from sightline.attributes import bounded_text
from sightline.correlation import correlation_id_of
from sightline.logs import _OTEL_HANDLERS, ABSENT, RecordBridge, _has_stock_handler
from sightline.names import LOG_CORRELATION_ID
from sightline.options import CaptureOptions
from sightline_processors.report import report

ID_NAMES: Final = (LOG_CORRELATION_ID, "trace_id", "span_id")

MAX_FIELDS: Final = 100
"""Attributes of one exported record that come from the application; further ones are left out."""
MAX_DEPTH: Final = 4
"""Nested mappings and sequences that an attribute keeps; deeper ones become text."""

_FIELDS: Final = "_sightline_fields"
_MERGERS: Final = frozenset({"merge_contextvars", "merge_threadlocal", "merge_threadlocal_context"})
"""Processors of structlog below whose values ours must stay."""

_OWN_FIELDS: Final = frozenset({"level", "logger", "timestamp"})
"""Keys that processors add; the exported record has a field for each."""

_LEVELS: Final = {
    **dict.fromkeys(("critical", "fatal"), logging.CRITICAL),
    **dict.fromkeys(("error", "err", "exception", "failure"), logging.ERROR),
    **dict.fromkeys(("warning", "warn"), logging.WARNING),
    "debug": logging.DEBUG,
}
"""By method of a structlog logger; any other is INFO."""

_LOG_PARAMETERS: Final = ["self", "level", "from_decorator", "options", "message", "args", "kwargs"]
_LOG_OPTIONS: Final = 9
_WRITER_THREADS: Final = "loguru-writer-"
_INT64: Final = 2**63

ExcInfo = tuple[type[BaseException], BaseException, Any]


class _Origin:
    """A record whose handlers or sinks are running: what they log may be a copy of it.

    Attributes:
        record: The record of `logging`, or None.
        kept: The record of loguru, once it is made, or None.
        is_copy: Whether the record is itself a copy.
        is_exported: Whether a stock OpenTelemetry handler has received a copy.
    """

    __slots__ = ("is_copy", "is_exported", "kept", "record")

    def __init__(self, record: logging.LogRecord | None = None, *, is_copy: bool = False) -> None:
        self.record = record
        self.kept: dict[str, Any] | None = None
        self.is_copy = is_copy
        self.is_exported = False

    def keep(self, record: dict[str, Any]) -> None:
        """Remembers loguru's record; called as its last patcher."""
        self.kept = record

    def is_same(self, text: str) -> bool:
        """Tells whether a text is the record's own, perhaps formatted on the way."""
        own = self.record.getMessage() if self.record is not None else (self.kept or {}).get("message")
        return own is not None and (own in text or text in own)


class _Event:
    """A structlog event on its way to another logging library, or exported already."""

    __slots__ = ("body", "exc_info", "fields", "is_exported", "rendered")

    def __init__(
        self, body: Any, fields: dict[str, Any], exc_info: ExcInfo | None, rendered: Any, *, is_exported: bool
    ) -> None:
        self.body = body
        self.fields = fields
        self.exc_info = exc_info
        self.rendered = rendered
        self.is_exported = is_exported


_origin: ContextVar[_Origin | None] = ContextVar("sightline_log_origin", default=None)
_event: ContextVar[_Event | None] = ContextVar("sightline_structlog_event", default=None)


class StructuredBridge(RecordBridge):
    """Exports structlog events and loguru records with their keys as attributes."""

    def export_event(self, source: logging.Logger, record: logging.LogRecord, event: _Event) -> None:
        """Exports an event that reached `logging`, in place of its rendering."""
        exported = copy.copy(record)
        for name in ("_logger", "_name"):  # what structlog's ProcessorFormatter works with
            exported.__dict__.pop(name, None)
        exported.msg, exported.args = event.body, ()
        exported.exc_info = exported.exc_info or event.exc_info
        exported.__dict__[_FIELDS] = event.fields
        _plain_export(self, source, exported)

    def export_native(self, name: str, level: int, event: _Event) -> None:
        """Exports an event of a logger that is not of another library."""
        record = logging.LogRecord(name, level, "", 0, event.body, (), event.exc_info)
        record.__dict__[_FIELDS] = event.fields
        _plain_export(self, _NOWHERE, record)

    def export_loguru(self, kept: dict[str, Any], event: _Event | None) -> None:
        """Exports a record of loguru; `event` is what structlog rendered into its message."""
        level, exception = kept["level"], kept["exception"]
        exc_info = tuple(exception) if exception is not None else event.exc_info if event else None
        body = event.body if event else kept["message"]
        record = logging.LogRecord(
            kept["name"] or "loguru", level.no, kept["file"].path, kept["line"], body, (), exc_info
        )  # fmt: skip
        record.funcName, record.levelname = kept["function"], level.name
        record.created = kept["time"].timestamp()
        record.__dict__[_FIELDS] = {**kept["extra"], **(event.fields if event else {})}
        _plain_export(self, _NOWHERE, record)

    def _translate(self, record: logging.LogRecord) -> LogRecord:
        translated = super()._translate(record)
        if logging.NOTSET < record.levelno < logging.DEBUG:
            translated.severity_number = SeverityNumber.TRACE
        return translated

    def _get_attributes(self, record: logging.LogRecord) -> tuple[dict[str, AnyValue], str | None]:
        attributes, event_name = super()._get_attributes(record)
        fields: Any = attributes.pop(_FIELDS, {})
        ids = _current_ids()
        for name, value in islice(fields.items(), MAX_FIELDS):
            if name not in ID_NAMES or value not in (ABSENT, ids.get(name)):
                attributes.setdefault(str(name), _bounded(value))
        if LOG_CORRELATION_ID in ids:
            attributes.setdefault(LOG_CORRELATION_ID, ids[LOG_CORRELATION_ID])
        return attributes, event_name


_NOWHERE: Final = logging.Logger("sightline.nowhere")  # noqa: LOG001  has no handlers, not even its parents'
_plain_export: Final = RecordBridge.export

_active: list[StructuredBridge | None] = []
"""Empty when nothing is installed; None when records get IDs and are not exported."""
_restore: dict[str, Callable[[], None]] = {}
_forwarding_loggers: list[type] = [logging.Logger, logging.LoggerAdapter]
"""Loggers that export by themselves what a structlog logger hands them."""


def _bounded(value: Any, depth: int = 0) -> AnyValue:
    """Returns a value as OTLP can carry it, bounded in length, depth and number of items."""
    if isinstance(value, str):
        return bounded_text(value)
    if value is None or isinstance(value, bool | float | bytes):
        return value
    if isinstance(value, int) and -_INT64 <= value < _INT64:
        return int(value)
    if depth < MAX_DEPTH and isinstance(value, Mapping):
        items = islice(value.items(), MAX_FIELDS)
        return {bounded_text(str(key)): _bounded(item, depth + 1) for key, item in items}
    if depth < MAX_DEPTH and isinstance(value, list | tuple | set | frozenset):
        return [_bounded(item, depth + 1) for item in islice(value, MAX_FIELDS)]
    return bounded_text(str(value))


def _current_ids() -> dict[str, str]:
    """Returns those of the three IDs that there are."""
    context = otel_context.get_current()
    span = get_current_span(context).get_span_context()
    correlation_id = correlation_id_of(context)
    ids = {} if correlation_id is None else {LOG_CORRELATION_ID: correlation_id}
    if span.is_valid:
        ids |= {"trace_id": f"{span.trace_id:032x}", "span_id": f"{span.span_id:016x}"}
    return ids


def correlate_structured_logs(options: CaptureOptions) -> None:
    """Puts IDs on the records of structlog and loguru and exports them; the last options hold.

    Call it after `export_records`. The libraries are patched now, or when they are imported.
    """
    switch = os.environ.get(OTEL_PYTHON_LOG_AUTO_INSTRUMENTATION, "true").strip().lower()
    bridge = None
    if switch == "true":
        bridge = StructuredBridge(
            access_log=options.settings.access_log, logger_provider=options.logger_provider
        )
    _active[:] = [bridge]
    wrapt.register_post_import_hook(_wrap_structlog, "structlog._base")
    wrapt.register_post_import_hook(_wrap_loguru, "loguru._logger")


def release_structured_logs() -> None:
    """Leaves structlog, loguru and `logging` as they were; call it before `restore_logging`."""
    _active.clear()
    for restore in _restore.values():
        restore()
    _restore.clear()
    del _forwarding_loggers[2:]


def _watch_handlers() -> None:
    """Makes `Logger.callHandlers` tell which record is being handled, once per wrap of it."""
    inner = logging.Logger.callHandlers
    if not _active or _active[0] is None or hasattr(inner, "_sightline_watches"):
        return

    @wraps(inner)
    def wrapper(self: logging.Logger, record: logging.LogRecord) -> None:
        origin = _origin.get()
        if origin is not None and _is_copy(origin, record):
            inner(self, record)
            return
        token = _origin.set(_Origin(record))
        try:
            inner(self, record)
        finally:
            _origin.reset(token)

    def restore() -> None:
        if logging.Logger.callHandlers is wrapper:
            logging.Logger.callHandlers = inner  # type: ignore[method-assign]
        RecordBridge.export = _plain_export  # type: ignore[method-assign]

    wrapper._sightline_watches = True  # type: ignore[attr-defined]  # noqa: SLF001
    _blend_in(wrapper)
    _blend_in(inner)
    logging.Logger.callHandlers = wrapper  # type: ignore[method-assign]
    RecordBridge.export = _export  # type: ignore[method-assign]
    _restore["logging"] = restore


def _blend_in(wrapper: Any) -> None:
    """Lets a wrap of ours count as a frame of `logging`.

    Handlers that hand records to loguru look for the first frame of another file, to name it as the caller.
    """
    if wrapper.__code__.co_filename in (__file__, logs.__file__):
        wrapper.__code__ = wrapper.__code__.replace(co_filename=logging.__file__, co_name="callHandlers")


def _is_copy(origin: _Origin, record: logging.LogRecord) -> bool:
    """Tells whether a record of `logging` repeats the loguru record whose sinks are running."""
    try:
        return origin.kept is not None and origin.is_same(record.getMessage())
    except Exception:  # noqa: BLE001  a message that does not fit its arguments: its handlers say so
        return False


def _is_queued_copy(record: logging.LogRecord) -> bool:
    """Tells whether a sink of loguru with `enqueue=True` made a record, in a thread of its own."""
    in_writer = (record.threadName or "").startswith(_WRITER_THREADS)
    return in_writer and "loguru" in _restore and isinstance(record.__dict__.get("extra"), dict)


def _export(self: RecordBridge, source: logging.Logger, record: logging.LogRecord) -> None:
    """Exports what `logging` handles, unless it is a copy; in place of `RecordBridge.export`."""
    origin, bridge = _origin.get(), _active[0] if _active else None
    if origin is not None and _is_copy(origin, record):
        origin.is_exported = origin.is_exported or _has_stock_handler(source)
    elif _is_queued_copy(record):
        return
    elif (event := _take_event(record.msg)) is None or bridge is None:
        _plain_export(self, source, record)
    elif not event.is_exported:
        bridge.export_event(source, record, event)


def _take_event(message: object) -> _Event | None:
    """Returns the structlog event that was rendered into this very object, once."""
    event = _event.get()
    if event is None or event.rendered is not message:
        return None
    _event.set(None)
    return event


class _Run:
    """Stands in for a bound logger of structlog while its processors run, with two of ours among them."""

    def __init__(self, bound: Any, method: str, passed: Mapping[str, Any]) -> None:
        self._bound, self._context, self._logger = bound, bound._context, bound._logger  # noqa: SLF001
        self._processors = self._chain(list(bound._processors))  # noqa: SLF001
        self.method = method
        self.given = passed.keys() | self._context.keys()
        self.exc_info = _exc_info(method, passed.get("exc_info", self._context.get("exc_info")))
        self.ids = _current_ids()
        self.snapshot: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bound, name)

    def _chain(self, processors: list[Any]) -> Iterable[Any]:
        mergers = [
            index
            for index, processor in enumerate(processors)
            if getattr(processor, "__name__", None) in _MERGERS
        ]
        first = mergers[-1] + 1 if mergers else 0
        chain = [*processors[:first], self._add_ids]
        for processor in processors[first:]:
            chain += (self._look, processor)
        return chain

    def _add_ids(self, _logger: Any, _method: str, event: Any) -> Any:
        if isinstance(event, dict):
            for name, value in self.ids.items():
                event.setdefault(name, value)
        return event

    def _look(self, _logger: Any, _method: str, event: Any) -> Any:
        """Keeps what is about to be processed: the last mapping is the event as it gets rendered."""
        if isinstance(event, dict):
            self.snapshot = dict(event)
        return event

    def finish(self, arguments: tuple[Any, ...], options: Any) -> None:
        """Exports the event, or remembers it for the library that will."""
        bridge = _active[0] if _active else None
        if isinstance(options, dict) and isinstance(options.get("extra"), dict):
            self._leave_ids_to_logging(options["extra"])
        if bridge is None or hasattr(self._logger, "_process_event") or hasattr(self._logger, "try_unbind"):
            return  # another structlog logger, which exports the event itself
        is_forwarded = isinstance(self._logger, tuple(_forwarding_loggers))
        event = self._event(arguments, options, is_exported=not is_forwarded)
        if not is_forwarded:
            name = self.snapshot.get("logger") or getattr(self._logger, "name", None) or "structlog"
            bridge.export_native(str(name), _LEVELS.get(self.method, logging.INFO), event)
        if arguments and arguments[0] is not event.body:
            _event.set(event)

    def _leave_ids_to_logging(self, extra: dict[str, Any]) -> None:
        """Takes our IDs out of what becomes attributes of a record that gets them anyway."""
        for name, value in self.ids.items():
            if extra.get(name) is value:
                del extra[name]

    def _event(self, arguments: tuple[Any, ...], options: Any, *, is_exported: bool) -> _Event:
        is_mapping = not arguments and isinstance(options, dict) and "event" in options
        fields = dict(options) if is_mapping else self.snapshot
        left_out = {"event", "exc_info", *(_OWN_FIELDS - self.given)}
        if self.exc_info is not None:
            left_out.add("exception")  # the exception's rendering
        return _Event(
            fields.get("event"),
            {name: value for name, value in fields.items() if name not in left_out},
            self.exc_info,
            arguments[0] if arguments else None,
            is_exported=is_exported,
        )


def _exc_info(method: str, given: Any) -> ExcInfo | None:
    """Returns what structlog's own processors understand by `exc_info`."""
    if isinstance(given, BaseException):
        return type(given), given, given.__traceback__
    if isinstance(given, tuple):
        return given if given and given[0] is not None else None
    current = sys.exc_info()
    wanted = given or (given is None and method == "exception")
    return current if wanted and current[0] is not None else None


def _start_event(bound: Any, method: str, passed: Mapping[str, Any]) -> _Run | None:
    try:
        return _Run(bound, method, passed) if _active else None
    except Exception as error:  # noqa: BLE001  fail open: the event is logged without IDs
        report("structlog", "could not add IDs to a structlog event", error=error)
        return None


def _finish_event(run: _Run, result: Any) -> None:
    try:
        run.finish(*result)
    except Exception as error:  # noqa: BLE001  fail open: the event has been processed
        report("structlog-export", "could not export a structlog event", error=error)


def _wrap_structlog(module: Any) -> None:
    if not _active:
        return
    _watch_handlers()
    cls = module.BoundLoggerBase
    original, start, finish = cls._process_event, _start_event, _finish_event
    if "structlog" in _restore:
        return

    # Uses no global name: see below.
    def _process_event(self: Any, method_name: str, event: Any, event_kw: Any) -> Any:
        run = start(self, method_name, event_kw)
        if run is None:
            return original(self, method_name, event, event_kw)
        result = original(run, method_name, event, event_kw)
        finish(run, result)
        return result

    # structlog looks for the first frame of a module that is not its own, to name it as the caller.
    frame = FunctionType(
        _process_event.__code__, {"__name__": "structlog.sightline"}, closure=_process_event.__closure__
    )
    cls._process_event = wraps(original)(frame)
    _restore["structlog"] = lambda: setattr(cls, "_process_event", original)


def _is_known_loguru(module: Any) -> bool:
    """Tells whether loguru is built as the versions are that were tested (0.7)."""
    parameters = list(inspect.signature(module.Logger._log).parameters)  # noqa: SLF001
    options = inspect.signature(module.Logger.__init__).parameters
    return (
        parameters == _LOG_PARAMETERS
        and len(options) == _LOG_OPTIONS + 2  # self and core
        and isinstance(getattr(module, "context", None), ContextVar)
    )


def _wrap_loguru(module: Any) -> None:
    if not _active:
        return
    if not _is_known_loguru(module):
        report("loguru", "this version of loguru is not known; its records get no IDs and are not exported")
        return
    _watch_handlers()
    cls = module.Logger
    log = cls._log
    if "loguru" in _restore:
        return

    @wraps(log)
    def _log(
        self: Any, level: Any, from_decorator: bool, options: Any, message: Any, args: Any, kwargs: Any  # noqa: FBT001
    ) -> None:  # fmt: skip
        origin, options = _start_record(self._core, module.context, level, options, message)
        if origin is None:
            log(self, level, from_decorator, options, message, args, kwargs)
            return
        token = _origin.set(origin)
        try:
            log(self, level, from_decorator, options, message, args, kwargs)
        finally:
            _origin.reset(token)
        _finish_record(self._core, origin, message)

    cls._log = _log
    _forwarding_loggers.append(cls)
    _restore["loguru"] = lambda: setattr(cls, "_log", log)


def _start_record(
    core: Any, bound: ContextVar[dict[str, Any]], level: Any, options: Any, message: Any
) -> tuple[_Origin | None, Any]:
    """Returns the origin of a loguru record, and its options with the IDs and one frame more of depth."""
    exception, depth, *flags, patchers, extra = options
    depth += 1
    try:
        known = core.levels_lookup.get(level)
        if not _active or not core.handlers or (known is not None and known[2] < core.min_level):
            return None, (exception, depth, *flags, patchers, extra)
        outer = _origin.get()
        is_copy = outer is not None and outer.record is not None and outer.is_same(str(message))
        origin = _Origin(is_copy=is_copy)
        ids = _ids_of(outer.record) if outer is not None and outer.record is not None else _current_ids()
        taken = core.extra.keys() | bound.get().keys()
        added = {name: ids.get(name, ABSENT) for name in ID_NAMES if name not in taken}
    except Exception as error:  # noqa: BLE001  fail open: the record is logged without IDs
        report("loguru-record", "could not add IDs to a loguru record", error=error)
        return None, (exception, depth, *flags, patchers, extra)
    return origin, (exception, depth, *flags, [*patchers, origin.keep], {**added, **extra})


def _ids_of(record: logging.LogRecord) -> dict[str, str]:
    """Returns the IDs of the record of `logging` that a handler hands to loguru, as plain text."""
    return {name: str(value) for name in ID_NAMES if (value := record.__dict__.get(name)) is not None}


def _finish_record(core: Any, origin: _Origin, message: Any) -> None:
    bridge = _active[0] if _active else None
    if bridge is None or origin.kept is None or origin.is_copy or origin.is_exported:
        return
    try:
        if not _has_stock_sink(core):
            bridge.export_loguru(origin.kept, _take_event(message))
    except Exception as error:  # noqa: BLE001  fail open: the sinks have run
        report("loguru-export", "could not export a loguru record", error=error)


def _has_stock_sink(core: Any) -> bool:
    """Tells whether a stock OpenTelemetry handler is itself a sink."""
    sinks = (getattr(handler, "_sink", None) for handler in core.handlers.values())
    return any(isinstance(getattr(sink, "_handler", None), _OTEL_HANDLERS) for sink in sinks)
