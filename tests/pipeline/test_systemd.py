"""The units start the programs as the native stack does, as nobody in particular, and on loopback."""

from __future__ import annotations

import re
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest
import stack_programs

from .stack_fixture import CONFIG, binary

UNITS = CONFIG / "systemd"
PROGRAMS = ["alertmanager", "jaeger", "loki", "otelcol", "prometheus"]

# Directives that take something away from a program; the same in every unit.
HARDENING = {
    "DynamicUser": "yes",
    "NoNewPrivileges": "yes",
    "CapabilityBoundingSet": "",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateDevices": "yes",
    "PrivateTmp": "yes",
    "MemoryDenyWriteExecute": "yes",
    "SystemCallFilter": "@system-service",
    "IPAddressDeny": "any",
    "IPAddressAllow": "localhost",
    "UMask": "0077",
    "StateDirectoryMode": "0700",
}


def read_unit(name: str) -> dict[str, list[str]]:
    """Returns the values of each directive, in their order, continued lines joined."""
    found = defaultdict(list)
    for line in (UNITS / f"sightline-{name}.service").read_text().replace("\\\n", " ").splitlines():
        if "=" in line and not line.startswith("#"):
            directive, _, value = line.partition("=")
            found[directive].append(" ".join(value.split()))
    return found


def command(name: str, root: Path) -> list[str]:
    """Returns a unit's command with the native program, the shipped files and folders of a test."""
    program, *arguments = read_unit(name)["ExecStart"][0].split()
    assert program == f"/opt/sightline/bin/{name}"
    places = {"%S": str(root), "/opt/sightline/collector-config": str(CONFIG)}
    for place, instead in places.items():
        arguments = [argument.replace(place, instead) for argument in arguments]
    return [binary(name), *arguments]


def variables(name: str, root: Path) -> dict[str, str]:
    """Returns the variables of a unit."""
    return dict(
        entry.replace("%S", str(root)).replace("/opt/sightline/collector-config", str(CONFIG)).split("=", 1)
        for entry in read_unit(name)["Environment"]
    )


def test_there_is_a_unit_for_each_program_and_one_that_starts_all() -> None:
    assert sorted(path.name for path in UNITS.glob("*.service")) == [
        f"sightline-{n}.service" for n in PROGRAMS
    ]
    for name in PROGRAMS:
        assert read_unit(name)["WantedBy"] == read_unit(name)["PartOf"] == ["sightline.target"]


@pytest.mark.parametrize("name", PROGRAMS)
def test_unit_takes_every_privilege_away(name: str) -> None:
    unit = read_unit(name)

    assert {directive: unit[directive] for directive in HARDENING} == {
        directive: [value] for directive, value in HARDENING.items()
    }
    assert not {"User", "Group", "AmbientCapabilities", "ReadWritePaths"} & set(unit)


@pytest.mark.parametrize("name", PROGRAMS)
def test_unit_bounds_memory_and_writes_to_its_own_folder_only(name: str) -> None:
    unit = read_unit(name)
    hard, (megabytes,) = (
        unit["MemoryMax"][0],
        re.findall(r"^GOMEMLIMIT=(\d+)MiB$", "\n".join(unit["Environment"]), re.MULTILINE),
    )
    bytes_of = {"128M": 128, "512M": 512, "1G": 1024}

    assert 0.45 <= int(megabytes) / bytes_of[hard] <= 0.85
    assert unit["StateDirectory"] == [f"sightline-{name}"]
    written = re.findall(r"%S/\S+", " ".join(value for values in unit.values() for value in values))
    assert set(written) == {f"%S/sightline-{name}"}


@pytest.mark.parametrize("name", PROGRAMS)
def test_unit_has_the_flags_and_folders_of_the_native_stack(name: str, tmp_path: Path) -> None:
    natively = {each.name: each for each in stack_programs.programs(stack_programs.Layout(tmp_path, 0))}[name]
    flags = [argument.partition("=")[0] for argument in natively.arguments if argument.startswith("-")]
    folders = {key for key, value in natively.variables.items() if value.startswith(("/", "."))}
    unit = read_unit(name)["ExecStart"][0].split()[1:]

    assert {flag.lstrip("-") for flag in flags} == {part.partition("=")[0].lstrip("-") for part in unit}
    assert folders <= {entry.partition("=")[0] for entry in read_unit(name)["Environment"]}


def test_collector_collects_garbage_as_it_does_natively(tmp_path: Path) -> None:
    natively = {each.name: each for each in stack_programs.programs(stack_programs.Layout(tmp_path, 0))}
    given = variables("otelcol", tmp_path)

    assert {name: given[name] for name in ("GOMEMLIMIT", "GOGC")} == {
        name: natively["otelcol"].variables[name] for name in ("GOMEMLIMIT", "GOGC")
    }


VALIDATIONS = {"otelcol": ["validate"], "jaeger": ["validate"], "loki": ["-verify-config"]}


@pytest.mark.stack
@pytest.mark.parametrize("name", VALIDATIONS)
def test_program_takes_the_configuration_of_its_unit(name: str, tmp_path: Path) -> None:
    program, *arguments = command(name, tmp_path)
    (tmp_path / f"sightline-{name}").mkdir()

    result = subprocess.run(
        [program, *VALIDATIONS[name], *arguments],
        env=variables(name, tmp_path),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert result.returncode == 0, result.stdout + result.stderr


def test_prometheus_and_alertmanager_listen_on_loopback() -> None:
    for name, port in {"prometheus": 9090, "alertmanager": 9093}.items():
        assert f"--web.listen-address=127.0.0.1:{port}" in read_unit(name)["ExecStart"][0]
