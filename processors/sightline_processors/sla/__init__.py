"""Service level objectives: a verdict on every request, and what is left of the error budget.

Start at `objectives` (what is promised) and `verdict` (what a request means for it), then `catalogue` (which
objective judges which request) and `reload` (the file they come from); `tracker` counts, `metrics` and
`status` tell; `span_processor` judges the spans of any instrumentation.
"""

from sightline_processors.sla.catalogue import Catalogue, MatchedObjective
from sightline_processors.sla.metrics import observe_sla
from sightline_processors.sla.objectives import (
    DEFAULT_OBJECTIVE,
    BoundaryUnion,
    Objective,
    ObjectiveError,
    boundary_union,
    parse_objective,
)
from sightline_processors.sla.reload import ObjectivesFile
from sightline_processors.sla.span_processor import SlaSpanProcessor
from sightline_processors.sla.status import SlaStatus
from sightline_processors.sla.tracker import SlaTracker
from sightline_processors.sla.verdict import VERDICTS, Outcome, Verdict, verdict_of

__all__ = [
    "DEFAULT_OBJECTIVE",
    "VERDICTS",
    "BoundaryUnion",
    "Catalogue",
    "MatchedObjective",
    "Objective",
    "ObjectiveError",
    "ObjectivesFile",
    "Outcome",
    "SlaSpanProcessor",
    "SlaStatus",
    "SlaTracker",
    "Verdict",
    "boundary_union",
    "observe_sla",
    "parse_objective",
    "verdict_of",
]
