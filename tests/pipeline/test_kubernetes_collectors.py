"""The collectors take what their pods give them: files, variables, credentials; nobody else gets in."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from . import kubernetes_model
from .kubernetes_model import BACKENDS, Manifest, container, lay_out, merged_configuration, pod, quantity
from .stack_fixture import CONFIG

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def shipped() -> list[Manifest]:
    """What `kubectl apply -k collector-config` would apply."""
    return kubernetes_model.build(CONFIG)


@pytest.fixture(params=kubernetes_model.WORKLOADS)
def tier(request: pytest.FixtureRequest) -> str:
    """Each of the two tiers."""
    name: str = request.param
    return name


@pytest.fixture
def merged(tier: str, shipped: list[Manifest], tmp_path: Path) -> dict[str, Any]:
    """What the collector of a tier's pod makes of its configuration; it has validated it."""
    variables = kubernetes_model.environment(shipped, tier, tmp_path) | BACKENDS
    return merged_configuration(lay_out(shipped, tier, tmp_path), variables)


def test_collector_of_each_tier_takes_its_configuration(merged: dict[str, Any]) -> None:
    assert set(merged["service"]["pipelines"]) >= {"metrics", "logs"}


def test_every_receiver_asks_for_tls_and_a_token(merged: dict[str, Any]) -> None:
    for receiver in merged["receivers"].values():
        for protocol in filter(None, receiver["protocols"].values()):
            assert protocol["tls"]["cert_file"]
            assert protocol["tls"]["key_file"]
            assert protocol["auth"]["authenticator"] in merged["service"]["extensions"]


def test_every_exporter_uses_tls_and_a_token(merged: dict[str, Any]) -> None:
    for exporter in merged["exporters"].values():
        client = exporter.get("protocol", {}).get("otlp", exporter)
        assert client["tls"].get("insecure", False) is False
        assert client["tls"].get("insecure_skip_verify", False) is False
        assert client["tls"]["ca_file"]
        assert client["auth"]["authenticator"] in merged["service"]["extensions"]


def test_every_extension_that_is_configured_runs(merged: dict[str, Any]) -> None:
    assert set(merged["service"]["extensions"]) == set(merged["extensions"])


def test_variables_are_those_that_the_files_know(tier: str, shipped: list[Manifest], tmp_path: Path) -> None:
    arguments = lay_out(shipped, tier, tmp_path)
    text = "".join(Path(argument.partition("=")[2]).read_text() for argument in arguments)
    given = {name for name in kubernetes_model.environment(shipped, tier, tmp_path) if "PIPELINE" in name}

    assert given <= set(re.findall(r"\$\{env:(PIPELINE_\w+)", text))


def test_ports_are_those_that_the_collector_listens_on(
    tier: str, merged: dict[str, Any], shipped: list[Manifest]
) -> None:
    ports = {port["name"]: port["containerPort"] for port in container(shipped, tier)["ports"]}
    protocols = merged["receivers"]["otlp"]["protocols"]
    (reader,) = merged["service"]["telemetry"]["metrics"]["readers"]

    listening = {f"otlp-{name}": protocol["endpoint"] for name, protocol in protocols.items() if protocol}
    listening["health"] = merged["extensions"]["health_check"]["endpoint"]
    listening["metrics"] = "{host}:{port}".format(**reader["pull"]["exporter"]["prometheus"])
    assert listening == {name: f"127.0.0.1:{port}" for name, port in ports.items()}


def test_memory_is_limited_by_the_collector_before_it_is_by_the_kubelet(
    tier: str, merged: dict[str, Any], shipped: list[Manifest]
) -> None:
    limit = quantity(container(shipped, tier)["resources"]["limits"]["memory"]) / 2**20
    variables = {entry["name"]: entry.get("value", "") for entry in container(shipped, tier)["env"]}
    limiter = merged["processors"]["memory_limiter"]

    header = re.search(r"GOMEMLIMIT=(\w+) and GOGC=(\d+)", (CONFIG / f"{tier}.yaml").read_text())

    assert int(limiter["limit_mib"]) <= 0.7 * limit
    assert quantity(variables["GOMEMLIMIT"]) / 2**20 < int(limiter["limit_mib"])
    assert header.groups() == (variables["GOMEMLIMIT"], variables["GOGC"])


def test_full_queues_fit_into_their_volume_twice(
    tier: str, merged: dict[str, Any], shipped: list[Manifest]
) -> None:
    (volume,) = [v["emptyDir"] for v in pod(shipped, tier)["spec"]["volumes"] if "emptyDir" in v]
    signals: dict[str, set[str]] = {}
    for pipeline, parts in merged["service"]["pipelines"].items():
        for exporter in set(parts["exporters"]) & set(merged["exporters"]):
            signals.setdefault(exporter, set()).add(pipeline.split("/")[0])
    full = sum(
        merged["exporters"][exporter]["sending_queue"]["queue_size"] * len(of)
        for exporter, of in signals.items()
    )

    assert full >= 3 * 128 * 2**20
    assert quantity(volume["sizeLimit"]) >= 2 * full
    assert container(shipped, tier)["resources"]["limits"]["ephemeral-storage"] == volume["sizeLimit"]


def test_traces_are_balanced_over_the_addresses_of_the_headless_service(
    shipped: list[Manifest], tmp_path: Path
) -> None:
    variables = kubernetes_model.environment(shipped, "agent", tmp_path)
    agent = merged_configuration(lay_out(shipped, "agent", tmp_path), variables)
    resolver = agent["exporters"]["loadbalancing"]["resolver"]
    services = {
        f"{s['metadata']['name']}.{s['metadata']['namespace']}.svc": s["spec"]
        for s in kubernetes_model.of_kind(shipped, "Service")
    }
    headless = services[resolver["dns"]["hostname"]]
    one_of_them, _, port = agent["exporters"]["otlp_grpc/gateway"]["endpoint"].partition(":")

    assert headless["clusterIP"] == "None"
    assert not resolver.get("static")
    assert {int(resolver["dns"]["port"]), int(port)} == {headless["ports"][0]["port"]}
    assert services[one_of_them]["selector"] == headless["selector"]
    assert "clusterIP" not in services[one_of_them]
