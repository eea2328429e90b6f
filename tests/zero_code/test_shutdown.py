"""The end of a process: what is buffered is delivered, within the bound, whatever the collector does."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from otlp_receiver import OtlpReceiver
from shop_process import free_port

BIN = Path(sys.executable).parent
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


def get(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/ok")
        connection.getresponse().read()
    finally:
        connection.close()


def ended(endpoint, number, app="app:app", *options):
    """Serves requests, sends the signal at once; returns exit code, seconds that it took, and stderr."""
    port = free_port()
    command = [
        str(BIN / "opentelemetry-instrument"),
        str(BIN / "uvicorn"),
        app,
        "--port",
        str(port),
        "--no-access-log",
        *options,
    ]
    environ = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "SIGHTLINE_SHUTDOWN_TIMEOUT": "1s"}
    process = subprocess.Popen(
        command,
        cwd=Path(__file__).parent / "apps",
        env=environ,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    try:
        for _ in range(200):
            try:
                get(port)
                break
            except OSError:
                time.sleep(0.1)
        for _ in range(REQUESTS - 1):
            get(port)
        started = time.monotonic()
        process.send_signal(number)
        _, stderr = process.communicate(timeout=30)
        return process.returncode, time.monotonic() - started, stderr.decode()
    finally:
        process.kill()
        process.wait()


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
