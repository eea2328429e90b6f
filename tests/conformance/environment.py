"""The environment of the conformance suites, and the sources that hold them.

What the environment holds, and what the sources are, is locked with hashes in
`requirements/conformance*.txt`. After a change of `REQUIREMENTS`, `SOURCES` or the dependencies in
`pyproject.toml`, lock again:

    python tests/conformance/environment.py lock

Both are cached beside the environments of the matrix (`SIGHTLINE_TEST_CACHE`, else
`~/.cache/sightline/matrix`); nothing of them is ever part of this repository.
"""

import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Final

sys.path.append(str(Path(__file__).parents[2]))

from tests.matrix.environments import ROOT, Environment, _cache, _uv, create

LOCK_COMMAND: Final = "python tests/conformance/environment.py lock"
SOURCES_LOCK_FILE: Final = ROOT / "requirements" / "conformance-sources.txt"

FASTAPI: Final = "0.165.0"
FASTAPI_USERS: Final = "15.0.5"
CONTRIB: Final = "0.66b1"
SDK: Final = "1.45.1"

SOURCES: Final = (
    f"fastapi=={FASTAPI}",
    f"fastapi-users=={FASTAPI_USERS}",
    f"opentelemetry-instrumentation-asgi=={CONTRIB}",
    f"opentelemetry-instrumentation-fastapi=={CONTRIB}",
    f"opentelemetry-sdk=={SDK}",
)
"""Source distributions that bring their tests along."""

REQUIREMENTS: Final = (
    *SOURCES,
    f"fastapi[standard]=={FASTAPI}",
    f"fastapi-users[sqlalchemy,oauth,redis]=={FASTAPI_USERS}",
    f"opentelemetry-test-utils=={CONTRIB}",
    # The test requirements of fastapi's pyproject.toml, without its type checkers.
    "a2wsgi",
    "anyio[trio]",
    "coverage",
    "dirty-equals",
    "flask",
    "httpx",
    "httpx2",
    "inline-snapshot",
    "logfire",
    "opentelemetry-exporter-otlp-proto-http",
    "pwdlib[argon2]",
    "pyjwt",
    "pytest",
    "pytest-codspeed",
    "pytest-timeout",
    "pytest-xdist",
    "python-slugify",
    "pyyaml",
    "ruff",
    "sentry-sdk",
    "sqlmodel",
    "strawberry-graphql",
    "typer",
    # Those of fastapi-users.
    "asgi_lifespan",
    "pytest-asyncio",
    "pytest-mock",
    # Those of the OpenTelemetry suites.
    "asgiref",
    "requests",
    # To fetch the sources: pip asks their build back ends for metadata.
    "hatch-regex-commit",
    "hatchling",
    "pdm-backend",
    "pip",
)


class ConformanceEnvironment(Environment):
    """The environment that all suites run in."""

    __slots__ = ()

    @property
    def name(self) -> str:
        """The environment's part of file names."""
        return "conformance"

    @property
    def lock_file(self) -> Path:
        """Where its requirements are locked."""
        return ROOT / "requirements" / "conformance.txt"

    @property
    def requirements(self) -> tuple[str, ...]:
        """What it holds beside Sightline's own dependencies."""
        return REQUIREMENTS


ENVIRONMENT: Final = ConformanceEnvironment(FASTAPI, stock=True)


def lock() -> None:
    """Resolves the newest releases that fit and writes both lock files anew."""
    options = ("--quiet", "--universal", "--python-version", "3.11", "--generate-hashes")
    named = ("--custom-compile-command", LOCK_COMMAND, "--output-file")
    _uv(
        "pip", "compile", *options, *named, ENVIRONMENT.lock_file.relative_to(ROOT), "pyproject.toml", "-",
        stdin="\n".join(REQUIREMENTS),
    )  # fmt: skip
    _uv(
        "pip", "compile", *options, "--no-deps", "--no-annotate",
        *named, SOURCES_LOCK_FILE.relative_to(ROOT), "-",
        stdin="\n".join(SOURCES),
    )  # fmt: skip


def programs(wheel: Path, folder: Path) -> Path:
    """Makes `folder` the environment with the wheel installed; returns its folder of programs."""
    return create(ENVIRONMENT, wheel, folder)


def sources(python: Path) -> dict[str, Path]:
    """Returns the unpacked source distributions by name, fetched when they are not in the cache.

    Args:
        python: The interpreter of the environment; its pip fetches them and checks the hashes.
    """
    key = hashlib.sha256(SOURCES_LOCK_FILE.read_bytes()).hexdigest()[:16]
    cached = _cache() / f"conformance-sources-{key}"
    if not cached.exists():
        cached.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cached.parent) as temporary:
            _fetch(python, Path(temporary) / "archives", Path(temporary) / "sources")
            try:
                (Path(temporary) / "sources").rename(cached)
            except OSError:
                if not cached.exists():  # otherwise another session was faster
                    raise
    return {_distribution(folder): folder for folder in cached.iterdir() if folder.is_dir()}


def _fetch(python: Path, archives: Path, unpacked: Path) -> None:
    subprocess.run(
        [
            python, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
            "--no-build-isolation", "--no-binary", ":all:", "--require-hashes", "--dest", archives,
            "--requirement", SOURCES_LOCK_FILE,
        ],
        check=True,
    )  # fmt: skip
    for archive in sorted(archives.glob("*.tar.gz")):
        with tarfile.open(archive) as content:
            content.extractall(unpacked, filter="data")


def _distribution(folder: Path) -> str:
    return folder.name.rpartition("-")[0].replace("_", "-")


def copy_of(source: Path, folder: Path) -> Path:
    """Copies an unpacked source, so that a suite writes nothing into the cache."""
    shutil.copytree(source, folder)
    return folder


if __name__ == "__main__":
    if sys.argv[1:] != ["lock"]:
        sys.exit(f"usage: {LOCK_COMMAND}")
    lock()
