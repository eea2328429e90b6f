"""Runs other people's suites in the conformance environment and reads their outcomes."""

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

FOLDER: Final = Path(__file__).parent
PLUGINS: Final = FOLDER / "plugins"
EXCEPTIONS_FILE: Final = FOLDER / "exceptions.yaml"
OPT_IN_VARIABLE: Final = "OTEL_SEMCONV_STABILITY_OPT_IN"
TIMEOUT_SECONDS: Final = 560

Outcomes = dict[str, dict[str, str]]
"""Test ID to `outcome` (`passed`, `failed`, `skipped`) and `why`."""

MOST_EXCUSED: Final = 2
"""Tests that may fail in one run with ours and pass in the other, of some thousands."""

Run = Callable[..., Outcomes]
"""Takes the name of a run and tests, and runs them."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What one of OpenTelemetry's suites says.

    Attributes:
        suite: Name of its distribution.
        unset: Outcomes with each test's own choice of conventions.
        duplicated: Outcomes with `http/dup` in every test.
        vain: Tests that pass against a class that does nothing, too.
    """

    suite: str
    unset: Outcomes
    duplicated: Outcomes
    vain: frozenset[str]

    @property
    def judging(self) -> frozenset[str]:
        """The tests that prove something when they pass."""
        ran = {test for test, result in self.unset.items() if result["outcome"] != "skipped"}
        return frozenset(ran - self.vain)

    @property
    def passing(self) -> frozenset[str]:
        """Those that pass in one of the two runs."""
        return self.judging & (passed(self.unset) | passed(self.duplicated))

    @property
    def failing(self) -> frozenset[str]:
        """Those that pass in neither."""
        return self.judging - self.passing

    @property
    def ratio(self) -> float:
        """The part that passes, 0 to 1."""
        return len(self.passing) / len(self.judging)

    def __str__(self) -> str:
        """Returns the line for the log of the continuous integration."""
        unset, duplicated = passed(self.unset) & self.judging, passed(self.duplicated) & self.judging
        return (
            f"{self.suite}: {len(self.vain)} tests prove nothing; of the other {len(self.judging)}, "
            f"{len(unset)} pass with the opt-in unset, {len(duplicated)} with http/dup, "
            f"{len(self.passing)} in one of them: {self.ratio:.0%}"
        )


def passed(outcomes: Outcomes) -> frozenset[str]:
    """Returns the tests that passed."""
    return frozenset(test for test, result in outcomes.items() if result["outcome"] == "passed")


def failed(outcomes: Outcomes) -> frozenset[str]:
    """Returns the tests that failed."""
    return frozenset(test for test, result in outcomes.items() if result["outcome"] == "failed")


def broken_tests(ours: Run, without: Run, *everything: str) -> tuple[Outcomes, list[str], list[str]]:
    """Finds the tests that fail because of ours.

    Args:
        ours: Runs tests with ours; the first argument names the run.
        without: The same, without.
        everything: What to run at first.

    Returns:
        The outcomes of everything with ours, the tests that failed in it, and those of them that pass without
        and fail with ours a second time: one that compares times fails now and then on a busy machine.
    """
    outcomes = ours("ours", *everything)
    suspects = sorted(failed(outcomes))
    fine_without = sorted(passed(without("without", *suspects))) if suspects else []
    again = failed(ours("again", *fine_without)) if fine_without else frozenset()
    excused = sorted(set(fine_without) - again)
    assert len(excused) <= MOST_EXCUSED, f"these fail with ours after all the others: {excused}"
    return outcomes, suspects, sorted(again)


def run(python: Path, source: Path, report: Path, *arguments: str, **variables: str) -> Outcomes:
    """Runs pytest in an unpacked source distribution, with our plugins within reach.

    Raises:
        AssertionError: When pytest itself could not do its work; the message holds the end of what it said.
    """
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OTEL_", "SIGHTLINE_", "PYTEST_"))
    }
    environment.update(variables, PYTHONPATH=str(PLUGINS), CONFORMANCE_OUTCOMES=str(report))
    finished = subprocess.run(
        [python, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", "-p", "outcomes", *arguments],
        cwd=source,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=TIMEOUT_SECONDS,
    )
    report.with_suffix(".txt").write_text(finished.stdout, encoding="utf-8")
    assert finished.returncode in (0, 1), finished.stdout[-4000:]
    outcomes: Outcomes = json.loads(report.read_text(encoding="utf-8"))
    return outcomes


def judge(python: Path, source: Path, folder: Path, suite: str, *, translated: bool) -> Judgement:
    """Runs one of OpenTelemetry's suites four times: Sightline and nothing, opt-in unset and `http/dup`."""

    def once(candidate: str, opt_in: dict[str, str]) -> Outcomes:
        report = folder / f"{suite}-{candidate}-{len(opt_in)}-{translated:d}.json"
        return run(
            python, source, report, "-p", "substitute", "tests",
            CONFORMANCE_CANDIDATE=candidate, CONFORMANCE_TRANSLATE=f"{translated:d}", **opt_in,
        )  # fmt: skip

    unset: dict[str, str] = {}
    duplicated = {OPT_IN_VARIABLE: "http/dup"}
    return Judgement(
        suite,
        once("sightline", unset),
        once("sightline", duplicated),
        passed(once("nothing", unset)) | passed(once("nothing", duplicated)),
    )


def exceptions(suite: str) -> dict[str, dict[str, str]]:
    """Returns the tests of a suite that may fail: test ID to `category` and `reason`."""
    content = yaml.safe_load(EXCEPTIONS_FILE.read_text(encoding="utf-8"))
    listed: dict[str, dict[str, str]] = {}
    for group in content[suite] or ():
        for test in group["tests"]:
            assert test not in listed, f"{test} is listed twice in {EXCEPTIONS_FILE.name}"
            listed[test] = {"category": group["category"], "reason": group["reason"]}
    return listed


def categories() -> dict[str, str]:
    """Returns the categories of reasons that are allowed, and what each means."""
    allowed: dict[str, str] = yaml.safe_load(EXCEPTIONS_FILE.read_text(encoding="utf-8"))["categories"]
    return allowed
