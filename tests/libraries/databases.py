"""PostgreSQL and Redis on free loopback ports, for as long as the tests run."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from shop_process import end, free_port
from tests.listening import listens

CURE: Final = "install them with: apt-get install -y --no-install-recommends postgresql redis-server"
START_TIMEOUT_SECONDS: Final = 60.0
STOP_TIMEOUT_SECONDS: Final = 10.0
UNPRIVILEGED: Final = "postgres"
"""Who runs PostgreSQL where the tests run as root, which it refuses to run as."""


def program(name: str) -> Path:
    """Returns where a server's program is: on the path, or where Debian keeps PostgreSQL's.

    Raises:
        AssertionError: When it is not installed; these tests fail then, they are never skipped.
    """
    found = shutil.which(name)
    debian = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    assert found or debian, f"{name} is not installed; {CURE}"
    return Path(found) if found else debian[-1]


@contextmanager
def postgresql() -> Iterator[int]:
    """Runs a cluster with the superuser `shop` and no password; gives its port."""
    initdb, postgres = program("initdb"), program("postgres")
    user = _user()
    port = free_port()
    with _folder(user) as folder:
        data = folder / "data"
        subprocess.run(
            [initdb, "--no-sync", "--auth=trust", "--username=shop", "--encoding=UTF8", "--pgdata", data],
            check=True, capture_output=True, cwd=folder, user=user, env=_environment(),
        )  # fmt: skip
        command: list[str | Path] = [
            postgres, "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", folder, "-c", "fsync=off",
        ]  # fmt: skip
        with _running(command, folder, port, user):
            yield port


@contextmanager
def redis() -> Iterator[int]:
    """Runs a server that keeps everything in memory; gives its port."""
    server, port = program("redis-server"), free_port()
    with _folder(None) as folder:
        command: list[str | Path] = [
            server, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder,
        ]  # fmt: skip
        with _running(command, folder, port, None):
            yield port


def _user() -> str | None:
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    assert UNPRIVILEGED in names, f"PostgreSQL needs the user {UNPRIVILEGED} when root runs the tests; {CURE}"
    return UNPRIVILEGED


def _environment() -> dict[str, str]:
    """Without what would direct PostgreSQL elsewhere."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return {**kept, "LC_ALL": "C.UTF-8"}


@contextmanager
def _folder(user: str | None) -> Iterator[Path]:
    """Makes a folder that its user owns; a socket's path has to be short."""
    with tempfile.TemporaryDirectory(prefix="sl-", ignore_cleanup_errors=True) as name:
        if user is not None:
            shutil.chown(name, user)
        yield Path(name)


@contextmanager
def _running(command: Sequence[str | Path], folder: Path, port: int, user: str | None) -> Iterator[None]:
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, user=user, stdout=output, stderr=subprocess.STDOUT, env=_environment()
        )
    try:
        _wait_until_up(process, port, log)
        yield
    finally:
        end(process, STOP_TIMEOUT_SECONDS)


def _wait_until_up(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    if not listens(process, port, START_TIMEOUT_SECONDS):
        raise AssertionError(f"the server did not start:\n{log.read_text(errors='replace')}")
