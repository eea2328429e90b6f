"""What is known of a local root: when it begins, and when it ends."""

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple, Protocol

from opentelemetry.trace import SpanContext

from sightline_processors.slo_sampling.choices import OF_PARENT, PARENT, Sampled
from sightline_processors.slo_sampling.probability import randomness_of, threshold_in


class RootFacts(NamedTuple):
    """What is known of a local root when it ends.

    Attributes:
        route: Whose share of the budget it takes: method and route template, or the span's name.
        seconds: How long it took.
        is_violation: Whether it missed its objective (`slow` or `failed`).
        is_error: Whether its status is an error.
        series: What tells the attribute sets of its histogram apart; from a bounded set.
    """

    route: str
    seconds: float
    is_violation: bool = False
    is_error: bool = False
    series: Hashable = None


class Exporting(Protocol):
    """Exports the spans that are kept."""

    def export(self, choice: Sampled, spans: Sequence[Any]) -> None:
        """Exports spans, oldest first; must not raise."""
        ...


def promise_of(trace_id: int, parent: SpanContext) -> Sampled | None:
    """Returns what a remote parent's sampled flag promises; None where it is not set."""
    if not parent.trace_flags.sampled:
        return None
    threshold = threshold_in(parent.trace_state)
    if threshold is None or randomness_of(trace_id, parent.trace_state) < threshold:
        return OF_PARENT  # sampled for a reason that the threshold does not tell
    return Sampled(PARENT, threshold)
