"""The manifests are valid in every supported version, closed by default, and fit each other."""

from __future__ import annotations

import re
from pathlib import Path

import kubernetes_validate  # type: ignore[import-untyped]  # carries no types
import pytest
import recipes
import yaml

from . import kubernetes_model
from .kubernetes_model import Manifest, container, copy_configuration, named, of_kind, pod, quantity, workload
from .stack_fixture import CONFIG

pytestmark = pytest.mark.stack

VERSIONS = recipes.read_versions()
TIERS = ["agent", "gateway"]

OVERLAY = """\
namespace: telemetry
resources: [../collector-config]
components: [../collector-config/kubernetes/durable-gateways]
"""


@pytest.fixture(scope="module")
def shipped() -> list[Manifest]:
    """What `kubectl apply -k collector-config` would apply."""
    return kubernetes_model.build(CONFIG)


@pytest.fixture(scope="module")
def durable(tmp_path_factory: pytest.TempPathFactory) -> list[Manifest]:
    """An overlay with durable gateways, in a namespace of another name."""
    folder = tmp_path_factory.mktemp("kubernetes")
    copy_configuration(folder)
    (folder / "overlay").mkdir()
    (folder / "overlay/kustomization.yaml").write_text(OVERLAY)
    return kubernetes_model.build(folder / "overlay")


@pytest.mark.parametrize("version", ["KUBERNETES_OLDEST_VERSION", "KUBERNETES_NEWEST_VERSION"])
@pytest.mark.parametrize("built", ["shipped", "durable"])
def test_every_manifest_is_valid_in_the_oldest_and_the_newest_version(
    version: str, built: str, request: pytest.FixtureRequest
) -> None:
    manifests: list[Manifest] = request.getfixturevalue(built)

    assert len(manifests) == 16
    for manifest in manifests:
        kubernetes_validate.validate(manifest, VERSIONS[version], strict=True)


@pytest.mark.parametrize(
    ("right", "wrong"), [("runAsNonRoot", "runAsNonroot"), ("containerPort: 4327", "containerPort: otlp")]
)
def test_schema_refuses_a_wrong_field_and_a_wrong_type(right: str, wrong: str, tmp_path: Path) -> None:
    folder = copy_configuration(tmp_path)
    file = folder / "kubernetes/base/gateway.yaml"
    assert right in file.read_text()
    file.write_text(file.read_text().replace(right, wrong))
    manifest = workload(kubernetes_model.build(folder), "gateway")

    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, VERSIONS["KUBERNETES_NEWEST_VERSION"], strict=True)


def test_a_collector_file_is_the_only_source_of_its_config_map(shipped: list[Manifest]) -> None:
    sources = {
        "agent": [
            "agent.yaml",
            "overlays/dns-gateways.yaml",
            "overlays/secured-agent.yaml",
            "overlays/authenticated.yaml",
        ],
        "gateway": ["gateway.yaml", "overlays/secured-gateway.yaml", "overlays/secured-backends.yaml"],
    }
    for tier, files in sources.items():
        data = named(shipped, "ConfigMap", f"sightline-{tier}-config")["data"]
        assert data.pop("kubernetes.yaml") == (CONFIG / f"kubernetes/config/{tier}.yaml").read_text()
        assert data == {Path(file).name: (CONFIG / file).read_text() for file in files}


def test_changed_collector_file_renews_the_pods(shipped: list[Manifest], tmp_path: Path) -> None:
    folder = copy_configuration(tmp_path)
    with (folder / "agent.yaml").open("a") as file:
        file.write("# changed\n")
    changed = kubernetes_model.build(folder)

    assert pod(changed, "agent") != pod(shipped, "agent")
    assert pod(changed, "gateway") == pod(shipped, "gateway")


@pytest.mark.parametrize("tier", TIERS)
def test_image_is_pinned_to_the_version_of_versions_env(tier: str, shipped: list[Manifest]) -> None:
    image = container(shipped, tier)["image"]

    assert image == f"otel/opentelemetry-collector-contrib:{VERSIONS['OTELCOL_VERSION']}"


@pytest.mark.parametrize("built", ["shipped", "durable"])
@pytest.mark.parametrize("tier", TIERS)
def test_pod_keeps_the_restricted_standard_and_more(
    tier: str, built: str, request: pytest.FixtureRequest
) -> None:
    manifests: list[Manifest] = request.getfixturevalue(built)
    spec, only = pod(manifests, tier)["spec"], container(manifests, tier)

    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & set(spec)
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["runAsGroup"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert only["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not [port for port in only["ports"] if "hostPort" in port]
    assert {next(key for key in volume if key != "name") for volume in spec["volumes"]} <= {
        "configMap",
        "projected",
        "emptyDir",
    }
    assert spec["automountServiceAccountToken"] is False
    assert (
        named(manifests, "ServiceAccount", spec["serviceAccountName"])["automountServiceAccountToken"]
        is False
    )


@pytest.mark.parametrize("built", ["shipped", "durable"])
def test_namespace_admits_restricted_pods_only_and_holds_everything(
    built: str, request: pytest.FixtureRequest
) -> None:
    manifests: list[Manifest] = request.getfixturevalue(built)
    (namespace,) = of_kind(manifests, "Namespace")

    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    others = [manifest for manifest in manifests if manifest is not namespace]
    assert {manifest["metadata"]["namespace"] for manifest in others} == {namespace["metadata"]["name"]}


@pytest.mark.parametrize("tier", TIERS)
def test_resources_are_requested_and_bounded(tier: str, shipped: list[Manifest]) -> None:
    resources = container(shipped, tier)["resources"]

    assert set(resources["requests"]) == set(resources["limits"]) == {"cpu", "memory", "ephemeral-storage"}
    for name, asked in resources["requests"].items():
        assert 0 < quantity(asked) <= quantity(resources["limits"][name])


@pytest.mark.parametrize("tier", TIERS)
def test_pod_is_probed_and_has_time_to_drain(tier: str, shipped: list[Manifest]) -> None:
    only = container(shipped, tier)
    ports = {port["name"] for port in only["ports"]}

    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert only[probe]["httpGet"]["port"] == "health"
    assert "health" in ports
    pause = only["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert 10 <= pause <= pod(shipped, tier)["spec"]["terminationGracePeriodSeconds"] - 30


@pytest.mark.parametrize("tier", TIERS)
def test_every_pod_is_behind_policies_that_name_who_and_which_port(
    tier: str, shipped: list[Manifest]
) -> None:
    policies = {policy["metadata"]["name"]: policy["spec"] for policy in of_kind(shipped, "NetworkPolicy")}
    labels = pod(shipped, tier)["metadata"]["labels"]
    ports = {port["name"] for port in container(shipped, tier)["ports"]}
    closed, own = policies["sightline-deny-all"], policies[f"sightline-{tier}"]

    assert closed == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert kubernetes_model.selects(own["podSelector"]["matchLabels"], labels)
    assert own["policyTypes"] == ["Ingress", "Egress"]
    for rule in own["ingress"]:
        assert all(any(source.values()) for source in rule["from"])
        assert {port["port"] for port in rule["ports"]} <= ports - {"health"}
    for rule in own["egress"]:
        assert all(any(target.values()) for target in rule["to"])


def test_agents_alone_may_reach_the_gateways_and_nothing_else_may_be_reached_by_them(
    shipped: list[Manifest],
) -> None:
    policies = {policy["metadata"]["name"]: policy["spec"] for policy in of_kind(shipped, "NetworkPolicy")}
    agents, gateways = (pod(shipped, tier)["metadata"]["labels"] for tier in TIERS)
    (out,) = policies["sightline-agent"]["egress"]
    data = [
        rule
        for rule in policies["sightline-gateway"]["ingress"]
        if {"port": "otlp-grpc", "protocol": "TCP"} in rule["ports"]
    ]

    (target,), ((source,),) = out["to"], [rule["from"] for rule in data]
    assert kubernetes_model.selects(target["podSelector"]["matchLabels"], gateways)
    assert not kubernetes_model.selects(target["podSelector"]["matchLabels"], agents)
    assert kubernetes_model.selects(source["podSelector"]["matchLabels"], agents)
    assert "namespaceSelector" not in target | source


def test_services_select_one_tier_and_ports_that_it_has(shipped: list[Manifest]) -> None:
    services = of_kind(shipped, "Service")

    assert len(services) == 3
    for service in services:
        chosen = [
            tier
            for tier in TIERS
            if kubernetes_model.selects(service["spec"]["selector"], pod(shipped, tier)["metadata"]["labels"])
        ]
        assert len(chosen) == 1
        ports = {port["name"]: port["containerPort"] for port in container(shipped, chosen[0])["ports"]}
        assert all(ports[port["targetPort"]] == port["port"] for port in service["spec"]["ports"])
        assert service["spec"].get("type", "ClusterIP") == "ClusterIP"
    assert named(shipped, "Service", "sightline-agent")["spec"]["internalTrafficPolicy"] == "Local"


@pytest.mark.parametrize(("built", "kind"), [("shipped", "Deployment"), ("durable", "StatefulSet")])
def test_scaling_and_disruption_budget_are_the_gateways(
    built: str, kind: str, request: pytest.FixtureRequest
) -> None:
    manifests: list[Manifest] = request.getfixturevalue(built)
    gateways = workload(manifests, "gateway")
    (scaling,) = of_kind(manifests, "HorizontalPodAutoscaler")
    (budget,) = of_kind(manifests, "PodDisruptionBudget")

    assert gateways["kind"] == kind
    assert scaling["spec"]["scaleTargetRef"] == {
        "apiVersion": gateways["apiVersion"],
        "kind": kind,
        "name": gateways["metadata"]["name"],
    }
    assert "replicas" not in gateways["spec"]
    assert scaling["spec"]["minReplicas"] > budget["spec"]["maxUnavailable"]
    selector = budget["spec"]["selector"]["matchLabels"]
    assert kubernetes_model.selects(selector, gateways["spec"]["template"]["metadata"]["labels"])
    assert not kubernetes_model.selects(selector, pod(manifests, "agent")["metadata"]["labels"])


def test_durable_gateway_has_a_volume_in_place_of_the_folder_that_goes_with_the_pod(
    durable: list[Manifest],
) -> None:
    gateways = workload(durable, "gateway")
    (claim,) = gateways["spec"]["volumeClaimTemplates"]
    headless = named(durable, "Service", gateways["spec"]["serviceName"])

    assert claim["metadata"]["name"] in {m["name"] for m in container(durable, "gateway")["volumeMounts"]}
    assert claim["metadata"]["name"] not in {
        v["name"] for v in gateways["spec"]["template"]["spec"]["volumes"]
    }
    assert headless["spec"]["clusterIP"] == "None"
    assert "strategy" not in gateways["spec"]


def test_secrets_and_addresses_are_required_and_none_is_shipped(shipped: list[Manifest]) -> None:
    assert not of_kind(shipped, "Secret")
    assert not [m for m in of_kind(shipped, "ConfigMap") if "backends" in m["metadata"]["name"]]
    (addresses,) = container(shipped, "gateway")["envFrom"]
    assert addresses == {"configMapRef": {"name": "sightline-backends", "optional": False}}
    for tier in TIERS:
        (secrets,) = [v["projected"] for v in pod(shipped, tier)["spec"]["volumes"] if "projected" in v]
        assert len(secrets["sources"]) == 2
        for source in secrets["sources"]:
            assert source["secret"]["items"]
            assert "optional" not in source["secret"]


@pytest.mark.parametrize("tier", TIERS)
def test_every_file_that_a_variable_names_is_one_of_the_required_keys(
    tier: str, shipped: list[Manifest]
) -> None:
    (secrets,) = [v["projected"] for v in pod(shipped, tier)["spec"]["volumes"] if "projected" in v]
    keys = {item["path"] for source in secrets["sources"] for item in source["secret"]["items"]}
    named_files = {
        entry["value"] for entry in container(shipped, tier)["env"] if entry["name"].endswith("_FILE")
    }

    assert named_files == {f"/etc/sightline/secrets/{key}" for key in keys}
    for entry in container(shipped, tier)["env"]:
        secret = re.search("TOKEN|PASSWORD|SECRET|KEY", entry["name"])
        assert not secret or entry["name"].endswith("_FILE")


def test_no_manifest_mentions_latest_or_a_port_of_the_node() -> None:
    for file in [CONFIG / "kustomization.yaml", *(CONFIG / "kubernetes").rglob("*.yaml")]:
        text = file.read_text()
        assert not re.search(r":latest|hostPort|hostNetwork|NodePort|LoadBalancer|privileged", text), file
        assert list(yaml.safe_load_all(text)), file
