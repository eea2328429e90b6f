"""What verdicts, sketches and the limit on attribute sets cost.

No setting switches verdicts off: `SlaCell.add` is measured itself, in the batches in which a request's end is
counted (`RequestMetrics.drain`), with the comparison that decides between `ok` and `slow`.
"""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from benchmarks.compared_pipelines import MetricPipeline
from benchmarks.comparisons import Comparison, Part
from opentelemetry.metrics import MeterProvider
from opentelemetry.util.types import AnyValue

from sightline.request_metrics import MAX_PENDING
from sightline.service_levels import Judgement, ServiceLevels
from sightline_processors.cardinality import guard_instruments
from sightline_processors.cardinality.limiter import OVERFLOW
from sightline_processors.sla.verdict import Verdict

ROUTE: Final = "/items/{item_id}"
SCOPE: Final = "sightline"
SETS: Final = 200
"""Attribute sets that are measured in turn."""

_BATCHES: Final = 40
_MEDIAN_NS, _SPREAD = 5_000_000, 1.0


def verdicts() -> Comparison:
    """Compares requests that are judged and counted with those that are only gone through.

    They are such as no latency objective applies to: the sketch has a row of its own.
    """
    judgement, _ = _judgement(is_eligible=False)
    durations = _durations_ns()
    counted = [0]

    def without(batches: int) -> None:
        for _ in range(batches):
            for _ in durations:
                pass
            _ = [nanoseconds / 1e9 for nanoseconds in durations]

    def with_it(batches: int) -> None:
        for _ in range(batches):
            for nanoseconds in durations:
                if nanoseconds > judgement.slow_over_ns:
                    raise AssertionError("no threshold applies")
            judgement.cell.add(judgement.verdict, [nanoseconds / 1e9 for nanoseconds in durations])
            counted[0] += len(durations)

    def fault() -> str:
        found = sum(judgement.cell.counts)
        return "" if found == counted[0] > 0 else f"{found} of {counted[0]} requests were counted"

    return _per_request(without, with_it, fault)


def sketches() -> Comparison:
    """Compares counted requests whose durations are sketched with counted requests without."""
    (sketched, levels), (plain, _) = _judgement(is_eligible=True), _judgement(is_eligible=False)
    seconds = [nanoseconds / 1e9 for nanoseconds in _durations_ns()]

    def fault() -> str:
        found = [each for each in levels.tracker.latencies() if each.route == ROUTE]
        if not found:
            return "there are no quantiles"
        exact = sorted(seconds)[math.ceil(len(seconds) / 2) - 1]
        return "" if math.isclose(found[0].quantiles[0], exact, rel_tol=0.011) else "the median is wrong"

    return _per_request(_adding(plain, seconds), _adding(sketched, seconds), fault)


def seen_sets() -> Comparison:
    """Compares measurements of attribute sets with a series of their own, guarded and plain."""
    return _limited(limit=2 * SETS, overflowing=0)


def overflowing_sets() -> Comparison:
    """Compares measurements that go to the overflow set with those of a plain instrument's own sets."""
    return _limited(limit=2, overflowing=SETS - 1)


def _judgement(*, is_eligible: bool) -> tuple[Judgement, ServiceLevels]:
    levels = ServiceLevels(MetricPipeline().provider.get_meter(SCOPE))
    objective = levels.objective(ROUTE, "GET", (), None)
    return levels.judgement(
        objective, "GET", ROUTE, 200, is_error=False, is_excluded=False, is_eligible=is_eligible
    ), levels


def _durations_ns() -> list[int]:
    """Returns as many durations as are aggregated together: most a few milliseconds, some far longer."""
    generator = random.Random(7)
    return [
        round(_MEDIAN_NS * math.exp(generator.gauss(0, _SPREAD))) for _ in range(MAX_PENDING)
    ]  # the logarithms of durations are about normal


def _adding(judgement: Judgement, seconds: Sequence[float]) -> Callable[[int], None]:
    def run(batches: int) -> None:
        for _ in range(batches):
            judgement.cell.add(Verdict.OK, seconds)

    return run


def _per_request(
    without: Callable[[int], None], with_it: Callable[[int], None], fault: Callable[[], str]
) -> Comparison:
    """Returns a comparison whose things are requests, of functions that take them by the batch."""
    return Comparison(
        without=lambda requests: without(-(-requests // MAX_PENDING)),
        with_it=lambda requests: with_it(-(-requests // MAX_PENDING)),
        fault=fault,
        items=_BATCHES * MAX_PENDING,
    )


def _limited(limit: int, overflowing: int) -> Comparison:
    plain, guarded = MetricPipeline(), MetricPipeline()
    guard_instruments(guarded.provider, limit=limit, scopes=frozenset({SCOPE}))

    def fault() -> str:
        found = [point for point in guarded.points(SCOPE) if OVERFLOW in point.attributes]
        expected = _overflowed(plain.points(SCOPE), limit)
        if bool(overflowing) is not bool(found) or sum(point.count for point in found) != expected:
            return f"{len(found)} overflow sets hold what {overflowing} sets should have"
        return _fault_beyond(guarded, limit)

    return Comparison(without=_recording(plain.provider), with_it=_recording(guarded.provider), fault=fault)


def _overflowed(points: Sequence[Any], limit: int) -> int:
    """Returns how many of the measurements of a plain instrument are beyond a limit, in order of the sets."""
    counts = [point.count for point in sorted(points, key=lambda point: point.attributes["number"])]
    return sum(counts[limit - 1 :])


def _fault_beyond(guarded: MetricPipeline, limit: int) -> str:
    """Returns why an instrument takes more sets than the limit; empty when it does not."""
    histogram = guarded.provider.get_meter(SCOPE).create_histogram(SCOPE)
    for number in range(limit):
        histogram.record(0.005, {"further": number})
    found = len(guarded.points(SCOPE))
    return "" if found <= limit else f"{found} sets are beyond the limit of {limit}"


def _recording(provider: MeterProvider) -> Callable[[int], None]:
    histogram = provider.get_meter(SCOPE).create_histogram(SCOPE)
    sets: list[Mapping[str, AnyValue]] = [
        {"http.request.method": "GET", "url.scheme": "http", "number": each} for each in range(SETS)
    ]
    for attributes in sets:
        histogram.record(0.005, attributes)

    def run(count: int) -> None:
        done = 0
        while done < count:
            for attributes in islice(sets, count - done):
                histogram.record(0.005, attributes)
            done += SETS

    return run


PARTS: Final = (
    Part("SLA: verdict and counting", "request", verdicts),
    Part("SLA: latency sketch", "request", sketches),
    Part("limit on attribute sets, a set seen before", "measurement", seen_sets),
    Part("limit on attribute sets, an overflowing set", "measurement", overflowing_sets),
)
