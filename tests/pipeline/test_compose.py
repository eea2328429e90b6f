"""compose.yaml is valid, its programs take the files and settings that they get, and nothing is open."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import stack_programs
import yaml

from . import compose_model
from .stack_fixture import CONFIG, binary, eventually

pytestmark = pytest.mark.stack

MODEL = yaml.safe_load(compose_model.COMPOSE_FILE.read_text())
PROGRAMS = sorted(set(MODEL["services"]) - {"prepare"})


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """Every service as Compose reads it."""
    found: dict[str, Any] = compose_model.shipped_model()["services"]
    return found


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("  healthcheck:", "  healthchek:"),
        ("condition: service_healthy", "condition: healthy"),
        ("retries: 12", "retries: often"),
        ("<<: *service", "<<: *servise"),
    ],
)
def test_loader_refuses_a_broken_file(right: str, wrong: str, tmp_path: Path) -> None:
    text = compose_model.COMPOSE_FILE.read_text()
    assert right in text
    (tmp_path / "compose.yaml").write_text(text.replace(right, wrong))

    assert compose_model.load(tmp_path / "compose.yaml").returncode != 0


@pytest.mark.parametrize("name", PROGRAMS)
def test_service_has_no_privileges_and_bounded_resources(name: str, services: dict[str, Any]) -> None:
    service = services[name]
    user, group = service["user"].split(":")

    assert int(user) > 0
    assert (group == "0") == (name == "grafana")  # the files of Grafana's image belong to that group
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert not {"privileged", "cap_add", "network_mode", "pid", "devices"} & set(service)
    assert 0 < float(service["cpus"]) <= 1
    assert service["pids_limit"] > 0
    assert compose_model.megabytes(service["mem_limit"]) <= 1024
    assert service["logging"]["options"] == {"max-size": "10m", "max-file": "3"}


def test_only_the_service_that_prepares_volumes_is_root_and_it_can_do_nothing_else(
    services: dict[str, Any],
) -> None:
    service = services["prepare"]

    assert (service["user"], service["cap_drop"], service["cap_add"]) == ("0:0", ["ALL"], ["CHOWN"])
    assert (service["network_mode"], service["read_only"], service["restart"]) == ("none", True, "no")
    assert "ports" not in service


@pytest.mark.parametrize("name", sorted(set(PROGRAMS) - {"grafana"}))
def test_go_collects_garbage_before_the_container_is_at_its_limit(
    name: str, services: dict[str, Any]
) -> None:
    service = services[name]
    soft, hard = service["environment"]["GOMEMLIMIT"], service["mem_limit"]

    assert 0.45 <= compose_model.megabytes(soft) / compose_model.megabytes(hard) <= 0.85


def test_ports_are_published_on_loopback_and_something_listens_on_each(services: dict[str, Any]) -> None:
    published = 0
    for name, service in services.items():
        for port in service.get("ports", []):
            assert port["host_ip"] == "127.0.0.1", name
            assert port["target"] in compose_model.listening_ports(name, service), name
            published += 1

    assert published == 8


def test_every_address_that_a_service_is_told_is_one_that_another_listens_on(
    services: dict[str, Any],
) -> None:
    targets = "".join(path.read_text() for path in (CONFIG / "targets-compose").glob("*.yaml"))
    sources = (CONFIG / "grafana/provisioning/datasources/sightline.yaml").read_text()
    told = " ".join(
        value for service in services.values() for value in service.get("environment", {}).values()
    )
    named = re.findall(r"\b([a-z]+):(\d+)\b", f"{targets} {sources} {told}")
    addresses = {(name, int(port)) for name, port in named if name in services}

    assert len(addresses) >= 7
    for name, port in addresses:
        assert port in compose_model.listening_ports(name, services[name]), (name, port)


def test_collector_stores_and_pages_are_checked_for_health_wherever_the_image_can(
    services: dict[str, Any],
) -> None:
    without = {name for name, service in services.items() if "healthcheck" not in service}

    assert without == {"collector", "prepare"}  # nothing but the collector in its image; ends by itself


def test_services_wait_for_the_health_and_not_the_start_of_others(services: dict[str, Any]) -> None:
    for name in PROGRAMS:
        conditions = {other: how["condition"] for other, how in services[name]["depends_on"].items()}
        assert conditions.pop("prepare") == "service_completed_successfully", name
        for other, condition in conditions.items():
            assert condition == "service_healthy", name
            assert "healthcheck" in services[other], name
    assert set(services["collector"]["depends_on"]) == {"prepare", "jaeger", "prometheus", "loki"}


def test_mounted_files_exist_and_cannot_be_written(services: dict[str, Any]) -> None:
    mounts = [mount for service in services.values() for mount in service.get("volumes", [])]
    files = [mount for mount in mounts if mount["type"] == "bind"]

    assert len(files) >= 9
    for mount in files:
        assert Path(mount["source"]).exists(), mount
        assert mount["read_only"] is True, mount


def test_every_volume_is_used_and_prepared(services: dict[str, Any]) -> None:
    prepared = compose_model.volume_mounts(services["prepare"])
    declared = compose_model.shipped_model()["volumes"]
    used = {volume for name in PROGRAMS for volume in compose_model.volume_mounts(services[name])}

    assert prepared == {volume: f"/volumes/{volume}" for volume in declared}
    assert used == set(declared)


def test_data_folders_are_on_volumes(services: dict[str, Any]) -> None:
    for name in PROGRAMS:
        service = services[name]
        folders = set(compose_model.volume_mounts(service).values()) - {"/run/grafana-secrets"}
        told = {
            *(value for value in service["environment"].values() if value.startswith("/")),
            *(argument.partition("=")[2] for argument in service.get("command") or []),
        }
        outside = {path for path in told if path.startswith("/") and path not in folders}
        assert len(folders) == 1, name
        assert not [path for path in outside if not path.startswith(("/etc/", "/run/"))], name
        assert name == "grafana" or folders <= told, name


def test_no_secret_is_written_into_the_file(services: dict[str, Any]) -> None:
    for service in services.values():
        for variable in service.get("environment", {}):
            secret = re.search("PASSWORD|SECRET|TOKEN|CREDENTIAL", variable)
            assert not secret or variable.endswith("__FILE"), variable


VALIDATIONS = {
    "collector": ("otelcol", ["validate"]),
    "jaeger": ("jaeger", ["validate"]),
    "loki": ("loki", ["-verify-config"]),
}


def validate(name: str, service: dict[str, Any], root: Path) -> subprocess.CompletedProcess[str]:
    """Has the native program read what the service mounts, with the service's own arguments and variables."""
    program, arguments = VALIDATIONS[name]
    command = [binary(program), *arguments, *compose_model.lay_out(service, root)]
    environment = compose_model.environment(service, root)
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("name", VALIDATIONS)
def test_program_takes_its_configuration_under_the_variables_of_compose(
    name: str, services: dict[str, Any], tmp_path: Path
) -> None:
    result = validate(name, services[name], tmp_path)

    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("name", "variable"),
    [
        ("collector", "PIPELINE_COLLECTOR_METRICS_PORT"),
        ("jaeger", "PIPELINE_JAEGER_METRICS_PORT"),
        ("loki", "PIPELINE_LOKI_HTTP_PORT"),
    ],
)
def test_program_refuses_a_wrong_variable(
    name: str, variable: str, services: dict[str, Any], tmp_path: Path
) -> None:
    service = services[name]
    wrong = {**service, "environment": service["environment"] | {variable: "nowhere"}}

    assert validate(name, wrong, tmp_path).returncode != 0


@pytest.mark.parametrize("name", ["collector", "jaeger", "loki"])
def test_configuration_knows_every_variable_that_compose_sets(name: str, services: dict[str, Any]) -> None:
    service = services[name]
    text = "".join(
        path.read_text()
        for path in compose_model.bind_mounts(service).values()
        if path.is_file()  # rules know no variables
    )
    given = {variable for variable in service["environment"] if variable.startswith("PIPELINE_")}

    assert given <= set(re.findall(r"PIPELINE_\w+", text))


@pytest.mark.parametrize("name", ["collector", "jaeger", "loki"])
def test_nothing_of_a_configuration_stays_on_loopback_or_in_the_working_folder(
    name: str, services: dict[str, Any]
) -> None:
    text = re.sub("#.*", "", compose_model.expanded_configuration(services[name]))

    assert not re.findall(r"https?://127\.0\.0\.1\S*| \./\S*", text)


def test_collector_collects_garbage_as_it_does_natively(services: dict[str, Any], tmp_path: Path) -> None:
    natively = {each.name: each for each in stack_programs.programs(stack_programs.Layout(tmp_path, 0))}

    for variable in ("GOMEMLIMIT", "GOGC"):
        given = services["collector"]["environment"][variable]
        assert given == natively["otelcol"].variables[variable]


@pytest.mark.parametrize("program", ["prometheus", "loki", "alertmanager"])
def test_flags_are_those_of_the_native_stack(program: str, services: dict[str, Any], tmp_path: Path) -> None:
    natively = {each.name: each for each in stack_programs.programs(stack_programs.Layout(tmp_path, 0))}
    flags = [
        {argument.partition("=")[0].lstrip("-") for argument in arguments}
        for arguments in (natively[program].arguments, services[program]["command"])
    ]

    assert flags[0] - {"web.listen-address"} == flags[1]


@pytest.mark.parametrize(
    ("name", "ready"),
    [("prometheus", "Server is ready to receive web requests"), ("alertmanager", "Listening on")],
)
def test_program_starts_with_the_files_and_flags_of_compose(
    name: str, ready: str, services: dict[str, Any], tmp_path: Path
) -> None:
    arguments = compose_model.lay_out(services[name], tmp_path)
    command = [binary(name), *arguments, "--web.listen-address=127.0.0.1:0"]
    log = tmp_path / "log"
    with log.open("w") as output, subprocess.Popen(command, cwd=tmp_path, stderr=output) as process:
        try:
            assert eventually(lambda: ready in log.read_text() or process.poll() is not None, 20)
        finally:
            process.terminate()

    assert ready in log.read_text()
