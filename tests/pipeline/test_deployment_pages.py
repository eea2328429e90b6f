"""What the pages on deployment tell to write and to run is valid, and does what they say."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]  # carries no types
import pytest
import recipes
import yaml

from . import compose_model, kubernetes_model
from .kubernetes_model import Manifest, copy_configuration, of_kind
from .stack_fixture import CONFIG, NATIVE, ROOT, binary, eventually

HOW_TO = ROOT / "docs/how-to"
PAGES = ["deploy-with-docker", "deploy-natively", "deploy-on-kubernetes", "upgrade-the-collector"]


def page(name: str) -> str:
    return (HOW_TO / f"{name}.md").read_text()


def block(name: str, language: str, beginning: str) -> str:
    """Returns the one fenced block of a page that has a line with this beginning, without its indent."""
    fences = re.findall(rf"^( *)```{language}\n(.*?)^ *```", page(name), re.MULTILINE | re.DOTALL)
    blocks = [re.sub(rf"^{indent}", "", body, flags=re.MULTILINE) for indent, body in fences]
    (found,) = [body for body in blocks if re.search(f"^{re.escape(beginning)}", body, re.MULTILINE)]
    return found


def commands(name: str, first: str, last: str) -> str:
    """Returns the indented lines of a page from the one that begins so to the one that begins so."""
    lines = [line.strip() for line in page(name).splitlines() if line.startswith("    ")]
    start = next(number for number, line in enumerate(lines) if line.startswith(first))
    end = next(number for number, line in enumerate(lines) if number >= start and line.startswith(last))
    return "\n".join(lines[start : end + 1])


@pytest.mark.parametrize("name", PAGES)
def test_page_has_a_diagram_and_names_only_files_that_exist(name: str) -> None:
    named = re.findall(r"(?:collector-config|tests)/[\w./-]+\w", page(name))
    tests = re.findall(r"`(test_\w+\.py)`", page(name))

    assert "```mermaid\n" in page(name)
    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []
    assert [test for test in tests if not (ROOT / "tests/pipeline" / test).exists()] == []


@pytest.mark.stack
def test_compose_takes_the_overlay_of_the_page(tmp_path: Path) -> None:
    overlay = tmp_path / "my-pipeline.yaml"
    overlay.write_text(block("deploy-with-docker", "yaml", "# my-pipeline.yaml"))
    command = [binary("compose"), "--format", "json", str(CONFIG / "compose.yaml"), str(overlay)]

    result = subprocess.run(command, cwd=CONFIG, capture_output=True, text=True, env={}, check=True)

    services = json.loads(result.stdout)["services"]
    assert services["collector"]["cpus"] == 2
    assert services["collector"]["mem_limit"] == "512m"
    assert services["prometheus"]["environment"] == ["GOMEMLIMIT=3400MiB"]


@pytest.mark.stack
def test_collector_asks_other_machines_for_a_token_with_the_overlay_of_the_page(tmp_path: Path) -> None:
    overlay = tmp_path / "others.yaml"
    overlay.write_text(block("deploy-with-docker", "yaml", "# others.yaml"))
    command = [binary("compose"), "--format", "json", str(CONFIG / "compose.yaml"), str(overlay)]
    refused = subprocess.run(command, cwd=CONFIG, capture_output=True, text=True, env={}, check=False)
    # The reader, unlike Docker Compose, knows no variables of its caller.
    overlay.write_text(re.sub(r"\$\{SIGHTLINE_SECRETS:[^}]+\}", str(tmp_path), overlay.read_text()))
    result = subprocess.run(command, cwd=CONFIG, capture_output=True, text=True, env={}, check=True)

    assert "the folder with tls.crt, tls.key, token" in refused.stderr
    collector = json.loads(result.stdout)["services"]["collector"]
    (tmp_path / "root").mkdir()
    collector["volumes"] = [mount for mount in collector["volumes"] if mount["source"] != str(tmp_path)]
    arguments = compose_model.lay_out(collector, tmp_path / "root")
    variables = dict(entry.split("=", 1) for entry in collector["environment"])
    merged = kubernetes_model.merged_configuration(
        arguments, variables | {"PIPELINE_COLLECTOR_QUEUES": f"{tmp_path}"}
    )
    open_to = {port["host_ip"]: port["target"] for port in collector["ports"]}
    assert open_to == {"10.0.0.5": 4318, "127.0.0.1": 13133}
    for protocol in merged["receivers"]["otlp"]["protocols"].values():
        assert protocol["tls"]["key_file"] == "/etc/otelcol/secrets/tls.key"
        assert protocol["auth"]["authenticator"] in merged["service"]["extensions"]


@pytest.mark.stack
def test_install_commands_put_programs_configuration_and_units_in_place(tmp_path: Path) -> None:
    script = commands("deploy-natively", "sudo install -d", "sudo install -m 0644")
    assert script.count("backends.py path") == 1
    places = {"/opt/sightline": f"{tmp_path}/opt", "/etc/systemd/system": f"{tmp_path}/units"}
    (tmp_path / "units").mkdir()
    for place, instead in places.items():
        script = script.replace(place, instead)
    # Half a gigabyte of programs: linked instead of copied.
    script = script.replace("sudo ", "").replace("install -m 0755", "ln -s")

    subprocess.run(["sh", "-e", "-c", script], cwd=ROOT, timeout=60, check=True)

    units = {path.name for path in (CONFIG / "systemd").iterdir()}
    assert {path.name for path in (tmp_path / "units").iterdir()} == units
    for unit in (tmp_path / "units").glob("*.service"):
        for path in re.findall(r"/opt/sightline(/[\w./-]+)", unit.read_text()):
            assert (tmp_path / "opt" / path.lstrip("/")).exists(), path


@pytest.mark.stack
def test_collector_takes_the_drop_in_for_back_ends_elsewhere(tmp_path: Path) -> None:
    directives = block("deploy-natively", "ini", "[Service]").splitlines()
    given = [line.partition("=")[2] for line in directives if line.startswith("Environment=")]
    command = next(line.partition("=")[2] for line in directives if line.startswith("ExecStart=/")).split()
    arguments = [argument.replace("/opt/sightline/collector-config", str(CONFIG)) for argument in command[1:]]
    variables = dict(entry.split("=", 1) for entry in given) | {"PIPELINE_COLLECTOR_QUEUES": str(tmp_path)}

    merged = kubernetes_model.merged_configuration(arguments, variables)

    assert set(merged["service"]["extensions"]) == set(merged["extensions"])
    for exporter in merged["exporters"].values():
        assert exporter["tls"]["ca_file"] == "/etc/sightline/backends-ca.crt"
        assert exporter["tls"].get("insecure", False) is False
        assert exporter["auth"]["authenticator"] == "bearertokenauth/backends"
    assert merged["extensions"]["bearertokenauth/backends"]["filename"] == "%d/backends-token"


@pytest.fixture(scope="module", params=["Deployment", "StatefulSet"])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Manifest]:
    """What the page's commands and overlay build, with the gateways' queues of either kind."""
    folder = tmp_path_factory.mktemp("cluster")
    copy_configuration(folder)
    script = commands("deploy-on-kubernetes", "mkdir my-cluster", "sh collector-config/kubernetes/make-cred")
    subprocess.run(["sh", "-e", "-c", script], cwd=folder, timeout=20, check=True)
    for name in ("backends-token", "backends-ca.crt"):
        (folder / "my-cluster/credentials" / name).write_text("theirs\n")
    overlay = block("deploy-on-kubernetes", "yaml", "# my-cluster/kustomization.yaml")
    if request.param == "StatefulSet":
        overlay = re.sub(r"components: \[\] # ([^,]+),.*", r"components: [\1]", overlay)
    (folder / "my-cluster/kustomization.yaml").write_text(overlay)
    manifests = kubernetes_model.build(folder / "my-cluster")
    assert kubernetes_model.workload(manifests, "gateway")["kind"] == request.param
    return manifests


@pytest.mark.stack
def test_cluster_of_the_page_is_valid_and_has_every_secret_and_address(cluster: list[Manifest]) -> None:
    version = recipes.read_versions()["KUBERNETES_NEWEST_VERSION"]
    for manifest in cluster:
        kubernetes_validate.validate(manifest, version, strict=True)
    secrets = {secret["metadata"]["name"]: set(secret["data"]) for secret in of_kind(cluster, "Secret")}
    maps = {each["metadata"]["name"]: each["data"] for each in of_kind(cluster, "ConfigMap")}

    for tier in kubernetes_model.WORKLOADS:
        (volume,) = [v for v in kubernetes_model.pod(cluster, tier)["spec"]["volumes"] if "projected" in v]
        for source in volume["projected"]["sources"]:
            required = {item["key"] for item in source["secret"]["items"]}
            assert required == secrets.pop(source["secret"]["name"])
    assert secrets == {}
    (addresses,) = kubernetes_model.container(cluster, "gateway")["envFrom"]
    assert set(maps[addresses["configMapRef"]["name"]]) == set(kubernetes_model.BACKENDS)


@pytest.mark.stack
def test_labels_of_the_page_are_those_that_the_policies_ask_for(cluster: list[Manifest]) -> None:
    told = set(
        re.findall(r"kubectl label namespace .* (sightline/[\w-]+)=true", page("deploy-on-kubernetes"))
    )
    asked = set(re.findall(r"sightline/[\w-]+", yaml.safe_dump(of_kind(cluster, "NetworkPolicy"))))

    assert told == asked


@pytest.mark.stack
def test_scrape_configuration_of_the_page_is_valid(tmp_path: Path) -> None:
    # The natively built promtool has no discovery but by file, so the pods are a list here.
    shipped = yaml.safe_load(block("deploy-on-kubernetes", "yaml", "scrape_configs:"))
    (job,) = shipped["scrape_configs"]
    assert job.pop("kubernetes_sd_configs") == [{"role": "pod", "namespaces": {"names": ["sightline"]}}]
    job["static_configs"] = [{"targets": ["127.0.0.1:8888"]}]
    (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump(shipped))

    subprocess.run([binary("promtool"), "check", "config", tmp_path / "prometheus.yaml"], check=True)


def queries() -> list[Any]:
    found = [(name, query) for name in PAGES for query in re.findall(r"'query=([^']+)'", page(name))]
    return [pytest.param(query, id=f"{name}-{number}") for number, (name, query) in enumerate(found)]


@pytest.mark.stack
@pytest.mark.parametrize("query", queries())
def test_query_that_verifies_has_an_answer(query: str, stack: dict[str, str]) -> None:
    url = f"{stack['prometheus']}/api/v1/query?" + urllib.parse.urlencode({"query": query})

    def answer() -> Any:
        with urllib.request.urlopen(url) as response:
            return json.load(response)["data"]["result"]

    assert eventually(answer, 40)  # after the first scrape
    if "up" in query:
        assert {result["value"][1] for result in answer()} == {"1"}


def test_upgrade_page_names_every_file_that_repeats_the_version() -> None:
    version = recipes.read_versions()["OTELCOL_VERSION"]
    repeated = {
        str(path.relative_to(ROOT))
        for path in CONFIG.rglob("*")
        if path.suffix in {".yaml", ".env"} and re.search(rf"\b{re.escape(version)}\b", path.read_text())
    }

    assert {path for path in repeated if path not in page("upgrade-the-collector")} == set()
    assert len(repeated) >= 4


def test_deprecations_are_looked_for_where_the_log_is() -> None:
    assert "grep -i deprecat .stack/logs/otelcol.log" in page("upgrade-the-collector")
    assert (NATIVE / "stack.py").read_text().count('".stack"') == 1
