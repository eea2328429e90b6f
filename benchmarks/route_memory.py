"""What SLA and reserved series take of memory where many routes are registered and few are asked for."""

import dataclasses
import json
import time
from dataclasses import dataclass
from typing import Final

from benchmarks.cases import OTLP, OURS, Case
from benchmarks.load import closed_loop, request_bytes, run
from benchmarks.processes import rss_mb
from benchmarks.servers import Laboratory, ServerError, get, running

REGISTERED: Final = 10_000
ACTIVE: Final = 200
REQUESTS: Final = 25 * ACTIVE
COLLECTIONS: Final = 3
"""After the last request: a reader makes its series when it collects."""

WAIT_SECONDS: Final = 30.0
_VARIABLES: Final = {**OTLP, "OTEL_METRIC_EXPORT_INTERVAL": "1000"}

WITH: Final = dataclasses.replace(
    OURS, name="many routes", application="registered_routes", variables=_VARIABLES
)
WITHOUT: Final = dataclasses.replace(WITH, name="many routes, not judged", application="unjudged_routes")


@dataclass(frozen=True, slots=True)
class RouteMemory:
    """Resident memory of a server with `REGISTERED` routes, `ACTIVE` of which have been asked for.

    Attributes:
        without_mb: Megabytes (10^6 bytes) where Sightline neither judges requests nor reserves series.
        with_mb: Megabytes where it does.
    """

    without_mb: float
    with_mb: float


def measure_route_memory(laboratory: Laboratory) -> RouteMemory:
    """Runs both servers, one after the other.

    Raises:
        ServerError: When one of them does not do what it is compared for.
    """
    return RouteMemory(
        _observe(laboratory, WITHOUT, reserved=0, judged=0),
        _observe(laboratory, WITH, reserved=REGISTERED, judged=ACTIVE),
    )


def _observe(laboratory: Laboratory, case: Case, reserved: int, judged: int) -> float:
    laboratory.receivers[0].reset()
    with running(laboratory, case) as server:
        run(closed_loop(server.port, REQUESTS, lambda number: _request(server.port, number)))
        _wait_for_collections(laboratory)
        held = json.loads(get(server.port, "/held"))
        if held["reserved"] != reserved or not judged <= held["judged"] <= judged + 2:
            raise ServerError(f"{case.name}: {held} instead of {reserved} reserved, {judged} judged routes")
        return rss_mb(server.pid)


def _request(port: int, number: int) -> bytes:
    return request_bytes(port, f"/items-{number % ACTIVE + 1}/{number}")


def _wait_for_collections(laboratory: Laboratory) -> None:
    def collections() -> int:
        return int(laboratory.receivers[0].counts()["posts"].get("/v1/metrics", 0))

    wanted, deadline = collections() + COLLECTIONS, time.monotonic() + WAIT_SECONDS
    while collections() < wanted:
        if time.monotonic() > deadline:
            raise ServerError(f"fewer than {COLLECTIONS} exports of metrics in {WAIT_SECONDS:.0f} s")
        time.sleep(0.1)
