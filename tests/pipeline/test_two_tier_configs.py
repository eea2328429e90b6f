"""Agent, gateway and overlays validate in every combination shipped, and keep what otelcol.yaml has."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from .stack_fixture import CONFIG, binary

pytestmark = pytest.mark.stack

KAFKA = {"PIPELINE_KAFKA_USER": "user", "PIPELINE_KAFKA_PASSWORD": "from-a-secret"}
TOKEN = {"PIPELINE_GATEWAY_TOKEN_FILE": "token"}
CERTIFICATE = {"PIPELINE_GATEWAY_CERT_FILE": "server.pem", "PIPELINE_GATEWAY_KEY_FILE": "server.key"}
NAME = {"PIPELINE_GATEWAYS_NAME": "gateways.example"}

# Program, files in the order of `--config`, variables without a default.
COMBINATIONS: list[tuple[str, list[str], dict[str, str]]] = [
    ("otelcol", ["agent.yaml"], {}),
    ("otelcol", ["agent.yaml", "overlays/fixed-gateways.yaml"], {}),
    ("otelcol", ["agent.yaml", "overlays/dns-gateways.yaml"], NAME),
    ("otelcol", ["agent.yaml", "overlays/secured-agent.yaml"], TOKEN),
    ("otelcol", ["agent.yaml", "overlays/dns-gateways.yaml", "overlays/secured-agent.yaml"], TOKEN | NAME),
    (
        "otelcol",
        ["agent.yaml", "overlays/fixed-gateways.yaml", "overlays/secured-fixed-gateways.yaml"],
        TOKEN,
    ),
    ("otelcol", ["agent.yaml", "overlays/kafka-agent.yaml"], KAFKA),
    ("otelcol", ["gateway.yaml"], {}),
    ("otelcol", ["gateway.yaml", "overlays/secured-gateway.yaml"], TOKEN | CERTIFICATE),
    ("otelcol", ["gateway.yaml", "overlays/kafka-gateway.yaml"], KAFKA),
    (
        "otelcol",
        ["gateway.yaml", "overlays/secured-gateway.yaml", "overlays/kafka-gateway.yaml"],
        TOKEN | CERTIFICATE | KAFKA,
    ),
    ("jaeger", ["jaeger.yaml", "overlays/kafka-jaeger.yaml"], KAFKA),
    ("jaeger", ["overlays/jaeger-opensearch.yaml", "overlays/kafka-jaeger.yaml"], KAFKA),
    ("jaeger", ["overlays/kafka-bridge.yaml"], KAFKA),
]
NAMES = ["+".join(Path(file).stem for file in files) for _, files, _ in COMBINATIONS]


def load(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((CONFIG / name).read_text())
    return found


def validate(folder: Path, program: str, files: list[str], variables: dict[str, str]) -> tuple[int, str]:
    """Runs the program's own validation with no variable of the caller's but PATH."""
    command = [binary(program), "validate", *(f"--config={file}" for file in files)]
    environment = {"PATH": os.environ["PATH"], "PIPELINE_OPENSEARCH_PASSWORD_FILE": "token"} | variables
    result = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    return result.returncode, result.stdout + result.stderr


@pytest.fixture
def copies(tmp_path: Path) -> Path:
    """The configuration files in a folder where a test may change them."""
    for file in {file for _, files, _ in COMBINATIONS for file in files}:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        shutil.copy(CONFIG / file, tmp_path / file)
    (tmp_path / "token").write_text("from-a-secret\n")
    return tmp_path


@pytest.mark.parametrize(("program", "files", "variables"), COMBINATIONS, ids=NAMES)
def test_combination_is_valid_and_a_broken_one_is_not(
    program: str, files: list[str], variables: dict[str, str], copies: Path
) -> None:
    code, output = validate(copies, program, files, variables)
    assert code == 0, output

    last = copies / files[-1]
    last.write_text(last.read_text() + "\nexporterz: {}\n")
    code, output = validate(copies, program, files, variables)
    assert code != 0
    assert "exporterz" in output


@pytest.mark.parametrize(
    ("program", "files", "variables"), [each for each in COMBINATIONS if each[2]], ids=lambda each: ""
)
def test_what_has_no_default_is_required(
    program: str, files: list[str], variables: dict[str, str], copies: Path
) -> None:
    for missing in variables:
        rest = {name: value for name, value in variables.items() if name != missing}
        assert validate(copies, program, files, rest)[0] != 0, missing


def test_every_overlay_is_in_a_combination() -> None:
    ours = {
        f"overlays/{file.name}"
        for pattern in ("*agent*", "*gateway*", "kafka-*")
        for file in (CONFIG / "overlays").glob(f"{pattern}.yaml")
    }

    assert ours == {file for _, files, _ in COMBINATIONS for file in files if "jaeger-" not in file} & ours


def test_agent_and_gateway_have_the_blocks_of_one_node() -> None:
    one_node, agent, gateway = load("otelcol.yaml"), load("agent.yaml"), load("gateway.yaml")

    assert agent["receivers"] == one_node["receivers"]
    for tier in (agent, gateway):
        counted, of_one_node = (each["service"]["telemetry"]["metrics"] for each in (tier, one_node))
        assert {**counted, "readers": None} == {**of_one_node, "readers": None}
    assert gateway["connectors"]["span_metrics"] == one_node["connectors"]["span_metrics"]
    graph, of_one_node = gateway["connectors"]["service_graph"], one_node["connectors"]["service_graph"]
    assert {**graph, "store": None} == {**of_one_node, "store": None}
    shared = one_node["processors"].keys() - {"memory_limiter"}
    assert {name: gateway["processors"].get(name) for name in shared} == {
        name: one_node["processors"][name] for name in shared
    }


@pytest.mark.parametrize("name", ["agent.yaml", "gateway.yaml"])
def test_memory_limiter_is_first_in_every_pipeline(name: str) -> None:
    for pipeline in load(name)["service"]["pipelines"].values():
        assert pipeline["processors"][0] == "memory_limiter"


@pytest.mark.parametrize(
    "name", ["agent.yaml", "gateway.yaml", "overlays/kafka-agent.yaml", "overlays/kafka-gateway.yaml"]
)
def test_every_exporter_keeps_on_disk_and_never_gives_up(name: str) -> None:
    for exporter in load(name)["exporters"].values():
        queue = exporter["sending_queue"]
        assert (queue["storage"], queue["sizer"]) == ("file_storage", "bytes")
        assert queue["queue_size"] > 0
        assert exporter["retry_on_failure"]["max_elapsed_time"] == "0s"


def test_each_fixed_gateway_has_a_queue_of_its_own_on_disk() -> None:
    exporters = load("overlays/fixed-gateways.yaml")["exporters"]

    handing_over = exporters["loadbalancing"]["sending_queue"]
    assert (handing_over["storage"], handing_over["wait_for_result"]) == (None, True)
    for name in ("otlp_grpc/gateway_1", "otlp_grpc/gateway_2"):
        assert exporters[name]["sending_queue"]["storage"] == "file_storage"
        assert exporters[name]["retry_on_failure"]["max_elapsed_time"] == "0s"


def test_a_gateway_takes_the_largest_batch_of_an_agent() -> None:
    largest = load("gateway.yaml")["receivers"]["otlp"]["protocols"]["grpc"]["max_recv_msg_size_mib"] * 2**20
    agent = load("agent.yaml")
    taken = agent["receivers"]["otlp"]["protocols"]["http"]["max_request_body_size"]
    balancing = agent["exporters"]["loadbalancing"]
    queues = [balancing["protocol"]["otlp"]]
    queues += [
        value for name, value in load("overlays/fixed-gateways.yaml")["exporters"].items() if "_" in name
    ]

    assert taken < largest
    for exporter in queues:
        assert taken < exporter["sending_queue"]["batch"]["max_size"] < largest


def test_metrics_and_log_records_of_different_clients_are_not_merged() -> None:
    exporters = load("agent.yaml")["exporters"] | load("gateway.yaml")["exporters"]

    for name in ("otlp_grpc/gateway", "otlp_http/prometheus", "otlp_http/loki"):
        assert "batch" not in exporters[name]["sending_queue"]


def test_spans_are_counted_before_they_are_sampled() -> None:
    pipelines = load("gateway.yaml")["service"]["pipelines"]

    assert pipelines["traces/counted"]["exporters"] == ["span_metrics", "service_graph"]
    assert "tail_sampling" not in pipelines["traces/counted"]["processors"]
    assert "tail_sampling" in pipelines["traces/sampled"]["processors"]


def test_only_what_is_redacted_leaves_a_gateway() -> None:
    for name, pipeline in load("gateway.yaml")["service"]["pipelines"].items():
        if pipeline["receivers"] == ["otlp"] and name != "traces/counted":
            assert [each for each in pipeline["processors"] if each.startswith("redaction")] == [
                "redaction/keys",
                "redaction/values",
            ]
