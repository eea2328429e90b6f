"""The native stack starts whole or not at all, listens on loopback only, and leaves no process."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import lifecycle
import processes
import pytest
import stack_programs

from .otlp_payloads import log_request, resource
from .stack_fixture import NATIVE, eventually, processes_in, run_stack

pytestmark = pytest.mark.stack

PROGRAMS = {"jaeger", "loki", "prometheus", "alertmanager", "otelcol"}


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """A state folder; whatever a failed test left running in it is stopped."""
    folder = tmp_path / "state"
    yield folder
    run_stack("down", "--state-dir", folder)
    assert not processes_in(folder)


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has nothing to do with the stack."""
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def marked(state: Path) -> Path:
    """Makes a state folder that looks like one of an earlier run."""
    state.mkdir()
    (state / ".gitignore").write_text(lifecycle.MARKER)
    return state


def record(state: Path, name: str, pid: int, identity: str) -> None:
    (state / "pids").mkdir(parents=True)
    text = json.dumps({"name": name, "pid": pid, "identity": identity})
    (state / "pids" / f"{name}.json").write_text(text)


def listeners(pid: int) -> set[tuple[str, int]]:
    """Returns (address in hexadecimal, port) of every TCP socket that a process listens on."""
    owned = {str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in owned:
                address, port = fields[1].split(":")
                found.add((address, int(port, 16)))
    return found


def test_status_of_a_running_stack_gives_endpoints_and_conditions(stack: dict[str, str]) -> None:
    result = run_stack("status", "--json", "--state-dir", stack["state_dir"])

    answer = json.loads(result.stdout)
    assert result.returncode == 0
    assert answer["state"] == "ready"
    assert answer["programs"] == dict.fromkeys(answer["programs"], "ready")
    assert set(answer["programs"]) == PROGRAMS
    assert {name: answer[name] for name in stack_programs.ENDPOINTS} == {
        name: stack[name] for name in stack_programs.ENDPOINTS
    }


def test_stack_listens_on_its_documented_ports_of_loopback_and_nowhere_else(stack: dict[str, str]) -> None:
    state = Path(stack["state_dir"])
    layout = lifecycle.read_layout(state)
    running = processes.read_records(state / "pids")

    found = set().union(*(listeners(record.pid) for record in running))

    loopback = "0100007F"
    assert {record.name for record in running} == PROGRAMS
    assert found == {(loopback, layout.port(name)) for name in stack_programs.PORTS}


def test_programs_are_independent_of_the_session_that_started_them(stack: dict[str, str]) -> None:
    for process in processes.read_records(Path(stack["state_dir"]) / "pids"):
        assert os.getsid(process.pid) == process.pid


def test_up_when_up_says_so_and_changes_nothing(stack: dict[str, str]) -> None:
    state = Path(stack["state_dir"])
    before = processes.read_records(state / "pids")

    result = run_stack("up", "--state-dir", state)

    assert (result.returncode, result.stderr) == (0, "the stack is already up\n")
    assert processes.read_records(state / "pids") == before


@pytest.mark.parametrize("option", [["--fresh"], ["--port-offset", "1"]])
def test_up_with_other_options_than_the_running_stack_is_refused(
    stack: dict[str, str], option: list[str]
) -> None:
    result = run_stack("up", "--state-dir", stack["state_dir"], *option)

    assert result.returncode == 1
    assert "run `make stack-down` first" in result.stderr


def test_port_in_use_is_named_with_program_and_owner_and_nothing_starts(state: Path) -> None:
    offset = lifecycle.free_offset()
    with socket.create_server(("127.0.0.1", stack_programs.PORTS["prometheus"] + offset)) as taken:
        port = taken.getsockname()[1]
        result = run_stack("up", "--state-dir", state, "--port-offset", str(offset))

    assert result.returncode == 1
    own_name = Path("/proc/self/comm").read_text().strip()
    assert result.stderr == (
        f"stack: port {port} of prometheus is in use by {own_name} (pid {os.getpid()}); "
        "stop it, or give --port-offset N\n"
    )
    assert not processes_in(state)


def test_port_taken_on_all_interfaces_counts_as_in_use() -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken:
        assert not processes.is_port_free("127.0.0.1", taken.getsockname()[1])


def test_missing_binaries_are_one_line_with_the_cure(state: Path, tmp_path: Path) -> None:
    result = run_stack("up", "--state-dir", state, SIGHTLINE_BACKENDS_CACHE=str(tmp_path / "empty"))

    assert (result.returncode, result.stderr) == (1, "stack: jaeger is not built; run `make backends`\n")


def test_program_that_dies_at_its_start_takes_the_others_down_and_is_named(state: Path) -> None:
    data = marked(state) / "data" / "prometheus"
    data.mkdir(parents=True)
    (data / "wal").write_text("a file where a folder has to be")

    result = run_stack("up", "--state-dir", state, "--port-offset", "auto")

    last = result.stderr.splitlines()[-1]
    assert result.returncode == 1
    assert last.startswith("stack: prometheus ended at its start with code 1: ")
    assert last.endswith(f"(log: {state / 'logs/prometheus.log'})")
    assert not processes_in(state)


def test_program_that_is_not_ready_in_time_takes_the_others_down(state: Path) -> None:
    result = run_stack("up", "--state-dir", state, "--port-offset", "auto", "--timeout", "0")

    assert result.returncode == 1
    assert "is not ready in time" in result.stderr.splitlines()[-1]
    assert not processes_in(state)


@pytest.mark.parametrize("request_to_end", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_start_leaves_no_process(state: Path, request_to_end: signal.Signals) -> None:
    command = [
        sys.executable,
        str(NATIVE / "stack.py"),
        "up",
        "--state-dir",
        str(state),
        "--port-offset",
        "auto",
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as starting:
        assert eventually(lambda: processes_in(state), 10)
        starting.send_signal(request_to_end)
        _, errors = starting.communicate(timeout=60)

    assert starting.returncode == 130
    assert errors.splitlines()[-1] == "stack: interrupted; what was started is stopped"
    assert not processes_in(state)


def test_down_stops_everything_and_keeps_the_data(state: Path) -> None:
    assert run_stack("up", "--state-dir", state, "--port-offset", "auto").returncode == 0
    assert len(processes_in(state)) == len(PROGRAMS)

    result = run_stack("down", "--state-dir", state)

    assert (result.returncode, result.stdout) == (0, "stopped 5 programs\n")
    assert not processes_in(state)
    assert run_stack("status", "--state-dir", state).returncode == 1
    assert (state / "data/prometheus/wal").is_dir()


def test_down_when_down_succeeds(state: Path) -> None:
    result = run_stack("down", "--state-dir", state)

    assert (result.returncode, result.stdout) == (0, "the stack is not up\n")


def test_a_process_that_has_the_id_of_a_former_program_is_not_killed(
    state: Path, bystander: subprocess.Popen[bytes]
) -> None:
    record(marked(state), "loki", bystander.pid, "an earlier boot 4711")

    result = run_stack("down", "--state-dir", state)

    assert result.stdout == "the stack is not up\n"
    assert bystander.poll() is None


def test_a_process_on_record_is_stopped(state: Path, bystander: subprocess.Popen[bytes]) -> None:
    record(marked(state), "loki", bystander.pid, processes.identity(bystander.pid) or "")

    assert run_stack("down", "--state-dir", state).stdout == "stopped 1 programs\n"
    assert bystander.wait(5) == -signal.SIGTERM


def test_a_program_that_ignores_the_request_to_end_is_killed(tmp_path: Path) -> None:
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    script = f"{deaf}; print('deaf', flush=True); time.sleep(60)"
    log = tmp_path / "log"
    child = processes.start([sys.executable, "-c", script], dict(os.environ), tmp_path, log)
    process = processes.write_record(tmp_path / "pids", "deaf", child.pid)
    assert eventually(log.read_text, 10) == "deaf\n"

    assert processes.stop([process], grace_seconds=0.2) == []
    assert child.wait(5) == -signal.SIGKILL


def test_a_stack_that_is_partly_down_is_reported_and_not_taken_for_up(state: Path) -> None:
    assert run_stack("up", "--state-dir", state, "--port-offset", "auto").returncode == 0
    loki = next(process for process in processes.read_records(state / "pids") if process.name == "loki")
    processes.stop([loki])

    status = json.loads(run_stack("status", "--json", "--state-dir", state).stdout)
    result = run_stack("up", "--state-dir", state)

    assert (status["state"], status["programs"]["loki"]) == ("partly down", "down")
    assert result.returncode == 1
    assert "is up, but not loki; run `make stack-down`, then this again" in result.stderr


def test_what_waits_for_a_back_end_survives_the_killing_of_the_collector(state: Path) -> None:
    started = run_stack("up", "--state-dir", state, "--port-offset", "auto", "--json")
    endpoints = json.loads(started.stdout)
    running = {process.name: process for process in processes.read_records(state / "pids")}
    processes.stop([running["loki"]])
    records = [(f"line {number}", {"correlation_id": str(number)}) for number in range(20)]
    sent = httpx.post(f"{endpoints['otlp_http']}/v1/logs", json=log_request(resource("patient"), records))
    assert sent.status_code == httpx.codes.OK
    os.kill(running["otelcol"].pid, signal.SIGKILL)
    run_stack("down", "--state-dir", state)
    assert not processes_in(state)

    again = run_stack("up", "--state-dir", state, "--port-offset", str(endpoints["port_offset"]))

    def lines() -> int:
        question = {"query": '{service_name="patient"}', "limit": "100"}
        found = httpx.get(f"{endpoints['loki']}/loki/api/v1/query_range", params=question).json()
        return sum(len(stream["values"]) for stream in found["data"]["result"])

    assert again.returncode == 0
    assert eventually(lambda: lines() == len(records), 15), lines()


def test_a_folder_with_other_content_is_no_state_folder(state: Path) -> None:
    (state / "data").mkdir(parents=True)
    precious = state / "data" / "precious.txt"
    precious.write_text("mine")

    result = run_stack("up", "--state-dir", state, "--port-offset", "auto", "--fresh")

    assert result.returncode == 1
    assert result.stderr.endswith(
        "is not empty and not a state folder of the stack; give another --state-dir\n"
    )
    assert precious.read_text() == "mine"


def test_two_commands_on_one_state_folder_do_not_mix(state: Path) -> None:
    command = [
        sys.executable,
        str(NATIVE / "stack.py"),
        "up",
        "--state-dir",
        str(state),
        "--port-offset",
        "auto",
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as starting:
        assert eventually(lambda: processes_in(state), 10)
        result = run_stack("down", "--state-dir", state)

    assert starting.returncode == 0
    assert result.returncode == 1
    assert result.stderr == f"stack: another command is at work on {state}; wait for it\n"


def test_telemetry_settings_of_the_caller_do_not_reach_the_programs(stack: dict[str, str]) -> None:
    for process in processes.read_records(Path(stack["state_dir"]) / "pids"):
        names = {
            entry.partition(b"=")[0]
            for entry in Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
        }
        assert not [name for name in names if name.startswith(b"OTEL_")]


@pytest.mark.parametrize("value", ["-1", "x", "60000"])
def test_a_wrong_offset_is_refused_with_the_range(state: Path, value: str) -> None:
    result = run_stack("up", "--state-dir", state, f"--port-offset={value}")

    assert result.returncode == 2
    assert f"must be auto or 0 to {stack_programs.LARGEST_OFFSET}, got '{value}'" in result.stderr
