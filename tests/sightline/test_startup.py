"""The variables that OpenTelemetry's API reads at its import are checked before that."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = "import opentelemetry.propagate, opentelemetry.context; print('up')"


def run(*command, **variables):
    return subprocess.run(
        command, env={**os.environ, **variables}, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize(
    ("variable", "value"),
    [("OTEL_PROPAGATORS", "tracecontext,b33"), ("OTEL_PYTHON_CONTEXT", "thread_locals")],
)
def test_an_unknown_name_costs_one_line_and_the_program_starts(variable, value):
    command = Path(sys.executable).parent / "opentelemetry-instrument"
    exporters = {f"OTEL_{signal}_EXPORTER": "none" for signal in ("TRACES", "METRICS", "LOGS")}
    done = run(command, sys.executable, "-c", PROGRAM, **{variable: value}, **exporters)
    assert (done.returncode, done.stdout) == (0, "up\n")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{variable} must be ")


def test_installed_names_cost_no_line():
    done = run(sys.executable, "-c", PROGRAM, OTEL_PROPAGATORS="baggage, tracecontext")
    assert (done.stdout, done.stderr) == ("up\n", "")


def test_the_check_loads_nothing_of_opentelemetry():
    program = "import sys; print([name for name in sys.modules if name.startswith('opentelemetry')])"
    assert run(sys.executable, "-c", program, OTEL_PROPAGATORS="baggage").stdout == "[]\n"
