"""The metrics of service levels; they are read from a tracker at each collection, requests pay nothing.

Source: the project's own names, documented in the reference of emitted telemetry.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

from opentelemetry.metrics import CallbackOptions, Meter, Observation
from opentelemetry.semconv.attributes.http_attributes import HTTP_REQUEST_METHOD, HTTP_ROUTE

from sightline_processors.report import report
from sightline_processors.sla.cells import SlaCell
from sightline_processors.sla.objectives import OBJECTIVE_ATTRIBUTE
from sightline_processors.sla.sketch import QUANTILES
from sightline_processors.sla.status import KindStatus, WindowStatus, kinds_of
from sightline_processors.sla.tracker import SlaTracker
from sightline_processors.sla.verdict import OUTCOME_ATTRIBUTE, VERDICTS, Verdict
from sightline_processors.sla.windows import NOTHING, WINDOWS

REQUESTS: Final = "sightline.sla.requests"
"""Counter, `{request}`, by method, route, objective and outcome: every request that was judged."""
TARGET: Final = "sightline.sla.target"
"""Gauge, `1`, by objective and kind: ratio of good requests that is asked for."""
THRESHOLD: Final = "sightline.sla.threshold"
"""Gauge, `s`, by objective: what a request may take."""
LATENCY: Final = "sightline.sla.latency"
"""Gauge, `s`, by method, route and quantile, of the last 4 to 5 minutes of this process."""
BUDGET_REMAINING: Final = "sightline.sla.budget_remaining"
"""Gauge, `1`, by objective, kind and window: ratio of the error budget that is left, of this process."""
BURN_RATE: Final = "sightline.sla.burn_rate"
"""Gauge, `1`, by objective, kind and window: 1 spends exactly the whole budget, of this process."""

KIND_ATTRIBUTE: Final = "sightline.sla.kind"
ELIGIBLE_ATTRIBUTE: Final = "sightline.sla.latency_eligible"
"""Only as False: the latency objective leaves the request out."""
WINDOW_ATTRIBUTE: Final = "window"
QUANTILE_ATTRIBUTE: Final = "quantile"

Observations = Iterator[Observation]
_NO_TOTALS: Final = {window.name: NOTHING for window in WINDOWS}


def observe_sla(meter: Meter, tracker: SlaTracker) -> None:
    """Makes the instruments of a tracker; once per tracker and meter. What has no data has no point.

    Series: `MAX_EXPECTED_SERIES` of known routes from the start, and four for each of `MAX_CELLS` at most,
    once it has had a request; three for each of `MAX_ACTIVE` routes; nineteen for each objective.

    Args:
        meter: Where the instruments are.
        tracker: What is observed; saves its state when a reader collects and half a minute has passed.
    """
    callback = _Callbacks(tracker).callback
    meter.create_observable_counter(REQUESTS, [callback(_requests)], "{request}", "Requests by SLA verdict.")
    for name, observe, unit, description in (
        (TARGET, _targets, "1", "Ratio of good requests that an objective asks for."),
        (THRESHOLD, _thresholds, "s", "Duration that an objective allows a request."),
        (LATENCY, _latencies, "s", "Quantiles of the duration of requests over five minutes."),
        (BUDGET_REMAINING, _budgets, "1", "Ratio of an error budget that is left in this process."),
        (BURN_RATE, _burn_rates, "1", "Speed at which an error budget is spent in this process."),
    ):
        meter.create_observable_gauge(name, [callback(observe)], unit, description)


class _Callbacks:
    """Makes the callbacks of instruments, which never raise."""

    def __init__(self, tracker: SlaTracker) -> None:
        self._tracker = tracker

    def callback(
        self, observe: Callable[[SlaTracker], Observations]
    ) -> Callable[[CallbackOptions], list[Observation]]:
        def observations(_: CallbackOptions) -> list[Observation]:
            try:
                self._tracker.save_if_due()
                return list(observe(self._tracker))
            except Exception as error:  # noqa: BLE001  fail open: the other instruments are collected
                report("sla_metrics", "an SLA metric could not be collected", error=error)
                return []

        return observations


def _requests(tracker: SlaTracker) -> Observations:
    for cell in tracker.cells():
        attributes = _attributes_of(cell)
        for verdict, count in zip(VERDICTS, cell.counts, strict=True):
            if count or _begins_at_0(verdict, cell):
                yield Observation(count, {**attributes, OUTCOME_ATTRIBUTE: verdict})


def _begins_at_0(verdict: str, cell: SlaCell) -> bool:
    """Tells whether a verdict has a series before the first request that gets it."""
    return verdict != Verdict.EXCLUDED and (verdict != Verdict.SLOW or cell.latency_eligible)


def _attributes_of(cell: SlaCell) -> dict[str, Any]:
    attributes = {**_attributes(cell.method, cell.route), OBJECTIVE_ATTRIBUTE: cell.objective}
    if not cell.latency_eligible:
        attributes[ELIGIBLE_ATTRIBUTE] = False
    return attributes


def _attributes(method: str, route: str | None) -> dict[str, Any]:
    attributes = {HTTP_REQUEST_METHOD: method} if method else {}
    if route is not None:
        attributes[HTTP_ROUTE] = route
    return attributes


def _targets(tracker: SlaTracker) -> Observations:
    for objective in tracker.objectives():
        for kind in kinds_of(objective, _NO_TOTALS):
            yield Observation(kind.target, _attributes_of_kind(objective.name, kind))


def _thresholds(tracker: SlaTracker) -> Observations:
    for objective in tracker.objectives():
        if objective.latency_seconds is not None:
            yield Observation(objective.latency_seconds, {OBJECTIVE_ATTRIBUTE: objective.name})


def _latencies(tracker: SlaTracker) -> Observations:
    for latency in tracker.latencies():
        attributes = _attributes(latency.method, latency.route)
        for ratio, seconds in zip(QUANTILES, latency.quantiles, strict=True):
            yield Observation(seconds, {**attributes, QUANTILE_ATTRIBUTE: ratio})


def _budgets(tracker: SlaTracker) -> Observations:
    return _of_windows(tracker, lambda window: window.budget_remaining)


def _burn_rates(tracker: SlaTracker) -> Observations:
    return _of_windows(tracker, lambda window: window.burn_rate)


def _of_windows(tracker: SlaTracker, value_of: Callable[[WindowStatus], float | None]) -> Observations:
    for objective in tracker.objective_statuses():
        for kind in objective.kinds:
            for window in kind.windows:
                value = value_of(window)
                if value is not None:
                    attributes = _attributes_of_kind(objective.name, kind)
                    yield Observation(value, {**attributes, WINDOW_ATTRIBUTE: window.window})


def _attributes_of_kind(objective: str, kind: KindStatus) -> dict[str, Any]:
    return {OBJECTIVE_ATTRIBUTE: objective, KIND_ATTRIBUTE: kind.kind}
