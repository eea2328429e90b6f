"""`make demo`: one request, followed through traces, logs and metrics by its correlation ID.

With the native stack (`make backends`) the telemetry goes through the collector to Jaeger, Loki and
Prometheus and is read back from them; without it, an in-memory OTLP receiver stands in.
"""

import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx
from otlp_receiver import OtlpReceiver
from shop_process import ShopError, running_shop, send_traffic
from telemetry_sources import (
    FoundLog,
    FoundPoint,
    FoundSpan,
    ReceiverSource,
    StackSource,
    TelemetrySource,
)

NATIVE: Final = Path(__file__).parents[2] / "collector-config" / "native"
SERVICE: Final = "shop"
ROUTE: Final = "/orders"
ARRIVAL_TIMEOUT_SECONDS: Final = 45.0


def main() -> int:
    """Runs the demo; returns the exit code."""
    with tempfile.TemporaryDirectory(prefix="sightline-demo-") as folder, _source(Path(folder)) as source:
        endpoint, telemetry, where = source
        log_path = Path(folder) / "shop.log"
        settings = {
            "OTEL_SERVICE_NAME": SERVICE,
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
            "OTEL_METRIC_EXPORT_INTERVAL": "1000",  # milliseconds; the default of 15000 is slow to watch
        }
        print("$ opentelemetry-instrument uvicorn app:app")
        with log_path.open("w+") as log:
            try:
                with running_shop(settings, log) as url:
                    return _follow_one_request(url, telemetry, where)
            except ShopError as error:
                print(f"error: {error}\n{log_path.read_text()}", file=sys.stderr)
                return 1


def _follow_one_request(url: str, telemetry: TelemetrySource, where: list[str]) -> int:
    send_traffic(url)
    correlation_id = f"demo-{secrets.token_hex(4)}"
    answer = httpx.post(
        f"{url}{ROUTE}", json={"item_id": 2, "quantity": 3}, headers={"x-correlation-id": correlation_id}
    )
    print(f"\n$ curl -i -X POST {url}{ROUTE} -H 'X-Correlation-ID: {correlation_id}' -d '…'")
    print(f"HTTP/1.1 {answer.status_code}\nx-correlation-id: {answer.headers['x-correlation-id']}")
    spans, logs, point = _wait_for(telemetry, correlation_id)
    complete = _print_found(correlation_id, spans, logs, point)
    print("\nWhere to look")
    for line in where:
        print(f"  {line}")
    return 0 if complete else 1


def _wait_for(
    telemetry: TelemetrySource, correlation_id: str
) -> tuple[list[FoundSpan], list[FoundLog], FoundPoint | None]:
    """Waits until spans, the background task's log record and the metric have arrived."""
    deadline = time.monotonic() + ARRIVAL_TIMEOUT_SECONDS
    while True:
        spans, logs = telemetry.spans(correlation_id), telemetry.logs(correlation_id)
        point = telemetry.point(ROUTE, "POST")
        arrived = spans and any("receipt" in log.body for log in logs) and point and point.exemplar_trace_ids
        if arrived or time.monotonic() > deadline:
            return spans, logs, point
        time.sleep(0.3)


def _print_found(
    correlation_id: str, spans: list[FoundSpan], logs: list[FoundLog], point: FoundPoint | None
) -> bool:
    """Prints what was found; returns whether all three signals are there."""
    print(f"\nCorrelation ID  {correlation_id}")
    print(f"Trace ID        {spans[0].trace_id if spans else 'not found'}")
    print("\nSpans")
    for line in _tree(spans):
        print(f"  {line}")
    print("\nLogs")
    for log in logs:
        print(f"  {log.logger:<16} {log.body}")
    print("\nMetric")
    if point is None:
        print("  not found")
    else:
        print(
            f"  http.server.request.duration{{http.route={point.route}, "
            f"http.response.status_code={point.status_code}}}  count={point.count}"
        )
        print(f"  exemplars: {', '.join(sorted(point.exemplar_trace_ids)) or 'none'}")
    return bool(spans and logs and point and point.exemplar_trace_ids)


def _tree(spans: list[FoundSpan], parent_id: str | None = None, depth: int = 0) -> Iterator[str]:
    """Yields one line per span, children indented below their parent."""
    known = {span.span_id for span in spans}
    for span in sorted(spans, key=lambda span: span.started_ns):
        is_root = span.parent_id not in known
        if is_root if parent_id is None else span.parent_id == parent_id:
            yield f"{'  ' * depth}{span.name}  [{span.kind}]  {span.duration_ms:.1f} ms"
            yield from _tree(spans, span.span_id, depth + 1)


@contextmanager
def _source(folder: Path) -> Iterator[tuple[str, TelemetrySource, list[str]]]:
    """Yields an OTLP endpoint, a way to read back what it got, and where a person would look."""
    running = _stack_status()
    if running:
        print("Using the running stack (make stack).")
        with StackSource(running, SERVICE, time.time()) as telemetry:
            yield running["otlp_http"], telemetry, _links(running)
    elif _stack_is_built():
        print("Starting the native stack for the demo …")
        with (
            _temporary_stack(folder) as endpoints,
            StackSource(endpoints, SERVICE, time.time()) as telemetry,
        ):
            where = ["The back ends stop with this demo: `make stack`, then `make demo`, keeps them."]
            yield endpoints["otlp_http"], telemetry, where
    else:
        print("No back ends are built: an in-memory OTLP receiver stands in for the collector.")
        with OtlpReceiver() as receiver:
            where = [
                "`make backends` builds collector, Jaeger, Loki and Prometheus (once, 10 to 15 minutes);",
                "`make stack` starts them; `make demo` then reads from them and says the URLs.",
            ]
            yield receiver.endpoint, ReceiverSource(receiver.store, SERVICE), where


def _links(endpoints: dict[str, str]) -> list[str]:
    duration = "http_server_request_duration_seconds_count"
    return [
        f"Jaeger      {endpoints['jaeger']}/api/traces?service={SERVICE}",
        f"Prometheus  {endpoints['prometheus']}/api/v1/query?query={duration}",
        f"Loki        {endpoints['loki']}/loki/api/v1/query_range?query={{service_name=%22{SERVICE}%22}}",
    ]


def _stack(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(  # noqa: S603  our own script
        [sys.executable, NATIVE / "stack.py", *arguments], capture_output=True, text=True, check=False
    )


def _stack_status() -> dict[str, str] | None:
    answer = _stack("status", "--json")
    if answer.returncode != 0:
        return None
    endpoints: dict[str, str] = json.loads(answer.stdout)
    return endpoints


def _stack_is_built() -> bool:
    names = ("otelcol", "jaeger", "loki", "prometheus")
    return all(
        subprocess.run(  # noqa: S603  our own script
            [sys.executable, NATIVE / "backends.py", "path", name], capture_output=True, check=False
        ).returncode
        == 0
        for name in names
    )


@contextmanager
def _temporary_stack(folder: Path) -> Iterator[dict[str, str]]:
    state = str(folder / "stack")
    started = _stack("up", "--state-dir", state, "--port-offset", "auto", "--fresh", "--json")
    if started.returncode != 0:
        raise SystemExit(started.stderr.strip() or "the native stack did not start")
    try:
        endpoints: dict[str, str] = json.loads(started.stdout)
        yield endpoints
    finally:
        _stack("down", "--state-dir", state)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    sys.exit(main())
