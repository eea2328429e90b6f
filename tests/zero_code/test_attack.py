"""50,000 requests of which a client chooses everything: what they leave is bounded, and nothing is lost."""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import pytest
from otlp_receiver import OtlpReceiver, attributes
from uvicorn_process import APPS, BIN, _clean_environment

from sightline_processors.cardinality.limiter import MAX_SETS_OF_ROUTE, OVERFLOW

REQUESTS: Final = 50_000
LIMIT: Final = 100
"""Less than the default, so that an attack of seconds exceeds it."""
FRESH: Final = frozenset({*(f"/fresh/{number}" for number in range(4)), "/later"})
"""Routes that the attack leaves alone, the last of which is added after it."""
GROWTH_BYTES: Final = 6_000_000
"""Of the second half of the attack: 240 bytes for each request, less than the smallest thing kept of each."""


@dataclass(frozen=True, repr=False)
class Attacked:
    """What the process said, and its metrics as it exported them last."""

    printed: dict[str, Any]
    stderr: str
    metrics: dict[str, Any]

    def points(self, metric: str) -> list[tuple[dict[str, Any], Any]]:
        """Returns the data points of a metric, each with its attributes."""
        kind = self.metrics[metric].WhichOneof("data")
        return [
            (attributes(point.attributes), point) for point in getattr(self.metrics[metric], kind).data_points
        ]


@pytest.fixture(scope="module")
def attacked() -> Iterator[Attacked]:
    """Attacks once."""
    settings = {
        "REQUESTS": str(REQUESTS),
        "SIGHTLINE_CARDINALITY_LIMIT": str(LIMIT),
        "OTEL_METRIC_EXPORT_INTERVAL": "600000",  # it exports at times of its own choice
    }
    with OtlpReceiver() as receiver:
        ended = subprocess.run(
            [BIN / "opentelemetry-instrument", "python", "attacked.py"],
            cwd=APPS,
            env={**_clean_environment(), **settings, "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint},
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        metrics = {item.data.name: item.data for item in list(receiver.store.metrics)}
        yield Attacked(json.loads(ended.stdout), ended.stderr, metrics)


def test_each_request_of_an_attack_is_counted_once_by_each_metric(attacked: Attacked) -> None:
    sent = REQUESTS + len(FRESH)
    assert attacked.printed["answers"] == sent
    assert sum(point.count for _, point in attacked.points("http.server.request.duration")) == sent
    assert sum(point.as_int for _, point in attacked.points("sightline.sla.requests")) == sent
    assert sum(point.as_int for _, point in attacked.points("http.server.active_requests")) == 0


def test_an_attack_makes_no_more_series_than_the_documented_ceiling(attacked: Attacked) -> None:
    for metric in attacked.metrics:
        points = attacked.points(metric)
        of_routes: dict[str, int] = {}
        for found, _ in points:
            if "http.route" in found:
                of_routes[found["http.route"]] = of_routes.get(found["http.route"], 0) + 1
        assert len(points) - sum(of_routes.values()) <= LIMIT, metric
        assert len(points) <= LIMIT + MAX_SETS_OF_ROUTE * len(of_routes), metric


def test_the_limit_was_reached(attacked: Attacked) -> None:
    # Otherwise the claims around this one would say nothing.
    points = attacked.points("http.server.request.duration")
    (overflow,) = [point for found, point in points if found == {OVERFLOW: True}]
    assert overflow.count > 1000
    of_status = [found for found, _ in points if found.get("http.route") == "/status/{code}"]
    assert len(of_status) == MAX_SETS_OF_ROUTE


def test_routes_first_requested_after_an_attack_have_their_own_series(attacked: Attacked) -> None:
    for metric in ("http.server.request.duration", "http.server.response.body.size"):
        counts = {
            found["http.route"]: point.count
            for found, point in attacked.points(metric)
            if found.get("http.route") in FRESH
        }
        assert counts == dict.fromkeys(FRESH, 1), metric
    requests = [
        (found["http.route"], point.as_int)
        for found, point in attacked.points("sightline.sla.requests")
        if found.get("http.route") in FRESH and found["sightline.sla.outcome"] != "failed" and point.as_int
    ]
    assert sorted(requests) == [(route, 1) for route in sorted(FRESH)]


def test_no_memory_is_kept_of_each_request(attacked: Attacked) -> None:
    memory = attacked.printed["memory"]
    half = len(memory) // 2
    assert max(memory[half:]) - memory[half - 1] < GROWTH_BYTES, memory


def test_nothing_that_the_client_made_up_is_a_label_or_in_a_log_line(attacked: Attacked) -> None:
    exported = b"".join(metric.SerializeToString() for metric in attacked.metrics.values())
    assert b"zqx" not in exported.lower()
    assert "zqx" not in attacked.stderr.lower()


def test_what_overflowed_is_told_by_a_metric_and_one_line_for_each_instrument(attacked: Attacked) -> None:
    told: dict[str, int] = {}
    for found, point in attacked.points("sightline.cardinality.overflow"):
        told[found["instrument"]] = told.get(found["instrument"], 0) + point.as_int
    overflowed = {
        metric: point.count
        for metric in ("http.server.request.duration", "http.server.response.body.size")
        for found, point in attacked.points(metric)
        if found == {OVERFLOW: True}
    }
    assert told == overflowed
    lines = [line for line in attacked.stderr.splitlines() if "attribute sets" in line]
    assert sorted(line.split()[0] for line in lines) == sorted(overflowed)
    assert all("SIGHTLINE_CARDINALITY_LIMIT" in line for line in lines)
