"""How a request ended: what all requests of a connection that end alike share, their verdict included."""

from typing import TYPE_CHECKING, Any, Final

from sightline import names
from sightline.active_requests import ActiveCount
from sightline.outcome import Outcome
from sightline.service_levels import NEVER_NS, Judgement
from sightline.span_bytes import attributes_bytes
from sightline.types import Attributes
from sightline_processors.sla.objectives import OBJECTIVE_ATTRIBUTE
from sightline_processors.sla.verdict import OUTCOME_ATTRIBUTE

if TYPE_CHECKING:
    from sightline.request_facts import SharedFacts

SERVER_ERROR: Final = 500

COMPLETED: Final = "completed"
CLIENT_DISCONNECT: Final = "client_disconnect"
ERROR: Final = "error"
CANCELLED: Final = "cancelled"


STREAM: Final = 1
"""Flag of a request that the latency objective does not judge: a stream, or a WebSocket."""
EXCLUDED: Final = 2
"""Flag of a request that no objective judges: a probe."""
GONE: Final = 4
"""Flag of a request whose client was gone before its response was complete."""
NESTED: Final = 8
"""Flag of a request whose scope has got `SCOPE_ROUTE` or `SCOPE_MOUNTS`, which tell its route too."""


class Ending:
    """How a request of a connection ended: its outcome, and the bytes of its span but for its own values.

    Attributes:
        outcome: What all requests with the outcome share.
        reason: `sightline.end_reason`.
        verdict: `sightline.sla.outcome`.
        cell: Counts the verdicts.
        attributes: Of the span beyond those of the outcome: reason, verdict and objective.
        exemplar_attributes: Of the exemplars of such requests.
        span_bytes: Name, kind and attributes but for those of the client, as OTLP fields.
        recording: Takes the measurements.
        is_buffered: Whether it takes them by the hundred, and nothing else takes them one by one.
        active: Where the end is counted; None where an instrument counts it.
        slow_over_ns: Nanoseconds above which the request ended as `slow` says.
        slow: The same ending of a request that was slow; None where none is.
        watched_over_ns: Nanoseconds above which there is more to do than to record the request.
    """

    __slots__ = (
        "_alive", "active", "attributes", "cell", "exemplar_attributes", "is_buffered", "outcome", "reason",
        "recording", "slow", "slow_over_ns", "span_bytes", "verdict", "watched_over_ns",
    )  # fmt: skip

    def __init__(
        self,
        shared: "SharedFacts",
        outcome: Outcome,
        reason: str,
        judgement: Judgement,
        verdict: str,
        alive: Any,
    ) -> None:
        recorder = shared.recorder
        self.outcome = outcome
        self.reason = reason
        self.verdict = verdict
        self.cell = judgement.cell
        self.attributes: Attributes = {
            names.END_REASON: reason,
            OUTCOME_ATTRIBUTE: verdict,
            OBJECTIVE_ATTRIBUTE: judgement.objective,
        }
        self.exemplar_attributes: Attributes = {OUTCOME_ATTRIBUTE: verdict}
        self.span_bytes = shared.span_bytes(outcome) + attributes_bytes(self.attributes)
        self.recording = recorder.recording(outcome)
        self.active: ActiveCount | None = shared.active
        self.is_buffered = (
            self.recording.is_buffered and shared.active is not None and recorder.old_metrics is None
        )
        self.slow: Ending | None = None
        self.slow_over_ns = NEVER_NS
        self.watched_over_ns = NEVER_NS
        self._alive = alive  # so that no other route gets the identity that this is remembered by

    def watch(self, slow: "Ending", slow_over_ns: int, alert_over_ns: int) -> None:
        """Says what becomes of a request that takes longer; another ending for a slow one."""
        self.slow, self.slow_over_ns = slow, slow_over_ns
        self.watched_over_ns = min(slow_over_ns, alert_over_ns)
