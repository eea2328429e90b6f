"""The end of a process: what is buffered is delivered, within the bound, whatever the collector does."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from otlp_receiver import OtlpReceiver
from shop_process import free_port
from tests.sightline_processors.faulty_collector import FaultyCollector, drip

from sightline.shutdown import ShutdownDeadline

BIN = Path(sys.executable).parent
OWN_APPS = ("--app-dir", str(Path(__file__).parents[1] / "sightline_processors" / "apps"))
REQUESTS = 40
TIMEOUT_SECONDS = 1.0


@contextmanager
def silent_collector():
    """Accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        kept = []

        def accept():
            while True:
                try:
                    kept.append(listener.accept()[0])
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        for connection in kept:
            connection.close()
        listener.shutdown(socket.SHUT_RDWR)


def get(port, path="/ok"):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        connection.getresponse().read()
    finally:
        connection.close()


@contextmanager
def running(endpoint, app="app:app", *options, instrumented=True, variables=None):
    """Serves with default delays; yields process and port."""
    port = free_port()
    command = [BIN / "uvicorn", app, "--port", str(port), "--no-access-log", *options]
    if instrumented:
        command.insert(0, BIN / "opentelemetry-instrument")
    environ = {
        name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "SIGHTLINE_"))
    }
    environ |= {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, **(variables or {})}
    process = subprocess.Popen(
        [str(part) for part in command],
        cwd=Path(__file__).parent / "apps",
        env=environ,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    try:
        for _ in range(400):
            try:
                get(port)
                break
            except OSError:
                time.sleep(0.05)
        yield process, port
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def end_of(process, *numbers, pause_seconds=0.6):
    """Sends signals; returns exit code, seconds that the end took from the last one on, and stderr."""
    for number in numbers[:-1]:
        process.send_signal(number)
        time.sleep(pause_seconds)
    started = time.monotonic()
    if numbers:
        process.send_signal(numbers[-1])
    _, stderr = process.communicate(timeout=30)
    return process.returncode, time.monotonic() - started, stderr.decode()


def ended(endpoint, number, app="app:app", *options):
    """Serves requests, sends the signal at once; returns exit code, seconds that it took, and stderr."""
    with running(endpoint, app, *options, variables={"SIGHTLINE_SHUTDOWN_TIMEOUT": "1s"}) as (process, port):
        for _ in range(REQUESTS - 1):
            get(port)
        return end_of(process, number)


def named(items, name):
    return len([item for item in items if item.data.name == name])


def counted(store):
    """Returns how many requests the newest point of each series counts, over all processes."""
    newest = {}
    for item in list(store.metrics):
        if item.data.name == "http.server.request.duration":
            for point in item.data.histogram.data_points:
                series = item.resource["service.instance.id"], *sorted(map(repr, point.attributes))
                newest[series] = max(newest.get(series, 0), point.count)
    return sum(newest.values())


def logged(store, body):
    return len([item for item in list(store.logs) if item.data.body.string_value == body])


def test_flushes_share_one_deadline_and_a_later_lifespan_has_its_own():
    deadline = ShutdownDeadline(0.1)
    assert 0.09 < deadline.start() <= 0.1
    deadline.start_lifespans_end()
    time.sleep(0.25)
    assert deadline.start() == 0
    deadline.start_lifespans_end()
    assert deadline.start() > 0


def test_a_second_signal_leaves_half_a_second_from_the_start():
    deadline = ShutdownDeadline(60.0)
    deadline.start()
    deadline.cut()
    assert 0.4 < deadline.start() <= 0.5


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 0)])
def test_what_is_buffered_is_delivered_and_the_exit_code_stays(number, code):
    with OtlpReceiver() as receiver:
        returned, seconds, stderr = ended(receiver.endpoint, number)
        assert returned == code
        assert len([item for item in receiver.store.spans if item.data.name == "GET /ok"]) == REQUESTS
        (count,) = {
            point.count
            for item in receiver.store.metrics
            if item.data.name == "http.server.request.duration"
            for point in item.data.histogram.data_points
        }
        assert count == REQUESTS
        assert receiver.store.logs
        assert seconds < TIMEOUT_SECONDS + 2
        assert "could not be delivered" not in stderr


def test_metrics_that_are_collected_meanwhile_are_no_loss():
    often = {"OTEL_METRIC_EXPORT_INTERVAL": "2", "SIGHTLINE_SHUTDOWN_TIMEOUT": "3s"}
    with OtlpReceiver() as receiver, running(receiver.endpoint, variables=often) as (process, port):
        get(port)
        returned, _, stderr = end_of(process, signal.SIGTERM)
        assert returned == -signal.SIGTERM
        assert "could not be delivered" not in stderr
        assert counted(receiver.store) == 2  # the first one showed that the server is up


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 0)])
@pytest.mark.parametrize("collector", ["refusing", "silent"])
def test_a_collector_that_does_not_take_it_keeps_the_exit_for_the_timeout_only(collector, number, code):
    if collector == "refusing":
        returned, seconds, stderr = ended(f"http://127.0.0.1:{free_port()}", number)
    else:
        with silent_collector() as endpoint:
            returned, seconds, stderr = ended(endpoint, number)
    assert returned == code
    assert seconds < TIMEOUT_SECONDS + 2
    assert stderr.count("telemetry could not be delivered within SIGHTLINE_SHUTDOWN_TIMEOUT (1 s)") == 1


@pytest.mark.parametrize(
    ("app", "options"),
    [("app:app", ("--lifespan", "off")), ("app:inside_starlette", ())],
    ids=["off", "mounted"],
)
def test_what_is_buffered_is_delivered_without_a_lifespan_too(app, options):
    with OtlpReceiver() as receiver:
        returned, _, _ = ended(receiver.endpoint, signal.SIGTERM, app, *options)
        assert returned == -signal.SIGTERM
        assert len([item for item in receiver.store.spans if item.data.name == "GET /ok"]) == REQUESTS
        assert {item.data.name for item in receiver.store.metrics} >= {"http.server.request.duration"}


@pytest.mark.parametrize("options", [(), ("--workers", "2")], ids=["one", "workers"])
def test_finished_requests_are_delivered_with_one_in_flight_at_the_signal(options):
    with OtlpReceiver() as receiver:
        with running(receiver.endpoint, "accounted:app", *OWN_APPS, *options) as (process, port):
            for _ in range(REQUESTS - 1):
                get(port)
            late = threading.Thread(target=get, args=(port, "/slow"))
            late.start()
            time.sleep(0.2)
            code, _, stderr = end_of(process, signal.SIGTERM)
            late.join()
        assert code == (0 if options else -signal.SIGTERM)  # as without telemetry
        assert named(receiver.store.spans, "GET /ok") == logged(receiver.store, "served") == REQUESTS
        assert named(receiver.store.spans, "GET /slow") == logged(receiver.store, "served slowly") == 1
        assert counted(receiver.store) == REQUESTS + 1
        assert "could not" not in stderr


@pytest.mark.parametrize("options", [(), ("--lifespan", "off")], ids=["lifespan", "without"])
def test_a_server_that_recycles_itself_ends_with_its_own_code_and_loses_nothing(options):
    limit = ("--limit-max-requests", "5")
    with OtlpReceiver() as receiver:
        with running(receiver.endpoint, "app:app", *limit, *options) as (process, port):
            answered = 1
            with suppress(OSError):  # the server has ended itself
                for _ in range(200):
                    get(port)
                    answered += 1
            code, _, _ = end_of(process)
        assert code == 0  # as without telemetry
        assert answered < 200
        assert named(receiver.store.spans, "GET /ok") == counted(receiver.store) == answered
        assert logged(receiver.store, "from the handler") == answered


@pytest.mark.parametrize(
    ("numbers", "code"),
    [((signal.SIGTERM,) * 2, -signal.SIGTERM), ((signal.SIGINT,) * 2, 0)],
    ids=["SIGTERM", "SIGINT"],
)
def test_a_second_signal_ends_it_at_once(numbers, code):
    variables = {"SIGHTLINE_SHUTDOWN_TIMEOUT": "20s"}
    with silent_collector() as endpoint, running(endpoint, variables=variables) as (process, _):
        returned, seconds, stderr = end_of(process, *numbers)
        assert returned == code
        assert seconds < 1.5
        assert stderr.count("telemetry could not be delivered") == 1
        assert "Traceback" not in stderr


def test_a_second_signal_ends_a_script_at_once(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import logging, sys\nlogging.warning('w')\nprint(flush=True)\nsys.exit(3)\n")
    with silent_collector() as endpoint:
        environ = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "SIGHTLINE_SHUTDOWN_TIMEOUT": "20s"}
        command = [str(BIN / "opentelemetry-instrument"), sys.executable, str(script)]
        process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(0.4)
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
        assert time.monotonic() - started < 1.5
        assert process.returncode == 3
        assert b"Traceback" not in stderr


def test_a_collector_of_one_byte_per_second_keeps_the_exit_for_the_timeout_only():
    slow = drip(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", 1.0)
    with FaultyCollector(then=slow) as collector:
        code, seconds, stderr = ended(collector.endpoint, signal.SIGTERM)
    assert code == -signal.SIGTERM
    assert seconds < TIMEOUT_SECONDS + 0.7
    assert stderr.count("telemetry could not be delivered within SIGHTLINE_SHUTDOWN_TIMEOUT (1 s)") == 1


def test_what_could_not_be_sent_is_sent_by_the_next_start(tmp_path):
    variables = {"SIGHTLINE_SPOOL_DIR": str(tmp_path / "spool"), "SIGHTLINE_SHUTDOWN_TIMEOUT": "1s"}
    port = free_port()
    with running(f"http://127.0.0.1:{port}", variables=variables) as (process, served):
        for _ in range(REQUESTS - 1):
            get(served)
        _, _, stderr = end_of(process, signal.SIGTERM)
    assert "is kept in SIGHTLINE_SPOOL_DIR" in stderr
    kept = list((tmp_path / "spool").iterdir())
    assert {path.stat().st_mode & 0o777 for path in kept} == {0o600}
    assert (tmp_path / "spool").stat().st_mode & 0o777 == 0o700
    with OtlpReceiver(port) as receiver, running(receiver.endpoint, variables=variables) as (process, _):
        for _ in range(100):
            if not list((tmp_path / "spool").iterdir()):
                break
            time.sleep(0.05)
        assert not list((tmp_path / "spool").iterdir())
        end_of(process, signal.SIGTERM)
        assert (
            named(receiver.store.spans, "GET /ok")
            == logged(receiver.store, "from the handler")
            == REQUESTS + 1
        )


def test_a_fork_in_a_handler_delivers_its_own_span_and_nothing_twice():
    with OtlpReceiver() as receiver:
        with running(receiver.endpoint, "accounted:app", *OWN_APPS) as (process, port):
            for _ in range(5):
                get(port, "/fork")
            end_of(process, signal.SIGTERM)
        assert named(receiver.store.spans, "in the child") == named(receiver.store.spans, "GET /fork") == 5
        assert named(receiver.store.spans, "GET /ok") == logged(receiver.store, "served") == 1


CHILDREN = """
import logging, multiprocessing, sys
from opentelemetry import trace
def work(number):
    with trace.get_tracer("child").start_as_current_span("in the child"):
        logging.getLogger("child").warning("worked")
context = multiprocessing.get_context("fork")
process = context.Process(target=work, args=(1,))
process.start()
process.join()
with context.Pool(2) as pool:
    pool.map(work, range(6), chunksize=1)
    pool.close()
    pool.join()
sys.exit(process.exitcode)
"""


def test_forked_children_of_multiprocessing_deliver_at_their_end(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(CHILDREN)
    with OtlpReceiver() as receiver:
        environ = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint}
        command = [str(BIN / "opentelemetry-instrument"), sys.executable, str(script)]
        subprocess.run(command, env=environ, check=True, capture_output=True, timeout=60)
        assert named(receiver.store.spans, "in the child") == logged(receiver.store, "worked") == 7
