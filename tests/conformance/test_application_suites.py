"""FastAPI's own suite and that of an application library, with Sightline switched on for every application.

A test that fails with Sightline is run again without; where it passes then, Sightline broke it. That is the
same claim as running everything twice, at half of the time.
"""

from pathlib import Path

import pytest
from tests.conformance.suites import Outcomes, broken_tests, exceptions, passed, run

pytestmark = [pytest.mark.conformance, pytest.mark.timeout(600)]

OPTIONS = {
    # Its own configuration turns warnings into errors, and pytest-asyncio, which it does not use, warns.
    "fastapi": ("-p", "no:asyncio", "-n", "2"),
    "fastapi-users": (),
}
LEAST_TESTS = {"fastapi": 5000, "fastapi-users": 500}
LEAST_REQUESTS = {"fastapi": 1500, "fastapi-users": 200}
"""Requests that Sightline must have captured, or the run proves nothing."""


@pytest.mark.parametrize("suite", OPTIONS)
def test_no_test_fails_that_passes_without_sightline(
    suite: str, python: Path, sources: dict[str, Path], figures: list[str], tmp_path: Path
) -> None:
    source, options = sources[suite], OPTIONS[suite]

    def with_sightline(name: str, *tests: str) -> Outcomes:
        return run(python, source, tmp_path / f"{name}.json", "-p", "switched_on", *options, *tests)

    def without_it(name: str, *tests: str) -> Outcomes:
        return run(python, source, tmp_path / f"{name}.json", *options, *tests)

    switched_on, suspects, broken = broken_tests(with_sightline, without_it, "tests")
    captured = sum(int(count.read_text()) for count in tmp_path.glob("ours.*.spans"))
    figures.append(
        f"{suite}: {len(passed(switched_on))} tests pass with Sightline switched on ({captured} requests); "
        f"{len(suspects)} fail, {len(broken)} of them pass without it"
    )
    assert len(switched_on) >= LEAST_TESTS[suite]
    assert captured >= LEAST_REQUESTS[suite]
    accepted = exceptions(suite).keys()
    unexplained = [test for test in broken if _function(test) not in accepted]
    assert not unexplained, "\n".join(f"{test}: {switched_on[test]['why'][:500]}" for test in unexplained)
    stale = accepted - {_function(test) for test in broken}
    assert not stale, f"these reasons are stale: {sorted(stale)}"


def _function(test: str) -> str:
    """Returns a test's ID without its parameters."""
    return test.partition("[")[0]
