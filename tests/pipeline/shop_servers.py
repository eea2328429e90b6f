"""What the shop runs on: its environment, databases, and servers under `opentelemetry-instrument uvicorn`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shop_process import end

from .ports import free_port
from .stack_fixture import ROOT

if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

from tests.libraries import databases
from tests.listening import listens

APPS: Final = Path(__file__).parent / "shop"
START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 10.0
FOREIGN: Final = ("OTEL_", "SIGHTLINE_", "FASTAPI_", "PYTHON", "UVICORN_", "VIRTUAL_ENV", "PG")


class PostgreSQL:
    """A cluster that can be stopped, and started again where it was."""

    def __init__(self, folder: Path, user: str | None) -> None:
        self.port = free_port()
        self._folder, self._user = folder, user
        self._running = ExitStack()
        data = folder / "data"
        subprocess.run(
            [databases.program("initdb"), "--no-sync", "--auth=trust", "--username=shop", "--pgdata", data],
            check=True, capture_output=True, cwd=folder, user=user, env=databases._environment(),
        )  # fmt: skip

    def start(self) -> None:
        """Starts it, and returns when it listens."""
        command: list[str | Path] = [
            databases.program("postgres"), "-D", self._folder / "data", "-p", str(self.port),
            "-h", "127.0.0.1", "-k", self._folder, "-c", "fsync=off",
        ]  # fmt: skip
        self._running.enter_context(databases._running(command, self._folder, self.port, self._user))

    def stop(self) -> None:
        """Stops it: connections break, and further ones are refused."""
        for pid in (self._folder / "data" / "postmaster.pid").read_text().split()[:1]:
            os.kill(int(pid), 2)  # SIGINT: fast shutdown, which does not wait for clients
        self._running.close()


@contextmanager
def postgresql() -> Iterator[PostgreSQL]:
    """Runs a cluster until the block ends."""
    user = databases._user()
    with databases._folder(user) as folder:
        cluster = PostgreSQL(folder, user)
        cluster.start()
        try:
            yield cluster
        finally:
            cluster._running.close()


def redis() -> AbstractContextManager[int]:
    """Runs a server until the block ends; gives its port."""
    return databases.redis()


@dataclass(frozen=True)
class Server:
    """A server that has been started."""

    url: str
    port: int
    process: subprocess.Popen[bytes]
    log: Path

    def wait(self) -> str:
        """Returns its URL when it listens."""
        assert listens(self.process, self.port, START_SECONDS), self.log.read_text(errors="replace")
        return self.url

    def stop(self) -> None:
        """Ends it, if it still runs."""
        end(self.process, STOP_SECONDS)


@dataclass(frozen=True)
class Setting:
    """What servers share: programs, a folder for their output, and variables of all of them."""

    programs: Path
    folder: Path
    variables: Mapping[str, str]

    def start(self, app: str, service: str, **variables: str) -> Server:
        """Starts an application of `shop/`; who calls this stops it."""
        port, log = free_port(), self.folder / f"{service}-{len(list(self.folder.iterdir()))}.log"
        command: list[str | Path] = [
            self.programs / "opentelemetry-instrument", "uvicorn", f"{app}:app", "--host", "127.0.0.1",
            "--port", str(port), "--workers", "1", "--no-access-log",
        ]  # fmt: skip
        kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
        own = {
            "PATH": f"{self.programs}{os.pathsep}{kept.get('PATH', '')}",
            "NO_PROXY": "127.0.0.1",
            "OTEL_SERVICE_NAME": service,
        }
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=APPS,
                env={**kept, **own, **self.variables, **variables},
                stdout=output,
                stderr=output,
            )
        return Server(f"http://127.0.0.1:{port}", port, process, log)
