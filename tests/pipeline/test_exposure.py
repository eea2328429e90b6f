"""What is shipped listens on loopback or asks who is there; versions are pinned, and no password is known."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from .stack_fixture import CONFIG

SHIPPED = sorted(
    path for path in CONFIG.rglob("*") if path.suffix in {".yaml", ".yml", ".env", ".service", ".sh"}
)
EVERYWHERE = re.compile(r"(?<![\w.])0\.0\.0\.0|\[::\]|(?<=[\s\"'])::(?=[\s\"'])")
SECRET = re.compile(r"(?i)(?:password|passwd|secret|token|api_?key)$")


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(CONFIG)) for path in paths]


class Loader(yaml.SafeLoader):
    """Reads what stands behind a tag of compose or Loki as it is."""


Loader.add_multi_constructor("!", lambda load, _, node: getattr(load, f"construct_{node.id}")(node))


@functools.cache
def documents(path: Path) -> list[Any]:
    return [document for document in yaml.load_all(path.read_text(), Loader) if document]


def settings(value: Any, way: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yields each scalar with the keys that lead to it."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from settings(inner, (*way, str(key)))
    elif isinstance(value, list):
        for position, inner in enumerate(value):
            yield from settings(inner, (*way, str(position)))
    else:
        yield way, value


def collectors() -> list[Path]:
    """Returns the configurations and overlays with receivers of a collector or of Jaeger."""
    return [path for path in SHIPPED if any(receivers(path))]


def receivers(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the protocols of OTLP receivers, by name."""
    if path.suffix not in {".yaml", ".yml"}:
        return
    for document in documents(path):
        found = document.get("receivers") if isinstance(document, dict) else None
        for name, receiver in found.items() if isinstance(found, dict) else ():
            if name.split("/")[0] == "otlp":
                for protocol, given in (receiver.get("protocols") or {}).items():
                    yield f"{name}.{protocol}", given or {}


def listens_everywhere(text: str) -> bool:
    return any(
        EVERYWHERE.search(line.split(" #")[0]) for line in text.splitlines() if line.strip()[:1] != "#"
    )


def test_the_shipped_files_are_found() -> None:
    assert {"otelcol.yaml", "compose.yaml", "versions.env"} <= set(names(SHIPPED))
    assert {"otelcol.yaml", "jaeger.yaml"} <= set(names(collectors()))


@pytest.mark.parametrize("path", collectors(), ids=names(collectors()))
def test_receiver_listens_on_loopback_or_authenticates(path: Path) -> None:
    for name, protocol in receivers(path):
        address = protocol.get("endpoint")
        if address is None:  # an overlay that leaves the address alone
            continue
        default = re.sub(r"\$\{env:\w+:-([^}]*)\}", r"\1", address)
        is_authenticated = bool(protocol.get("auth")) and bool(protocol.get("tls"))
        assert default.startswith(("127.0.0.1:", "localhost:", "[::1]:")) or is_authenticated, (name, address)


@pytest.mark.parametrize("path", collectors(), ids=names(collectors()))
def test_receiver_over_http_takes_no_zstd_and_bounds_a_request(path: Path) -> None:
    for name, protocol in receivers(path):
        if name.endswith(".http") and "endpoint" in protocol:
            assert "zstd" not in protocol.get("compression_algorithms", ["zstd"]), name
            assert protocol["max_request_body_size"] <= 16 * 2**20, name


def test_only_containers_listen_on_every_address() -> None:
    everywhere = {
        str(path.relative_to(CONFIG))
        for path in SHIPPED
        if path.suffix in {".yaml", ".yml", ".service"} and listens_everywhere(path.read_text())
    }

    assert {name for name in everywhere if not name.startswith("kubernetes/")} <= {"compose.yaml"}


def test_compose_publishes_on_loopback_only() -> None:
    for path in (path for path in SHIPPED if path.name.startswith("compose") and path.suffix == ".yaml"):
        for document in documents(path):
            for name, service in document["services"].items():
                assert service.get("network_mode") != "host", name
                for port in service.get("ports", []):
                    published = port["host_ip"] + ":" if isinstance(port, dict) else port
                    assert published.startswith("127.0.0.1:"), (name, port)


def pinned_by_kustomize() -> set[str]:
    """Returns the names of images that a kustomization gives a version."""
    files = [path for path in SHIPPED if path.name == "kustomization.yaml"]
    images = [image for path in files for found in documents(path) for image in found.get("images", [])]
    return {image["name"] for image in images if re.match(r"v?\d", str(image.get("newTag", "")))}


@pytest.mark.parametrize("path", SHIPPED, ids=names(SHIPPED))
def test_every_image_has_a_version(path: Path) -> None:
    if path.suffix not in {".yaml", ".yml"}:
        return
    for document in documents(path):
        for way, value in settings(document):
            if way and way[-1] == "image" and value not in pinned_by_kustomize():
                assert re.search(r":v?\d[\w.-]*(?:@sha256:\w+)?$", value), (way, value)


def test_nothing_is_latest() -> None:
    assert [path for path in SHIPPED if re.search(r":latest\b|newTag: latest", path.read_text())] == []


@pytest.mark.parametrize("path", SHIPPED, ids=names(SHIPPED))
def test_no_secret_is_written_down_and_none_has_a_default(path: Path) -> None:
    if path.suffix not in {".yaml", ".yml"}:
        assert not re.findall(r"(?im)^\w*(?:password|secret|token)\w*=[^$\s]+", path.read_text())
        return
    for document in documents(path):
        for way, value in settings(document):
            if SECRET.search(way[-1] if way else "") and isinstance(value, str) and value:
                assert re.fullmatch(r"\$\{(?:env:|file:)?[\w/.-]+(?::\?[^}]*)?\}", value), (way, value)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("- endpoint: 127.0.0.1:1", "- endpoint: 0.0.0.0:1"),
        ("address: '127.0.0.1'", "address: '::'"),
        ("endpoint: [::1]:1", "endpoint: [::]:1"),
    ],
)
def test_an_address_of_everywhere_is_recognised(right: str, wrong: str) -> None:
    assert not listens_everywhere(right)
    assert listens_everywhere(wrong)
