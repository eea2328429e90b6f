"""A pytest plugin that writes the outcome of every test to the file named by `CONFORMANCE_OUTCOMES`.

Loaded with `-p outcomes` into other people's suites, in the conformance environment.
"""

import json
import os
from pathlib import Path

import pytest

_SEVERITY = {"skipped": 0, "passed": 1, "failed": 2}

_outcomes: dict[str, dict[str, str]] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keeps the worst outcome of a test's phases and subtests; a failure in tear-down is a failure."""
    if report.when != "call" and report.passed:
        return
    known = _outcomes.get(report.nodeid)
    outcome = "skipped" if hasattr(report, "wasxfail") and not report.failed else report.outcome
    if known is None or _SEVERITY[outcome] > _SEVERITY[known["outcome"]]:
        _outcomes[report.nodeid] = {"outcome": outcome, "why": _why(report)}


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Writes the outcomes, in the controller where the suite is distributed."""
    if not hasattr(session.config, "workerinput"):
        Path(os.environ["CONFORMANCE_OUTCOMES"]).write_text(json.dumps(_outcomes), encoding="utf-8")


def _why(report: pytest.TestReport) -> str:
    """Returns the last line of a failure, without the place where it happened."""
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(crash.message if crash is not None else report.longrepr or "")[:2000]
