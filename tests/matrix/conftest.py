"""Runs the cases that were selected, a few at a time, and hands their results to the tests."""

import os
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path += [str(ROOT), str(ROOT / "examples" / "quickstart")]

if TYPE_CHECKING:
    from tests.matrix.environments import Environment
    from tests.matrix.runs import Case, Run

WORKERS = 2 * (os.cpu_count() or 1)
"""A run waits for telemetry half of its time."""


def _selected(request: pytest.FixtureRequest, parameter: str) -> list[Any]:
    """Returns the distinct values of a parameter among the tests of this folder that will run, in order."""
    calls = (
        item.callspec.params
        for item in request.session.items
        if hasattr(item, "callspec") and item.path.is_relative_to(HERE)
    )
    return list(dict.fromkeys(params[parameter] for params in calls if parameter in params))


@pytest.fixture(scope="session")
def pool() -> Iterator[ThreadPoolExecutor]:
    executor = ThreadPoolExecutor(WORKERS)
    yield executor
    executor.shutdown(cancel_futures=True)


@pytest.fixture(scope="session")
def programs(
    request: pytest.FixtureRequest, pool: ThreadPoolExecutor, tmp_path_factory: pytest.TempPathFactory
) -> "dict[Environment, Future[Path]]":
    """The folder of programs of each environment that a selected test needs."""
    from tests.matrix.environments import build_wheel, create

    folder = tmp_path_factory.mktemp("matrix")
    wheel = build_wheel(folder)
    wanted = [case.environment for case in _selected(request, "case")] + _selected(request, "environment")
    return {
        environment: pool.submit(create, environment, wheel, folder / environment.name)
        for environment in dict.fromkeys(wanted)
    }


@pytest.fixture(scope="session")
def runs(
    request: pytest.FixtureRequest,
    pool: ThreadPoolExecutor,
    programs: "dict[Environment, Future[Path]]",
    tmp_path_factory: pytest.TempPathFactory,
) -> "dict[Case, Future[Run]]":
    """One run for each selected case; every test of a case looks at the same one."""
    from tests.matrix.runs import observe

    def start(case: "Case") -> "Run":
        # Environments were submitted first, so that this never waits for a task behind it.
        return observe(case, programs[case.environment].result(), tmp_path_factory.mktemp("run"))

    return {case: pool.submit(start, case) for case in _selected(request, "case")}


@pytest.fixture
def run(case: "Case", runs: "dict[Case, Future[Run]]") -> "Run":
    return runs[case].result()


@pytest.fixture
def installed(environment: "Environment", programs: "dict[Environment, Future[Path]]") -> Path:
    """The folder of programs of one environment."""
    return programs[environment].result()
