"""structlog and loguru: IDs on each record, one exported copy, and the libraries' own behaviour kept."""

import asyncio
import inspect
import io
import json
import logging
import sys
import threading
from typing import Any

import loguru
import pytest
import structlog
from fastapi import FastAPI
from opentelemetry import context as otel_context
from opentelemetry._logs import SeverityNumber
from opentelemetry.instrumentation.logging.handler import LoggingHandler
from opentelemetry.trace import set_span_in_context
from structlog.processors import CallsiteParameter, CallsiteParameterAdder

from sightline import correlation, logs, structured_logs
from sightline_processors.report import reported

logger = loguru.logger
LOGURU: Any = sys.modules["loguru._logger"]


class BangError(Exception):
    """What a test logs."""


BANG = f"{BangError.__module__}.{BangError.__qualname__}"


@pytest.fixture
def installed(telemetry):
    """Instruments an application, and with it the logging libraries of the process."""
    telemetry.instrument(FastAPI())
    yield
    structured_logs.release_structured_logs()


@pytest.fixture
def request_ids(telemetry):
    """Runs a test inside a span with the correlation ID `abc`; gives the IDs as text."""
    span = telemetry.tracer_provider.get_tracer("test").start_span("request")
    context = otel_context.set_value(correlation.CONTEXT_KEY, "abc", set_span_in_context(span))
    token = otel_context.attach(context)
    ids = span.get_span_context()
    yield {
        "correlation_id": "abc",
        "trace_id": f"{ids.trace_id:032x}",
        "span_id": f"{ids.span_id:016x}",
    }
    otel_context.detach(token)
    span.end()


@pytest.fixture(autouse=True)
def fresh_libraries():
    """Leaves structlog's configuration, loguru's sinks and the root logger as they are at start-up."""
    root, logger_class = logging.getLogger(), logging.getLoggerClass()
    handlers, level = list(root.handlers), root.level
    logger.remove()
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    logging.setLoggerClass(logger_class)
    logger.remove()
    logger.configure(handlers=[], extra={}, patcher=lambda record: None)
    root.handlers[:] = handlers
    root.setLevel(level)


def exported(telemetry):
    return [data.log_record for data in telemetry.logs if data.instrumentation_scope.name != "asyncio"]


def one(telemetry):
    (record,) = exported(telemetry)
    return record


def ids_of(record):
    return f"{record.trace_id:032x}", f"{record.span_id:016x}"


class Rendered:
    """A processor that keeps the last event and renders it as JSON."""

    def __call__(self, _, __, event):
        self.event = dict(event)
        return json.dumps(event, default=str)


def native_structlog(*processors):
    rendered, file = Rendered(), io.StringIO()
    structlog.configure(
        processors=[*processors, rendered], logger_factory=structlog.PrintLoggerFactory(file=file)
    )
    return rendered


def stdlib_structlog(*processors, wrapper=structlog.stdlib.BoundLogger):
    structlog.configure(
        processors=[*processors],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=wrapper,
    )
    return structlog.get_logger("shop")


class Kept(logging.Handler):
    """A handler of `logging` that keeps its records and what it formats."""

    def __init__(self):
        super().__init__()
        self.records, self.lines = [], []

    def emit(self, record):
        self.records.append(record)
        self.lines.append(self.format(record))


@pytest.fixture
def kept():
    """Puts a handler on the root logger, which passes every level."""
    handler = Kept()
    logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(logging.DEBUG)
    return handler


# structlog, native


def test_a_native_structlog_event_carries_the_ids_in_any_chain(installed, request_ids):
    rendered = native_structlog()
    structlog.get_logger().info("sold", item=7)
    assert rendered.event == {"event": "sold", "item": 7, **request_ids}


def test_a_native_structlog_event_is_exported_once_in_its_fields(installed, request_ids, telemetry):
    native_structlog(structlog.processors.add_log_level, structlog.processors.TimeStamper("iso"))
    structlog.get_logger().warning("sold", item=7)
    record = one(telemetry)
    assert (record.body, record.severity_text, record.severity_number) == (
        "sold",
        "WARN",
        SeverityNumber.WARN,
    )
    assert ids_of(record) == (request_ids["trace_id"], request_ids["span_id"])
    assert dict(record.attributes) == {"item": 7, "correlation_id": "abc"}


def test_structlogs_default_configuration_is_exported_once(installed, request_ids, telemetry, capsys):
    structlog.get_logger().info("sold", item=7)
    assert "correlation_id" in capsys.readouterr().out
    record = one(telemetry)
    assert (record.body, dict(record.attributes)) == ("sold", {"item": 7, "correlation_id": "abc"})
    assert telemetry.logs[0].instrumentation_scope.name == "structlog"


def test_a_write_logger_is_exported_once(installed, request_ids, telemetry):
    structlog.configure(
        processors=[structlog.processors.JSONRenderer()],
        logger_factory=structlog.WriteLoggerFactory(file=io.StringIO()),
    )
    structlog.get_logger().error("sold")
    assert (one(telemetry).body, one(telemetry).severity_text) == ("sold", "ERROR")


@pytest.mark.parametrize(
    ("method", "severity"),
    [
        ("debug", SeverityNumber.DEBUG),
        ("info", SeverityNumber.INFO),
        ("msg", SeverityNumber.INFO),
        ("warning", SeverityNumber.WARN),
        ("error", SeverityNumber.ERROR),
        ("critical", SeverityNumber.FATAL),
        ("fatal", SeverityNumber.FATAL),
    ],
)
def test_the_method_of_a_structlog_logger_gives_the_severity(installed, telemetry, method, severity):
    native_structlog()
    getattr(structlog.get_logger(), method)("sold")
    assert one(telemetry).severity_number is severity


def test_the_logger_name_in_an_event_names_the_scope(installed, telemetry):
    native_structlog()
    structlog.get_logger().info("sold", logger="shop")
    assert [data.instrumentation_scope.name for data in telemetry.logs] == ["shop"]


def test_outside_a_request_nothing_is_added_to_a_structlog_event(installed, telemetry):
    rendered = native_structlog()
    structlog.get_logger().info("sold", item=7)
    assert rendered.event == {"event": "sold", "item": 7}
    assert dict(one(telemetry).attributes) == {"item": 7}


@pytest.mark.parametrize("name", ["correlation_id", "trace_id", "span_id"])
def test_a_value_passed_to_structlog_stays(installed, request_ids, telemetry, name):
    rendered = native_structlog()
    structlog.get_logger().info("sold", **{name: "mine"})
    assert rendered.event[name] == "mine"
    assert one(telemetry).attributes[name] == "mine"
    assert ids_of(one(telemetry)) == (request_ids["trace_id"], request_ids["span_id"])


def test_a_value_bound_to_a_structlog_logger_stays(installed, request_ids):
    rendered = native_structlog()
    structlog.get_logger().bind(correlation_id="mine").info("sold")
    assert rendered.event["correlation_id"] == "mine"


def test_a_value_in_structlogs_context_variables_stays(installed, request_ids):
    rendered = native_structlog(structlog.contextvars.merge_contextvars)
    structlog.contextvars.bind_contextvars(correlation_id="mine")
    structlog.get_logger().info("sold")
    assert rendered.event["correlation_id"] == "mine"


def test_what_a_processor_removes_is_not_exported(installed, telemetry):
    def without_password(_, __, event):
        event.pop("password")
        return event

    native_structlog(without_password)
    structlog.get_logger().info("sold", password="hunter2")
    assert dict(one(telemetry).attributes) == {}


def test_an_event_that_is_dropped_is_not_exported(installed, telemetry):
    def drop(_, __, event):
        raise structlog.DropEvent

    native_structlog(drop)
    structlog.get_logger().info("sold")
    assert exported(telemetry) == []


def test_a_filtered_level_is_not_exported(installed, telemetry):
    native_structlog()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    structlog.get_logger().info("sold")
    assert exported(telemetry) == []


@pytest.mark.parametrize(
    "processors",
    [
        (),
        (structlog.processors.format_exc_info,),
        (structlog.processors.dict_tracebacks,),
        (structlog.dev.set_exc_info,),
    ],
    ids=["none", "format", "tracebacks", "set"],
)
def test_structlogs_exception_is_exported_as_attributes(installed, telemetry, processors):
    native_structlog(*processors)
    try:
        raise BangError("bang")
    except BangError:
        structlog.get_logger().exception("failed", item=7)
    attributes = dict(one(telemetry).attributes)
    stacktrace = attributes.pop("exception.stacktrace")
    assert attributes == {"item": 7, "exception.type": BANG, "exception.message": "bang"}
    assert stacktrace.endswith(f"{BANG}: bang\n")
    assert one(telemetry).severity_text == "ERROR"


def test_an_exception_passed_to_structlog_is_exported(installed, telemetry):
    native_structlog()
    structlog.get_logger().warning("failed", exc_info=BangError("bang"))
    assert dict(one(telemetry).attributes) == {"exception.type": BANG, "exception.message": "bang"}


def test_the_callsite_that_structlog_finds_is_the_applications(installed):
    parameters = {CallsiteParameter.FUNC_NAME, CallsiteParameter.PATHNAME, CallsiteParameter.LINENO}
    rendered = native_structlog(CallsiteParameterAdder(parameters))
    structlog.get_logger().info("sold")
    line = inspect.currentframe().f_lineno - 1
    assert rendered.event["func_name"] == "test_the_callsite_that_structlog_finds_is_the_applications"
    assert (rendered.event["pathname"], rendered.event["lineno"]) == (__file__, line)


def test_an_async_structlog_method_is_exported_once_with_its_ids(installed, request_ids, telemetry):
    rendered = native_structlog()
    asyncio.run(structlog.get_logger().ainfo("sold"))
    assert rendered.event == {"event": "sold", **request_ids}
    assert ids_of(one(telemetry)) == (request_ids["trace_id"], request_ids["span_id"])


def test_attributes_of_a_structlog_event_are_bounded(installed, telemetry):
    nested = value = {}
    for _ in range(50):
        value["x"] = value = {}
    native_structlog(lambda _, __, event: event)
    many = {f"key{number}": number for number in range(500)}
    structlog.get_logger().info(
        "sold", long="x" * 10_000, big=2**70, thing=BangError("bang"), deep=nested, **many
    )
    attributes = one(telemetry).attributes
    assert len(attributes) == structured_logs.MAX_FIELDS
    assert (attributes["long"], attributes["big"], attributes["thing"]) == ("x" * 2048, str(2**70), "bang")
    assert attributes["deep"]["x"]["x"]["x"]["x"] == str(nested["x"]["x"]["x"]["x"])


def test_a_logger_that_forwards_to_logging_by_itself_is_exported_once(installed, telemetry):
    class Forward:
        def info(self, message):
            logging.getLogger("shop").error(message)

    structlog.configure(processors=[structlog.processors.JSONRenderer()], logger_factory=Forward)
    structlog.get_logger().info("sold")
    assert one(telemetry).body == "sold"


def test_a_structlog_logger_inside_another_is_exported_once(installed, telemetry):
    native_structlog()
    structlog.wrap_logger(structlog.get_logger(), processors=[structlog.processors.JSONRenderer()]).info(
        "sold"
    )
    assert len(exported(telemetry)) == 1


def test_structlogs_own_capture_still_works(installed, telemetry):
    with structlog.testing.capture_logs() as captured:
        structlog.get_logger().info("sold", item=7)
    assert captured == [{"event": "sold", "item": 7, "log_level": "info"}]
    assert exported(telemetry) == []


# structlog through logging


def processor_formatter(handler):
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processor=structlog.processors.JSONRenderer()))
    return structlog.stdlib.ProcessorFormatter.wrap_for_formatter


def test_structlog_with_a_processor_formatter_is_exported_once(installed, request_ids, telemetry, kept):
    shop = stdlib_structlog(structlog.stdlib.add_log_level, processor_formatter(kept))
    shop.info("sold", item=7, name="tea")
    assert json.loads(kept.lines[0]) == {
        "event": "sold", "item": 7, "name": "tea", "level": "info", **request_ids
    }  # fmt: skip
    record = one(telemetry)
    assert (record.body, telemetry.logs[0].instrumentation_scope.name) == ("sold", "shop")
    assert dict(record.attributes) == {"item": 7, "name": "tea", "correlation_id": "abc"}
    assert ids_of(record) == (request_ids["trace_id"], request_ids["span_id"])


def test_structlog_through_logging_with_json_is_exported_once(installed, request_ids, telemetry, kept):
    shop = stdlib_structlog(structlog.processors.JSONRenderer())
    shop.warning("sold", item=7)
    assert json.loads(kept.lines[0]) == {"event": "sold", "item": 7, **request_ids}
    record = one(telemetry)
    assert (record.body, record.severity_text) == ("sold", "WARN")
    assert dict(record.attributes) == {"item": 7, "correlation_id": "abc"}


def test_structlog_rendered_to_arguments_of_logging_is_exported_once(installed, request_ids, telemetry, kept):
    shop = stdlib_structlog(structlog.stdlib.render_to_log_kwargs)
    shop.info("sold", item=7)
    assert kept.records[0].correlation_id == "abc"
    record = one(telemetry)
    assert (record.body, dict(record.attributes)) == ("sold", {"item": 7, "correlation_id": "abc"})


@pytest.mark.parametrize("name", ["correlation_id", "trace_id", "span_id"])
def test_a_value_passed_to_structlog_stays_on_its_way_through_logging(
    installed, request_ids, telemetry, kept, name
):
    shop = stdlib_structlog(structlog.stdlib.render_to_log_kwargs)
    shop.info("sold", **{name: "mine"})
    assert getattr(kept.records[0], name) == one(telemetry).attributes[name] == "mine"


def test_a_level_that_logging_disables_is_not_exported(installed, telemetry, kept):
    shop = stdlib_structlog(structlog.processors.JSONRenderer())
    logging.getLogger().setLevel(logging.ERROR)
    shop.info("sold")
    assert exported(telemetry) == []


def test_an_exception_through_structlog_and_logging_is_exported_once(installed, telemetry, kept):
    shop = stdlib_structlog(structlog.processors.format_exc_info, processor_formatter(kept))
    try:
        raise BangError("bang")
    except BangError:
        shop.exception("failed")
    attributes = dict(one(telemetry).attributes)
    assert attributes.pop("exception.stacktrace").endswith(f"{BANG}: bang\n")
    assert attributes == {"exception.type": BANG, "exception.message": "bang"}


def test_the_caller_that_logging_finds_for_structlog_is_the_applications(installed, kept):
    stdlib_structlog(structlog.processors.JSONRenderer())
    structlog.get_logger("made.by.structlog").info("sold")
    assert kept.records[0].funcName == "test_the_caller_that_logging_finds_for_structlog_is_the_applications"


def test_structlog_with_a_stock_handler_on_the_way_is_exported_once(installed, telemetry, kept):
    logging.getLogger().addHandler(LoggingHandler(logger_provider=telemetry.logger_provider))
    stdlib_structlog(structlog.processors.JSONRenderer()).info("sold")
    assert len(exported(telemetry)) == 1


# loguru


def sink(**options):
    """Adds a sink that keeps the lines it gets."""
    lines = []
    logger.add(lines.append, **{"format": "{extra[correlation_id]} {message}", **options})
    return lines


def test_a_loguru_format_may_name_the_correlation_id(installed, request_ids):
    lines = sink(format="{extra[correlation_id]} {extra[trace_id]} {extra[span_id]} {message}")
    logger.info("sold")
    assert lines == ["abc {trace_id} {span_id} sold\n".format(**request_ids)]


def test_outside_a_request_a_loguru_format_prints_a_dash(installed, telemetry):
    lines = sink(format="{extra[correlation_id]} {extra[trace_id]} {extra[span_id]} {message}")
    logger.info("sold")
    assert lines == ["- - - sold\n"]
    assert dict(one(telemetry).attributes) == {}


def test_a_serialized_loguru_record_has_the_ids(installed, request_ids):
    lines = sink(serialize=True)
    logger.bind(item=7).info("sold")
    assert json.loads(lines[0])["record"]["extra"] == {"item": 7, **request_ids}


def test_a_loguru_record_is_exported_once_in_its_fields(installed, request_ids, telemetry):
    sink()
    sink()
    logger.bind(item=7).warning("sold {}", 3)
    record = one(telemetry)
    assert (record.body, record.severity_text, record.severity_number) == (
        "sold 3",
        "WARN",
        SeverityNumber.WARN,
    )
    assert ids_of(record) == (request_ids["trace_id"], request_ids["span_id"])
    assert dict(record.attributes) == {"item": 7, "correlation_id": "abc"}
    assert telemetry.logs[0].instrumentation_scope.name == __name__


@pytest.mark.parametrize(
    ("level", "severity"),
    [
        ("TRACE", SeverityNumber.TRACE),
        ("DEBUG", SeverityNumber.DEBUG),
        ("SUCCESS", SeverityNumber.INFO4),
        ("CRITICAL", SeverityNumber.FATAL),
    ],
)
def test_a_level_of_loguru_gives_the_severity(installed, telemetry, level, severity):
    sink(level="TRACE")
    logger.log(level, "sold")
    assert one(telemetry).severity_number is severity
    assert one(telemetry).severity_text == ("FATAL" if level == "CRITICAL" else level)


def test_a_patcher_of_the_application_sees_the_ids_and_has_the_last_word(installed, request_ids, telemetry):
    seen = []

    def patch(record):
        seen.append(record["extra"]["correlation_id"])
        record["extra"]["correlation_id"] = "patched"

    logger.configure(patcher=patch)
    lines = sink()
    logger.patch(lambda record: record["extra"].update(more=1)).info("sold")
    assert (seen, lines) == (["abc"], ["patched sold\n"])
    assert dict(one(telemetry).attributes) == {"more": 1, "correlation_id": "patched"}


def test_a_value_bound_to_loguru_stays(installed, request_ids):
    lines = sink()
    logger.bind(correlation_id="bound").info("sold")
    with logger.contextualize(correlation_id="contextual"):
        logger.info("sold")
    logger.info("sold", correlation_id="passed")
    logger.configure(extra={"correlation_id": "configured"})
    logger.info("sold")
    assert lines == ["bound sold\n", "contextual sold\n", "passed sold\n", "configured sold\n"]


def test_a_loguru_message_may_name_the_record(installed, request_ids):
    lines = sink()
    logger.opt(record=True).info("{record[extra][correlation_id]}")
    assert lines == ["abc abc\n"]


def test_sinks_removed_and_added_later_get_the_ids(installed, request_ids, telemetry):
    number = logger.add(lambda line: None)
    logger.remove(number)
    lines = sink()
    logger.info("sold")
    assert (lines, one(telemetry).body) == (["abc sold\n"], "sold")


def test_without_a_sink_loguru_logs_and_exports_nothing(installed, telemetry):
    logger.error("sold")
    assert exported(telemetry) == []


def test_a_level_below_every_sink_is_not_exported(installed, telemetry):
    sink(level="ERROR")
    logger.info("sold")
    assert exported(telemetry) == []


def test_a_module_that_loguru_disables_is_not_exported(installed, telemetry):
    sink()
    logger.disable(__name__)
    logger.info("sold")
    logger.enable(__name__)
    assert exported(telemetry) == []


def test_loguru_names_the_callers_function_and_line(installed):
    lines = sink(format="{name} {function} {line}")

    def inner():
        logger.opt(depth=1).info("sold")

    logger.info("sold")
    inner()
    line = inspect.currentframe().f_lineno - 2
    name = "test_loguru_names_the_callers_function_and_line"
    assert lines == [f"{__name__} {name} {line}\n", f"{__name__} {name} {line + 1}\n"]


def failing():
    try:
        raise BangError("bang")
    except BangError:
        logger.exception("failed")


def passed_on():
    logger.opt(exception=BangError("bang")).error("failed")


@logger.catch
def caught():
    raise BangError("bang")


@pytest.mark.parametrize("fail", [failing, caught])
def test_an_exception_of_loguru_is_exported_as_attributes(installed, telemetry, fail):
    sink()
    fail()
    attributes = dict(one(telemetry).attributes)
    assert attributes.pop("exception.stacktrace").endswith(f"{BANG}: bang\n")
    assert attributes == {"exception.type": BANG, "exception.message": "bang"}
    assert one(telemetry).severity_text == "ERROR"


def test_an_exception_passed_to_loguru_is_exported(installed, telemetry):
    sink()
    passed_on()
    assert dict(one(telemetry).attributes) == {"exception.type": BANG, "exception.message": "bang"}


@pytest.mark.parametrize("fail", [failing, caught])
def test_what_loguru_prints_of_an_exception_is_what_it_prints_alone(telemetry, fail):
    lines = sink(format="{name} {function} {line} {message}", diagnose=True, backtrace=True, colorize=False)
    for instrument in (False, True):
        if instrument:
            telemetry.instrument(FastAPI())
        fail()
    structured_logs.release_structured_logs()
    assert lines[0] == lines[1]


def test_the_wrong_use_of_loguru_raises_as_it_does_alone(installed):
    sink()
    with pytest.raises(ValueError, match="Level 'NONE' does not exist"):
        logger.log("NONE", "sold")
    with pytest.raises(TypeError, match="Invalid level"):
        logger.log([], "sold")  # type: ignore[call-overload]
    with pytest.raises(KeyError):
        logger.info("{missing}", other=1)


# bridges between loguru and logging


class InterceptHandler(logging.Handler):
    """The recipe of loguru's documentation."""

    def emit(self, record):
        try:
            level = logger.level(record.levelname).name
        except ValueError:
            level = record.levelno
        frame, depth = inspect.currentframe(), 0
        while frame and (depth == 0 or frame.f_code.co_filename == logging.__file__):
            frame = frame.f_back
            depth += 1
        logger.opt(depth=depth, exception=record.exc_info).log(level, record.getMessage())


class PropagateHandler(logging.Handler):
    """The other recipe of loguru's documentation."""

    def emit(self, record):
        logging.getLogger(record.name).handle(record)


@pytest.fixture
def intercepted():
    logging.getLogger().addHandler(InterceptHandler())
    logging.getLogger().setLevel(logging.DEBUG)


def test_a_record_of_logging_that_loguru_prints_is_exported_once(
    installed, request_ids, telemetry, intercepted
):
    lines = sink()
    logging.getLogger("shop").warning("sold %d", 3, extra={"item": 7})
    record = one(telemetry)
    assert lines == ["abc sold 3\n"]
    assert (record.body, telemetry.logs[0].instrumentation_scope.name) == ("sold 3", "shop")
    assert dict(record.attributes) == {"item": 7, "correlation_id": "abc"}


def test_loguru_names_the_caller_of_logging(installed, intercepted):
    lines = sink(format="{name} {function} {line}")
    logging.getLogger("shop").warning("sold")
    line = inspect.currentframe().f_lineno - 1
    assert lines == [f"{__name__} test_loguru_names_the_caller_of_logging {line}\n"]


def test_a_record_of_loguru_itself_is_exported_once_beside_the_recipe(installed, telemetry, intercepted):
    sink()
    logger.info("sold")
    assert one(telemetry).body == "sold"


def test_an_exception_of_logging_that_loguru_prints_is_exported_once(installed, telemetry, intercepted):
    sink()
    try:
        raise BangError("bang")
    except BangError:
        logging.getLogger("shop").exception("failed")
    assert one(telemetry).attributes["exception.type"] == BANG


def test_a_record_about_a_finished_request_keeps_its_ids_in_loguru(installed, request_ids, intercepted):
    lines, error = sink(), BangError("bang")
    logs.remember_context(error, otel_context.get_current())
    token = otel_context.attach(otel_context.Context())
    logging.getLogger("uvicorn.error").error("failed", exc_info=error)
    otel_context.detach(token)
    assert lines[0].startswith("abc failed\n")


def test_a_loguru_record_propagated_to_logging_is_exported_once(installed, request_ids, telemetry, kept):
    logger.add(PropagateHandler(), format="{message}")
    logger.bind(item=7).info("sold")
    assert [record.getMessage() for record in kept.records] == ["sold"]
    record = one(telemetry)
    assert (record.body, dict(record.attributes)) == ("sold", {"item": 7, "correlation_id": "abc"})


def test_a_loguru_record_propagated_from_a_queue_is_exported_once(installed, request_ids, telemetry, kept):
    logger.add(PropagateHandler(), format="{message}", enqueue=True)
    logger.bind(item=7).info("sold")
    logger.complete()
    assert [record.getMessage() for record in kept.records] == ["sold"]
    assert dict(one(telemetry).attributes) == {"item": 7, "correlation_id": "abc"}


def test_a_function_that_hands_loguru_records_to_logging_makes_no_second_copy(installed, telemetry, kept):
    logger.add(lambda message: logging.getLogger("shop").info(message.rstrip()))
    logger.info("sold")
    assert len(kept.records) == len(exported(telemetry)) == 1


def test_an_unrelated_record_that_a_sink_logs_is_exported_too(installed, telemetry, kept):
    logger.add(lambda message: logging.getLogger("client").warning("connection refused"))
    logger.info("sold")
    assert sorted(record.body for record in exported(telemetry)) == ["connection refused", "sold"]


def test_a_record_with_wrong_arguments_that_a_sink_logs_does_not_raise(installed, telemetry):
    client = logging.getLogger("client.of.a.sink")
    client.propagate = False
    logger.add(lambda message: client.error("%d", "three"), catch=False)
    logger.info("sold")
    assert [record.body for record in exported(telemetry)][-1] == "sold"


def test_a_propagated_record_with_a_stock_handler_on_its_way_is_exported_once(installed, telemetry, kept):
    logging.getLogger().addHandler(LoggingHandler(logger_provider=telemetry.logger_provider))
    logger.add(PropagateHandler(), format="{message}")
    logger.info("sold")
    assert len(exported(telemetry)) == 1


def test_a_stock_handler_as_a_sink_exports_the_one_copy(installed, telemetry):
    logger.add(LoggingHandler(logger_provider=telemetry.logger_provider), format="{message}")
    logger.info("sold")
    assert len(exported(telemetry)) == 1


def test_structlog_through_logging_into_loguru_is_exported_once(
    installed, request_ids, telemetry, intercepted
):
    lines = sink()
    stdlib_structlog(structlog.processors.JSONRenderer()).info("sold", item=7)
    record = one(telemetry)
    assert len(lines) == 1
    assert (record.body, dict(record.attributes)) == ("sold", {"item": 7, "correlation_id": "abc"})


def test_structlog_on_top_of_loguru_is_exported_once(installed, request_ids, telemetry):
    lines = sink()
    structlog.configure(processors=[structlog.processors.JSONRenderer()], logger_factory=lambda *_: logger)
    structlog.get_logger().info("sold", item=7)
    record = one(telemetry)
    assert len(lines) == 1
    assert (record.body, dict(record.attributes)) == ("sold", {"item": 7, "correlation_id": "abc"})


# switches, failures, release


def test_without_auto_instrumentation_records_get_ids_and_are_not_exported(
    telemetry, request_ids, monkeypatch
):
    monkeypatch.setenv("OTEL_PYTHON_LOG_AUTO_INSTRUMENTATION", "false")
    telemetry.instrument(FastAPI())
    rendered, lines = native_structlog(), sink()
    structlog.get_logger().info("sold")
    logger.info("sold")
    structured_logs.release_structured_logs()
    assert (rendered.event["correlation_id"], lines) == ("abc", ["abc sold\n"])
    assert exported(telemetry) == []


def test_the_handler_level_holds_for_structlog_and_loguru(telemetry, monkeypatch):
    monkeypatch.setenv("OTEL_PYTHON_LOG_HANDLER_LEVEL", "warning")
    telemetry.instrument(FastAPI())
    native_structlog()
    sink()
    for log in (structlog.get_logger(), logger):
        log.info("sold")
        log.error("failed")
    structured_logs.release_structured_logs()
    assert [record.body for record in exported(telemetry)] == ["failed", "failed"]


def test_a_record_that_cannot_be_exported_is_still_logged(installed, telemetry, monkeypatch):
    monkeypatch.setattr(structured_logs, "_plain_export", lambda *_: 1 // 0)
    rendered, lines = native_structlog(), sink()
    structlog.get_logger().info("sold")
    logger.info("sold")
    assert (rendered.event, lines) == ({"event": "sold"}, ["- sold\n"])
    assert (reported("structlog-export"), reported("loguru-export")) == (1, 1)


def test_a_record_whose_ids_cannot_be_found_is_still_logged(installed, monkeypatch):
    monkeypatch.setattr(structured_logs, "_current_ids", lambda: 1 // 0)
    rendered, lines = native_structlog(), sink(format="{function} {message}")
    structlog.get_logger().info("sold")
    logger.info("sold")
    name = "test_a_record_whose_ids_cannot_be_found_is_still_logged"
    assert (rendered.event, lines) == ({"event": "sold"}, [f"{name} sold\n"])
    assert (reported("structlog"), reported("loguru-record")) == (1, 1)


def test_a_loguru_of_another_build_is_left_alone_with_one_line(telemetry, monkeypatch, caplog):
    def other_log(self, level, options, message):
        return None

    monkeypatch.setattr(LOGURU.Logger, "_log", other_log)
    telemetry.instrument(FastAPI())
    structured_logs.release_structured_logs()
    assert LOGURU.Logger._log is other_log
    assert [record.message for record in caplog.records if "loguru" in record.message] == [
        "this version of loguru is not known; its records get no IDs and are not exported"
    ]


def test_after_the_release_the_libraries_are_as_they_were(telemetry):
    parts = (
        (structlog.BoundLoggerBase, "_process_event"),
        (LOGURU.Logger, "_log"),
        (logging.Logger, "callHandlers"),
    )
    before = [getattr(owner, name) for owner, name in parts]
    export = logs.RecordBridge.export
    telemetry.instrument(FastAPI())
    telemetry.instrument(FastAPI())
    assert [getattr(owner, name) for owner, name in parts] != before
    structured_logs.release_structured_logs()
    assert [getattr(owner, name) for owner, name in parts] == before
    assert logs.RecordBridge.export is export


def test_records_of_many_threads_keep_their_own_ids(installed, telemetry):
    lines = sink()
    native_structlog()

    def work(name):
        token = otel_context.attach(otel_context.set_value(correlation.CONTEXT_KEY, name))
        for _ in range(50):
            logger.info(name)
            structlog.get_logger().info(name)
        otel_context.detach(token)

    threads = [threading.Thread(target=work, args=(f"request-{number}",)) for number in range(8)]
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.setswitchinterval(switch)
    records = exported(telemetry)
    assert len(records) == 8 * 50 * 2
    assert all(record.body == record.attributes["correlation_id"] for record in records)
    assert all(line.split()[0] == line.split()[1] for line in lines)
