"""The ways in which the servers are started, and what is particular to each."""

from dataclasses import dataclass
from typing import Final

ACCESS_LOGGERS: Final = frozenset({"uvicorn.access", "hypercorn.access", "granian.access"})
"""gunicorn's uvicorn workers write uvicorn's records."""


@dataclass(frozen=True, slots=True)
class Mode:
    """One way of starting one server.

    Attributes:
        name: The mode's part of test IDs.
        command: Program and arguments; `{port}` stands for the port.
        workers: Processes that answer requests.
        parent_logger: The logger of a process that only watches the workers; None where there is no such
            process, or it logs nothing.
        parent_record: What it alone logs.
        loads_in_parent: Whether the watching process imports the application.
        renewal: How a worker is replaced in the run: `kill` (the server starts another one), `edit` (of the
            application's file); None where the server does neither.
        drops_handshake_headers: Whether the server ignores the headers of `websocket.accept`.
    """

    name: str
    command: tuple[str, ...]
    workers: int = 2
    parent_logger: str | None = None
    parent_record: str = ""
    loads_in_parent: bool = False
    renewal: str | None = None
    drops_handshake_headers: bool = False

    def __str__(self) -> str:
        return self.name


_UVICORN: Final = ("uvicorn", "app:app", "--host", "127.0.0.1", "--port", "{port}", "--no-use-colors")
_GUNICORN: Final = (
    "gunicorn", "app:app", "--bind", "127.0.0.1:{port}", "--worker-class", "uvicorn_worker.UvicornWorker",
    "--workers", "2", "--access-logfile", "-", "--no-control-socket",
)  # fmt: skip
_HYPERCORN: Final = (
    "hypercorn", "app:app", "--bind", "127.0.0.1:{port}", "--workers", "2",
    "--access-logfile", "-", "--error-logfile", "-",
)  # fmt: skip
_GRANIAN: Final = (
    "granian", "app:app", "--interface", "asgi", "--host", "127.0.0.1", "--port", "{port}", "--workers", "2",
    "--access-log", "--respawn-failed-workers",
)  # fmt: skip

PRELOAD: Final = Mode(
    "gunicorn-preload",
    (*_GUNICORN, "--preload"),
    parent_logger="gunicorn.error",
    parent_record="Listening at",
    loads_in_parent=True,
    renewal="kill",
)

MODES: Final = (
    Mode("uvicorn", _UVICORN, workers=1),
    Mode(
        "uvicorn-workers",
        (*_UVICORN, "--workers", "2"),
        parent_logger="uvicorn.error",
        parent_record="Started parent process",
        renewal="kill",
    ),
    Mode(
        "uvicorn-reload",
        (*_UVICORN, "--reload"),
        workers=1,
        parent_logger="uvicorn.error",
        parent_record="Started reloader process",
        renewal="edit",
    ),
    Mode("gunicorn", _GUNICORN, parent_logger="gunicorn.error", parent_record="Listening at", renewal="kill"),
    PRELOAD,
    # A killed worker ends the whole server.
    Mode("hypercorn", _HYPERCORN),
    Mode(
        "granian",
        _GRANIAN,
        parent_logger="_granian",
        parent_record="Starting granian",
        renewal="kill",
        drops_handshake_headers=True,
    ),
)
