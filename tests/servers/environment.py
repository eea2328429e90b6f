"""The environment of the servers: every ASGI server that Sightline is tested with, and their worker classes.

What it holds is locked with hashes in `requirements/servers.txt`, at the versions of `requirements/dev.txt`
where both hold a package. After a change of `SERVERS` or the dependencies in `pyproject.toml`, lock again:

    python tests/servers/environment.py lock

It is built, cached and given Sightline's wheel as the environments of the matrix are
(`tests/matrix/environments.py`).
"""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

from tests.matrix.environments import Environment  # noqa: E402

SERVERS: Final = ("uvicorn[standard]", "gunicorn", "uvicorn-worker", "hypercorn", "granian")
"""`uvicorn-worker` holds gunicorn's worker classes; the module `uvicorn.workers` is deprecated."""


@dataclass(frozen=True, slots=True)
class ServersEnvironment(Environment):
    """Names the environment that holds all servers."""

    @property
    def name(self) -> str:
        """The environment's part of file names."""
        return "servers"

    @property
    def lock_file(self) -> Path:
        """Where its requirements are locked."""
        return ROOT / "requirements" / "servers.txt"

    @property
    def requirements(self) -> tuple[str, ...]:
        """What it holds beside Sightline's own dependencies."""
        return (f"fastapi=={self.fastapi}", *SERVERS)


ENVIRONMENT: Final = ServersEnvironment("0.165.0", stock=False)


def lock() -> None:
    """Resolves the newest releases that fit `requirements/dev.txt` and writes the lock file anew."""
    ENVIRONMENT.lock_file.unlink(missing_ok=True)
    subprocess.run(
        [
            Path(sys.executable).with_name("uv"), "pip", "compile", "--quiet", "--universal",
            "--python-version", "3.11", "--generate-hashes", "--constraint", "requirements/dev.txt",
            "--custom-compile-command", "python tests/servers/environment.py lock",
            "--output-file", ENVIRONMENT.lock_file.relative_to(ROOT), "pyproject.toml", "-",
        ],
        cwd=ROOT,
        input="\n".join(ENVIRONMENT.requirements),
        text=True,
        check=True,
    )  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1:] != ["lock"]:
        sys.exit("usage: python tests/servers/environment.py lock")
    lock()
