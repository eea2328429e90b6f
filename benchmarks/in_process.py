"""The application without a server or a socket: what its requests cost in this process, in time and in steps.

As a program it is a worker that measures a module of `applications/` on demand. It reads one command a line,
`WHAT REQUESTS PATH`, and answers with one line of JSON. Under `opentelemetry-instrument` it is captured as
any user's program is.
"""

import asyncio
import gc
import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from types import FrameType
from typing import Any, Final

from benchmarks.sampling import sampling
from opentelemetry import trace

DEFAULT_PATH: Final = "/items/7"


@dataclass(frozen=True, slots=True)
class Target:
    """An ASGI application, and the path that it is asked for."""

    app: Callable[[Any, Any, Any], Awaitable[None]]
    path: str = DEFAULT_PATH


_FLUSH_MILLIS: Final = 10_000
_HEADERS: Final = (
    (b"host", b"127.0.0.1:8000"),
    (b"user-agent", b"bench/1"),
    (b"accept", b"*/*"),
)


def scope(path: str) -> dict[str, Any]:
    """Returns what uvicorn hands over for a GET request."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 41234),
        "scheme": "http",
        "method": "GET",
        "root_path": "",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": list(_HEADERS),
        "state": {},
    }


async def _receive() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _send(message: dict[str, Any]) -> None:
    if message.get("status", 200) != 200:  # noqa: PLR2004  the status of success
        raise RuntimeError(f"the application answered {message['status']}")


async def serve(target: Target, requests: int) -> None:
    """Sends requests to an application, one after the other."""
    for _ in range(requests):
        await target.app(scope(target.path), _receive, _send)


async def cpu_seconds(target: Target, requests: int) -> dict[str, float]:
    """Returns the CPU time of a block of requests, in seconds.

    `process` holds all threads, and the export of what the block has recorded; `thread` is this one alone.
    """
    _flush()
    process, thread = time.process_time(), time.thread_time()
    await serve(target, requests)
    thread = time.thread_time() - thread
    _flush()
    return {"process": time.process_time() - process, "thread": thread}


def _flush() -> None:
    flush = getattr(trace.get_tracer_provider(), "force_flush", None)
    if flush is not None:
        flush(_FLUSH_MILLIS)


async def calls(target: Target, requests: int) -> list[int]:
    """Returns how many functions each request calls in its thread, Python's and C's."""
    counter = _Counter()
    counts = []
    with _collected():
        for _ in range(requests):
            sys.setprofile(counter.profile)
            await serve(target, 1)
            sys.setprofile(None)
            counts.append(counter.take())
    return counts


async def bytecodes(target: Target, requests: int) -> list[int]:
    """Returns how many of the interpreter's instructions each request executes in its thread."""
    counter = _Counter()
    counts = []
    with _collected():
        for _ in range(requests):
            sys.settrace(counter.trace)
            await serve(target, 1)
            sys.settrace(None)
            counts.append(counter.take())
    return counts


async def samples(target: Target, requests: int) -> dict[str, int]:
    """Returns how often each function was running when the requests' thread was interrupted."""
    with sampling() as found:
        await serve(target, requests)
    return dict(found)


class _Counter:
    """Counts events of the interpreter."""

    def __init__(self) -> None:
        self._count = 0

    def take(self) -> int:
        """Returns the count and starts anew."""
        count, self._count = self._count, 0
        return count

    def profile(self, _frame: FrameType, event: str, _argument: object) -> None:
        """Counts calls."""
        if event in ("call", "c_call"):
            self._count += 1

    def trace(self, frame: FrameType, event: str, _argument: object) -> Any:
        """Counts instructions of every frame that is entered."""
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        if event == "opcode":
            self._count += 1
        return self.trace


@contextmanager
def _collected() -> Iterator[None]:
    """Keeps the garbage collector out of the counts."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


MEASURES: Final[dict[str, Callable[[Target, int], Awaitable[Any]]]] = {
    "cpu": cpu_seconds,
    "calls": calls,
    "bytecodes": bytecodes,
    "samples": samples,
}


async def _work(app: Any) -> None:
    for line in sys.stdin:
        what, requests, path = line.split()
        print(json.dumps(await MEASURES[what](Target(app, path), int(requests))), flush=True)


if __name__ == "__main__":
    application = import_module(f"benchmarks.applications.{sys.argv[1]}")
    asyncio.run(_work(application.app))
