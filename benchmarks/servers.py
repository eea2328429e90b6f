"""The processes of a round: the server under measurement on its core, the receiver on another."""

import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Self

from benchmarks.cases import FOLDER, Case
from benchmarks.environments import programs
from benchmarks.processes import cores
from tests.matrix.environments import ROOT

START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 30.0
POLL_SECONDS: Final = 0.005
READY_PATH: Final = "/items/7"
"""Asked for until it is answered: one request that every count includes."""


class ServerError(Exception):
    """Raised when a process does not start or does not end; the message holds what it wrote."""


class Receiver:
    """The receiver's process (`sink.py`), while its `with` block runs.

    Attributes:
        values: What the placeholders of `cases.py` stand for.
    """

    def __init__(self, certificates: Path | None = None) -> None:
        self._certificates = certificates

    def __enter__(self) -> Self:
        options = [] if self._certificates is None else ["--certificates", str(self._certificates)]
        command = [sys.executable, "-m", "benchmarks.sink", *options]
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise ServerError("the receiver did not start")
        self._port, *others = json.loads(line)
        self.values = {
            "sink": f"http://127.0.0.1:{self._port}",
            "sink_address": f"127.0.0.1:{self._port}",
            "tls_port": str(others[0]) if others else "",
            "certificates": str(self._certificates or ""),
        }
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def reset(self) -> None:
        """Forgets what has arrived."""
        get(self._port, "/reset")

    def counts(self) -> dict[str, Any]:
        """Returns what has arrived (`Intake.counts`)."""
        counts: dict[str, Any] = json.loads(get(self._port, "/counts"))
        return counts


def get(port: int, path: str) -> bytes:
    """Returns the body of an answer, whatever its status.

    Raises:
        OSError: When nobody listens.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path, headers={"User-Agent": "bench/1"})
        return connection.getresponse().read()
    finally:
        connection.close()


def free_port() -> int:
    """Returns a loopback port that nobody uses at the moment."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Returns different loopback ports that nobody uses at the moment."""
    with ExitStack() as listening:
        listeners = [listening.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [listener.getsockname()[1] for listener in listeners]


@dataclass
class Laboratory:
    """Where rounds run: the environments, the receivers, the cores.

    Attributes:
        receivers: Count what servers export: that of a case, and that of its base.
        folder: For what a session makes.
    """

    receivers: tuple[Receiver, Receiver]
    folder: Path

    def __post_init__(self) -> None:
        self._programs: dict[str, Path] = {}

    def programs(self, environment: str) -> Path:
        """Returns an environment's folder of programs, created at the first call."""
        if environment not in self._programs:
            self._programs[environment] = programs(environment, self.folder)
        return self._programs[environment]

    def spawn(
        self, case: Case, command: Sequence[str], log: IO[bytes], receiver: Receiver | None = None
    ) -> "subprocess.Popen[bytes]":
        """Starts a command in a case's environment, on the server's core.

        Args:
            case: Gives environment, variables and working directory.
            command: Program and arguments; the program is looked up in the environment.
            log: Gets both outputs.
            receiver: Where it exports to; the first when omitted.
        """
        values = (receiver or self.receivers[0]).values
        variables = {name: value.format(**values) for name, value in case.variables.items()}
        folder = self.programs(case.environment)
        process = subprocess.Popen(
            [folder / command[0], *command[1:]],
            cwd=FOLDER / "applications",
            env={**_base_variables(folder), **variables},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        os.sched_setaffinity(process.pid, cores()[0])
        return process


def _base_variables(folder: Path) -> dict[str, str]:
    """Returns a clean environment: no variable of the caller's reaches what is measured."""
    kept = {name: os.environ[name] for name in ("HOME", "LANG", "TMPDIR") if name in os.environ}
    return {**kept, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "PYTHONDONTWRITEBYTECODE": "1"}


@dataclass(frozen=True, slots=True)
class Server:
    """A running server.

    Attributes:
        pid: The process that serves; the wrappers of all variants replace themselves by it.
        port: Where it listens, on loopback.
        seconds_to_answer: From its start to its first answer.
    """

    pid: int
    port: int
    seconds_to_answer: float


@contextmanager
def running(laboratory: Laboratory, case: Case, receiver: Receiver | None = None) -> Iterator[Server]:
    """Runs a case's server until the block ends, then ends it as an operator does: with SIGTERM.

    Args:
        laboratory: Where it runs.
        case: What runs.
        receiver: Where it exports to; the first of the laboratory when omitted.

    Raises:
        ServerError: When it does not answer, or does not end in time.
    """
    port = free_port()
    command = (*case.command, "uvicorn", f"{case.application}:app", "--port", str(port), "--no-access-log")
    with tempfile.TemporaryFile() as log:
        started = time.perf_counter()
        process = laboratory.spawn(case, command, log, receiver)
        try:
            _wait_for_answer(process, port, log)
            yield Server(process.pid, port, time.perf_counter() - started)
            process.terminate()
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise ServerError(f"it did not end within {STOP_SECONDS:.0f} s of SIGTERM") from None
        finally:
            process.kill()
            process.wait()


def _wait_for_answer(process: "subprocess.Popen[bytes]", port: int, log: IO[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            get(port, READY_PATH)
        except OSError:
            time.sleep(POLL_SECONDS)
        else:
            return
    log.seek(0)
    raise ServerError(f"it did not answer:\n{log.read().decode(errors='replace')[-2000:]}")
