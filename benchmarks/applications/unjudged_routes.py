"""The application of `registered_routes`, with neither verdicts nor reserved series.

No setting switches them off, and none should: here the methods stand aside that would do it.
"""

# mypy: disable-error-code="import-not-found"
# A module beside this one, which is where the server runs.

from typing import Any

from registered_routes import app

from sightline.recorder import Recorder
from sightline_processors.cardinality import ReservedRoutes
from sightline_processors.sla import SlaTracker
from sightline_processors.sla.cells import SlaCell
from sightline_processors.sla.rolling import RollingSketches

__all__ = ["app"]

_cell = SlaCell(lambda *_: None, ("", "", None, False), None, RollingSketches().of(("", None)))


def _nothing(*_: Any) -> bool:
    return False


def _same_cell(*_: Any, **__: Any) -> SlaCell:
    return _cell


for owner, name, stand_in in (
    (Recorder, "learn_routes", _nothing),
    (ReservedRoutes, "reserve", _nothing),
    (SlaTracker, "cell", _same_cell),
):
    getattr(owner, name)  # raises where there is none: then nothing would be taken away
    setattr(owner, name, stand_in)
