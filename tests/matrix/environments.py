"""The environments of the matrix: versions of FastAPI, with and without the stock instrumentors.

What an environment holds is locked with hashes in `requirements/matrix-*.txt`. After a change of `FASTAPI`,
`STOCK` or the dependencies in `pyproject.toml`, lock again:

    python tests/matrix/environments.py lock

Environments are cached in `SIGHTLINE_TEST_CACHE`, else in `XDG_CACHE_HOME/sightline/matrix` (by default
`~/.cache/sightline/matrix`); the folder may be deleted at any time. A test session links a cached environment
into a folder of its own and installs the wheel of the tree there, so that sessions of several clones do not
meet.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]

FASTAPI: Final = ("0.115.14", "0.141.1", "0.142.0", "0.142.4", "0.165.0")
"""The oldest and the newest that are supported; the last without telemetry of its own; the first with it,
which exports by default, and that minor version's last patch, which does not."""

STOCK: Final = (
    "opentelemetry-distro==0.66b1",
    "opentelemetry-instrumentation-asgi==0.66b1",
    "opentelemetry-instrumentation-fastapi==0.66b1",
    "opentelemetry-instrumentation-starlette==0.66b1",
)
"""Without an exporter for gRPC, which the stock distribution asks for all the same."""


@dataclass(frozen=True, slots=True)
class Environment:
    """Names one environment.

    Attributes:
        fastapi: Exact version.
        stock: Whether the stock distribution and HTTP server instrumentors are installed as well.
    """

    fastapi: str
    stock: bool

    @property
    def name(self) -> str:
        """The environment's part of file names and test IDs."""
        return f"fastapi-{self.fastapi}{'-stock' if self.stock else ''}"

    @property
    def lock_file(self) -> Path:
        """Where its requirements are locked."""
        return ROOT / "requirements" / f"matrix-{self.name}.txt"

    @property
    def requirements(self) -> tuple[str, ...]:
        """What it holds beside Sightline's own dependencies."""
        return (f"fastapi=={self.fastapi}", "uvicorn", *(STOCK if self.stock else ()))


ENVIRONMENTS: Final = tuple(Environment(version, stock) for version in FASTAPI for stock in (False, True))


def lock(environment: Environment) -> None:
    """Resolves the newest releases that fit and writes the lock file anew."""
    environment.lock_file.unlink(missing_ok=True)
    _uv(
        "pip", "compile", "--quiet", "--universal", "--python-version", "3.11", "--generate-hashes",
        "--custom-compile-command", "python tests/matrix/environments.py lock",
        "--output-file", environment.lock_file.relative_to(ROOT), "pyproject.toml", "-",
        stdin="\n".join(environment.requirements),
    )  # fmt: skip


def build_wheel(folder: Path) -> Path:
    """Builds Sightline's wheel from the tree with the installed build back end."""
    _uv(
        "build", "--quiet", "--wheel", "--no-build-isolation", "--python", sys.executable, "--out-dir", folder
    )
    (wheel,) = folder.glob("sightline-*.whl")
    return wheel


def create(environment: Environment, wheel: Path, folder: Path) -> Path:
    """Makes `folder` the environment with the wheel installed; returns its folder of programs."""
    shutil.copytree(_cached(environment), folder, symlinks=True, copy_function=_link)
    python = folder / "bin" / "python"
    _uv(
        "pip", "install", "--quiet", "--offline", "--no-deps", "--compile-bytecode", "--python", python, wheel
    )
    return python.parent


def disagreements(programs: Path) -> str:
    """Returns what `uv pip check` says about an environment; empty when every requirement is met."""
    checked = subprocess.run(
        [_uv_program(), "pip", "check", "--quiet", "--python", programs / "python"],
        capture_output=True,
        text=True,
        check=False,
    )
    return checked.stdout + checked.stderr


def _cached(environment: Environment) -> Path:
    """Returns the environment without Sightline, created when it is not in the cache."""
    locked = environment.lock_file.read_bytes()
    python = f"{platform.python_version()} {sys.base_prefix}"
    key = hashlib.sha256(locked + python.encode()).hexdigest()[:16]
    cached = _cache() / f"{environment.name}-{key}"
    if cached.exists():
        return cached
    cached.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cached.parent) as temporary:
        made = Path(temporary) / "environment"
        _uv("venv", "--quiet", "--relocatable", "--python", sys.executable, made)
        _uv(
            "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--compile-bytecode",
            "--python", made / "bin" / "python", "--requirement", environment.lock_file,
        )  # fmt: skip
        try:
            made.rename(cached)
        except OSError:
            if not cached.exists():  # otherwise another session was faster
                raise
    return cached


def _cache() -> Path:
    chosen = os.environ.get("SIGHTLINE_TEST_CACHE")
    if chosen:
        return Path(chosen).resolve()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sightline" / "matrix"


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # the cache is on another file system
        shutil.copy2(source, target)


def _uv_program() -> Path:
    return Path(sys.executable).with_name("uv")


def _uv(*arguments: str | Path, stdin: str | None = None) -> None:
    done = subprocess.run(
        [_uv_program(), *arguments], cwd=ROOT, input=stdin, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"uv {' '.join(map(str, arguments[:2]))} failed:\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    if sys.argv[1:] != ["lock"]:
        sys.exit("usage: python tests/matrix/environments.py lock")
    for each in ENVIRONMENTS:
        lock(each)
