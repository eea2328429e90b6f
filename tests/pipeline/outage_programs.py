"""Programs of a running stack that hang, die, and come back as they were."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import httpx
import lifecycle
import processes
import pytest
import stack_programs

from .stack_fixture import eventually

READY_SECONDS = 30.0


class Patient:
    """One program of a stack; `lifecycle.down` ends it whatever has become of it in between."""

    def __init__(self, state: Path, name: str) -> None:
        layout = lifecycle.read_layout(state)
        self._state = state
        self._program = next(item for item in stack_programs.programs(layout) if item.name == name)
        self._log = layout.log(name).with_suffix(".again.log")
        self._child: subprocess.Popen[bytes] | None = None
        folder = Path(f"/proc/{self.process.pid}")
        self.command = folder.joinpath("cmdline").read_text().rstrip("\0").split("\0")
        entries = folder.joinpath("environ").read_text().rstrip("\0").split("\0")
        self.environment = dict(entry.split("=", 1) for entry in entries)
        self.folder = folder.joinpath("cwd").readlink()

    @property
    def process(self) -> processes.Process:
        """The record of the present, or the last, process."""
        records = processes.read_records(self._state / "pids")
        return next(record for record in records if record.name == self._program.name)

    def send(self, number: signal.Signals) -> None:
        """Sends a signal."""
        os.kill(self.process.pid, number)

    def hang(self) -> None:
        """Stops it where it is: it takes connections, and answers none; what it keeps in memory stays."""
        self.send(signal.SIGSTOP)

    def crash(self) -> None:
        """Ends it without notice."""
        self.send(signal.SIGKILL)
        self._wait_for_end()

    def end(self) -> None:
        """Ends it as an operator does."""
        processes.stop([self.process])
        self._wait_for_end()

    def come_back(self) -> None:
        """Goes on, or starts again."""
        if processes.is_running(self.process):
            self.send(signal.SIGCONT)
        else:
            self.start()

    def start(self, *wrapper: str, options: Sequence[str] = ()) -> None:
        """Starts it again with the command line and the variables it had, and waits until it answers.

        Args:
            wrapper: A command that ends in becoming the program, put in front of the command line.
            options: Arguments behind it.
        """
        self._child = processes.start(
            [*wrapper, *self.command, *options], self.environment, self.folder, self._log
        )
        processes.write_record(self._state / "pids", self._program.name, self._child.pid)
        assert eventually(self.answers, READY_SECONDS), self._log.read_text()[-3000:]

    def answers(self) -> bool:
        """Tells whether it is ready."""
        return lifecycle.is_ready(self._program, timeout_seconds=0.5)

    def discharge(self) -> None:
        """Lets a hanging program go on, and ends it if it was started here."""
        if processes.is_running(self.process):
            self.send(signal.SIGCONT)
        if self._child:
            self.end()

    def _wait_for_end(self) -> None:
        assert eventually(lambda: not processes.is_running(self.process), 10)
        if self._child:
            self._child.wait(10)


def waiting(state: Path) -> list[str]:
    """Returns the collector's own words on what waits in its queues."""
    metrics = httpx.get(f"{lifecycle.read_layout(state).url('collector_metrics')}/metrics").text
    return [line for line in metrics.splitlines() if line.startswith("otelcol_exporter_queue_size")]


class SmallDisk:
    """A small file system that holds the collector's queues, in a mount namespace of the collector's own.

    It ends with the collector. Needs root, or a system that lets its users have namespaces.

    Args:
        collector: Is started again, with its queues there.
        folder: Where it is mounted.
        megabytes: Its size.
        options: Further arguments of the collector.
    """

    def __init__(self, collector: Patient, folder: Path, megabytes: int, *options: str) -> None:
        mount = f'mount -t tmpfs -o size={megabytes}m queues "$1" && shift && exec "$@"'
        wrapper = ("unshare", "--map-root-user", "--mount", "sh", "-c", mount, "sh", str(folder))
        tried = subprocess.run([*wrapper, "true"], capture_output=True, text=True, check=False)
        if tried.returncode:
            pytest.fail(
                f"no small disk for the collector: {tried.stderr.strip()}; allow user namespaces (on Ubuntu "
                "`sysctl kernel.apparmor_restrict_unprivileged_userns=0`), or run the test as root",
                pytrace=False,
            )
        collector.end()
        collector.environment["PIPELINE_COLLECTOR_QUEUES"] = str(folder)
        collector.start(*wrapper, options=options)
        self._inside = Path(f"/proc/{collector.process.pid}/root{folder}")

    def take_all(self) -> None:
        """Writes a file of another program until no space is left."""
        with self._inside.joinpath("foreign").open("wb", buffering=0) as file:
            while space := self.free_bytes():
                file.write(bytes(space))

    def take(self, megabytes: int) -> None:
        """Writes a file of another program."""
        self._inside.joinpath("foreign").write_bytes(bytes(megabytes * 1024 * 1024))

    def give_back(self) -> None:
        """Removes that file."""
        self._inside.joinpath("foreign").unlink()

    def reserve(self, megabytes: int) -> None:
        """Sets space aside for each queue, behind the end of its file."""
        for queue in self._inside.glob("exporter_*"):
            command = ["fallocate", "--keep-size", "--length", f"{megabytes}MiB", str(queue)]
            subprocess.run(command, check=True)

    def free_bytes(self) -> int:
        """Returns the space that is left."""
        numbers = os.statvfs(self._inside)
        return numbers.f_bavail * numbers.f_frsize
