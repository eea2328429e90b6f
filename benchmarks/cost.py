"""`make bench`: what a request costs, as a ratio to the bare application, in one run.

Each variant is a uvicorn process of its own. Rounds are interleaved (A B A B …), so that a machine whose
speed drifts slows all of them alike. The figure is the CPU time of the server process per request, user and
system, its exporting threads included; a round in which spans are missing at the receiver does not count.
"""

import argparse
import asyncio
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent
BIN: Final = Path(sys.executable).parent
sys.path.insert(0, str(FOLDER.parent / "examples" / "quickstart"))

from otlp_receiver import OtlpReceiver  # noqa: E402  found through the line above
from shop_process import free_port  # noqa: E402

CONNECTIONS: Final = 16
WARM_UP_REQUESTS: Final = 500
TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")


@dataclass
class Variant:
    """One way of running the application, and what its rounds measured.

    Attributes:
        name: What the table calls it.
        command: What runs before the server's arguments.
        traced: Whether each request must arrive as a span.
        cpu_us: CPU time per request of each round, in microseconds.
        p99_ms: 99th percentile of each round, in milliseconds.
        rss_mb: Resident memory of the server at the end of the last round.
    """

    name: str
    command: tuple[str, ...]
    traced: bool
    cpu_us: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    rss_mb: float = 0.0


def main() -> int:
    """Runs the rounds and prints the table; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each variant (default 5)")
    parser.add_argument("--requests", type=int, default=4000, help="requests per round (default 4000)")
    options = parser.parse_args()
    variants = [
        Variant("bare", (), traced=False),
        Variant("Sightline", (str(BIN / "opentelemetry-instrument"),), traced=True),
    ]
    with OtlpReceiver() as receiver:
        for _ in range(options.rounds):
            for variant in variants:
                _round(variant, receiver, options.requests)
    _print(variants)
    return 0


def _round(variant: Variant, receiver: OtlpReceiver, requests: int) -> None:
    receiver.store.spans.clear()
    with _server(variant, receiver.endpoint) as (process, port):
        warm_up = asyncio.run(_load(port, WARM_UP_REQUESTS))
        before = _cpu_seconds(process.pid)
        latencies = asyncio.run(_load(port, requests))
        time.sleep(1.5)  # exports are part of the cost
        cpu = _cpu_seconds(process.pid) - before
        if variant.traced and not _has_arrived(receiver, len(warm_up) + len(latencies)):
            print(f"{variant.name}: spans are missing, the round does not count", file=sys.stderr)
            return
        variant.cpu_us.append(cpu / len(latencies) * 1e6)
        variant.p99_ms.append(statistics.quantiles(latencies, n=100)[98] * 1e3)
        variant.rss_mb = _rss_mb(process.pid)


def _has_arrived(receiver: OtlpReceiver, spans: int) -> bool:
    deadline = time.monotonic() + 10
    while len(receiver.store.spans) < min(spans, receiver.store.spans.maxlen or spans):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


@contextmanager
def _server(variant: Variant, endpoint: str) -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
    port = free_port()
    command = [*variant.command, str(BIN / "uvicorn"), "app:app", "--port", str(port), "--no-access-log"]
    environ = {
        **os.environ,
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_BSP_MAX_QUEUE_SIZE": "20000",  # the load is faster than any service: nothing shall be dropped
    }
    process = subprocess.Popen(command, cwd=FOLDER, env=environ, stderr=subprocess.DEVNULL)
    try:
        _wait_for(port)
        yield process, port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(15)


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            asyncio.run(_load(port, 1))
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return


async def _load(port: int, requests: int) -> list[float]:
    """Sends requests over keep-alive connections; returns their latencies in seconds."""
    latencies: list[float] = []
    connections = min(CONNECTIONS, requests)
    await asyncio.gather(*(_connection(port, requests // connections, latencies) for _ in range(connections)))
    return latencies


async def _connection(port: int, requests: int, latencies: list[float]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    request = f"GET /items/7 HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUser-Agent: bench\r\n\r\n".encode()
    for _ in range(requests):
        started = time.perf_counter()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        await reader.readexactly(length)
        latencies.append(time.perf_counter() - started)
    writer.close()
    await writer.wait_closed()


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def _rss_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _print(variants: list[Variant]) -> None:
    bare = variants[0]
    print(f"{'variant':<12} {'CPU/request':>12} {'ratio':>22} {'p99':>9} {'RSS':>8}")
    for variant in variants:
        if not variant.cpu_us:
            print(f"{variant.name:<12} no round counted")
            continue
        ratios = [cpu / base for cpu, base in zip(variant.cpu_us, bare.cpu_us, strict=False)]
        spread = (
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if ratios else "-"
        )
        print(
            f"{variant.name:<12} {statistics.median(variant.cpu_us):>9.0f} µs {spread:>22} "
            f"{statistics.median(variant.p99_ms):>6.1f} ms {variant.rss_mb:>5.0f} MB"
        )


if __name__ == "__main__":
    sys.exit(main())
