"""Registers the marker of the slow parts, and makes the environment that they share."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

ROOT = Path(__file__).parents[2]
sys.path += [str(ROOT), str(ROOT / "tests")]

if TYPE_CHECKING:
    from tests.conformance.suites import Judgement


SUITES = ("opentelemetry-instrumentation-asgi", "opentelemetry-instrumentation-fastapi")
FIGURES = pytest.StashKey[list[str]]()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Prints the figures where everybody who reads the log finds them."""
    for line in config.stash.get(FIGURES, []):
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def figures(pytestconfig: pytest.Config) -> list[str]:
    """Lines for the end of the log."""
    return pytestconfig.stash.setdefault(FIGURES, [])


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of the conformance environment, with the wheel of this tree."""
    from tests.conformance.environment import programs
    from tests.matrix.environments import build_wheel

    folder = tmp_path_factory.mktemp("conformance")
    return programs(build_wheel(folder), folder / "environment") / "python"


@pytest.fixture(scope="session")
def sources(python: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The unpacked source distributions, copied: a suite may write into its own folder."""
    from tests.conformance.environment import copy_of
    from tests.conformance.environment import sources as cached

    folder = tmp_path_factory.mktemp("sources")
    return {name: copy_of(source, folder / name) for name, source in cached(python).items()}


@pytest.fixture(scope="session")
def judgements(
    python: Path, sources: dict[str, Path], figures: list[str], tmp_path_factory: pytest.TempPathFactory
) -> "dict[str, Judgement]":
    """What OpenTelemetry's suites say, the documented differences translated; the figures are printed."""
    from tests.conformance.suites import judge

    folder = tmp_path_factory.mktemp("judgements")

    def both(suite: str) -> "tuple[Judgement, Judgement]":
        literal, translated = (
            judge(python, sources[suite], folder, suite, translated=translated)
            for translated in (False, True)
        )
        return literal, translated

    made = {}
    with ThreadPoolExecutor(len(SUITES)) as pool:
        for literal, translated in pool.map(both, SUITES):
            figures += [f"word for word: {literal}", f"translated: {translated}"]
            made[translated.suite] = translated
    return made
