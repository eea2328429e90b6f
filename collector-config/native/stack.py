"""Runs the pipeline natively on loopback: collector, Jaeger, Loki, Prometheus, Alertmanager.

    python collector-config/native/stack.py up [--state-dir DIR] [--port-offset N|auto] [--alert-webhook URL]
                                               [--fresh] [--json]
    python collector-config/native/stack.py status [--state-dir DIR] [--json]
    python collector-config/native/stack.py down [--state-dir DIR]

The state folder holds all of a stack: records of its processes, logs, data. Two folders with two offsets are
two stacks. `up` returns when every program answers, or takes down what it started and says in one line what
went wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from pathlib import Path

import lifecycle
import processes
import recipes
import stack_programs
from lifecycle import StackError
from stack_programs import Layout

DEFAULT_STATE = recipes.NATIVE.parent.parent / ".stack"


class Interruption:
    """Turns Ctrl-C, SIGTERM and SIGHUP into a flag: no signal falls between a start and its record."""

    def __init__(self) -> None:
        self.received = False
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._note)

    def _note(self, _number: int, _frame: object) -> None:
        self.received = True

    def check(self) -> None:
        """Raises KeyboardInterrupt when a signal has come."""
        if self.received:
            raise KeyboardInterrupt


def _show(layout: Layout, found: dict[str, str], *, as_json: bool) -> None:
    if as_json:
        summary = {
            "state": _summary(found),
            "port_offset": layout.offset,
            "state_dir": str(layout.state),
            "programs": found,
        }
        print(json.dumps({**layout.endpoints(), **summary}, indent=2))
        return
    for record in processes.read_records(layout.state / "pids"):
        megabytes = processes.resident_bytes(record.pid) / 1e6
        print(f"{record.name:13} {found.get(record.name, 'down'):9} pid {record.pid:<8} {megabytes:.0f} MB")
    if _summary(found) != "down":
        for name, url in layout.endpoints().items():
            print(f"{name:17} {url}")
    print(f"{_summary(found)}; logs are in {layout.state / 'logs'}")


def _summary(found: dict[str, str]) -> str:
    states = set(found.values())
    return states.pop() if len(states) == 1 else "partly down"


def _offset(text: str) -> int:
    if text == "auto":
        return lifecycle.free_offset()
    if not text.isdecimal() or int(text) > stack_programs.LARGEST_OFFSET:
        raise argparse.ArgumentTypeError(
            f"must be auto or 0 to {stack_programs.LARGEST_OFFSET}, got {text!r}"
        )
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="stack", description="Run the pipeline natively on loopback.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, purpose in (
        ("up", "start it"),
        ("down", "stop it"),
        ("status", "tell whether it runs and where"),
    ):
        command = commands.add_parser(name, help=purpose)
        command.add_argument(
            "--state-dir", type=Path, default=DEFAULT_STATE, help="default: .stack beside this tree"
        )
        if name != "down":
            command.add_argument(
                "--json", action="store_true", help="print endpoints and state as one JSON object"
            )
        if name == "up":
            command.add_argument(
                "--port-offset", type=_offset, help="added to every port, or auto; default 0"
            )
            command.add_argument(
                "--alert-webhook", metavar="URL", help="where alerts are POSTed; nobody is told without"
            )
            command.add_argument("--fresh", action="store_true", help="forget all data first")
            command.add_argument(
                "--timeout", type=float, default=120.0, metavar="SECONDS", help="until ready; default 120"
            )
    return parser


def _run(options: argparse.Namespace) -> int:
    state: Path = options.state_dir.resolve()
    if options.command == "status":
        layout = lifecycle.read_layout(state)
        found = lifecycle.conditions(layout)
        _show(layout, found, as_json=options.json)
        return 0 if _summary(found) == "ready" else 1
    interruption = Interruption()
    with lifecycle.exclusive(state):
        if options.command == "down":
            stopped = lifecycle.down(state)
            print(f"stopped {stopped} programs" if stopped else "the stack is not up")
            return 0
        layout = lifecycle.up(
            state,
            options.port_offset,
            fresh=options.fresh,
            timeout_seconds=options.timeout,
            checkpoint=interruption.check,
            alert_webhook=options.alert_webhook,
        )
    _show(
        layout, {program.name: "ready" for program in stack_programs.programs(layout)}, as_json=options.json
    )
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except BrokenPipeError:  # `status | head`; the interpreter must not try to flush what nobody reads
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (StackError, OSError) as error:
        print(f"stack: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stack: interrupted; what was started is stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
