"""`OTEL_TRACES_SAMPLER=sightline_slo` under uvicorn: what went wrong arrives, the rest within a budget."""

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from otlp_receiver import attributes
from uvicorn_process import Setup, observed

BUDGET: Final = 5
"""Spans per second."""
QUICK: Final = 400
WRONG: Final = 10
"""Requests that are slow, and as many that fail."""

VARIABLES: Final = {
    "OTEL_TRACES_SAMPLER": "sightline_slo",
    "OTEL_TRACES_SAMPLER_ARG": str(BUDGET),
    "OTEL_METRIC_EXPORT_INTERVAL": "60000",  # one collection, at the end: an exemplar for each bucket
    "SIGHTLINE_SLA": "50ms@99%,99.9%",
}


@pytest.fixture(scope="module")
def sampled() -> Iterator[Setup]:
    """Yields the process after its end, when everything that it keeps has arrived."""
    with observed("bounded:app", variables=VARIABLES) as setup:
        for number in range(QUICK):
            setup.server.get(f"/quick/{number}")
            if number % (QUICK // WRONG) == 0:
                setup.server.get("/slow", ("x-correlation-id", f"slow-{number}"))
                setup.server.get("/fail", ("x-correlation-id", f"fail-{number}"))
        setup.server.process.terminate()
        setup.server.process.wait(20)
        yield setup


def spans(setup: Setup) -> list[tuple[Span, dict[str, Any]]]:
    return [(item.data, attributes(item.data.attributes)) for item in list(setup.store.spans)]


def with_id(setup: Setup, prefix: str) -> list[tuple[Span, dict[str, Any]]]:
    return [
        (span, found)
        for span, found in spans(setup)
        if str(found.get("sightline.correlation_id", "")).startswith(prefix)
    ]


@pytest.mark.parametrize(
    ("prefix", "outcome", "child"), [("slow-", "slow", "waits"), ("fail-", "failed", "works")]
)
def test_each_violation_arrives_with_its_children(
    sampled: Setup, prefix: str, outcome: str, child: str
) -> None:
    roots = with_id(sampled, prefix)
    assert len(roots) == WRONG
    assert {found["sightline.sla.outcome"] for _, found in roots} == {outcome}
    assert {found["sightline.sampling.probability"] for _, found in roots} == {1.0}
    below = Counter(span.parent_span_id for span, _ in spans(sampled) if span.name == child)
    assert [below[root.span_id] for root, _ in roots] == [1] * WRONG


def test_the_rest_is_kept_within_the_budget(sampled: Setup) -> None:
    drawn = [span for span, found in spans(sampled) if found["sightline.sampling.reason"] == "budget"]
    seconds = _seconds(sampled)
    # A burst keeps its logarithm more than the budget, and a trace is kept as a whole: two spans here.
    most = (seconds + 1) * BUDGET * (1 + math.log(2 * QUICK / BUDGET))
    assert len(drawn) <= most
    assert len(drawn) < QUICK


def test_a_trace_is_kept_as_a_whole_or_not_at_all(sampled: Setup) -> None:
    kinds: dict[bytes, Counter[int]] = {}
    for span, _ in spans(sampled):
        kinds.setdefault(span.trace_id, Counter())[span.kind] += 1
    assert set(map(tuple, map(sorted, map(Counter.items, kinds.values())))) == {
        ((Span.SPAN_KIND_INTERNAL, 1), (Span.SPAN_KIND_SERVER, 1))
    }


def test_each_exemplar_leads_to_a_span_that_arrived(sampled: Setup) -> None:
    arrived = {(span.trace_id, span.span_id) for span, _ in spans(sampled)}
    exemplars = [
        (exemplar.trace_id, exemplar.span_id)
        for item in list(sampled.store.metrics)
        if item.data.name == "http.server.request.duration"
        for point in item.data.histogram.data_points
        for exemplar in point.exemplars
    ]
    assert len(exemplars) >= 3  # quick, slow, failed
    assert set(exemplars) <= arrived


def test_metrics_count_what_was_not_kept(sampled: Setup) -> None:
    metrics = {item.data.name: item.data for item in list(sampled.store.metrics)}
    requests = QUICK + 2 * WRONG
    durations = metrics["http.server.request.duration"].histogram.data_points
    assert sum(point.count for point in durations) == requests
    told = {
        attributes(point.attributes)["sightline.sampling.reason"]: point.as_int
        for point in metrics["sightline.sampling.spans"].sum.data_points
    }
    assert sum(told.values()) == 2 * requests
    assert told["violation"] + told.get("error", 0) == 4 * WRONG
    assert told.get("buffer_full", 0) + told.get("unfinished", 0) == 0


def _seconds(setup: Setup) -> float:
    """Returns how long the requests took, from the first kept span to the last."""
    starts = [span.start_time_unix_nano for span, _ in spans(setup)]
    return (max(starts) - min(starts)) / 1e9
