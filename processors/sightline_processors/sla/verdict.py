"""The verdict on one request: what it means for its objective."""

from typing import Final, Literal

from sightline_processors.sla.objectives import Objective

Outcome = Literal["ok", "slow", "failed", "excluded"]

OUTCOME_ATTRIBUTE: Final = "sightline.sla.outcome"
"""Attribute of spans, log records and metric points: one of `VERDICTS`."""


class Verdict:
    """Holds the four outcomes, as plain strings: encoders need not look for subclasses of `str`."""

    OK: Final = "ok"
    SLOW: Final = "slow"
    FAILED: Final = "failed"
    EXCLUDED: Final = "excluded"


VERDICTS: Final[tuple[Outcome, ...]] = (Verdict.OK, Verdict.SLOW, Verdict.FAILED, Verdict.EXCLUDED)


def verdict_of(
    *, excluded: bool, failed: bool, eligible: bool, duration_seconds: float, objective: Objective
) -> Outcome:
    """Returns the first that applies of excluded, failed, slow and ok; never raises.

    Args:
        excluded: The request counts for nothing: a probe, or a client that went away.
        failed: The service did not do what was asked of it.
        eligible: The latency objective applies: False for streams and WebSockets, which are never slow.
        duration_seconds: How long the request took. Equality with the threshold is ok; not a number and
            what a clock that stepped back makes of it (negative) count as 0.
        objective: What is judged by; without a latency threshold nothing is slow.
    """
    if excluded:
        return Verdict.EXCLUDED
    if failed:
        return Verdict.FAILED
    threshold = objective.latency_seconds
    # Not a number and negative durations are never greater than a threshold.
    if eligible and threshold is not None and duration_seconds > threshold:
        return Verdict.SLOW
    return Verdict.OK
