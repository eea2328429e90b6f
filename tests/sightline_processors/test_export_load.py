"""A real server under load while its collector misbehaves: no request fails, all is accounted for."""

import http.client
import json
import random
import re
import statistics
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.sightline_processors.export_support import until
from tests.sightline_processors.faulty_collector import (
    PROTOBUF,
    FaultyCollector,
    accept,
    drip,
    hang_up,
    raw,
    reject,
    reset,
    silent,
    status,
)
from tests.zero_code.uvicorn_process import serving

APPS = Path(__file__).parent / "apps"
SPAN_ID = re.compile("[0-9a-f]{16}")
CLIENTS = 4
REQUESTS = 200
"""Of each client, in each phase."""

FAULTS = [
    accept, accept, status(503), status(429, ("retry-after", "-1")), status(429, ("retry-after", "1e300")),
    status(307, ("location", "http://127.0.0.1:1/")), reject(3), status(200, PROTOBUF, body=b"\xff"),
    status(200, ("content-type", "text/html"), body=b"<html>"), reset, hang_up, raw(b"garbage\r\n\r\n"),
    drip(b"HTTP/1.1 200 OK\r\n\r\n", 0.1), silent, status(400), status(500),
]  # fmt: skip

VARIABLES = {
    "OTEL_BSP_EXPORT_TIMEOUT": "1500",
    "OTEL_BLRP_EXPORT_TIMEOUT": "1500",
    "OTEL_METRIC_EXPORT_TIMEOUT": "1500",
    "OTEL_EXPORTER_OTLP_TIMEOUT": "0.3",
}


def asked(port, count):
    """Sends requests over one connection; returns the seconds of each."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    seconds = []
    for _ in range(count):
        started = time.perf_counter()
        connection.request("GET", "/ok")
        response = connection.getresponse()
        response.read()
        seconds.append(time.perf_counter() - started)
        assert response.status == 200
        time.sleep(0.002)
    connection.close()
    return seconds


def load(port):
    with ThreadPoolExecutor(CLIENTS) as pool:
        phases = pool.map(asked, [port] * CLIENTS, [REQUESTS] * CLIENTS)
        return [second for seconds in phases for second in seconds]


def ledgers(server):
    return json.loads(server.get("/ledger").body)


def test_a_collector_that_flaps_costs_no_request_and_no_count():
    generator = random.Random(7)
    with (
        FaultyCollector() as collector,
        serving(
            "accounted:app", "--app-dir", str(APPS), "--no-access-log",
            endpoint=collector.endpoint, variables=VARIABLES,
        ) as server,
    ):  # fmt: skip
        asked(server.port, 50)
        healthy = statistics.median(load(server.port))

        def flap(*arguments):
            generator.choice(FAULTS)(*arguments)

        collector.then = flap
        flapping = statistics.median(load(server.port))
        collector.then = accept
        assert flapping <= 2 * healthy + 0.002
        requests = 50 + 2 * CLIENTS * REQUESTS
        asked(server.port, 1)
        assert until(
            lambda: all(ledgers(server)[signal]["in_flight"] == 0 for signal in ("traces", "logs")), 10
        )
        accounts = ledgers(server)
        stderr = server.stderr
    for signal in ("traces", "logs", "metrics"):
        account = accounts[signal]
        dropped = sum(account["dropped"].values())
        assert account["accepted"] == account["acknowledged"] + dropped + account["pending"], signal
        assert account["acknowledged"] > 0
    assert accounts["logs"]["accepted"] >= requests + 1  # its own lines about the faults are not exported
    assert accounts["traces"]["accepted"] >= requests + 1
    spans = [item for item in collector.stored if SPAN_ID.fullmatch(item)]
    assert len(spans) >= accounts["traces"]["acknowledged"]
    taken = Counter(request.path for request in collector.requests)
    assert taken.keys() == {"/v1/traces", "/v1/logs", "/v1/metrics"}
    lines = [line for line in stderr.splitlines() if "Failed to export" in line]
    kinds = [line.split(";")[0].split(" (")[0] for line in lines]
    assert lines
    assert len(kinds) == len(set(kinds))
