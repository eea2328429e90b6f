"""What holds on every server and with any number of workers."""

import re
from collections import Counter

import pytest
from otlp_receiver import attributes
from tests.servers.modes import ACCESS_LOGGERS, MODES, PRELOAD, Mode
from tests.servers.runs import Run, correlation_of, instance_of

every_mode = pytest.mark.parametrize("mode", MODES, ids=str)
renewing = pytest.mark.parametrize("mode", [mode for mode in MODES if mode.renewal], ids=str)
killed = pytest.mark.parametrize("mode", [mode for mode in MODES if mode.renewal == "kill"], ids=str)
watched = pytest.mark.parametrize("mode", [mode for mode in MODES if mode.parent_logger], ids=str)


@every_mode
def test_every_worker_answers(run: Run) -> None:
    assert len(run.pids) == run.mode.workers


@every_mode
def test_every_worker_has_one_instance_id_of_its_own(run: Run) -> None:
    by_pid = [run.instances(pid) for pid in run.pids]
    assert [len(instances) for instances in by_pid] == [1] * run.mode.workers
    assert len(set.union(*by_pid)) == run.mode.workers


@every_mode
def test_spans_metrics_and_records_of_a_worker_come_with_the_same_instance_id(run: Run) -> None:
    by_id = {correlation_of(item): instance_of(item) for item in run.telemetry.records("shop")}
    for answer in run.answers:
        if answer.is_logged:
            (span,) = run.telemetry.spans(answer.correlation_id)
            assert by_id[answer.correlation_id] == instance_of(span)
    assert set(run.telemetry.durations()) == run.workers


@every_mode
def test_every_request_and_connection_is_one_server_span(run: Run) -> None:
    served = Counter(
        attributes(span.data.attributes)["sightline.correlation_id"] for span in run.telemetry.servers
    )
    assert served == Counter(answer.correlation_id for answer in run.answers)
    assert len(run.telemetry.store.spans) == len(run.answers)


@every_mode
def test_durations_of_all_instances_count_every_request_once(run: Run) -> None:
    assert sum(run.telemetry.durations().values()) == len(run.requests)


@every_mode
def test_durations_of_an_instance_count_what_its_worker_answered(run: Run) -> None:
    connection = {run.handshake.correlation_id}
    answered = Counter(
        instance_of(span)
        for span in run.telemetry.servers
        if attributes(span.data.attributes)["sightline.correlation_id"] not in connection
    )
    assert run.telemetry.durations() == answered


@every_mode
def test_every_record_is_exported_once_with_its_correlation_id(run: Run) -> None:
    records = [item for item in run.telemetry.records("shop") if item.data.body.string_value == "answered"]
    assert Counter(map(correlation_of, records)) == Counter(
        answer.correlation_id for answer in run.answers if answer.is_logged
    )


@every_mode
def test_every_worker_goes_on_exporting(run: Run) -> None:
    assert min(run.telemetry.metric_exports(instance) for instance in run.workers) >= 2


@every_mode
def test_every_response_carries_its_correlation_id_once(run: Run) -> None:
    assert {answer.status for answer in run.requests} == {200, 404, 500}
    assert [answer.headers for answer in run.requests] == [[answer.correlation_id] for answer in run.requests]


@every_mode
def test_websocket_handshake_returns_the_correlation_id_unless_the_server_drops_headers(run: Run) -> None:
    returned = [] if run.mode.drops_handshake_headers else [run.handshake.correlation_id]
    assert run.handshake.headers == returned


@every_mode
def test_every_access_record_is_exported_with_the_ids_of_its_request(run: Run) -> None:
    records = [item for item in run.telemetry.records(*ACCESS_LOGGERS) if "/room" not in str(item.data.body)]
    trace_ids = {
        answer.correlation_id: run.telemetry.spans(answer.correlation_id)[0].data.trace_id
        for answer in run.requests
    }
    assert Counter((correlation_of(item), item.data.trace_id) for item in records) == Counter(
        trace_ids.items()
    )


@every_mode
def test_unhandled_error_is_one_record_with_its_correlation_id(run: Run) -> None:
    records = run.telemetry.error_records("ShopError")
    assert [correlation_of(record) for record in records] == [run.failure.correlation_id]


@every_mode
def test_server_writes_no_traceback_but_the_application_s_own(run: Run) -> None:
    assert "Failed to auto initialize" not in run.output
    tracebacks = run.output.count("Traceback (most recent call last)")
    assert tracebacks == len(
        re.findall(r"^(?:app\.)?ShopError: nobody handles this$", run.output, re.MULTILINE)
    )
    assert tracebacks == 1


@watched
def test_watching_process_has_an_instance_id_of_its_own(mode: Mode, run: Run) -> None:
    assert mode.parent_logger is not None
    parents = {
        instance_of(item)
        for item in run.telemetry.records(mode.parent_logger)
        if mode.parent_record in item.data.body.string_value
    }
    assert len(parents) == 1
    assert parents.isdisjoint(run.workers)
    assert parents.isdisjoint(run.telemetry.durations())


@pytest.mark.parametrize("mode", [PRELOAD], ids=str)
def test_preloaded_application_s_records_come_from_the_process_that_loaded_it(run: Run) -> None:
    loaded = [item for item in run.telemetry.records("shop") if "loaded by" in item.data.body.string_value]
    assert len(loaded) == 1
    assert instance_of(loaded[0]) not in run.workers


@renewing
def test_new_worker_exports_all_signals_under_a_new_instance_id(run: Run) -> None:
    assert run.renewed is not None
    (span,) = run.afterwards.spans(run.renewed.correlation_id)
    (record,) = (
        item for item in run.afterwards.records("shop") if correlation_of(item) == run.renewed.correlation_id
    )
    assert instance_of(span) not in {instance_of(item) for item in run.telemetry.store.logs} | run.workers
    assert instance_of(record) == instance_of(span)
    assert run.afterwards.durations()[instance_of(span)] >= 1


@killed
def test_killed_worker_s_instance_id_is_not_used_again(run: Run) -> None:
    (old,) = run.instances(run.old_pid)
    served = {span.data.span_id for span in run.afterwards.servers if instance_of(span) == old}
    assert served == {span.data.span_id for span in run.telemetry.servers if instance_of(span) == old}
    assert run.afterwards.durations()[old] == run.telemetry.durations()[old]
