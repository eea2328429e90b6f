"""The limits of `otelcol.yaml` keep the collector small: without them, the same attacks break it."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import lifecycle
import pytest
import stack_programs
import yaml

from . import attacks
from .attack_cases import LARGEST_BODY, from_attacker
from .attacked_stack import CONTAINER_LIMIT_BYTES, PROTOBUF, peak_bytes
from .stack_fixture import CONFIG, binary, eventually

pytestmark = pytest.mark.stack

# Twice what the body limit lets in, and what the shipped decoders refuse.
ATTACKS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "gzip bomb": ("gzip", lambda: attacks.gzip_bomb(400)),
    "deep span": ("", lambda: deep_request(900_000)),
    "zstd window": ("zstd", lambda: attacks.zstd_frame(1000, 29)),
}
UNLIMITED = {"max_request_body_size": 2**30, "compression_algorithms": ["", "gzip", "zstd"]}


def deep_request(levels: int) -> bytes:
    deep = attacks.nested_value(levels)
    return from_attacker(attacks.span(attacks.span_attribute("deep", deep)))


@contextlib.contextmanager
def collector(folder: Path, **http_settings: object) -> Iterator[tuple[str, int]]:
    """Runs a collector without back ends, its HTTP receiver changed; yields its URL and process."""
    settings = yaml.safe_load((CONFIG / "otelcol.yaml").read_text())
    settings["receivers"]["otlp"]["protocols"]["http"] |= http_settings
    changed = folder / "otelcol.yaml"
    changed.write_text(yaml.safe_dump(settings))
    layout = stack_programs.Layout(folder, lifecycle.free_offset())
    program = next(found for found in stack_programs.programs(layout) if found.name == "otelcol")
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(
            [binary("otelcol"), "--config", changed],
            env=os.environ | program.variables,
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            assert eventually(lambda: lifecycle.is_ready(program), 20), (folder / "log").read_text()
            yield layout.url("otlp_http"), process.pid
        finally:
            process.kill()


def attack(name: str, url: str, pid: int, times: int) -> int:
    """Attacks so many times, or until memory is beyond the limit; returns its peak."""
    encoding, body = ATTACKS[name]
    headers = PROTOBUF | ({"Content-Encoding": encoding} if encoding else {})
    content = body()
    for _ in range(times):
        with contextlib.suppress(httpx.HTTPError):
            httpx.post(f"{url}/v1/traces", content=content, headers=headers, timeout=2)
        if peak_bytes(pid) > CONTAINER_LIMIT_BYTES:
            break
    return peak_bytes(pid)


@pytest.mark.parametrize("name", ATTACKS)
def test_shipped_limits_keep_the_collector_in_its_memory_limit(name: str, tmp_path: Path) -> None:
    with collector(tmp_path) as (url, pid):
        assert attack(name, url, pid, 25) < CONTAINER_LIMIT_BYTES / 2


def test_deepest_value_that_is_let_in_fits_into_the_memory_limit(tmp_path: Path) -> None:
    largest = deep_request(460_000)
    assert LARGEST_BODY * 0.95 < len(largest) < LARGEST_BODY

    with collector(tmp_path) as (url, pid):
        with contextlib.suppress(httpx.HTTPError):  # an answer that takes longer than 15 s is not given
            httpx.post(f"{url}/v1/traces", content=largest, headers=PROTOBUF, timeout=60)

        assert peak_bytes(pid) < CONTAINER_LIMIT_BYTES
        small = deep_request(10)
        assert httpx.post(f"{url}/v1/traces", content=small, headers=PROTOBUF, timeout=20).status_code == 200


@pytest.mark.parametrize("name", ATTACKS)
def test_without_the_limits_the_same_attack_breaks_it(name: str, tmp_path: Path) -> None:
    with collector(tmp_path, **UNLIMITED) as (url, pid):
        # The window of a decoder is resident only once its memory is used again: any time may be it.
        assert attack(name, url, pid, 250) > CONTAINER_LIMIT_BYTES
