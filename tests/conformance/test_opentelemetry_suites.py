"""OpenTelemetry's own tests of its ASGI and FastAPI classes, with Sightline in the place of those classes.

`plugins/substitute.py` exchanges the classes, `plugins/translation.py` translates the documented differences,
and a test that passes against a class that does nothing does not count. Each of the others passes, or stands
with its reason in `exceptions.yaml`.
"""

from typing import TYPE_CHECKING

import pytest
from tests.conformance.suites import categories, exceptions

if TYPE_CHECKING:
    from tests.conformance.suites import Judgement

pytestmark = [pytest.mark.conformance, pytest.mark.timeout(600)]

LEAST_RATIO = 0.6
SUITES = ("opentelemetry-instrumentation-asgi", "opentelemetry-instrumentation-fastapi")


@pytest.fixture(params=SUITES)
def judgement(request: pytest.FixtureRequest, judgements: "dict[str, Judgement]") -> "Judgement":
    return judgements[request.param]


def test_most_tests_that_prove_something_pass(judgement):
    assert judgement.ratio >= LEAST_RATIO, str(judgement)


def test_every_failing_test_has_a_written_reason(judgement):
    unexplained = judgement.failing - exceptions(judgement.suite).keys()

    assert not unexplained, "\n".join(
        f"{test}\n    unset: {judgement.unset[test]['why'][:500]}"
        f"\n    http/dup: {judgement.duplicated[test]['why'][:500]}"
        for test in sorted(unexplained)
    )


def test_no_reason_is_stale(judgement):
    stale = exceptions(judgement.suite).keys() - judgement.failing

    assert not stale, f"these pass, prove nothing or are gone: {sorted(stale)}"


def test_every_reason_is_of_a_known_category_and_in_words(judgement):
    for test, exception in exceptions(judgement.suite).items():
        assert exception["category"] in categories(), test
        assert len(exception["reason"].split()) >= 6, test


def test_no_reason_is_the_stable_conventions(judgement):
    """A test of the stable conventions may fail where it asks for what they do not: then they are cited."""
    for test, exception in exceptions(judgement.suite).items():
        if "new_semconv" in test.rpartition("::")[2]:  # as the suites' own set-up reads it
            assert "semconv" in exception["reason"] or exception["category"] in {
                "internals",
                "several spans",
            }, test
