"""The page on scaling names what is shipped and validated, and its figures are what the benchmark prints."""

import re
from pathlib import Path

import pytest
from benchmarks.pipeline_cost import HEADER, Row
from benchmarks.pipeline_files import bytes_per_sample
from benchmarks.pipeline_load import points_per_process, series_per_process
from benchmarks.pipeline_sizing import read_costs, sizing

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "collector-config"
PAGE = (ROOT / "docs/explanation/scaling.md").read_text()
OVERLAYS = sorted(set(re.findall(r"overlays/([\w-]+\.yaml)", PAGE)))
VALIDATING = (
    "test_two_tier_configs.py",
    "test_configs.py",
    "test_collector_profile.py",
    "test_kubernetes.py",  # names what test_kubernetes_collectors.py validates
)

# What the issue asks for at each seam; more may be named.
SEAMS = {
    "fixed-gateways.yaml",
    "kafka-agent.yaml",
    "kafka-gateway.yaml",
    "kafka-jaeger.yaml",
    "prometheus-remote-write.yaml",
    "loki-object-storage.yaml",
    "jaeger-opensearch.yaml",
    "jaeger-clickhouse.yaml",
}


def test_the_page_names_the_overlay_of_every_seam():
    assert SEAMS - set(OVERLAYS) == set()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_overlay_of_the_page_is_shipped_and_validated(overlay):
    tests = "".join((ROOT / "tests/pipeline" / name).read_text() for name in VALIDATING)

    assert (CONFIG / "overlays" / overlay).exists()
    assert re.search(rf'"(overlays/)?{re.escape(overlay)}"', tests)


def test_every_other_configuration_of_the_page_is_shipped():
    named = set(re.findall(r"`([\w-]+\.yaml)`", PAGE))

    assert named
    assert {name for name in named if not (CONFIG / name).exists()} == set()


def cost_lines():
    lines = PAGE.partition(f"{HEADER}\n")[2].splitlines()[1:]
    return lines[: lines.index("")]


def test_each_row_of_the_table_of_costs_is_one_that_the_benchmark_prints():
    for line in cost_lines():
        program, item, items, least, median, _, memory, disk = (
            cell.strip() for cell in line.strip("|").split("|")
        )
        costs = [float(least) / 1e6, float(median) / 1e6, float(median) / 1e6]
        row = Row(program, item, float(items.replace(",", "")), costs, float(memory))
        row.disk_bytes = float(disk) if disk else None

        assert row.line() == line


def test_the_sizing_follows_from_the_table_of_costs():
    costs = read_costs(PAGE)

    assert len(costs) == len(cost_lines())
    assert sizing(costs) in PAGE


def test_series_of_a_process_are_counted_as_prometheus_makes_them():
    sets = points_per_process() // 4

    # Of a set: buckets with +Inf, sum, count of the duration (14 bounds) and of two sizes (8); one counter.
    assert series_per_process() == sets * ((14 + 3) + 2 * (8 + 3) + 1)
    assert f"{series_per_process():,} series" in PAGE


def test_size_of_a_sample_is_read_from_complete_chunks(tmp_path):
    def chunk(samples, data_bytes):
        data = samples.to_bytes(2) + bytes(data_bytes - 2)
        return (b"\x01" * 25) + bytes([data_bytes | 0x80, 1]) + data + bytes(128) + b"sums"

    # A length of two bytes: its low seven bits, then one times 128.
    (tmp_path / "000001").write_bytes(bytes(8) + chunk(100, 22) + chunk(50, 22) + bytes(64))

    assert bytes_per_sample(tmp_path) == (150 + 150) / 150


def test_a_folder_without_a_complete_chunk_is_an_error(tmp_path):
    (tmp_path / "000001").write_bytes(bytes(64))

    with pytest.raises(RuntimeError, match="no chunk"):
        bytes_per_sample(tmp_path)


def test_page_draws_a_topology_for_three_stages_or_more():
    assert PAGE.count("```mermaid\nflowchart") >= 3
