"""Processes that measure the application without a server (`in_process.py`), bare or captured."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from benchmarks.cases import OTLP, ZERO_CODE
from benchmarks.in_process import DEFAULT_PATH
from benchmarks.servers import Receiver, ServerError
from tests.matrix.environments import ROOT

WARM_UP_REQUESTS: Final = 200
OURS: Final = {"OTEL_PYTHON_DISTRO": "sightline", "OTEL_PYTHON_CONFIGURATOR": "sightline"}


class Worker:
    """One process; its `with` block ends it.

    Args:
        variables: Environment variables.
        application: Module in `applications/`.
        is_captured: Whether `opentelemetry-instrument` runs it.

    Attributes:
        requests: How many its application has served.
    """

    def __init__(
        self,
        variables: Mapping[str, str] | None = None,
        *,
        application: str = "bare",
        is_captured: bool = False,
    ) -> None:
        programs = Path(sys.executable).parent
        command = [*(ZERO_CODE if is_captured else ()), "python", "-m", "benchmarks.in_process", application]
        self.requests = 0
        self._process = subprocess.Popen(
            [programs / command[0], *command[1:]],
            cwd=ROOT,
            env={
                "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
                "PYTHONHASHSEED": "0",
                **(variables or {}),
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def ask(self, what: str, requests: int, path: str = DEFAULT_PATH) -> Any:
        """Returns one measurement (`in_process.MEASURES`).

        Raises:
            ServerError: When the process has ended instead.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what} {requests} {path}\n")
        self._process.stdin.flush()
        self.requests += requests
        return json.loads(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise ServerError(f"a worker ended with status {self._process.wait()}; its output is above")
        return line


@dataclass(frozen=True, slots=True)
class Pair:
    """A bare and a captured worker, and the receiver of the captured one."""

    bare: Worker
    captured: Worker
    receiver: Receiver

    def check_exports(self) -> None:
        """Makes sure that the captured one captures; ask it for `cpu` first, which exports all there is.

        Raises:
            ServerError: When its requests are not one span each at the receiver.
        """
        counts = self.receiver.counts()
        if not counts["spans"] == counts["requests"] == self.captured.requests:
            raise ServerError(f"{self.captured.requests} requests, but at the receiver: {counts}")


@contextmanager
def bare_and_captured(application: str = "bare", **variables: str) -> Iterator[Pair]:
    """Runs a bare and a captured worker beside a receiver.

    Args:
        application: Module in `applications/`, for both.
        **variables: For the captured one, over those of the benchmark's variant.
    """
    with ExitStack() as stack:
        receiver = stack.enter_context(Receiver())
        otlp = {name: value.format(**receiver.values) for name, value in OTLP.items()}
        bare = stack.enter_context(Worker(application=application))
        ours = {**OURS, **otlp, **variables}
        captured = stack.enter_context(Worker(ours, application=application, is_captured=True))
        for worker in (bare, captured):
            worker.ask("cpu", WARM_UP_REQUESTS)
        yield Pair(bare, captured, receiver)
