"""What the objectives of this process say of its requests: a judgement for each way in which requests end.

The objectives are those of the process: `SIGHTLINE_SLA`, the file of `SIGHTLINE_SLA_FILE`, `@sla` on a route.
They are counted for each MeterProvider. What a request costs is one comparison with a threshold: everything
else follows from its route and the way it ended, and is worked out once for all that end alike.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final
from weakref import WeakSet

from opentelemetry.metrics import Meter
from opentelemetry.sdk.resources import SERVICE_NAME

from sightline.boundaries import DURATION_BOUNDARIES_SECONDS
from sightline.known_routes import KnownRoute
from sightline.options import process_settings
from sightline.settings import Settings
from sightline.sla_decorator import decorated_objectives, objective_of, sla
from sightline_processors.report import warn_once
from sightline_processors.sla import (
    Catalogue,
    Objective,
    ObjectivesFile,
    SlaTracker,
    Verdict,
    boundary_union,
    observe_sla,
    parse_objective,
    verdict_of,
)
from sightline_processors.sla.cells import SlaCell
from sightline_processors.sla.objectives import MAX_BOUNDARIES, written_duration

NEVER_NS: Final = 1 << 62
"""A threshold that no request reaches: 146 years."""

MAX_SHOWN: Final = 10
"""Thresholds that a log line names, at most."""


class Objectives:
    """Holds the objectives of the process and follows their file; any thread.

    Attributes:
        catalogue: What holds now.
        users: What is to be told of a new catalogue: each has a method `renew_objectives()`.
        boundaries: Of the histogram of durations, seconds: thresholds included, fixed when first asked for.
    """

    def __init__(self, settings: Settings) -> None:
        default = parse_objective(settings.sla, origin="SIGHTLINE_SLA")
        self._own = Catalogue(default=default, excluded_paths=settings.sla_exclude)
        self.catalogue = self._own
        self.users: WeakSet[Any] = WeakSet()
        self.excludes_paths = self._own.excludes_paths
        self._boundaries: tuple[float, ...] | None = None
        self._file: ObjectivesFile | None = None
        if settings.sla_file:
            self._file = ObjectivesFile(settings.sla_file, self._renew, default=default)
            self._file.start()

    def close(self) -> None:
        """Stops following the file."""
        if self._file is not None:
            self._file.stop()

    def is_excluded(self, path: str) -> bool:
        """Tells whether a path is that of a probe."""
        return self._own.is_excluded_path(path) or self.catalogue.is_excluded_path(path)

    def all(self) -> tuple[Objective, ...]:
        """Returns every objective, those of decorators included."""
        return (*self.catalogue.objectives, *decorated_objectives())

    @property
    def boundaries(self) -> tuple[float, ...]:
        """Bucket boundaries of durations in seconds, with every threshold that there is at the start."""
        if self._boundaries is None:
            union = boundary_union(DURATION_BOUNDARIES_SECONDS, self._thresholds())
            self._boundaries = union.boundaries
            self._tell_of(union.left_out, f"there are {MAX_BOUNDARIES} boundaries at most")
        return self._boundaries

    def _thresholds(self) -> Iterable[float]:
        seconds = (each.latency_seconds for each in self.all())
        return dict.fromkeys(each for each in seconds if each is not None)

    def _tell_of(self, thresholds: Sequence[float], cure: str) -> None:
        """Tells in one line which thresholds are no bucket boundaries."""
        if thresholds:
            shown = ", ".join(map(written_duration, thresholds[:MAX_SHOWN]))
            more = f" and {len(thresholds) - MAX_SHOWN} more" if len(thresholds) > MAX_SHOWN else ""
            warn_once(
                "latency thresholds that are no bucket boundary of http.server.request.duration: %s%s; "
                "sightline.sla.requests counts them exactly; %s",
                shown,
                more,
                cure,
            )

    def _renew(self, catalogue: Catalogue) -> None:
        """Takes over a catalogue of the file; called by the thread that follows it."""
        self.catalogue = catalogue
        self.excludes_paths = self._own.excludes_paths or catalogue.excludes_paths
        if self._boundaries is not None:
            late = [each for each in catalogue.thresholds() if each not in self._boundaries]
            self._tell_of(late, "boundaries are fixed at the start: restart to have them")
        for user in list(self.users):
            user.renew_objectives()


@cache
def process_objectives() -> Objectives:
    """Returns the objectives of the process, read once."""
    return Objectives(process_settings())


def forget_objectives() -> None:
    """Stops following the file; the next look reads the settings anew."""
    if process_objectives.cache_info().currsize:
        process_objectives().close()
        process_objectives.cache_clear()


@dataclass(frozen=True, slots=True)
class Judgement:
    """Says what a request means that ended in a certain way.

    Attributes:
        objective: Its name.
        verdict: `ok`, `failed` or `excluded`; `ok` is `slow` above the threshold.
        cell: Counts such requests.
        slow_over_ns: The threshold in nanoseconds; `NEVER_NS` where no request is slow.
    """

    objective: str
    verdict: str
    cell: SlaCell
    slow_over_ns: int


class ServiceLevels:
    """Judges and counts the requests of one MeterProvider; any thread.

    Attributes:
        tracker: Counts them.
        objectives: Of the process.
    """

    def __init__(self, meter: Meter) -> None:
        self.objectives = process_objectives()
        self.tracker = SlaTracker()
        self.tracker.set_objectives(self.objectives.all())
        settings = process_settings()
        # Not the API's proxy, which counts until there is an SDK: it would take the state first.
        if settings.state_dir and not hasattr(meter, "_real_meter"):
            self.tracker.keep_state(settings.state_dir, _service_name(meter))
        self.objectives.users.add(self)
        sla.trackers.add(self.tracker)
        observe_sla(meter, self.tracker)

    def renew_objectives(self) -> None:
        """Reports on the objectives as they are now."""
        self.tracker.set_objectives(self.objectives.all())

    def expect(self, routes: Iterable[KnownRoute]) -> None:
        """Lets the counters of an application's routes begin at 0."""
        catalogue = self.objectives.catalogue
        for route in routes:
            for method in sorted(route.methods - {"HEAD"}) or ["GET"]:
                objective = self.objective(route.template, method, route.tags, route.endpoint, catalogue)
                self.tracker.expect(
                    objective, method, route.template, latency_eligible=not route.is_websocket
                )

    def objective(
        self,
        route: str | None,
        method: str,
        tags: tuple[str, ...],
        endpoint: object,
        catalogue: Catalogue | None = None,
    ) -> Objective:
        """Returns the objective of a route: its decorator's, else that of the first entry that matches."""
        catalogue = catalogue or self.objectives.catalogue
        return objective_of(endpoint) or catalogue.objective_for(route, method, tags)

    def judgement(
        self,
        objective: Objective,
        method: str,
        route: str | None,
        status_code: int | None,
        *,
        is_error: bool,
        is_excluded: bool,
        is_eligible: bool,
        catalogue: Catalogue | None = None,
    ) -> Judgement:
        """Returns what a request means that ended in a certain way.

        Args:
            objective: Of the route.
            method: From the known set, or `_OTHER`.
            route: Template, or None where no route handled the request.
            status_code: Of the response, or None where none was sent.
            is_error: Whether something other than its status makes it a failure.
            is_excluded: Whether nobody is to judge it.
            is_eligible: Whether the latency objective applies: not to streams and WebSockets.
            catalogue: That the objective is from: the one that holds now may be another already.
        """
        catalogue = catalogue or self.objectives.catalogue
        failed = is_error or (status_code is not None and catalogue.fails(status_code))
        verdict = verdict_of(
            excluded=is_excluded,
            failed=failed,
            eligible=is_eligible,
            duration_seconds=0.0,
            objective=objective,
        )
        cell = self.tracker.cell(objective, method, route, latency_eligible=is_eligible)
        threshold = objective.latency_seconds
        may_be_slow = verdict == Verdict.OK and is_eligible and threshold is not None
        return Judgement(
            objective.name, verdict, cell, round((threshold or 0) * 1e9) if may_be_slow else NEVER_NS
        )


def _service_name(meter: Meter) -> str:
    """Returns the service that the provider of a meter is configured with; empty for another SDK's."""
    consumer: Any = getattr(meter, "_measurement_consumer", None)
    resource = getattr(getattr(consumer, "_sdk_config", None), "resource", None)
    return str(getattr(resource, "attributes", {}).get(SERVICE_NAME, ""))
