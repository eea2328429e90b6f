"""The environments of the benchmark: one virtual environment for each instrumentation.

What an environment holds is asked for in `requirements/bench-*.in` and locked with hashes in
`requirements/bench-*.txt`, at the versions of `requirements/dev.txt` where both hold a package: FastAPI,
Starlette, uvicorn and OpenTelemetry are the same everywhere. After a change of an `.in` file or of the
dependencies in `pyproject.toml`, lock again:

    python -m benchmarks.environments lock

They are created and cached as the environments of `tests/matrix` are: in `SIGHTLINE_TEST_CACHE`, else in
`~/.cache/sightline/matrix`. Several processes may create the same one at once.
"""

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.matrix.environments import ROOT, Environment, _cached, _uv, build_wheel, create

SIGHTLINE: Final = "sightline"
"""The only environment that gets the tree's wheel."""

REQUIREMENTS: Final = ROOT / "requirements"


@dataclass(frozen=True, slots=True)
class BenchEnvironment(Environment):
    """Names one environment.

    Attributes:
        instrumentation: The part of its file names after `bench-`.
    """

    instrumentation: str

    @property
    def name(self) -> str:
        """The environment's part of file names."""
        return f"bench-{self.instrumentation}"

    @property
    def lock_file(self) -> Path:
        """Where its requirements are locked."""
        return REQUIREMENTS / f"{self.name}.txt"

    @property
    def requirements_file(self) -> Path:
        """What is asked for."""
        return REQUIREMENTS / f"{self.name}.in"

    @property
    def pins(self) -> dict[str, str]:
        """The locked version of each package."""
        return dict(re.findall(r"^([a-z0-9._-]+)==([^ ]+)", self.lock_file.read_text(), re.MULTILINE))


ENVIRONMENTS: Final = {
    name: BenchEnvironment("0.165.0", stock=False, instrumentation=name)
    for name in (
        "bare",
        SIGHTLINE,
        "correlation-id",
        "prometheus",
        "native",
        "contrib",
        "ddtrace",
        "elastic-apm",
        "newrelic",
        "sentry",
        "logfire",
    )
}


def lock(environment: BenchEnvironment) -> None:
    """Resolves the newest releases that fit `requirements/dev.txt` and writes the lock file anew."""
    environment.lock_file.unlink(missing_ok=True)
    project = ("pyproject.toml",) if environment.instrumentation == SIGHTLINE else ()
    _uv(
        "pip", "compile", "--quiet", "--universal", "--python-version", "3.11", "--generate-hashes",
        "--constraint", "requirements/dev.txt",
        "--custom-compile-command", "python -m benchmarks.environments lock",
        "--output-file", environment.lock_file.relative_to(ROOT),
        *project, environment.requirements_file.relative_to(ROOT),
    )  # fmt: skip


def programs(name: str, folder: Path) -> Path:
    """Returns an environment's folder of programs, created where it is missing.

    Args:
        name: A key of `ENVIRONMENTS`.
        folder: Where Sightline's environment is linked to, so that the wheel of the tree can be installed in
            it; the others are used where they are cached.
    """
    environment = ENVIRONMENTS[name]
    if name == SIGHTLINE:
        folder.mkdir(parents=True, exist_ok=True)
        return create(environment, build_wheel(folder), folder / environment.name)
    return _cached(environment) / "bin"


if __name__ == "__main__":
    if sys.argv[1:] != ["lock"]:
        sys.exit("usage: python -m benchmarks.environments lock")
    for each in ENVIRONMENTS.values():
        lock(each)
