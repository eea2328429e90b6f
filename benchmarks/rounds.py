"""One round of one case, in turn with its base, and whether everything arrived that was sent.

Both servers run at once and are loaded in turn, block by block: whatever else the machine does in the
meantime slows both of them alike. What it does within a block does not, and changes a block by a fifth: the
ratio of a round is the mean of the middle half of its blocks' ratios.
"""

import math
import re
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

from benchmarks.cases import Arrival, Case
from benchmarks.load import Load, LoadError, closed_loop, open_loop, request_bytes, run, wrk
from benchmarks.processes import cpu_seconds, rss_mb
from benchmarks.servers import Laboratory, Receiver, Server, ServerError, get, running
from benchmarks.websocket_load import CONNECTIONS, echoes

WARM_UP_REQUESTS: Final = 1_000
READY_REQUESTS: Final = 1
BLOCKS: Final = 12
MESSAGES_PER_REQUEST: Final = 10
"""So many more messages than requests, for those of a block share the cost of opening its connections."""

OPEN_RATE: Final = 1_000
OPEN_BLOCKS: Final = 4
ARRIVAL_SECONDS: Final = 30.0

_SCRAPED: Final = re.compile(
    rb'^http_requests_total\{handler="/items/\{item_id\}".*\} ([0-9.e+]+)$', re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class Plan:
    """How long a round is.

    Attributes:
        requests: Answers to wait for under full load, from each server, in `BLOCKS` blocks.
        open_requests: Requests of the open loop at `OPEN_RATE` per second, to each server, in `OPEN_BLOCKS`
            blocks; none for 0.
        client: `wrk` or `asyncio`, for full load.
    """

    requests: int
    open_requests: int
    client: str


@dataclass(frozen=True, slots=True)
class Sample:
    """What one round has measured; NaN for what it has not.

    Attributes:
        cpu_us: CPU of the server per request (or message), its exports included, in microseconds.
        base_us: The same of the case's base, loaded in turn with it; the case's own where it has none.
        whole_ratio: Of all CPU time of the two, no block left out.
        rate: Requests (or messages) per second under full load.
        base_rate: The same of the base.
        p50_ms: Median latency in the open loop, the median of its blocks.
        p99_ms: The 99th percentile, likewise: a block in which the machine stood still is left out.
        base_p99_ms: The same of the base.
        late_p99_ms: How late the client of the open loop was itself, 99th percentile.
        rss_mb: Resident memory after full load.
        lost: Why the round does not count; empty when it does.
    """

    cpu_us: float = math.nan
    base_us: float = math.nan
    whole_ratio: float = math.nan
    rate: float = math.nan
    base_rate: float = math.nan
    p50_ms: float = math.nan
    p99_ms: float = math.nan
    base_p99_ms: float = math.nan
    late_p99_ms: float = math.nan
    rss_mb: float = math.nan
    lost: str = ""


@dataclass(slots=True)
class Side:
    """One server of a round, and what it has been sent.

    Attributes:
        sent: Requests that were answered, or connections that carried messages: what must arrive.
        in_flight: Requests at most that were made beyond those.
        blocks: Requests or messages of each block.
        seconds: How long the blocks took.
        clock: Its CPU time at the start of each block, and at the end, in seconds: what it does after a
            block, exports above all, is part of that block.
    """

    case: Case
    server: Server
    receiver: Receiver
    client: str
    sent: int = READY_REQUESTS
    in_flight: int = 0
    blocks: list[int] = field(default_factory=list)
    seconds: float = 0.0
    clock: list[float] = field(default_factory=list)

    def warm_up(self) -> None:
        """Loads the server until its caches are full, and waits for its exports."""
        self._load(WARM_UP_REQUESTS)
        self.settle()

    def load_block(self, requests: int) -> None:
        """Loads the server with what is measured."""
        self.clock.append(cpu_seconds(self.server.pid))
        load = self._load(requests * (MESSAGES_PER_REQUEST if self.case.is_websocket else 1))
        self.blocks.append(load.requests)
        self.seconds += load.seconds

    def load_paced(self, requests: int) -> Load:
        """Sends requests by the clock."""
        request = request_bytes(self.server.port, self.case.path, self.case.headers)
        load = run(open_loop(self.server.port, OPEN_RATE, requests, request))
        self.sent += load.requests
        self.settle()
        return load

    def finish(self) -> None:
        """Waits for what the server still owes for the last block."""
        self.settle()
        self.clock.append(cpu_seconds(self.server.pid))

    def whole_us(self) -> float:
        """Returns the CPU per request of all blocks, in microseconds."""
        return (self.clock[-1] - self.clock[0]) / sum(self.blocks) * 1e6

    def block_us(self) -> list[float]:
        """Returns the CPU per request of each block, in microseconds."""
        seconds = (after - before for before, after in pairwise(self.clock))
        return [each / requests * 1e6 for each, requests in zip(seconds, self.blocks, strict=True)]

    def settle(self) -> None:
        """Waits until the spans that the server owes have arrived: exports are part of the cost.

        Raises:
            ServerError: When a scraped counter lacks requests; for the others, `lost` tells at the end.
        """
        if self.case.arrival is Arrival.SPANS:
            deadline = time.monotonic() + ARRIVAL_SECONDS
            while self.receiver.counts()["requests"] < self.sent and time.monotonic() < deadline:
                time.sleep(0.05)
        elif self.case.arrival is Arrival.SCRAPED:
            missing = self.sent - _scraped_requests(self.server.port)
            if missing > 0:
                raise ServerError(f"{missing:.0f} of {self.sent} requests are not in the scraped counter")

    def lost(self) -> str:
        """Returns why the round does not count; asked once the server has ended."""
        return verdict(self.case, self.receiver.counts(), self.sent, self.in_flight)

    def _load(self, requests: int) -> Load:
        load = _full_load(self.case, self.server.port, requests, self.client)
        self.sent += CONNECTIONS if self.case.is_websocket else load.requests
        self.in_flight += load.in_flight
        return load


def run_round(laboratory: Laboratory, case: Case, plan: Plan) -> Sample:
    """Runs one round; whatever goes wrong makes a sample that does not count and says why."""
    try:
        with ExitStack() as stack:
            sides = []
            for each, receiver in zip((case, case.base), laboratory.receivers, strict=True):
                if each is not None:
                    receiver.reset()
                    server = stack.enter_context(running(laboratory, each, receiver))
                    sides.append(Side(each, server, receiver, plan.client))
            figures = _measure(sides, plan)
        lost = "; ".join(reason for reason in (side.lost() for side in sides) if reason)
    except (ServerError, LoadError, OSError, TimeoutError) as error:
        return Sample(lost=f"{type(error).__name__}: {error}")
    return Sample(**figures, lost=lost)


def _measure(sides: Sequence[Side], plan: Plan) -> dict[str, float]:
    for side in sides:
        side.warm_up()
    for number in range(BLOCKS):
        for side in sides if number % 2 else reversed(sides):
            side.load_block(plan.requests // BLOCKS)
    for side in sides:
        side.finish()
    case, base = sides[0], sides[-1]
    base_us = statistics.median(base.block_us())
    figures = {
        "cpu_us": base_us * block_ratio(case.block_us(), base.block_us()),
        "base_us": base_us,
        "whole_ratio": case.whole_us() / base.whole_us(),
        "rate": sum(case.blocks) / case.seconds,
        "base_rate": sum(base.blocks) / base.seconds,
        "rss_mb": rss_mb(case.server.pid),
    }
    if plan.open_requests and not case.case.is_websocket:
        figures |= _measure_paced(case, base, plan.open_requests // OPEN_BLOCKS)
    return figures


def _measure_paced(case: Side, base: Side, requests: int) -> dict[str, float]:
    blocks = [(case.load_paced(requests), base.load_paced(requests)) for _ in range(OPEN_BLOCKS)]
    return {
        "p50_ms": statistics.median(mine.p50_ms for mine, _ in blocks),
        "p99_ms": statistics.median(mine.p99_ms for mine, _ in blocks),
        "base_p99_ms": statistics.median(other.p99_ms for _, other in blocks),
        "late_p99_ms": statistics.median(load.late_p99_ms for block in blocks for load in block),
    }


def block_ratio(case: Sequence[float], base: Sequence[float]) -> float:
    """Returns the mean of the middle half of the ratios of blocks that were loaded in turn.

    Args:
        case: CPU per request of each block, in the order in which they ran.
        base: The same of the other server.
    """
    ratios = sorted(mine / other for mine, other in zip(case, base, strict=True))
    quarter = len(ratios) // 4
    return statistics.fmean(ratios[quarter : len(ratios) - quarter])


def _full_load(case: Case, port: int, requests: int, client: str) -> Load:
    if case.is_websocket:
        return run(echoes(port, case.path, requests))
    if client == "wrk":
        return wrk(port, case.path, requests, case.headers)
    request = request_bytes(port, case.path, case.headers)
    return run(closed_loop(port, requests, lambda _: request))


def _scraped_requests(port: int) -> float:
    return sum(float(count) for count in _SCRAPED.findall(get(port, "/metrics")))


def verdict(case: Case, counts: dict[str, Any], sent: int, in_flight: int) -> str:
    """Returns why a round does not count; empty when everything arrived that was sent, and nothing else.

    Args:
        case: Says what must arrive.
        counts: What the receiver has counted (`Intake.counts`).
        sent: Requests that were answered.
        in_flight: Requests at most that were made beyond those.
    """
    if counts["unreadable"]:
        return f"{counts['unreadable']} deliveries could not be parsed"
    if counts["repeated"]:
        return f"{counts['repeated']} items arrived twice"
    if case.arrival in (Arrival.NOTHING, Arrival.SCRAPED):
        return ""
    arrived = counts["measured" if case.arrival is Arrival.MEASURED else "requests"]
    if arrived < sent:
        return f"{sent - arrived} of {sent} requests did not arrive"
    if arrived > sent + in_flight:
        return f"{arrived - sent - in_flight} more requests arrived than were made"
    return _own_verdict(case, counts, arrived)


def _own_verdict(case: Case, counts: dict[str, Any], arrived: int) -> str:
    """Returns where Sightline's own signals disagree: the others lose their last metrics when they end."""
    if case.spans_per_request is None:
        return ""
    if counts["spans"] != arrived * case.spans_per_request:
        return f"{counts['spans']} spans for {arrived} requests, {case.spans_per_request} for each are due"
    if counts["measured"] != arrived and not case.is_websocket:
        return f"{counts['measured']} requests in the histogram, {arrived} in spans"
    return "" if counts["exemplars"] or not counts["spans"] else "the histogram has no exemplar"
