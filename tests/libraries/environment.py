"""The environment of the clients: the extra `contrib` with the newest clients that its instrumentors accept.

Locked with hashes in `requirements/libraries.txt`. After a change of `CLIENTS` or of the dependencies in
`pyproject.toml`, lock again:

    python tests/libraries/environment.py

It is cached where those of `tests/matrix` are.
"""

import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

from tests.matrix import environments  # noqa: E402

LOCK_FILE: Final = ROOT / "requirements" / "libraries.txt"

CLIENTS: Final = (
    "fastapi==0.165.0",
    "uvicorn>=0.30",
    "aiohttp>=3.10,<4",
    "asyncpg>=0.30",
    "httpx>=0.28,<1",
    "loguru>=0.7,<1",
    "psycopg[binary]>=3.2,<4",
    "redis>=5",
    "sqlalchemy[asyncio]>=2.0,<2.1",  # the stock instrumentor of 0.66b1 leaves 2.1 alone
    "structlog>=24",
    "websockets>=13",
)
"""What an application installs beside Sightline."""


class LibrariesEnvironment:
    """Has the attributes by which `tests.matrix.environments` creates an environment."""

    name = "libraries"
    lock_file = LOCK_FILE


def lock() -> None:
    """Resolves the newest releases that fit and writes the lock file anew."""
    LOCK_FILE.unlink(missing_ok=True)
    environments._uv(
        "pip", "compile", "--quiet", "--universal", "--python-version", "3.11", "--generate-hashes",
        "--extra", "contrib", "--custom-compile-command", "python tests/libraries/environment.py",
        "--output-file", LOCK_FILE.relative_to(ROOT), "pyproject.toml", "-",
        stdin="\n".join(CLIENTS),
    )  # fmt: skip


def create(folder: Path) -> Path:
    """Makes the environment in a subfolder, with Sightline's wheel; returns its folder of programs."""
    wheel = environments.build_wheel(folder)
    described: environments.Environment = LibrariesEnvironment()  # type: ignore[assignment]
    return environments.create(described, wheel, folder / "environment")


if __name__ == "__main__":
    lock()
