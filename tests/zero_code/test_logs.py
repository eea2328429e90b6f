"""Log records of a real server: one exported copy with its IDs, the application's own logging untouched."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from otlp_receiver import attributes
from uvicorn_process import Setup, eventually, observed


@pytest.fixture(scope="module")
def setup() -> Iterator[Setup]:
    """Yields a server with no setting of ours."""
    with observed() as running:
        yield running


@pytest.fixture(scope="module")
def with_access_log() -> Iterator[Setup]:
    """Yields a server that exports its access records."""
    with observed(variables={"SIGHTLINE_ACCESS_LOG": "on"}) as running:
        yield running


@pytest.mark.parametrize(
    ("path", "bodies"),
    [
        ("/ok", ["from the handler"]),
        ("/sync", ["from the handler"]),
        ("/threadpool", ["from the thread pool"]),
        ("/task", ["from the task"]),
        ("/stream", ["from the stream"] * 3),
        ("/root-warning", ["from the root logger"]),
    ],
)
def test_each_record_is_exported_once_with_the_ids_of_its_request(
    setup: Setup, path: str, bodies: list[str]
) -> None:
    sent = f"logs{path.replace('/', '-')}"
    setup.server.get(path, ("x-correlation-id", sent))
    span = setup.arrived.span(sent).data
    assert eventually(lambda: len(setup.arrived.logs(sent)) >= len(bodies))
    setup.arrived.settle(setup.server)
    logs = [item.data for item in setup.arrived.logs(sent)]
    assert [log.body.string_value for log in logs] == bodies
    assert {(log.trace_id, log.span_id) for log in logs} == {(span.trace_id, span.span_id)}
    assert all(attributes(log.attributes) == {"correlation_id": sent} for log in logs)


def test_records_of_background_tasks_carry_the_tasks_own_trace_and_the_requests_id(setup: Setup) -> None:
    setup.server.get("/background", ("x-correlation-id", "logs-background"))
    request = setup.arrived.span("logs-background").data
    assert eventually(lambda: len(setup.arrived.logs("logs-background")) >= 2)
    setup.arrived.settle(setup.server)
    logs = [item.data for item in setup.arrived.logs("logs-background")]
    assert [log.body.string_value for log in logs] == [
        "from the async background task",
        "from the sync background task",
    ]
    assert len({request.trace_id, *(log.trace_id for log in logs)}) == 3


def test_records_of_two_requests_at_once_keep_their_own_ids(setup: Setup) -> None:
    sent = [f"concurrent-{number}" for number in range(10)]
    for one in sent:
        setup.server.get("/task", ("x-correlation-id", one))  # each task logs after its response
    assert eventually(lambda: all(setup.arrived.logs(one) for one in sent))
    for one in sent:
        (log,) = setup.arrived.logs(one)
        assert log.data.trace_id == setup.arrived.span(one).data.trace_id


def test_error_record_of_the_server_carries_the_ids_of_the_failed_request(setup: Setup) -> None:
    response = setup.server.get("/fail", ("x-correlation-id", "failed"))
    span = setup.arrived.span("failed").data
    assert eventually(lambda: setup.arrived.logs("failed"))
    (item,) = setup.arrived.logs("failed")
    found = attributes(item.data.attributes)
    assert response.status == 500
    assert item.scope == "uvicorn.error"
    assert item.data.body.string_value == "Exception in ASGI application\n"
    assert item.data.severity_text == "ERROR"
    assert (item.data.trace_id, item.data.span_id) == (span.trace_id, span.span_id)
    assert (found["exception.type"], found["exception.message"]) == ("RuntimeError", "nobody handles this")
    assert found["exception.stacktrace"].endswith("RuntimeError: nobody handles this\n")


def test_server_start_is_exported_without_ids(setup: Setup) -> None:
    started = [
        item for item in setup.store.logs if item.data.body.string_value.startswith("Started server process")
    ]
    assert [(item.scope, item.data.trace_id, attributes(item.data.attributes)) for item in started] == [
        ("uvicorn.error", b"", {})
    ]


def test_access_records_are_not_exported_by_default(setup: Setup) -> None:
    setup.arrived.settle(setup.server)
    assert "uvicorn.access" not in {item.scope for item in setup.store.logs}
    assert '"GET /ok HTTP/1.1" 200 OK' in setup.server.stdout


@pytest.mark.parametrize(
    ("path", "status"), [("/ok", 200), ("/nowhere", 404), ("/fail", 500), ("/sync", 200)]
)
def test_access_record_is_exported_once_with_ids_when_asked_for(
    with_access_log: Setup, path: str, status: int
) -> None:
    sent = f"access{path.replace('/', '-')}"
    with_access_log.server.get(path, ("x-correlation-id", sent))
    span = with_access_log.arrived.span(sent).data
    with_access_log.arrived.settle(with_access_log.server)
    (record,) = [item.data for item in with_access_log.arrived.logs(sent) if item.scope == "uvicorn.access"]
    assert re.fullmatch(rf'127\.0\.0\.1:\d+ - "GET {path} HTTP/1\.1" {status}', record.body.string_value)
    assert (record.trace_id, record.span_id) == (span.trace_id, span.span_id)


EXTRA = {"correlation_id": "my-correlation", "trace_id": "my-trace", "span_id": "my-span"}


def test_extra_attributes_named_like_ours_keep_their_values(setup: Setup) -> None:
    response = setup.server.get("/extra", ("x-correlation-id", "extra"))
    assert (response.status, json.loads(response.body)) == (200, EXTRA)


def test_extra_attributes_named_like_ours_are_exported_beside_the_ids_of_the_request(setup: Setup) -> None:
    setup.server.get("/extra", ("x-correlation-id", "extra-exported"))
    span = setup.arrived.span("extra-exported").data
    assert eventually(lambda: setup.arrived.logs("my-correlation"))
    log = setup.arrived.logs("my-correlation")[-1].data
    assert (log.trace_id, log.span_id) == (span.trace_id, span.span_id)
    assert attributes(log.attributes) == EXTRA


def test_extra_attribute_that_cannot_be_exported_costs_at_most_one_line(setup: Setup) -> None:
    before = len(setup.server.stderr.splitlines())
    assert setup.server.get("/odd-extra", ("x-correlation-id", "odd")).status == 200
    assert eventually(lambda: setup.arrived.logs("odd"))
    (log,) = setup.arrived.logs("odd")
    assert log.data.body.string_value == "with an object"
    printed = setup.server.stderr.splitlines()[before:]
    assert len([line for line in printed if "with an object" not in line]) <= 1


@pytest.fixture(scope="module")
def inside_plain() -> dict[str, Any]:
    """Returns how the process looks from inside without instrumentation."""
    with observed(instrumented=False) as running:
        inside: dict[str, Any] = json.loads(running.server.get("/inside").body)
        return inside


def test_root_logger_keeps_its_level_and_handlers(inside_plain: dict[str, Any]) -> None:
    with observed() as running:
        inside = json.loads(running.server.get("/inside").body)
    assert (inside["root_level"], inside["root_handlers"]) == (30, [])
    assert (inside_plain["root_level"], inside_plain["root_handlers"]) == (30, [])
    assert inside["record_attributes"] == ["correlation_id", "span_id", "trace_id"]


def test_console_output_is_that_of_the_uninstrumented_app() -> None:
    paths = ("/root-warning", "/ok", "/sync", "/stream", "/root-warning", "/nowhere", "/number/x")
    printed = []
    for instrumented in (False, True):
        with observed(instrumented=instrumented) as running:
            for path in paths:
                running.server.get(path)
            assert eventually(lambda: running.server.stdout.count("HTTP/1.1") == len(paths))
            lines = running.server.stderr.splitlines() + running.server.stdout.splitlines()
            printed.append([re.sub(r":\d{4,5}\b|\[\d+\]", "N", line) for line in lines])
    assert printed[1] == printed[0]
    assert printed[1].count("WARNING:root:from the root logger") == 2
