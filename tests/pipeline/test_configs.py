"""Every shipped configuration passes its program's own validation, which is shown to be able to fail."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from .stack_fixture import CONFIG, binary

pytestmark = pytest.mark.stack

# Program that validates, arguments with `{}` for the file, and a change that makes the file wrong.
VALIDATIONS = {
    "otelcol.yaml": ("otelcol", ["validate", "--config={}"], ("memory_limiter]", "memory_limitre]")),
    "jaeger.yaml": ("jaeger", ["validate", "--config={}"], ("max_traces", "most_traces")),
    "prometheus.yaml": (
        "promtool",
        ["check", "config", "{}"],
        ("UnderscoreEscapingWithSuffixes", "SomethingElse"),
    ),
    "loki.yaml": (
        "loki",
        ["-verify-config", "-config.expand-env=true", "-config.file={}"],
        ("ignore_defaults", "ignore"),
    ),
    "alertmanager.yaml": ("amtool", ["check-config", "{}"], ("receiver: nobody", "receiver: none")),
}


def validate(name: str, folder: Path) -> subprocess.CompletedProcess[str]:
    program, arguments, _ = VALIDATIONS[name]
    command = [binary(program), *(argument.format(folder / name) for argument in arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def copies(tmp_path: Path) -> Path:
    """The configuration files and targets in a folder where a test may change them."""
    for name in VALIDATIONS:
        shutil.copy(CONFIG / name, tmp_path)
    shutil.copytree(CONFIG / "targets", tmp_path / "targets")
    shutil.copytree(CONFIG / "rules", tmp_path / "rules")
    return tmp_path


@pytest.mark.parametrize("name", VALIDATIONS)
def test_shipped_file_is_valid(name: str, copies: Path) -> None:
    result = validate(name, copies)

    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("name", VALIDATIONS)
def test_validation_refuses_a_broken_file(name: str, copies: Path) -> None:
    right, wrong = VALIDATIONS[name][2]
    text = (copies / name).read_text()
    assert right in text
    (copies / name).write_text(text.replace(right, wrong))

    assert validate(name, copies).returncode != 0


def test_prometheus_configuration_is_valid_with_the_targets_of_compose(copies: Path) -> None:
    shutil.rmtree(copies / "targets")
    shutil.copytree(CONFIG / "targets-compose", copies / "targets")

    assert validate("prometheus.yaml", copies).returncode == 0


def test_compose_scrapes_the_same_jobs_as_the_native_stack() -> None:
    native, compose = (
        yaml.safe_load((CONFIG / folder / "pipeline.yaml").read_text())
        for folder in ("targets", "targets-compose")
    )

    assert [group["labels"] for group in native] == [group["labels"] for group in compose]


def test_memory_limiter_is_first_and_batch_processor_absent_in_every_pipeline() -> None:
    pipelines = yaml.safe_load((CONFIG / "otelcol.yaml").read_text())["service"]["pipelines"]

    assert set(pipelines) == {"traces", "metrics", "logs"}
    for pipeline in pipelines.values():
        assert pipeline["processors"][0] == "memory_limiter"
        assert not [name for name in pipeline["processors"] if name.startswith("batch")]


def test_every_exporter_has_a_bounded_queue_on_disk_that_batches_within_a_second() -> None:
    collector = yaml.safe_load((CONFIG / "otelcol.yaml").read_text())

    for exporter in collector["exporters"].values():
        queue = exporter["sending_queue"]
        assert queue["storage"] == "file_storage"
        assert queue["queue_size"] > 0
        assert queue["batch"]["flush_timeout"] == "200ms"


def test_batches_may_be_larger_than_the_largest_request() -> None:
    collector = yaml.safe_load((CONFIG / "otelcol.yaml").read_text())
    protocols = collector["receivers"]["otlp"]["protocols"]
    largest_request = protocols["http"]["max_request_body_size"]

    assert largest_request == protocols["grpc"]["max_recv_msg_size_mib"] * 2**20
    for exporter in collector["exporters"].values():  # a batch drops an item that is larger than itself
        assert exporter["sending_queue"]["batch"]["sizer"] == "bytes"
        assert exporter["sending_queue"]["batch"]["max_size"] > largest_request


def test_loki_indexes_three_resource_attributes_and_no_more() -> None:
    limits = yaml.safe_load((CONFIG / "loki.yaml").read_text())["limits_config"]

    resource_attributes = limits["otlp_config"]["resource_attributes"]
    assert resource_attributes["ignore_defaults"] is True
    assert resource_attributes["attributes_config"] == [
        {
            "action": "index_label",
            "attributes": ["service.name", "service.namespace", "deployment.environment.name"],
        }
    ]
    assert "log_attributes" not in limits["otlp_config"]


def test_no_file_listens_beyond_loopback_by_default() -> None:
    for name in VALIDATIONS:
        assert "0.0.0.0" not in (CONFIG / name).read_text(), name
        assert "[::]" not in (CONFIG / name).read_text(), name


def test_grafana_links_lead_to_data_sources_that_exist() -> None:
    text = (CONFIG / "grafana/provisioning/datasources/sightline.yaml").read_text()
    sources = yaml.safe_load(text)["datasources"]
    uids = {source["uid"] for source in sources}

    named = {
        line.partition("datasourceUid:")[2].strip() for line in text.splitlines() if "datasourceUid:" in line
    }
    assert len(uids) == len(sources)
    assert named <= uids
