"""Every request is counted once, reading waits for nobody, and no traffic is no data."""

import json
import logging
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from tests.sightline_processors.sla_clock import EPOCH, Clocks

from sightline_processors import report
from sightline_processors.sla import tracker as tracker_module
from sightline_processors.sla.metrics import observe_sla
from sightline_processors.sla.objectives import parse_objective
from sightline_processors.sla.tracker import SlaTracker
from sightline_processors.sla.verdict import VERDICTS

DEFAULT = parse_objective("500ms@99%, 99.9%")
CHECKOUT = parse_objective("1s@90%, 99%", name="checkout")
ONLY_AVAILABILITY = parse_objective("99%", name="streams")


@pytest.fixture(autouse=True)
def fresh_reports(monkeypatch):
    monkeypatch.setattr(report, "_kinds", {})


@pytest.fixture
def clocks():
    return Clocks()


@pytest.fixture
def tracker(clocks):
    return SlaTracker(clocks.read_monotonic, clocks.read_wall)


def observed(tracker):
    """Returns what collects the points of a metric of the tracker, by their attributes."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    observe_sla(provider.get_meter("sightline"), tracker)

    def metrics():
        data = reader.get_metrics_data()
        return {
            metric.name: metric
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    return metrics


def points(metric):
    return {tuple(sorted(point.attributes.items())): point.value for point in metric.data.data_points}


def requests(metrics):
    """Returns the counter by method, route, objective, outcome and eligibility."""
    keys = (
        "http.request.method",
        "http.route",
        "sightline.sla.objective",
        "sightline.sla.outcome",
        "sightline.sla.latency_eligible",
    )
    return {
        tuple(map(dict(attributes).get, keys)): value
        for attributes, value in points(metrics()["sightline.sla.requests"]).items()
    }


def test_requests_are_counted_by_method_route_objective_and_outcome(tracker):
    cell = tracker.cell(DEFAULT, "GET", "/items/{id}")
    for verdict in VERDICTS:
        cell.add(verdict, [0.1, 0.2])
    cell.add("ok", [0.1])
    key = ("GET", "/items/{id}", "default")
    assert requests(observed(tracker)) == {
        (*key, "ok", None): 3,
        (*key, "slow", None): 2,
        (*key, "failed", None): 2,
        (*key, "excluded", None): 2,
    }


def test_streams_are_marked_and_have_no_series_for_slow(tracker):
    tracker.cell(DEFAULT, "GET", "/events", latency_eligible=False).add("ok", [60.0])
    assert requests(observed(tracker)) == {
        ("GET", "/events", "default", "ok", False): 1,
        ("GET", "/events", "default", "failed", False): 0,
    }


def test_what_has_no_route_or_method_has_no_such_attribute(tracker):
    tracker.cell(DEFAULT, "", None).add("ok", [0.1])
    attributes = [dict(each) for each in points(observed(tracker)()["sightline.sla.requests"])]
    assert [set(each) for each in attributes] == [{"sightline.sla.objective", "sightline.sla.outcome"}] * 3


def test_counters_of_known_routes_begin_at_0(tracker):
    tracker.expect(DEFAULT, "GET", "/items")
    tracker.expect(DEFAULT, "GET", "/items")
    metrics = observed(tracker)
    zero = {("GET", "/items", "default", outcome, None): 0 for outcome in ("ok", "slow", "failed")}
    assert requests(metrics) == zero
    tracker.cell(DEFAULT, "GET", "/items").add("failed", [0.1])
    assert requests(metrics) == {**zero, ("GET", "/items", "default", "failed", None): 1}


def test_beyond_the_bound_of_known_routes_counters_begin_with_their_first_request(tracker, monkeypatch):
    monkeypatch.setattr(tracker_module, "MAX_EXPECTED_SERIES", 5)
    tracker.expect(DEFAULT, "GET", "/socket", latency_eligible=False)
    for number in (0, 0, 1, 2, 3):
        tracker.expect(DEFAULT, "GET", f"/{number}")
    metrics = observed(tracker)
    assert len(requests(metrics)) == 5
    tracker.cell(DEFAULT, "GET", "/3").add("ok", [0.1])
    assert {key[1] for key in requests(metrics)} == {"/socket", "/0", "/3"}


def test_names_units_and_kinds_of_the_metrics(tracker):
    tracker.cell(DEFAULT, "GET", "/").add("ok", [0.1])
    found = {name: (metric.unit, type(metric.data).__name__) for name, metric in observed(tracker)().items()}
    assert found == {
        "sightline.sla.requests": ("{request}", "Sum"),
        "sightline.sla.target": ("1", "Gauge"),
        "sightline.sla.threshold": ("s", "Gauge"),
        "sightline.sla.latency": ("s", "Gauge"),
        "sightline.sla.budget_remaining": ("1", "Gauge"),
        "sightline.sla.burn_rate": ("1", "Gauge"),
    }
    assert observed(tracker)()["sightline.sla.requests"].data.is_monotonic


def test_without_requests_only_targets_and_thresholds_have_points(tracker):
    tracker.set_objectives([DEFAULT, ONLY_AVAILABILITY])
    metrics = observed(tracker)()
    assert set(metrics) == {"sightline.sla.target", "sightline.sla.threshold"}
    objective, kind = "sightline.sla.objective", "sightline.sla.kind"
    assert points(metrics["sightline.sla.target"]) == {
        ((kind, "latency"), (objective, "default")): 0.99,
        ((kind, "availability"), (objective, "default")): 0.999,
        ((kind, "availability"), (objective, "streams")): 0.99,
    }
    assert points(metrics["sightline.sla.threshold"]) == {((objective, "default"),): 0.5}


def test_budget_and_burn_rate_are_by_objective_kind_and_window(tracker, clocks):
    cell = tracker.cell(CHECKOUT, "POST", "/orders")
    cell.add("ok", [0.1] * 94)
    cell.add("slow", [2.0] * 5)
    cell.add("failed", [0.1])
    clocks.advance(400)
    metrics = observed(tracker)()
    for name, of_latency, of_availability in (
        ("sightline.sla.burn_rate", 5 / 99 / 0.1, 1.0),
        ("sightline.sla.budget_remaining", 1 - 5 / 99 / 0.1, 0.0),
    ):
        found = {
            (dict(each)["sightline.sla.kind"], dict(each)["window"]): value
            for each, value in points(metrics[name]).items()
        }
        assert {window for _, window in found} == {"1h", "6h", "3d"}, (
            "five minutes without requests: no point"
        )
        assert found["latency", "1h"] == pytest.approx(of_latency)
        assert found["availability", "3d"] == pytest.approx(of_availability)


def test_latency_quantiles_are_of_the_last_five_minutes(tracker, clocks):
    cell = tracker.cell(DEFAULT, "GET", "/")
    cell.add("ok", [millisecond / 1000 for millisecond in range(1, 101)])
    metrics = observed(tracker)
    found = {
        dict(each)["quantile"]: value for each, value in points(metrics()["sightline.sla.latency"]).items()
    }
    assert found == {
        0.5: pytest.approx(0.050, rel=0.01),
        0.95: pytest.approx(0.095, rel=0.01),
        0.99: pytest.approx(0.099, rel=0.01),
    }
    clocks.advance(300)
    assert "sightline.sla.latency" not in metrics()


@pytest.mark.parametrize(("verdict", "is_eligible"), [("failed", True), ("excluded", True), ("ok", False)])
def test_quantiles_are_of_the_requests_that_the_latency_objective_judges(tracker, verdict, is_eligible):
    tracker.cell(DEFAULT, "GET", "/", latency_eligible=is_eligible).add(verdict, [9.0])
    assert tracker.latencies() == []
    tracker.cell(DEFAULT, "GET", "/").add("slow", [0.7])
    assert [(each.measured, each.quantiles) for each in tracker.latencies()] == [(1, (0.7, 0.7, 0.7))]


def test_excluded_requests_are_in_no_window(tracker):
    tracker.cell(DEFAULT, "GET", "/health").add("excluded", [0.1] * 5)
    (objective,) = tracker.status().objectives
    assert objective.requests == {"ok": 0, "slow": 0, "failed": 0, "excluded": 5}
    assert {window.total for kind in objective.kinds for window in kind.windows} == {0}


def test_streams_count_for_availability_only(tracker):
    tracker.cell(DEFAULT, "GET", "/events", latency_eligible=False).add("ok", [600.0] * 3)
    tracker.cell(DEFAULT, "GET", "/events", latency_eligible=False).add("failed", [600.0])
    latency, availability = tracker.status().objectives[0].kinds
    assert (latency.windows[0].total, availability.windows[0].total) == (0, 4)
    assert availability.windows[0].bad == 1


def test_status_tells_objectives_and_routes(tracker):
    tracker.set_objectives([DEFAULT, CHECKOUT])
    tracker.expect(DEFAULT, "GET", "/idle")
    tracker.cell(DEFAULT, "GET", "/items").add("ok", [0.1, 0.2])
    tracker.cell(CHECKOUT, "POST", "/items").add("failed", [0.1])
    tracker.cell(CHECKOUT, "POST", "/items").add("ok", [math.nan])
    status = tracker.status()
    assert status.taken_at == EPOCH
    assert [each.name for each in status.objectives] == ["default", "checkout"]
    get, post = status.routes
    assert (get.method, get.route, get.measured, get.p99_seconds) == ("GET", "/items", 2, 0.2)
    assert (post.method, post.requests["failed"], post.p50_seconds) == ("POST", 1, None)
    assert (status.durations_refused, status.durations_left_out) == (1, 0)


def test_status_is_plain_data_for_json(tracker):
    tracker.cell(DEFAULT, "GET", "/").add("ok", [0.1])
    document = json.loads(json.dumps(tracker.status().to_dict(), allow_nan=False))
    assert document["objectives"][0]["kinds"][1]["windows"][3] == {
        "window": "3d",
        "bad": 0,
        "total": 1,
        "burn_rate": 0,
        "budget_remaining": 1,
        "exhaustion_seconds": None,
    }
    assert document["routes"][0]["p95_seconds"] == 0.1


def test_a_new_definition_of_an_objective_keeps_what_was_counted(tracker):
    cell = tracker.cell(DEFAULT, "GET", "/")
    cell.add("ok", [0.1])
    strict = parse_objective("100ms@99.9%, 99.99%")
    tracker.set_objectives([strict])
    assert tracker.cell(strict, "GET", "/") is cell
    (objective,) = tracker.status().objectives
    assert objective.requests["ok"] == 1
    assert objective.kinds[0].threshold_seconds == 0.1
    tracker.set_objectives([])
    assert tracker.status().objectives == ()
    assert requests(observed(tracker))["GET", "/", "default", "ok", None] == 1


def test_an_objective_that_nobody_has_set_is_reported_on_once_it_is_used(tracker):
    tracker.set_objectives([DEFAULT])
    tracker.cell(CHECKOUT, "GET", "/")
    tracker.set_objectives([DEFAULT])
    assert tracker.objectives() == (DEFAULT,)
    tracker.cell(CHECKOUT, "GET", "/")
    assert tracker.objectives() == (DEFAULT, CHECKOUT)


def test_what_is_pending_comes_in_before_a_reading(tracker):
    pending = [0.1, 0.2]

    def come_in():
        taken = pending[:]
        pending.clear()
        tracker.cell(DEFAULT, "GET", "/").add("ok", taken)

    tracker.flush_hooks.append(come_in)
    assert requests(observed(tracker))["GET", "/", "default", "ok", None] == 2
    pending.append(0.3)
    assert tracker.status().routes[0].requests["ok"] == 3


def test_a_hook_that_fails_is_reported_and_harms_nobody(tracker, caplog):
    tracker.flush_hooks.append(lambda: 1 / 0)
    tracker.cell(DEFAULT, "GET", "/").add("ok", [0.1])
    with caplog.at_level(logging.WARNING, "sightline"):
        assert tracker.status().routes[0].requests["ok"] == 1
    assert [record.getMessage() for record in caplog.records] == [
        "requests that are pending are not in the SLA status: ZeroDivisionError"
    ]


def test_requests_are_counted_while_somebody_reads(tracker):
    """A reader that held the lock while it waits for pending requests would never end."""

    def count_in_another_thread():
        thread = threading.Thread(target=tracker.cell(DEFAULT, "GET", "/").add, args=("ok", [0.1]))
        thread.start()
        thread.join(timeout=5)
        assert not thread.is_alive()

    tracker.flush_hooks.append(count_in_another_thread)
    for read in (tracker.status, tracker.latencies, tracker.objective_statuses, tracker.cells):
        read()
    assert report.reported("sla_flush") == 0
    assert tracker.cells()[0].counts[0] >= 5


def test_a_verdict_that_is_none_of_the_four_is_reported_and_counts_for_nothing(tracker):
    cell = tracker.cell(DEFAULT, "GET", "/")
    cell.add("splendid", [0.1])
    cell.add("ok", [])
    assert tracker.cells() == []
    assert report.reported("sla_verdict") == 1


def test_beyond_the_bound_of_cells_requests_share_one_without_route(tracker, monkeypatch):
    monkeypatch.setattr(tracker_module, "MAX_CELLS", 3)
    for number in range(10):
        tracker.cell(DEFAULT, "GET", f"/{number}").add("ok", [0.1])
    found = {key[:2]: value for key, value in requests(observed(tracker)).items() if key[3] == "ok"}
    assert found == {("GET", "/0"): 1, ("GET", "/1"): 1, ("GET", "/2"): 1, ("_OTHER", None): 7}


def test_beyond_the_bound_of_objectives_only_counters_are_left(tracker, monkeypatch):
    monkeypatch.setattr(tracker_module, "MAX_OBJECTIVES", 1)
    for objective in (DEFAULT, CHECKOUT):
        tracker.cell(objective, "GET", "/").add("ok", [0.1])
    default, checkout = tracker.status().objectives
    assert (default.kinds[0].windows[0].total, checkout.kinds[0].windows[0].total) == (1, 0)
    assert checkout.requests["ok"] == 1


def test_counters_equal_requests_from_many_threads_that_are_read_meanwhile():
    tracker = SlaTracker()
    each, workers, routes = 150, 8, 5
    stop = threading.Event()
    statuses = []

    def read():
        while not stop.is_set():
            statuses.append(tracker.status())

    def work(worker):
        for number in range(each):
            cell = tracker.cell(DEFAULT, "GET", f"/{(worker + number) % routes}")
            cell.add(VERDICTS[number % 4], [0.001 * worker] * (1 + number % 7))

    reader = threading.Thread(target=read)
    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(workers)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in (reader, *threads):
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
        stop.set()
        reader.join()
    expected = Counter()
    for number in range(each):
        expected[VERDICTS[number % 4]] += workers * (1 + number % 7)
    status = tracker.status()
    (objective,) = status.objectives
    assert objective.requests == expected
    assert objective.kinds[1].windows[3].total == expected.total() - expected["excluded"]
    assert sum(route.measured for route in status.routes) == expected["ok"] + expected["slow"]
    seen = [sum(each.objectives[0].requests.values()) for each in statuses if each.objectives]
    assert seen == sorted(seen)


def test_one_thread_at_a_time_changes_the_counts():
    inside, most = [], []

    def clock():
        inside.append(None)
        most.append(len(inside))
        time.sleep(0.0005)
        inside.pop()
        return 1_000.0

    tracker = SlaTracker(clock)
    cells = [tracker.cell(DEFAULT, "GET", f"/{number}") for number in range(4)]
    threads = [threading.Thread(target=cell.add, args=("ok", [0.1])) for cell in cells for _ in range(4)]
    for thread in threads:
        thread.start()
    tracker.status()
    for thread in threads:
        thread.join()
    assert max(most) == 1


def test_two_readers_get_the_same_counts(tracker):
    tracker.cell(DEFAULT, "GET", "/").add("ok", [0.1])
    readers = [InMemoryMetricReader(), InMemoryMetricReader()]
    provider = MeterProvider(readers, shutdown_on_exit=False)
    observe_sla(provider.get_meter("sightline"), tracker)
    found = []
    for reader in readers:
        (scope,) = reader.get_metrics_data().resource_metrics[0].scope_metrics
        found.append({metric.name: points(metric) for metric in scope.metrics})
    assert found[0] == found[1]
    assert len(found[0]) == 6


def test_a_forked_process_begins_at_nothing(tracker):
    cell = tracker.cell(DEFAULT, "GET", "/")
    cell.add("ok", [0.1] * 3)
    held, forked = threading.Event(), threading.Event()

    def hold():
        with tracker._lock:
            held.set()
            forked.wait(timeout=10)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(timeout=10)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(10)  # where the lock is held for ever
        cell.add("failed", [0.1])
        status = tracker.status()
        seen = [status.objectives[0].requests, status.objectives[0].kinds[1].windows[3].total]
        os.write(writing, json.dumps([*seen, status.routes[0].measured]).encode())
        os._exit(0)
    forked.set()
    holder.join()
    os.close(writing)
    os.waitpid(child, 0)
    seen = json.loads(os.read(reading, 1_000))
    os.close(reading)
    assert seen == [{"ok": 0, "slow": 0, "failed": 1, "excluded": 0}, 1, 0]
    assert cell.counts == [3, 0, 0, 0]


MEMORY = """
import random, resource, sys
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from sightline_processors.sla.metrics import observe_sla
from sightline_processors.sla.objectives import parse_objective
from sightline_processors.sla.tracker import SlaTracker
from tests.sightline_processors.sla_clock import Clocks

def rss():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

clocks, objective = Clocks(), parse_objective("500ms@99%, 99.9%")
reader = InMemoryMetricReader()
provider = MeterProvider([reader], shutdown_on_exit=False)
before = rss()
tracker = SlaTracker(clocks.read_monotonic, clocks.read_wall)
observe_sla(provider.get_meter("sightline"), tracker)
for route in range(10_000):
    tracker.expect(objective, "GET", f"/route/{route}/{{id}}")
for minute in range(5):
    clocks.advance(60)
    for route in range(0, 10_000, 50):
        cell = tracker.cell(objective, "GET", f"/route/{route}/{{id}}")
        cell.add("ok", [random.lognormvariate(-4, 0.8) for _ in range(100)])
reader.get_metrics_data()
active = len(tracker.latencies())
print(active, rss() - before)
"""


def test_10000_routes_of_which_200_are_active_cost_less_than_20_mb():
    outcome = subprocess.run(
        [sys.executable, "-c", MEMORY],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(Path.cwd())},
    )
    active, cost = map(int, outcome.stdout.split())
    assert active == 200
    assert cost < 20_000_000
