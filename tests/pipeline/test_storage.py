"""What is stored stays, for as long as it should, and is found by those who derive something from it.

On a stack of its own: its programs are killed, restarted and given other variables.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import lifecycle
import pytest
import stack_programs

from .otlp_payloads import Json, histogram_request, log_request, resource, trace_request
from .outage_programs import Patient
from .stack_fixture import CONFIG, binary, endpoints_of, eventually, running_stack
from .test_telemetry_flow import get, new_ids, send

pytestmark = pytest.mark.stack

ERROR, CRITICAL = 17, 21
MONITOR = {"lookback": "600000", "step": "15000", "ratePer": "60000", "groupByOperation": "true"}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The endpoints of a stack that a test may treat badly, as of the fixture `stack`."""
    state = tmp_path_factory.mktemp("storage") / "stack"
    with running_stack(state) as told:
        yield endpoints_of(told)


@pytest.fixture(scope="module")
def patients(own: dict[str, str]) -> Iterator[dict[str, Patient]]:
    """The programs of the stack that tests restart, by name."""
    names = ("jaeger", "loki", "prometheus", "otelcol")
    found = {name: Patient(Path(own["state_dir"]), name) for name in names}
    yield found
    for patient in found.values():
        patient.end()


def restart(patient: Patient, *arguments: str, **variables: str) -> None:
    """Ends a program as an operator does and starts it with further arguments and variables."""
    patient.end()
    patient.command += arguments
    patient.environment |= variables
    patient.start()


def found(stack: dict[str, str], trace_id: str) -> Any:
    return get(f"{stack['jaeger']}/api/traces/{trace_id}")


def send_trace(stack: dict[str, str]) -> tuple[str, str]:
    """Sends a trace and waits for it; returns its service and its ID."""
    service, trace_id, span_id = new_ids()
    send(stack, "traces", trace_request(resource(service), trace_id, span_id))
    assert eventually(lambda: found(stack, trace_id), 5)
    return service, trace_id


def test_trace_survives_a_crash_and_a_restart_of_jaeger(
    own: dict[str, str], patients: dict[str, Patient]
) -> None:
    service, trace_id = send_trace(own)

    patients["jaeger"].send(signal.SIGKILL)
    patients["jaeger"].start()
    after_the_crash = found(own, trace_id)
    restart(patients["jaeger"])

    assert [span["operationName"] for span in after_the_crash[0]["spans"]] == ["GET /orders/{id}"]
    assert found(own, trace_id) == after_the_crash
    assert service in get(f"{own['jaeger']}/api/services")
    assert [trace["traceID"] for trace in get(f"{own['jaeger']}/api/traces", service=service)] == [trace_id]


def test_another_retention_holds_for_spans_written_after_it(
    own: dict[str, str], patients: dict[str, Patient]
) -> None:
    _, before = send_trace(own)
    restart(patients["jaeger"], PIPELINE_JAEGER_RETENTION="2s")

    _, after = send_trace(own)
    gone = eventually(lambda: not found(own, after), 10)
    restart(patients["jaeger"], PIPELINE_JAEGER_RETENTION="168h")

    assert gone
    assert found(own, before)


def monitor(stack: dict[str, str], figure: str, service: str, **more: str) -> list[float]:
    """Returns the values of Jaeger's Monitor tab for the operation of `trace_request`, without gaps."""
    asked = MONITOR | {"endTs": str(time.time_ns() // 10**6), "service": service, "spanKind": "server"} | more
    answer = httpx.get(f"{stack['jaeger']}/api/metrics/{figure}", params=asked)
    assert answer.status_code == 200, answer.text
    series = [
        item
        for item in answer.json()["metrics"]
        if {"name": "operation", "value": "GET /orders/{id}"} in item["labels"]
    ]
    values = [point["gaugeValue"]["doubleValue"] for item in series for point in item["metricPoints"]]
    return [float(value) for value in values if value != "NaN"]


def test_monitor_of_jaeger_shows_rate_errors_and_duration_of_spans(
    own: dict[str, str], patients: dict[str, Patient]
) -> None:
    sooner = "yaml:connectors::span_metrics::metrics_flush_interval: 1s"
    restart(patients["otelcol"], "--config", sooner)
    service, _, _ = new_ids()

    def calls() -> list[float]:
        for status in (0, 2):
            _, trace_id, span_id = new_ids()
            request = trace_request(resource(service), trace_id, span_id)
            request["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["status"] = {"code": status}
            send(own, "traces", request)
        return [value for value in monitor(own, "calls", service) if value > 0]

    assert eventually(calls, 20)
    assert 0 < monitor(own, "errors", service)[-1] < 1
    assert 10 < monitor(own, "latencies", service, quantile="0.95")[-1] <= 25  # a bucket of milliseconds


def error_logs(stack: dict[str, str], service: str) -> list[Json]:
    query = f'service:log_errors:rate5m{{service_name="{service}"}}'
    result: list[Json] = get(f"{stack['prometheus']}/api/v1/query", query=query)["result"]
    return result


def log_of(service: str, severities: list[int]) -> Json:
    """Returns a request with a record of each severity number."""
    origin = resource(service, service_namespace="shop", deployment_environment_name="test")
    request = log_request(origin, [("something happened", {})] * len(severities))
    records = request["resourceLogs"][0]["scopeLogs"][0]["logRecords"]
    for record, severity in zip(records, severities, strict=True):
        record.update(severityNumber=severity, severityText="")
    return request


def test_loki_records_error_logs_by_service_in_prometheus(
    own: dict[str, str], patients: dict[str, Patient]
) -> None:
    restart(patients["loki"], PIPELINE_LOKI_RULE_INTERVAL="1s")
    bad, good = new_ids()[0], new_ids()[0]

    send(own, "logs", log_of(good, [9, 13]))
    send(own, "logs", log_of(bad, [9, ERROR, ERROR, CRITICAL]))

    (series,) = eventually(lambda: error_logs(own, bad), 15)
    assert series["metric"] == {
        "__name__": "service:log_errors:rate5m",
        "service_name": bad,
        "service_namespace": "shop",
        "deployment_environment_name": "test",
    }
    assert float(series["value"][1]) == pytest.approx(3 / 300)
    assert error_logs(own, good) == []


def test_stack_keeps_traces_in_memory_where_a_variable_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = stack_programs.Layout(tmp_path, 0)

    as_shipped, *_ = stack_programs.programs(layout)
    monkeypatch.setenv("SIGHTLINE_STACK_JAEGER", "jaeger-memory.yaml")
    in_memory, *_ = stack_programs.programs(layout)

    assert as_shipped.arguments == ("--config", str(CONFIG / "jaeger.yaml"))
    assert in_memory.arguments == ("--config", str(CONFIG / "jaeger-memory.yaml"))


@pytest.fixture
def far_store(tmp_path: Path) -> Iterator[str]:
    """The URL of another Prometheus in the part of Mimir or Thanos: it takes what is written to it."""
    layout = stack_programs.Layout(tmp_path, lifecycle.free_offset())
    (tmp_path / "store.yaml").write_text("storage: {tsdb: {out_of_order_time_window: 10m}}\n")
    command = [
        binary("prometheus"),
        f"--config.file={tmp_path / 'store.yaml'}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address={layout.address('prometheus')}",
        "--web.enable-remote-write-receiver",
        "--enable-feature=exemplar-storage",
    ]
    with (tmp_path / "log").open("w") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            yield layout.url("prometheus")
        finally:
            process.terminate()


def test_remote_write_takes_samples_and_exemplars_to_a_far_store(
    own: dict[str, str], patients: dict[str, Patient], far_store: str
) -> None:
    folder = Path(own["state_dir"]) / "prometheus"
    (folder / "secrets").mkdir()
    (folder / "secrets" / "remote-write-token").write_text("a token")
    overlay = (CONFIG / "overlays" / "prometheus-remote-write.yaml").read_text()
    assert overlay.count("https://metrics.example/api/v1/push") == 1
    overlay = overlay.replace("https://metrics.example/api/v1/push", f"{far_store}/api/v1/write")
    (folder / "prometheus.yaml").unlink()
    (folder / "prometheus.yaml").write_text((CONFIG / "prometheus.yaml").read_text() + overlay)
    restart(patients["prometheus"], "--storage.remote.flush-deadline=1s")
    service, trace_id, span_id = new_ids()

    send(own, "metrics", histogram_request(resource(service), "shop.wait", trace_id, span_id))

    series = f'shop_wait_seconds_count{{service_name="{service}",cluster="sightline"}}'
    assert eventually(lambda: get(f"{far_store}/api/v1/query", query=series)["result"], 20)
    span_of_time = {"start": str(time.time() - 60), "end": str(time.time() + 60)}
    buckets = f'shop_wait_seconds_bucket{{service_name="{service}"}}'
    (found,) = get(f"{far_store}/api/v1/query_exemplars", query=buckets, **span_of_time)
    assert found["exemplars"][0]["labels"] == {"trace_id": trace_id, "span_id": span_id}
