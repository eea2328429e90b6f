"""Log records: IDs on each, one exported copy, and logging itself left as it was."""

import logging
import logging.config

import pytest
from fastapi import FastAPI
from opentelemetry import context as otel_context
from opentelemetry.instrumentation.logging.handler import LoggingHandler
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.trace import set_span_in_context

from sightline import correlation
from sightline.logs import remember_context


@pytest.fixture
def request_context(telemetry):
    """Runs a test inside a span with the correlation ID `abc`."""
    span = telemetry.tracer_provider.get_tracer("test").start_span("request")
    context = otel_context.set_value(correlation.CONTEXT_KEY, "abc", set_span_in_context(span))
    token = otel_context.attach(context)
    yield span.get_span_context()
    otel_context.detach(token)
    span.end()


@pytest.fixture
def ids(telemetry):
    """Instruments an application, which puts the IDs on every record of the process."""
    telemetry.instrument(FastAPI())


def exported(telemetry, logger="shop"):
    return [data.log_record for data in telemetry.logs if data.instrumentation_scope.name == logger]


def test_a_record_of_a_request_carries_its_ids(ids, request_context, caplog):
    logging.getLogger("shop").warning("hello")
    (record,) = caplog.records
    assert record.correlation_id == "abc"
    assert record.trace_id == f"{request_context.trace_id:032x}"
    assert record.span_id == f"{request_context.span_id:016x}"


def test_a_record_outside_a_request_can_be_formatted_all_the_same(ids, caplog):
    logging.getLogger("shop").warning("hello")
    formatter = logging.Formatter("%(correlation_id)s %(trace_id)s %(span_id)s %(message)s")
    assert formatter.format(caplog.records[0]) == "- - - hello"


@pytest.mark.parametrize("name", ["correlation_id", "trace_id", "span_id"])
def test_a_value_that_the_application_passes_stays_and_does_not_raise(ids, request_context, caplog, name):
    logging.getLogger("shop").warning("hello", extra={name: "mine"})
    assert getattr(caplog.records[0], name) == "mine"


def test_a_record_is_exported_once_with_its_ids_in_their_fields(ids, request_context, telemetry):
    logging.getLogger("shop").warning("sold %d", 3, extra={"item": 7})
    (record,) = exported(telemetry)
    assert (record.body, record.severity_text) == ("sold 3", "WARN")
    assert (record.trace_id, record.span_id) == (request_context.trace_id, request_context.span_id)
    assert dict(record.attributes) == {"item": 7, "correlation_id": "abc"}


def test_a_record_outside_a_request_has_no_invented_id(ids, telemetry):
    logging.getLogger("shop").warning("hello")
    (record,) = exported(telemetry)
    assert dict(record.attributes) == {}


def test_a_logger_that_does_not_propagate_is_exported_once_too(ids, telemetry):
    logger = logging.getLogger("uvicorn.error")
    parent = logging.getLogger("uvicorn")
    parent.propagate = False
    try:
        logger.error("failed")
    finally:
        parent.propagate = True
    assert len(exported(telemetry, "uvicorn.error")) == 1


def test_a_stock_handler_on_the_way_exports_the_one_copy(ids, telemetry):
    handler = LoggingHandler(logger_provider=telemetry.logger_provider)
    logging.getLogger().addHandler(handler)
    try:
        logging.getLogger("shop").warning("hello")
    finally:
        logging.getLogger().removeHandler(handler)
    assert len(exported(telemetry)) == 1


def test_no_handler_and_no_level_changes(telemetry):
    root = logging.getLogger()
    before = (list(root.handlers), root.level)
    telemetry.instrument(FastAPI())
    assert (list(root.handlers), root.level) == before


def test_a_logging_configuration_afterwards_loses_nothing(ids, telemetry):
    logging.config.dictConfig({"version": 1, "disable_existing_loggers": False})
    logging.getLogger("shop").warning("hello")
    assert len(exported(telemetry)) == 1


def test_a_disabled_level_is_not_exported(ids, telemetry):
    logging.getLogger("shop").setLevel(logging.ERROR)
    logging.getLogger("shop").warning("hello")
    logging.getLogger("shop").setLevel(logging.NOTSET)
    assert exported(telemetry) == []


def test_what_an_exporter_logs_is_not_exported(ids, telemetry):
    with suppress_instrumentation():
        logging.getLogger("urllib3").warning("connection refused")
    assert exported(telemetry, "urllib3") == []


def test_a_record_about_an_exception_of_a_finished_request_carries_the_requests_ids(
    ids, request_context, telemetry, caplog
):
    error = ValueError("bang")
    remember_context(error, otel_context.get_current())
    token = otel_context.attach(otel_context.Context())
    logging.getLogger("uvicorn.error").error("Exception in ASGI application", exc_info=error)
    otel_context.detach(token)
    (record,) = exported(telemetry, "uvicorn.error")
    assert caplog.records[0].correlation_id == record.attributes["correlation_id"] == "abc"
    assert record.trace_id == request_context.trace_id


def test_a_record_that_cannot_be_exported_is_still_logged(ids, telemetry, caplog, monkeypatch):
    monkeypatch.setattr("sightline.logs._has_stock_handler", lambda source: 1 // 0)
    logging.getLogger("shop").warning("hello")
    assert "hello" in caplog.messages
    assert "could not export a log record" in caplog.text


def test_a_text_that_cannot_be_encoded_costs_itself_alone(ids, telemetry):
    logging.getLogger("shop").warning("order by %s", "\ud800")
    (record,) = exported(telemetry)
    assert record.body == "order by ?"
