"""The life of a stack: it starts whole or not at all, is as well as its programs answer, and ends whole."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import random
import shutil
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path

import processes
import recipes
import stack_programs
from stack_programs import HOST, PORTS, Layout, Program

# Written into every state folder; `--fresh` and `up` touch no other folder that has something in it.
MARKER = "# State of the native stack; may be deleted while the stack is down.\n*\n"

PROBE_TIMEOUT_SECONDS = 5.0

# Variables by which a caller's own telemetry settings would reach the programs of the stack.
_FOREIGN = ("OTEL_", "JAEGER_", "PIPELINE_", "GOMEMLIMIT", "GOGC", "GODEBUG")


class StackError(Exception):
    """Raised when the stack cannot be brought into the asked state; one line that names the cure."""


def up(
    state: Path,
    offset: int | None,
    *,
    fresh: bool,
    timeout_seconds: float,
    checkpoint: Callable[[], None],
    alert_webhook: str | None = None,
) -> Layout:
    """Starts the stack, or finds it up and healthy.

    Args:
        state: The state folder.
        offset: Added to every port; None is 0, or what a running stack has.
        fresh: Forget all data first.
        timeout_seconds: How long the programs may take to become ready, all together.
        checkpoint: Called between the steps; may raise to end the start.
        alert_webhook: URL that alerts are POSTed to; None tells nobody. Of no effect on a running stack.

    Raises:
        StackError: Nothing was left running that was not running before; so it is after any exception.
    """
    running = [record for record in processes.read_records(state / "pids") if processes.is_running(record)]
    if running:
        return _already_up(state, offset, fresh=fresh)
    layout = Layout(state, offset or 0)
    binaries = _find_binaries(layout)
    _require_free_ports(layout)
    _prepare_state(layout, fresh=fresh)
    stack_programs.write_alert_receiver(layout, alert_webhook)
    try:
        _start_all(layout, binaries, time.monotonic() + timeout_seconds, checkpoint)
    except BaseException:
        down(state)
        raise
    return layout


def _already_up(state: Path, offset: int | None, *, fresh: bool) -> Layout:
    layout = read_layout(state)
    if fresh or offset not in (None, layout.offset):
        raise StackError(
            f"the stack in {state} is up with port offset {layout.offset}; run `make stack-down` first"
        )
    if ill := [name for name, condition in conditions(layout).items() if condition != "ready"]:
        raise StackError(
            f"the stack in {state} is up, but not {', '.join(ill)}; run `make stack-down`, then this again"
        )
    _say("the stack is already up")
    return layout


def _find_binaries(layout: Layout) -> dict[str, Path]:
    try:
        return {
            program.name: recipes.binary_path(program.name) for program in stack_programs.programs(layout)
        }
    except recipes.BackendError as error:
        raise StackError(str(error)) from error


def _require_free_ports(layout: Layout) -> None:
    for program in stack_programs.programs(layout):
        for port in map(layout.port, program.ports):
            if not processes.is_port_free(HOST, port):
                owner = processes.port_owner(port)
                raise StackError(
                    f"port {port} of {program.name} is in use by {owner}; stop it, or give --port-offset N"
                )


def _prepare_state(layout: Layout, *, fresh: bool) -> None:
    """Makes the state folder ready; refuses a folder that has something else in it."""
    state = layout.state
    marker = state / ".gitignore"
    if state.exists() and any(state.iterdir()) and not (marker.exists() and marker.read_text() == MARKER):
        raise StackError(
            f"{state} is not empty and not a state folder of the stack; give another --state-dir"
        )
    state.mkdir(parents=True, exist_ok=True)
    marker.write_text(MARKER)
    if fresh:
        shutil.rmtree(state / "data", ignore_errors=True)
    for program in stack_programs.programs(layout):
        layout.data(program.name).mkdir(parents=True, exist_ok=True)
        layout.log(program.name).parent.mkdir(parents=True, exist_ok=True)
    stack_programs.write_targets(layout)
    (state / "stack.json").write_text(json.dumps({"port_offset": layout.offset}))


def _start_all(
    layout: Layout, binaries: dict[str, Path], deadline: float, checkpoint: Callable[[], None]
) -> None:
    """Starts what stores and waits for all of it, then the collector."""
    *stores, collector = stack_programs.programs(layout)
    for group in (stores, [collector]):
        children = {}
        for program in group:
            checkpoint()
            children[program.name] = _start(layout, program, binaries[program.name])
        for program in group:
            _wait_until_ready(layout, program, children, deadline, checkpoint)


def _start(layout: Layout, program: Program, binary: Path) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    command = [str(binary), *program.arguments]
    child = processes.start(
        command,
        environment | program.variables,
        layout.data(program.name),
        layout.log(program.name),
    )
    processes.write_record(layout.state / "pids", program.name, child.pid)
    return child


def _wait_until_ready(
    layout: Layout,
    program: Program,
    children: dict[str, subprocess.Popen[bytes]],
    deadline: float,
    checkpoint: Callable[[], None],
) -> None:
    """Waits for one program; the death of any that was started with it ends the wait."""
    while not is_ready(program):
        checkpoint()
        for name, child in children.items():
            if (code := child.poll()) is not None:
                raise StackError(f"{name} ended at its start with code {code}: {_last_words(layout, name)}")
        if time.monotonic() > deadline:
            raise StackError(f"{program.name} is not ready in time: {_last_words(layout, program.name)}")
        time.sleep(0.1)
    checkpoint()
    _say(f"{program.name} is ready")


def _last_words(layout: Layout, name: str) -> str:
    """Returns the last line of a log that tells of an error, else the last line, and where the log is."""
    log = layout.log(name)
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    telling = (
        [line for line in lines if "error" in line.lower() or "err=" in line] or lines or ["the log is empty"]
    )
    return f"{telling[-1][:300]} (log: {log})"


def is_ready(program: Program, timeout_seconds: float = PROBE_TIMEOUT_SECONDS) -> bool:
    """Tells whether all probes of a program answer 200."""
    return all(_answers(url, timeout_seconds) for url in program.probes)


def _answers(url: str, timeout_seconds: float) -> bool:
    """Asks without proxies and redirects, whatever the environment says."""
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or HOST, parts.port, timeout=timeout_seconds)
    with contextlib.closing(connection):
        try:
            connection.request("GET", f"{parts.path or '/'}?{parts.query}")
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False


def down(state: Path, grace_seconds: float = 10.0) -> int:
    """Stops what is on record, the collector first so that it can deliver; returns how many programs ran.

    Raises:
        StackError: A process outlives SIGKILL (it hangs in the kernel).
    """
    pids = state / "pids"
    records = processes.read_records(pids)
    running = [record for record in records if processes.is_running(record)]
    collector = [record for record in running if record.name == "otelcol"]
    left = processes.stop(collector, grace_seconds) + processes.stop(running, grace_seconds)
    if left:
        raise StackError(f"{left[0].name} (pid {left[0].pid}) does not end")
    shutil.rmtree(pids, ignore_errors=True)
    return len(running)


def read_layout(state: Path) -> Layout:
    """Returns the layout of the stack that was last up in a state folder; offset 0 where there was none."""
    try:
        offset = json.loads((state / "stack.json").read_text())["port_offset"]
    except (OSError, ValueError, KeyError, TypeError):
        offset = 0
    return Layout(state, int(offset))


def conditions(layout: Layout) -> dict[str, str]:
    """Returns `down`, `starting` (runs, does not answer) or `ready` for each program."""
    records = {record.name: record for record in processes.read_records(layout.state / "pids")}
    found = {}
    for program in stack_programs.programs(layout):
        record = records.get(program.name)
        if record is None or not processes.is_running(record):
            found[program.name] = "down"
        else:
            found[program.name] = "ready" if is_ready(program) else "starting"
    return found


def free_offset() -> int:
    """Returns an offset at which all ports of a stack are free now."""
    candidates = random.sample(range(100, stack_programs.LARGEST_OFFSET), 200)
    for offset in candidates:
        if all(processes.is_port_free(HOST, port + offset) for port in PORTS.values()):
            return offset
    raise StackError("no port offset found at which all ports are free")


@contextlib.contextmanager
def exclusive(state: Path) -> Iterator[None]:
    """Lets one `up` or `down` at a time work on a state folder, by a lock on the folder itself."""
    state.mkdir(parents=True, exist_ok=True)
    folder = os.open(state, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise StackError(f"another command is at work on {state}; wait for it") from None
    finally:
        os.close(folder)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
