"""Before the containers start, volumes get their owners and Grafana's administrator a password."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from . import compose_model
from .stack_fixture import CONFIG

VOLUMES = yaml.safe_load(compose_model.COMPOSE_FILE.read_text())["volumes"]


@pytest.fixture
def volumes(tmp_path: Path) -> Path:
    """Empty volumes, and a `chown` that writes down what it is told: only root can do it."""
    for volume in VOLUMES:
        (tmp_path / volume).mkdir()
    (tmp_path / "bin").mkdir()
    chown = tmp_path / "bin/chown"
    chown.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/owners\n')
    chown.chmod(0o755)
    return tmp_path


def prepare(volumes: Path) -> str:
    """Runs the script as the container does; returns Grafana's password."""
    environment = {"PREPARE_VOLUMES": str(volumes), "PATH": f"{volumes}/bin:{os.environ['PATH']}"}
    subprocess.run(["sh", CONFIG / "compose-prepare.sh"], env=environment, timeout=10, check=True)
    return (volumes / "grafana-secrets/admin-password").read_text()


@pytest.mark.stack
def test_volumes_are_given_to_the_users_that_write_to_them(volumes: Path) -> None:
    services: dict[str, Any] = compose_model.shipped_model()["services"]
    prepare(volumes)
    owners = {}
    for line in (volumes / "owners").read_text().splitlines():
        owner, *paths = line.split()
        owners |= {Path(path).name: owner for path in paths}

    for name in set(services) - {"prepare"}:
        for volume in set(compose_model.volume_mounts(services[name])) - {"grafana-secrets"}:
            assert owners.pop(volume) == services[name]["user"], volume
    assert owners == {"admin-password.new": services["grafana"]["user"]}


def test_password_is_made_once_is_long_and_is_for_its_reader_only(volumes: Path) -> None:
    first = prepare(volumes)
    file = volumes / "grafana-secrets/admin-password"

    assert len(first.strip()) == 32
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o755
    assert prepare(volumes) == first
    file.unlink()
    assert prepare(volumes) != first
