"""What is asked about the pipeline's own programs, which Prometheus scrapes."""

from typing import Final

from dashboards.queries import or_zero, per_second, select

PROGRAM: Final = 'job=~"$program"'
"""Matcher of the variable; targets/ names the job of each program."""


def of_program(metric: str) -> str:
    """Returns a selector of the chosen programs."""
    return select(metric, PROGRAM, of="")


def lost(metric: str) -> str:
    """Returns the rate of a counter of what was lost; 0 where there is none."""
    return or_zero(per_second(metric, PROGRAM, of=""))
