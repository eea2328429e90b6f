"""OpenTelemetry's own tests on our spans: the SDK's, and those of its ASGI and FastAPI classes.

A test that fails with the tracers made fast is run again without; where it passes then, our spans are not
what the SDK's are, and the test stands with its reason in `exceptions.yaml` or is a defect.
"""

import os
from pathlib import Path

import pytest
from tests.conformance.suites import Outcomes, broken_tests, categories, exceptions, passed, run

pytestmark = [pytest.mark.conformance, pytest.mark.timeout(120)]

SDK = "opentelemetry-sdk"
PARTS = {
    SDK: "tests/trace",
    "opentelemetry-instrumentation-asgi": "tests",
    "opentelemetry-instrumentation-fastapi": "tests",
}
LEAST_TESTS = {
    SDK: 270,
    "opentelemetry-instrumentation-asgi": 90,
    "opentelemetry-instrumentation-fastapi": 100,
}
LEAST_SPANS = {
    SDK: 70,
    "opentelemetry-instrumentation-asgi": 300,
    "opentelemetry-instrumentation-fastapi": 300,
}
"""Spans of ours that a suite must have seen, or the run proves nothing."""


@pytest.mark.parametrize("suite", PARTS)
def test_no_test_fails_that_passes_with_the_spans_of_the_sdk(
    suite: str, python: Path, sources: dict[str, Path], figures: list[str], tmp_path: Path
) -> None:
    source = sources[suite]
    found = {"PATH": os.pathsep.join((str(python.parent), os.environ["PATH"]))}  # a test starts "python"

    def fast_run(name: str, *tests: str) -> Outcomes:
        return run(python, source, tmp_path / f"{name}.json", "-p", "fast_tracers", *tests, **found)

    def plain_run(name: str, *tests: str) -> Outcomes:
        return run(python, source, tmp_path / f"{name}.json", *tests, **found)

    fast, suspects, broken = broken_tests(fast_run, plain_run, PARTS[suite])
    made = int((tmp_path / "ours.spans").read_text(encoding="utf-8"))
    figures.append(
        f"{suite}: {len(passed(fast))} tests of the stock classes pass with fast tracers ({made} spans); "
        f"{len(suspects)} fail, {len(broken)} of them pass without"
    )
    assert len(passed(fast)) >= LEAST_TESTS[suite]
    assert made >= LEAST_SPANS[suite]
    accepted = exceptions(SDK) if suite == SDK else {}
    unexplained = [test for test in broken if test not in accepted]
    assert not unexplained, "\n".join(f"{test}: {fast[test]['why'][:500]}" for test in unexplained)
    assert not accepted.keys() - set(broken), "these reasons are stale"
    assert all(reason["category"] in categories() for reason in accepted.values())
