"""Processes that outlive their parent.

They are started in a session of their own, recorded in a file, and stopped only while the record still
describes them: a process ID that the system has given to another since is never signalled.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True)
class Process:
    """A started process.

    Attributes:
        name: The program.
        pid: Its process ID.
        identity: The boot, and the start time within it in clock ticks; no later process with this ID has it.
    """

    name: str
    pid: int
    identity: str


def start(
    command: list[str], environment: dict[str, str], folder: Path, log: Path
) -> subprocess.Popen[bytes]:
    """Starts a program that is independent of this process and its terminal; its output replaces `log`."""
    with log.open("wb") as output:
        return subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def identity(pid: int) -> str | None:
    """Returns what tells a process from any other that has had its ID, or None where it has ended.

    The command line is no part of it: right after a start it is still empty.

    Source: proc_pid_stat(5), fields 3 (state) and 22 (starttime).
    """
    if not PROC.joinpath("self/stat").exists():
        return _identity_by_ps(pid)
    try:
        # The second field, the name, may hold anything: fields are counted from its closing bracket.
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        boot = (PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    state, started = fields[0], fields[19]
    return None if state in "ZX" else f"{boot} {started}"


def _identity_by_ps(pid: int) -> str | None:
    answer = subprocess.run(
        ["ps", "-o", "lstart=", "-p", str(pid)],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.defpath},
    )
    return answer.stdout.strip() or None


def is_running(process: Process) -> bool:
    """Tells whether the recorded process itself, not another with its ID, still runs."""
    return identity(process.pid) == process.identity


def write_record(folder: Path, name: str, pid: int) -> Process:
    """Records a just started process in `folder`/`name`.json; the file appears whole or not at all."""
    process = Process(name, pid, identity(pid) or "ended at once")
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f"{name}.json.new"
    unfinished.write_text(json.dumps(asdict(process)))
    unfinished.rename(folder / f"{name}.json")
    return process


def read_records(folder: Path) -> list[Process]:
    """Returns all recorded processes, running or not; a damaged record counts as none."""
    records = []
    for path in sorted(folder.glob("*.json")):
        with contextlib.suppress(ValueError, TypeError):
            records.append(Process(**json.loads(path.read_text())))
    return records


def stop(processes: Iterable[Process], grace_seconds: float = 10.0) -> list[Process]:
    """Asks processes to end, kills them after the grace, and returns those that run even then."""
    running = stopping = [process for process in processes if is_running(process)]
    for request, patience in ((signal.SIGTERM, grace_seconds), (signal.SIGKILL, 5.0)):
        for process in running:
            _send(process, request)
        running = _wait_for_end(running, patience)
    _wait_until_reaped([process for process in stopping if process not in running])
    return running


def _wait_until_reaped(processes: list[Process], seconds: float = 3.0) -> None:
    """Waits until ended processes are out of the process table: their parents take note a little later."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and any(map(_is_listed, processes)):
        time.sleep(0.05)


def _is_listed(process: Process) -> bool:
    try:
        fields = (PROC / str(process.pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return (
        int(fields[1]) != os.getpid()
    )  # a child of this very process is taken note of by whoever started it


def _send(process: Process, request: signal.Signals) -> None:
    if is_running(process):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(process.pid, request)


def _wait_for_end(processes: list[Process], seconds: float) -> list[Process]:
    deadline = time.monotonic() + seconds
    while (
        running := [process for process in processes if is_running(process)]
    ) and time.monotonic() < deadline:
        time.sleep(0.05)
    return running


def resident_bytes(pid: int) -> int:
    """Returns the resident memory of a process, 0 where it cannot be read."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        return int((PROC / str(pid) / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def is_port_free(host: str, port: int) -> bool:
    """Tells whether a server could listen on a port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def port_owner(port: int) -> str:
    """Returns `name (pid N)` of what listens on a port, `another process` where that cannot be known."""
    inodes = _listening_inodes(port)
    for link in PROC.glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if str(link.readlink()) in inodes:
                pid = link.parts[2]
                return f"{(PROC / pid / 'comm').read_text().strip()} (pid {pid})"
    return "another process"


def _listening_inodes(port: int) -> set[str]:
    """Returns `socket:[inode]` of every listener on a port. Source: proc_pid_net(5), /proc/net/tcp."""
    listening, found = "0A", set()
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in (PROC / "net" / table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == listening and int(fields[1].rpartition(":")[2], 16) == port:
                    found.add(f"socket:[{fields[9]}]")
    return found
