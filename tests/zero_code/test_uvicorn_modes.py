"""The ways in which people start an application with uvicorn."""

from collections.abc import Iterable, Iterator

import pytest
from otlp_receiver import Item
from uvicorn_process import Setup, eventually, observed

DURATION = "http.server.request.duration"


def _assert_one_span_and_log(setup: Setup, correlation_id: str) -> None:
    assert eventually(lambda: setup.arrived.logs(correlation_id))
    (span,) = eventually(lambda: setup.arrived.spans(correlation_id))
    (log,) = setup.arrived.logs(correlation_id)
    assert (span.data.name, span.scope) == ("GET /ok", "sightline")
    assert (log.data.trace_id, log.data.span_id) == (span.data.trace_id, span.data.span_id)


WRONG = {"OTEL_TRACES_SAMPLER": "nonsense", "SIGHTLINE_ACCESS_LOG": "maybe"}


@pytest.fixture(scope="module")
def workers() -> Iterator[Setup]:
    """Yields a server of two workers that each make the application, with two wrong values."""
    with observed("app:create", "--factory", "--workers", "2", variables=WRONG) as setup:
        yield setup


def _instances(items: Iterable[Item]) -> set[str]:
    return {item.resource["service.instance.id"] for item in list(items)}


def test_two_workers_of_a_factory_report_each_request_once(workers: Setup) -> None:
    sent = 0

    def both_workers_answered() -> bool:
        nonlocal sent
        sent += 1
        assert workers.server.get("/ok", ("x-correlation-id", f"worker-{sent}")).status == 200
        return len(_instances(workers.store.spans)) == 2

    assert eventually(both_workers_answered)
    for number in range(1, sent + 1):
        _assert_one_span_and_log(workers, f"worker-{number}")
    durations = (item for item in list(workers.store.metrics) if item.data.name == DURATION)
    assert _instances(durations) <= _instances(workers.store.spans)
    assert "Traceback" not in workers.server.stderr


@pytest.mark.parametrize("variable", WRONG)
def test_wrong_value_is_reported_once_for_all_workers(workers: Setup, variable: str) -> None:
    workers.server.get("/ok")
    assert workers.server.stderr.count(f"{variable} must") == 1


def test_app_inside_another_asgi_callable_is_captured_once() -> None:
    with observed("app:wrapped") as setup:
        response = setup.server.get("/ok", ("x-correlation-id", "wrapped"))
        assert (response.status, response.correlation_id) == (200, "wrapped")
        _assert_one_span_and_log(setup, "wrapped")
        failed = setup.server.get("/fail", ("x-correlation-id", "wrapped-fail"))
        assert (failed.status, failed.correlation_id) == (500, "wrapped-fail")
        assert len(eventually(lambda: setup.arrived.spans("wrapped-fail"))) == 1


def test_reload_reports_each_request_once() -> None:
    with observed("app:app", "--reload") as setup:
        assert setup.server.get("/ok", ("x-correlation-id", "reload")).correlation_id == "reload"
        _assert_one_span_and_log(setup, "reload")
