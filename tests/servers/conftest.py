"""Runs the modes that were selected, two at a time, and hands their results to the tests."""

import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT), str(ROOT / "examples" / "quickstart")]

if TYPE_CHECKING:
    from tests.servers.modes import Mode
    from tests.servers.runs import Run

AT_A_TIME = 2
"""A run waits for telemetry most of its time."""


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of the environment that holds every server and the tree's own wheel."""
    from tests.matrix.environments import build_wheel, create
    from tests.servers.environment import ENVIRONMENT

    folder = tmp_path_factory.mktemp("servers")
    return create(ENVIRONMENT, build_wheel(folder), folder / ENVIRONMENT.name)


@pytest.fixture(scope="session")
def runs(
    request: pytest.FixtureRequest, programs: Path, tmp_path_factory: pytest.TempPathFactory
) -> "Iterator[dict[Mode, Future[Run]]]":
    """One run for each selected mode; every test of a mode looks at the same one."""
    from tests.servers.modes import Mode
    from tests.servers.runs import observe

    calls = (item.callspec.params for item in request.session.items if hasattr(item, "callspec"))
    found = (params.get("mode") for params in calls)
    modes = dict.fromkeys(mode for mode in found if isinstance(mode, Mode))
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        yield {
            mode: pool.submit(observe, mode, programs, tmp_path_factory.mktemp(mode.name)) for mode in modes
        }
        pool.shutdown(cancel_futures=True)


@pytest.fixture
def run(mode: "Mode", runs: "dict[Mode, Future[Run]]") -> "Run":
    return runs[mode].result()
