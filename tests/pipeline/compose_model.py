"""compose.yaml as its own loader reads it; a service's files and arguments laid out for a native program."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from .stack_fixture import CONFIG, binary

COMPOSE_FILE = CONFIG / "compose.yaml"

Service = dict[str, Any]

_VARIABLE = re.compile(r"\$\{(?:env:)?(\w+)(?::-([^}]*))?\}")
_LISTENER = re.compile(r"\b0\.0\.0\.0(?::|\s+\w*port: )(\d+)")

# Programs whose port is a flag's default, or Grafana's.
_DEFAULT_PORTS = {"prometheus": 9090, "alertmanager": 9093, "grafana": 3000}


def load(file: Path) -> subprocess.CompletedProcess[str]:
    """Loads a compose file: schema, interpolation, merges; the model goes to the output.

    What one part of the file says of another (dependencies, volumes) is not compared here: the tests do.
    """
    command = [binary("compose"), "--format", "json", str(file)]
    return subprocess.run(
        command, cwd=file.parent, capture_output=True, text=True, env={}, timeout=30, check=False
    )


def shipped_model() -> dict[str, Any]:
    """Returns the model of the shipped file."""
    result = load(COMPOSE_FILE)
    assert result.returncode == 0, result.stderr
    model: dict[str, Any] = json.loads(result.stdout)
    return model


def bind_mounts(service: Service) -> dict[str, Path]:
    """Returns what is mounted from the repository, by its path inside."""
    return {m["target"]: Path(m["source"]) for m in service.get("volumes", []) if m["type"] == "bind"}


def volume_mounts(service: Service) -> dict[str, str]:
    """Returns the path inside of each named volume."""
    return {m["source"]: m["target"] for m in service.get("volumes", []) if m["type"] == "volume"}


def megabytes(text: str) -> int:
    """Returns a size as Compose and Go write it (`512m`, `1g`, `300MiB`) in units of 2^20 bytes."""
    number, unit = re.fullmatch(r"(\d+)(m|g|MiB)", text).groups()  # raises if it does not match
    return int(number) * (1024 if unit == "g" else 1)


def lay_out(service: Service, root: Path) -> list[str]:
    """Copies a service's files under `root` as its container sees them; returns its arguments, so changed."""
    for target, source in bind_mounts(service).items():
        place = root / target.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, place)
    for target in volume_mounts(service).values():
        (root / target.lstrip("/")).mkdir(parents=True, exist_ok=True)
    return [argument.replace("=/", f"={root}/", 1) for argument in service["command"]]


def environment(service: Service, root: Path) -> dict[str, str]:
    """Returns the variables that a service gets, its data folders under `root`."""
    given: dict[str, str] = service.get("environment", {})
    return {name: f"{root}{value}" if value.startswith("/") else value for name, value in given.items()}


def expanded_configuration(service: Service) -> str:
    """Returns a service's own configuration file with its variables filled in."""
    files = [path for path in bind_mounts(service).values() if path.suffix == ".yaml"]
    given = service.get("environment", {})
    return _VARIABLE.sub(
        lambda found: str(given.get(found[1], found[2])), "".join(file.read_text() for file in files)
    )


def listening_ports(name: str, service: Service) -> set[int]:
    """Returns the ports that a service opens to the compose network."""
    if name in _DEFAULT_PORTS:
        return {_DEFAULT_PORTS[name]}
    return {int(port) for port in _LISTENER.findall(expanded_configuration(service))}
