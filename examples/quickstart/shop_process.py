"""Starts the shop under `opentelemetry-instrument uvicorn` and sends it a little traffic."""

import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

import httpx

FOLDER: Final = Path(__file__).parent
BIN: Final = Path(sys.executable).parent
START_TIMEOUT_SECONDS: Final = 30.0
STOP_TIMEOUT_SECONDS: Final = 15.0


class ShopError(Exception):
    """Is raised when the shop does not start; the message holds what it printed."""


def free_port() -> int:
    """Returns a port that nothing listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running_shop(settings: Mapping[str, str], log: IO[str], app: str = "app:app") -> Iterator[str]:
    """Runs the shop until the block ends and yields its URL.

    Args:
        settings: Environment variables on top of the caller's.
        log: Takes what the server prints.
        app: The application in this folder, as uvicorn names it.

    Raises:
        ShopError: When the server does not answer within `START_TIMEOUT_SECONDS`.
    """
    port = free_port()
    command = [
        str(BIN / "opentelemetry-instrument"),
        "uvicorn",
        app,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    # The commands of this environment, whatever else is on the caller's PATH.
    path = f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}"
    server = subprocess.Popen(  # noqa: S603  fixed arguments
        command, cwd=FOLDER, env={**os.environ, "PATH": path, **settings}, stdout=log, stderr=log
    )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_up(server, url, log)
        yield url
    finally:
        end(server, STOP_TIMEOUT_SECONDS)


def end(process: "subprocess.Popen[bytes]", timeout_seconds: float) -> bool:
    """Ends a process: asks it to, and kills it after the timeout; returns whether it ended when asked."""
    process.terminate()
    try:
        process.wait(timeout_seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False
    return True


def _wait_until_up(server: "subprocess.Popen[bytes]", url: str, log: IO[str]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            httpx.get(f"{url}/openapi.json").raise_for_status()
        except httpx.TransportError:
            time.sleep(0.1)
        else:
            return
    raise ShopError(f"the shop did not start; see {log.name}")


def send_traffic(url: str, requests: int = 60) -> None:
    """Sends a mix of good, unknown, invalid and failing requests."""
    paths = ["/items/1", "/items/2", "/items/3", "/items/99", "/items/none", "/report", "/nowhere", "/broken"]
    # One connection per request: uvicorn closes a connection after an unhandled error without saying so.
    with httpx.Client(base_url=url, headers={"connection": "close"}) as client:
        for number in range(requests):
            client.get(paths[number % len(paths)])
            if number % 5 == 0:
                client.post("/orders", json={"item_id": random.choice([1, 2, 3]), "quantity": 2})
