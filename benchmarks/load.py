"""Load on a server: a fixed number of requests as fast as it answers, or requests at fixed times.

A closed loop (each connection sends when its last answer is there) measures what a request costs. It says
little about latency: a server that stalls is asked less often. The open loop sends by the clock, whatever the
server does, and measures each request from the time at which it was due.
"""

import asyncio
import json
import re
import selectors
import shutil
import statistics
import subprocess
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

CONNECTIONS: Final = 16
OPEN_CONNECTIONS: Final = 64
WRK_SCRIPT: Final = Path(__file__).with_name("wrk.lua")
LIMIT_SECONDS: Final = 60
SLOWEST_RATE: Final = 200
"""Requests per second: a server that needs longer has stopped."""

_LENGTH: Final = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_HEAD_END: Final = b"\r\n\r\n"

Result = TypeVar("Result")


class LoadError(Exception):
    """Raised when a connection breaks off or an answer is not 200: the round says nothing."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a load has seen.

    Attributes:
        requests: Answers received.
        in_flight: Requests at most that were sent and whose answers nobody waited for.
        seconds: From the first request to the last answer.
        p50_ms: Median latency.
        p99_ms: 99th percentile.
        late_p99_ms: 99th percentile of how late the client itself was; 0 for a closed loop.
    """

    requests: int
    in_flight: int
    seconds: float
    p50_ms: float
    p99_ms: float
    late_p99_ms: float = 0.0


def request_bytes(port: int, path: str, headers: Sequence[tuple[str, str]] = ()) -> bytes:
    """Returns one GET request."""
    lines = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", "User-Agent: bench/1", "Accept: */*"]
    return "\r\n".join([*lines, *(f"{name}: {value}" for name, value in headers), "", ""]).encode()


def run(load: Coroutine[Any, Any, Result]) -> Result:
    """Runs a load on an event loop whose timers are exact: `epoll` rounds up to the millisecond."""
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
        return runner.run(load)


def wrk(
    port: int,
    path: str,
    requests: int,
    headers: Sequence[tuple[str, str]] = (),
    connections: int = CONNECTIONS,
) -> Load:
    """Has wrk send requests until it has received the given number of answers.

    Raises:
        LoadError: When an answer was not 200 or wrk failed.
    """
    limit = LIMIT_SECONDS + requests // SLOWEST_RATE
    named = (("User-Agent", "bench/1"), ("Accept", "*/*"), *headers)
    done = subprocess.run(
        [
            "wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{limit}s",
            "--script", WRK_SCRIPT, *(f"--header={name}: {value}" for name, value in named),
            f"http://127.0.0.1:{port}{path}", "--", str(requests),
        ],
        capture_output=True, text=True, check=False, timeout=limit + 10,
    )  # fmt: skip
    line = next((line for line in done.stdout.splitlines() if line.startswith("{")), None)
    if done.returncode or line is None:
        raise LoadError(f"wrk failed: {done.stdout}{done.stderr}")
    seen = json.loads(line)
    if seen.pop("errors"):
        raise LoadError(f"wrk met errors: {line}")
    return Load(**seen, in_flight=connections)


def has_wrk() -> bool:
    """Tells whether wrk is installed."""
    return shutil.which("wrk") is not None


class Connection(asyncio.Protocol):
    """One keep-alive connection that carries one request at a time.

    Args:
        answered: Called with the connection after each answer.
        failed: Called with what went wrong, at most a few times.

    Attributes:
        due: When the request under way was due, in seconds of `time.perf_counter`.
    """

    def __init__(self, answered: Callable[["Connection"], None], failed: Callable[[LoadError], None]) -> None:
        self.due = 0.0
        self._answered = answered
        self._failed = failed
        self._received = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def send(self, request: bytes, due: float) -> None:
        """Sends one request."""
        self.due = due
        self._transport.write(request)

    def close(self) -> None:
        """Closes the connection on purpose."""
        self._failed = lambda _: None
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Collects an answer."""
        self._received += data
        end = self._received.find(_HEAD_END)
        if end < 0:
            return
        if not self._received.startswith(b"HTTP/1.1 200"):
            self._failed(LoadError(bytes(self._received[:60]).decode(errors="replace")))
            return
        length = _LENGTH.search(self._received, 0, end)
        if length is not None and len(self._received) >= end + len(_HEAD_END) + int(length[1]):
            self._received.clear()
            self._answered(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Reports a connection that the server has closed."""
        self._failed(LoadError(f"the server closed a connection: {exc}"))


async def closed_loop(
    port: int, requests: int, request_of: Callable[[int], bytes], connections: int = CONNECTIONS
) -> Load:
    """Sends requests over keep-alive connections, each its next when the last is answered.

    Args:
        port: The server's, on loopback.
        requests: How many to send.
        request_of: Returns the n-th request, counted from 0.
        connections: How many at once.

    Raises:
        LoadError: When an answer is not 200 or a connection is lost.
    """
    numbers: Iterator[int] = iter(range(requests))
    latencies: list[float] = []
    finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def send_next(connection: Connection) -> None:
        number = next(numbers, None)
        if number is not None:
            connection.send(request_of(number), time.perf_counter())

    def answered(connection: Connection) -> None:
        latencies.append(time.perf_counter() - connection.due)
        if len(latencies) == requests and not finished.done():
            finished.set_result(None)
        send_next(connection)

    opened = await _connections(port, min(connections, requests), answered, finished)
    started = time.perf_counter()
    for connection in opened:
        send_next(connection)
    await _finished(finished, opened, requests, latencies)
    return _load(latencies, time.perf_counter() - started)


async def open_loop(port: int, rate: int, requests: int, request: bytes) -> Load:
    """Sends requests at fixed times; a latency counts from the time at which its request was due.

    Args:
        port: The server's, on loopback.
        rate: Requests per second.
        requests: How many to send.
        request: What to send.

    Raises:
        LoadError: When an answer is not 200 or a connection is lost.
    """
    latencies: list[float] = []
    lateness: list[float] = []
    waiting: deque[float] = deque()
    finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def send(connection: Connection, due: float) -> None:
        lateness.append(max(0.0, time.perf_counter() - due))
        connection.send(request, due)

    def answered(connection: Connection) -> None:
        latencies.append(time.perf_counter() - connection.due)
        if len(latencies) == requests and not finished.done():
            finished.set_result(None)
        elif waiting:
            connection.send(request, waiting.popleft())
        else:
            idle.append(connection)

    idle = await _connections(port, OPEN_CONNECTIONS, answered, finished)
    opened = list(idle)
    started = time.perf_counter()
    for number in range(requests):
        due = started + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        if idle:
            send(idle.pop(), due)
        else:  # the server is behind: the request waits, and its latency grows
            waiting.append(due)
    await _finished(finished, opened, requests, latencies)
    return _load(latencies, time.perf_counter() - started, lateness)


async def _connections(
    port: int, count: int, answered: Callable[[Connection], None], finished: "asyncio.Future[None]"
) -> list[Connection]:
    def failed(error: LoadError) -> None:
        if not finished.done():
            finished.set_exception(error)

    loop = asyncio.get_running_loop()
    opened = []
    for _ in range(count):
        _, connection = await loop.create_connection(lambda: Connection(answered, failed), "127.0.0.1", port)
        opened.append(connection)
    return opened


async def _finished(
    finished: "asyncio.Future[None]", opened: Sequence[Connection], requests: int, answered: Sequence[float]
) -> None:
    limit = LIMIT_SECONDS + requests / SLOWEST_RATE
    try:
        await asyncio.wait_for(finished, limit)
    except TimeoutError:
        raise LoadError(f"{len(answered)} of {requests} requests were answered in {limit:.0f} s") from None
    finally:
        for connection in opened:
            connection.close()
        await asyncio.sleep(0)


def _load(latencies: list[float], seconds: float, lateness: Sequence[float] = ()) -> Load:
    return Load(
        requests=len(latencies),
        in_flight=0,
        seconds=seconds,
        p50_ms=statistics.median(latencies) * 1e3,
        p99_ms=percentile_99(latencies) * 1e3,
        late_p99_ms=percentile_99(lateness) * 1e3 if lateness else 0.0,
    )


def percentile_99(values: Sequence[float]) -> float:
    """Returns the 99th percentile; the greatest value where there are too few."""
    return statistics.quantiles(values, n=100, method="inclusive")[98] if len(values) > 1 else values[0]
