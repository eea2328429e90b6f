"""The page on retention names what is in the files; its edits, made as written, are valid and take effect."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from .otlp_payloads import Json
from .stack_fixture import CONFIG, ROOT, binary

PAGE = (ROOT / "docs/how-to/change-retention.md").read_text()
EDITS = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
BADGER = "extensions.jaeger_storage.backends.traces.badger.ttl.spans"

# File, key and value as shipped, value after the page's edits.
KEYS = (
    ("prometheus.yaml", "storage.tsdb.retention.time", "15d", "30d"),
    ("prometheus.yaml", "storage.tsdb.retention.size", "5GB", "20GB"),
    ("loki.yaml", "limits_config.retention_period", "7d", "14d"),
    ("loki.yaml", "limits_config.reject_old_samples_max_age", "7d", "14d"),
    (
        "jaeger.yaml",
        BADGER,
        "${env:PIPELINE_JAEGER_RETENTION:-168h}",
        "${env:PIPELINE_JAEGER_RETENTION:-336h}",
    ),
)


def value(path: Path, key: str) -> Any:
    """Returns what a dotted key of a YAML file has."""
    found = yaml.safe_load(path.read_text())
    for part in key.split("."):
        found = found[part]
    return found


@pytest.fixture
def edited(tmp_path: Path) -> Path:
    """The configuration in a folder where the page's edits have been made, as a person does."""
    shutil.copytree(CONFIG, tmp_path / "collector-config", ignore=shutil.ignore_patterns("native", "grafana"))
    for edit in EDITS:
        subprocess.run(["/bin/sh", "-e", "-c", edit], cwd=tmp_path, check=True)
    return tmp_path / "collector-config"


def test_page_names_keys_and_shipped_values() -> None:
    table = PAGE.partition("## Metrics")[0]

    for file, key, shipped, _ in KEYS[:3] + KEYS[4:]:
        plain = re.sub(r"^\$\{env:\w+:-(.*)\}$", r"\1", shipped)
        assert value(CONFIG / file, key) == shipped
        assert f"`{file}`" in table
        assert f"`{key}`" in table or f"`.{key.rpartition('.')[2]}`" in table
        assert f"`{plain}`" in table
    assert value(CONFIG / "jaeger-memory.yaml", BADGER.rpartition("badger")[0] + "memory.max_traces") == 10000
    assert "`10000`" in table


def test_edits_of_the_page_change_what_it_says(edited: Path) -> None:
    assert len(EDITS) == 4
    assert [value(edited / file, key) for file, key, _, _ in KEYS] == [after for _, _, _, after in KEYS]
    exceptions = value(edited / "loki.yaml", "limits_config.retention_stream")
    assert [exception["period"] for exception in exceptions] == ["60d", "24h"]


@pytest.mark.stack
@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        ("promtool", ["check", "config", "prometheus.yaml"]),
        ("loki", ["-verify-config", "-config.expand-env=true", "-config.file=loki.yaml"]),
        ("jaeger", ["validate", "--config=jaeger.yaml"]),
    ],
    ids=lambda item: item if isinstance(item, str) else "",
)
def test_edited_files_are_valid(edited: Path, program: str, arguments: list[str]) -> None:
    result = subprocess.run(
        [binary(program), *arguments], cwd=edited, capture_output=True, text=True, timeout=60, check=False
    )

    assert result.returncode == 0, result.stdout + result.stderr


def test_policy_for_opensearch_deletes_the_indices_of_the_overlay_at_the_age_that_is_searched() -> None:
    overlay = yaml.safe_load((CONFIG / "overlays/jaeger-opensearch.yaml").read_text())
    backend: Json = overlay["extensions"]["jaeger_storage"]["backends"]["traces"]["opensearch"]
    (text,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    policy = json.loads(text)["policy"]

    (pattern,) = policy["ism_template"][0]["index_patterns"]
    (transition,) = policy["states"][0]["transitions"]
    assert pattern.startswith(backend["indices"]["index_prefix"] + "-jaeger-")
    days = int(transition["conditions"]["min_index_age"].removesuffix("d"))
    assert backend["max_span_age"] == f"{days * 24}h"
