"""Every shipped configuration passes its program's own validation, which is shown to be able to fail."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from .stack_fixture import CONFIG, binary

pytestmark = pytest.mark.stack

# Program that validates, arguments with `{}` for the file, and a change that makes the file wrong.
VALIDATIONS = {
    "otelcol.yaml": ("otelcol", ["validate", "--config={}"], ("redaction/values]", "redaction/value]")),
    "jaeger.yaml": ("jaeger", ["validate", "--config={}"], ("ephemeral", "transient")),
    "jaeger-memory.yaml": ("jaeger", ["validate", "--config={}"], ("max_traces", "most_traces")),
    "overlays/jaeger-opensearch.yaml": (
        "jaeger",
        ["validate", "--config={}"],
        ("max_span_age", "most_span_age"),
    ),
    "overlays/jaeger-clickhouse.yaml": ("jaeger", ["validate", "--config={}"], ("addresses", "places")),
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
    "overlays/loki-object-storage.yaml": (
        "loki",
        ["-verify-config", "-config.expand-env=true", "-config.file={}"],
        ("s3forcepathstyle", "s3path"),
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
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(CONFIG / name, tmp_path / name)
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


def test_prometheus_configuration_with_remote_write_is_valid_and_a_broken_one_is_not(copies: Path) -> None:
    overlay = (CONFIG / "overlays/prometheus-remote-write.yaml").read_text()
    shipped = (copies / "prometheus.yaml").read_text()

    (copies / "prometheus.yaml").write_text(shipped + overlay)
    assert validate("prometheus.yaml", copies).returncode == 0
    (copies / "prometheus.yaml").write_text(shipped + overlay.replace("queue_config", "queue"))
    assert validate("prometheus.yaml", copies).returncode != 0


def read(name: str) -> Any:
    return yaml.safe_load((CONFIG / name).read_text())


@pytest.mark.parametrize(
    "name", ["jaeger-memory.yaml", "overlays/jaeger-opensearch.yaml", "overlays/jaeger-clickhouse.yaml"]
)
def test_variant_of_jaeger_differs_in_its_backend_alone(name: str) -> None:
    shipped, variant = read("jaeger.yaml"), read(name)

    backends = [file["extensions"]["jaeger_storage"]["backends"].pop("traces") for file in (shipped, variant)]
    assert list(backends[0]) == ["badger"]
    assert len(backends[1]) == 1
    assert list(backends[1]) != ["badger"]
    assert variant == shipped


def test_jaeger_asks_for_the_series_that_the_collector_makes_of_spans() -> None:
    spans = read("otelcol.yaml")["connectors"]["span_metrics"]
    asked = read("jaeger.yaml")["extensions"]["jaeger_storage"]["metric_backends"]["span_metrics"][
        "prometheus"
    ]

    assert asked["metric_namespace"] == spans["namespace"].replace(".", "_")
    assert asked["latency_unit"] == spans["histogram"]["unit"]
    assert asked["normalize_calls"] is asked["normalize_duration"] is True
    assert read("prometheus.yaml")["otlp"]["translation_strategy"] == "UnderscoreEscapingWithSuffixes"


def test_distributed_loki_takes_and_keeps_the_same_logs() -> None:
    one, many = read("loki.yaml"), read("overlays/loki-object-storage.yaml")
    of_many = {"shard_streams", "ingestion_rate_mb"}

    limits = [
        {key: value for key, value in file["limits_config"].items() if key not in of_many}
        for file in (one, many)
    ]
    assert limits[0] == limits[1]
    assert many["ruler"] == one["ruler"] | {"enable_sharding": True}
    assert many["compactor"] == one["compactor"] | {"delete_request_store": "s3"}
    assert {key: many[key] for key in ("tracing", "analytics")} == {
        key: one[key] for key in ("tracing", "analytics")
    }


def test_loki_and_jaeger_keep_what_they_store_for_the_same_week() -> None:
    badger = read("jaeger.yaml")["extensions"]["jaeger_storage"]["backends"]["traces"]["badger"]

    assert read("loki.yaml")["limits_config"]["retention_period"] == "7d"
    assert f":-{7 * 24}h}}" in badger["ttl"]["spans"]
    assert badger["ephemeral"] is False


def test_memory_limiter_is_first_and_batch_processor_absent_in_every_pipeline() -> None:
    pipelines = yaml.safe_load((CONFIG / "otelcol.yaml").read_text())["service"]["pipelines"]

    assert set(pipelines) == {"traces", "metrics", "metrics/of_spans", "logs"}
    for pipeline in pipelines.values():
        assert pipeline["processors"][0] == "memory_limiter"
        assert not [name for name in pipeline["processors"] if name.startswith("batch")]


def test_every_exporter_has_a_bounded_queue_on_disk_and_never_gives_up() -> None:
    collector = yaml.safe_load((CONFIG / "otelcol.yaml").read_text())

    for exporter in collector["exporters"].values():
        queue = exporter["sending_queue"]
        assert queue["storage"] == "file_storage"
        assert queue["sizer"] == "bytes"
        assert queue["queue_size"] > 0
        assert exporter["retry_on_failure"]["max_elapsed_time"] == "0s"


def test_no_request_is_merged_with_those_of_other_clients() -> None:
    collector = yaml.safe_load((CONFIG / "otelcol.yaml").read_text())

    assert not [name for name, each in collector["exporters"].items() if "batch" in each["sending_queue"]]


def test_both_ports_take_requests_of_the_same_size() -> None:
    protocols = yaml.safe_load((CONFIG / "otelcol.yaml").read_text())["receivers"]["otlp"]["protocols"]

    assert protocols["http"]["max_request_body_size"] == protocols["grpc"]["max_recv_msg_size_mib"] * 2**20


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
