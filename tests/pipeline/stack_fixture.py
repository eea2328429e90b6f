"""The real pipeline as a fixture: five programs on free loopback ports, in a folder of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "collector-config"
NATIVE = CONFIG / "native"

RULE_FILES = [
    CONFIG / "rules" / f"{name}.yaml" for name in ("requests", "service-levels", "services", "telemetry")
]
"""Those that are shipped; others beside them are an operator's own."""

T = TypeVar("T")


def run_stack(*arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs stack.py as a person does, with variables on top of the environment."""
    command = [sys.executable, str(NATIVE / "stack.py"), *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=180, env=os.environ | variables, check=False
    )


def binary(name: str) -> str:
    """Returns the path of a built program; the test fails, with the cure, where it is missing."""
    command = [sys.executable, str(NATIVE / "backends.py"), "path", name]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        pytest.fail(answer.stderr.strip(), pytrace=False)
    return answer.stdout.strip()


def processes_in(state: Path) -> list[int]:
    """Returns every process that works in a state folder, whether it is on record or not."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            folder, state_letter = (
                (entry / "cwd").readlink(),
                (entry / "stat").read_text().rpartition(")")[2].split()[0],
            )
        except OSError:
            continue
        if folder.is_relative_to(state) and state_letter != "Z":
            found.append(int(entry.name))
    return found


def eventually(question: Callable[[], T], seconds: float) -> T:
    """Asks until the answer is true in the sense of `bool`, at most so long; returns the last answer."""
    deadline = time.monotonic() + seconds
    while not (answer := question()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return answer


@contextmanager
def running_stack(state: Path, *options: str, **variables: str) -> Iterator[dict[str, Any]]:
    """Runs a stack until the block ends; yields what `up --json` told, `port_offset` and `state_dir` too."""
    started = run_stack(
        "up", "--state-dir", state, "--port-offset", "auto", "--fresh", "--json", *options, **variables
    )
    if started.returncode:
        pytest.fail(started.stderr.strip(), pytrace=False)
    try:
        yield json.loads(started.stdout)
    finally:
        run_stack("down", "--state-dir", state)
        assert not processes_in(state)


def endpoints_of(told: dict[str, Any]) -> dict[str, str]:
    """Returns the URLs in what `up --json` told, and the other texts."""
    return {name: value for name, value in told.items() if isinstance(value, str)}


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Yields the endpoint URLs of a running stack.

    Keys: otlp_http, otlp_grpc, prometheus, loki, jaeger, alertmanager, collector_health; and state_dir.
    """
    state = tmp_path_factory.mktemp("pipeline") / "stack"
    # A caller's own telemetry setting must not reach the programs; test_stack.py looks.
    foreign = {"OTEL_SERVICE_NAME": "caller"}
    with running_stack(state, **foreign) as told:
        yield endpoints_of(told)
