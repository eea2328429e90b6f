"""What memory does over many requests that have nothing in common, and with a collector that is down."""

import dataclasses
from dataclasses import dataclass
from typing import Final

from benchmarks.cases import BARE, OTLP, OURS, WITH_SDK, Case
from benchmarks.load import closed_loop, run
from benchmarks.processes import rss_mb
from benchmarks.servers import Laboratory, free_port, running

EARLY_SHARE: Final = 0.2
"""Caches are full and queues have been at their deepest by then; from there on memory shall not grow."""

REFERENCE_REQUESTS: Final = 10_000
"""For the two applications without instrumentation: they keep nothing, and more requests change nothing."""

UNDELIVERED_REQUESTS: Final = 100_000
"""With the collector down: many times what the queues hold."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory of one server over its life.

    Attributes:
        name: What ran.
        requests: How many requests it has served.
        early_mb: Megabytes (10^6 bytes) after `EARLY_SHARE` of them.
        end_mb: Megabytes at the end.
    """

    name: str
    requests: int
    early_mb: float
    end_mb: float


def measure_memory(laboratory: Laboratory, requests: int) -> list[Memory]:
    """Runs bare, bare + SDK, Sightline, and Sightline with nobody at the collector's port.

    The queues have their default bounds: under full load spans may be dropped, memory shall not grow.
    """
    variables = {name: value for name, value in OTLP.items() if name != "OTEL_BSP_MAX_QUEUE_SIZE"}
    ours = dataclasses.replace(OURS, name="Sightline, distinct requests", variables=variables)
    down = {**variables, "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}"}
    out_of_reach = dataclasses.replace(ours, name="Sightline, collector down", variables=down)
    reference = min(requests, REFERENCE_REQUESTS)
    return [
        _observe(laboratory, BARE, reference),
        _observe(laboratory, WITH_SDK, reference),
        _observe(laboratory, ours, requests),
        _observe(laboratory, out_of_reach, min(requests, UNDELIVERED_REQUESTS)),
    ]


def _observe(laboratory: Laboratory, case: Case, requests: int) -> Memory:
    early = round(requests * EARLY_SHARE)
    with running(laboratory, case) as server:
        run(closed_loop(server.port, early, distinct_request))
        early_mb = rss_mb(server.pid)
        run(closed_loop(server.port, requests - early, lambda number: distinct_request(early + number)))
        return Memory(case.name, requests, early_mb, rss_mb(server.pid))


def distinct_request(number: int) -> bytes:
    """Returns a request whose URL, host, user agent and correlation ID no other number has."""
    lines = (
        f"GET /items/{number}?page={number} HTTP/1.1",
        f"Host: shop-{number}.example",
        f"User-Agent: client/{number}",
        f"X-Correlation-ID: order-{number}",
        f"traceparent: 00-{number + 1:032x}-{number + 1:016x}-01",
        "Accept: */*",
    )
    return "\r\n".join((*lines, "", "")).encode()
