"""What kustomize makes of the manifests; a pod's files, variables and arguments for a native collector."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

from .stack_fixture import CONFIG, binary

Manifest = dict[str, Any]

WORKLOADS = {"agent": "DaemonSet", "gateway": "Deployment"}

# What a user's overlay gives.
BACKENDS = {
    "PIPELINE_JAEGER_OTLP": "jaeger.example:4317",
    "PIPELINE_PROMETHEUS_OTLP": "https://prometheus.example/api/v1/otlp",
    "PIPELINE_LOKI_OTLP": "https://loki.example/otlp",
}

# What the kubelet would fill in.
FIELDS = {"status.podIP": "127.0.0.1", "metadata.namespace": "sightline", "metadata.name": "gateway-0"}

_REFERENCE = re.compile(r"\$\((\w+)\)")


def kustomize(folder: Path) -> subprocess.CompletedProcess[str]:
    """Builds a folder as `kubectl apply -k` does."""
    command = [binary("kustomize"), "build", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def build(folder: Path) -> list[Manifest]:
    """Returns the manifests of a folder."""
    result = kustomize(folder)
    assert result.returncode == 0, result.stderr
    return list(yaml.safe_load_all(result.stdout))


def copy_configuration(folder: Path) -> Path:
    """Copies what is shipped, less the native builds, to where a test may build overlays on it."""
    ignored = shutil.ignore_patterns("native", "grafana", "__pycache__")
    return Path(shutil.copytree(CONFIG, folder / "collector-config", ignore=ignored))


def of_kind(manifests: list[Manifest], kind: str) -> list[Manifest]:
    """Returns the manifests of a kind."""
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def named(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    """Returns the one manifest of a kind and name; generated names may end in a hash."""
    (found,) = [
        manifest
        for manifest in of_kind(manifests, kind)
        if re.fullmatch(rf"{name}(-[a-z0-9]{{10}})?", manifest["metadata"]["name"])
    ]
    return found


def workload(manifests: list[Manifest], tier: str) -> Manifest:
    """Returns the DaemonSet, Deployment or StatefulSet of a tier."""
    (found,) = [
        manifest
        for manifest in manifests
        if manifest["metadata"]["name"] == f"sightline-{tier}" and "template" in manifest.get("spec", {})
    ]
    return found


def pod(manifests: list[Manifest], tier: str) -> Manifest:
    """Returns the pod template of a tier."""
    template: Manifest = workload(manifests, tier)["spec"]["template"]
    return template


def container(manifests: list[Manifest], tier: str) -> Manifest:
    """Returns the one container of a tier's pods."""
    (found,) = pod(manifests, tier)["spec"]["containers"]
    return dict(found)


def environment(manifests: list[Manifest], tier: str, root: Path) -> dict[str, str]:
    """Returns a container's variables: references resolved, its folders under `root`."""
    found: dict[str, str] = {}
    for entry in container(manifests, tier)["env"]:
        source = entry.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
        value = FIELDS[source] if source else entry["value"]
        value = _REFERENCE.sub(lambda reference: found[reference[1]], value)
        found[entry["name"]] = f"{root}{value}" if value.startswith("/") else value
    return found


def lay_out(manifests: list[Manifest], tier: str, root: Path) -> list[str]:
    """Writes a pod's ConfigMap under `root`; returns the container's arguments with these paths."""
    spec = pod(manifests, tier)["spec"]
    places = {mount["name"]: mount["mountPath"] for mount in container(manifests, tier)["volumeMounts"]}
    for volume in spec["volumes"]:
        if "configMap" in volume:
            data = named(manifests, "ConfigMap", volume["configMap"]["name"])["data"]
            folder = root / places[volume["name"]].lstrip("/")
            folder.mkdir(parents=True)
            for name, text in data.items():
                (folder / name).write_text(text)
    arguments: list[str] = container(manifests, tier)["args"]
    return [argument.replace("=/", f"={root}/", 1) for argument in arguments]


def merged_configuration(arguments: list[str], variables: dict[str, str]) -> dict[str, Any]:
    """Returns what a collector makes of its files and variables, with defaults; it validates them too."""
    result = subprocess.run(
        [binary("otelcol"), "print-config", *arguments],
        env=variables,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    merged: dict[str, Any] = yaml.safe_load(result.stdout)
    return merged


def selects(selector: dict[str, str], labels: dict[str, str]) -> bool:
    """Tells whether `matchLabels` choose a pod; an empty selector chooses all."""
    return selector.items() <= labels.items()


_UNITS = {"Mi": 2**20, "MiB": 2**20, "Gi": 2**30, "m": 1e-3, "": 1.0}


def quantity(text: str) -> float:
    """Returns a resource quantity as a number: bytes, or cores."""
    number, unit = re.fullmatch(r"([\d.]+)(\w*)", text).groups()  # raises if it does not match
    return float(number) * _UNITS[unit]
