"""Starts what these tests share: databases, the called service, the environment and the application."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

ROOT = Path(__file__).parents[2]
sys.path += [str(ROOT), str(ROOT / "examples" / "quickstart")]

if TYPE_CHECKING:
    from tests.libraries.service import Downstream, Service


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of the environment, with the wheel of this tree."""
    from tests.libraries.environment import create

    return create(tmp_path_factory.mktemp("libraries"))


@pytest.fixture(scope="session")
def databases() -> Iterator[dict[str, str]]:
    """Variables that tell the application where PostgreSQL and Redis listen."""
    from tests.libraries.databases import postgresql, redis

    with postgresql() as postgresql_port, redis() as redis_port:
        yield {"POSTGRESQL_PORT": str(postgresql_port), "REDIS_PORT": str(redis_port)}


@pytest.fixture(scope="session")
def called() -> "Iterator[Downstream]":
    """The service that the application calls."""
    from tests.libraries.service import downstream

    with downstream() as service:
        yield service


@pytest.fixture(scope="session")
def started(
    programs: Path, databases: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> "Iterator[Callable[..., Service]]":
    """Starts the application with the given variables; it runs until the session ends."""
    from tests.libraries.service import serving

    with ExitStack() as running:

        def start(**variables: str) -> "Service":
            folder = tmp_path_factory.mktemp("shop")
            return running.enter_context(serving(programs, folder, {**databases, **variables}))

        yield start


@pytest.fixture(scope="session")
def shop(started: "Callable[..., Service]") -> "Service":
    """The application, which carries its correlation ID to 127.0.0.1 and nowhere else."""
    return started(SIGHTLINE_CORRELATION_PROPAGATE="127.0.0.1")


@pytest.fixture(scope="session")
def unsampled(started: "Callable[..., Service]") -> "Service":
    """The same with every trace unsampled."""
    return started(SIGHTLINE_CORRELATION_PROPAGATE="127.0.0.1", OTEL_TRACES_SAMPLER="always_off")


@pytest.fixture(scope="session")
def one_layer(started: "Callable[..., Service]") -> "Service":
    """With spans of SQLAlchemy and none of its drivers, in stable conventions; carries no ID anywhere."""
    return started(
        OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="asyncpg,psycopg",
        OTEL_SEMCONV_STABILITY_OPT_IN="http,database",
    )
