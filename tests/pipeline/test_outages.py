"""A back end is away, the collector is killed, its disk is full: what was acknowledged arrives all the same.

The tests share one stack of their own and run in this order; each back end is away for a whole minute.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import processes
import pytest
import yaml

from .outage_load import SIGNALS, Load
from .outage_programs import Patient, SmallDisk, waiting
from .stack_fixture import CONFIG, endpoints_of, eventually, running_stack

pytestmark = pytest.mark.stack

OUTAGE_SECONDS = 60.0
SOON_SECONDS = 5.0
SETTLE_SECONDS = 10.0  # for what is not away; a busy machine has time
# A retry waits up to 10 s (max_interval and half of it at random), a request that hangs 10 s more.
RETURN_SECONDS = 30.0
DRAIN_SECONDS = 120.0  # of a full queue, on a busy machine; 10 s on an idle one
QUEUE_BYTES = 134_217_728
MEMORY_BYTES = 400_000_000

Stack = dict[str, str]


@pytest.fixture(scope="module")
def own_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Yields the endpoints of a stack that nobody else uses."""
    state = tmp_path_factory.mktemp("outages") / "stack"
    with running_stack(state) as told:
        yield endpoints_of(told)


@pytest.fixture(scope="module")
def patients(own_stack: Stack) -> Iterator[dict[str, Patient]]:
    """Yields the programs of the stack that may be ill; none is left hanging."""
    state = Path(own_stack["state_dir"])
    found = {name: Patient(state, name) for name in ("otelcol", "jaeger", "loki", "prometheus")}
    try:
        yield found
    finally:
        for patient in found.values():
            patient.discharge()


@pytest.fixture(autouse=True)
def nobody_is_left_hanging(patients: dict[str, Patient]) -> Iterator[None]:
    """Keeps the failure of one test from becoming that of the next."""
    yield
    for patient in patients.values():
        patient.come_back()


@pytest.fixture(scope="module")
def load(own_stack: Stack) -> Iterator[Load]:
    """Yields the load that goes on through all three outages."""
    with Load(own_stack) as running:
        yield running


@pytest.mark.parametrize(
    ("name", "away", "go"),
    [
        ("jaeger", "traces", Patient.hang),
        ("loki", "logs", Patient.crash),
        ("prometheus", "metrics", Patient.end),
    ],
    ids=["jaeger hangs", "loki crashes", "prometheus is stopped"],
)
def test_a_minute_without_one_back_end_leaves_the_others_whole(
    patients: dict[str, Patient], load: Load, name: str, away: str, go: Callable[[Patient], None]
) -> None:
    patient = patients[name]
    go(patient)
    gone = time.monotonic()
    time.sleep(OUTAGE_SECONDS - SETTLE_SECONDS)

    # From the beginning: what had waited for the back end of the outage before is here too.
    now = time.monotonic()
    missing = {
        other: eventually_none_missing(load, other, now, SETTLE_SECONDS) for other in SIGNALS if other != away
    }
    answered = patient.answers()
    time.sleep(max(0.0, gone + OUTAGE_SECONDS - time.monotonic()))
    patient.come_back()

    assert missing == {other: set() for other in SIGNALS if other != away}
    assert not answered
    assert {tuple(load.ledgers[other].answers) for other in SIGNALS} == {(200,)}


def test_all_that_was_acknowledged_in_the_outages_is_found(load: Load) -> None:
    load.stop()
    end = time.monotonic()

    missing = {name: eventually_none_missing(load, name, end, RETURN_SECONDS) for name in SIGNALS}

    assert missing == {name: set() for name in SIGNALS}
    assert all(len(ledger.acknowledged) > 3 * OUTAGE_SECONDS for ledger in load.ledgers.values())


def test_killing_the_collector_with_a_full_queue_loses_nothing(
    own_stack: Stack, patients: dict[str, Patient]
) -> None:
    collector = patients["otelcol"]
    back_ends = [patients[name] for name in ("jaeger", "loki", "prometheus")]
    for back_end in back_ends:
        back_end.hang()
    load = Load(own_stack)
    with load:
        filled = fill(load, QUEUE_BYTES)
        resident = processes.resident_bytes(collector.process.pid)
        collector.crash()
    collector.come_back()
    for back_end in back_ends:
        back_end.come_back()
    end = time.monotonic()

    missing = {name: eventually_none_missing(load, name, end, DRAIN_SECONDS) for name in SIGNALS}

    assert missing == {name: set() for name in SIGNALS}, waiting(Path(own_stack["state_dir"]))
    assert filled > 0.9 * QUEUE_BYTES
    assert resident < MEMORY_BYTES
    answers = load.ledgers["logs"].answers
    assert answers[503] > 0
    assert set(answers) <= {0, 200, 503}


def test_a_full_disk_refuses_tells_and_recovers_without_a_restart(
    own_stack: Stack, patients: dict[str, Patient], tmp_path: Path
) -> None:
    collector, loki = patients["otelcol"], patients["loki"]
    hurry_scrapes(Path(own_stack["state_dir"]), patients["prometheus"])
    disk = SmallDisk(collector, tmp_path, 48)
    load = Load(own_stack)
    with load:
        for name in SIGNALS:  # the space that a queue has had before stays its own on a full disk
            assert load.post(name, padding_bytes=10_000) == httpx.codes.OK
        time.sleep(1)
        disk.take(megabytes=24)  # by somebody else
        loki.hang()
        fill(load, QUEUE_BYTES)
        firing = eventually(lambda: fires(own_stack, "CollectorRefusing"), 4 * SOON_SECONDS)
        now = time.monotonic()
        others = {
            name: eventually_none_missing(load, name, now, SETTLE_SECONDS) for name in ("traces", "metrics")
        }
        full, resident = disk.free_bytes(), processes.resident_bytes(collector.process.pid)

        disk.give_back()
        accepted_again = load.post("logs", padding_bytes=60_000)
        loki.come_back()
        time.sleep(SOON_SECONDS)
    end = time.monotonic()
    missing = {name: eventually_none_missing(load, name, end, RETURN_SECONDS) for name in SIGNALS}

    assert full < 100_000
    assert [alert["metric"]["signal"] for alert in firing] == ["logs"]
    assert others == {"traces": set(), "metrics": set()}
    assert load.ledgers["logs"].answers[503] > 0
    for ledger in load.ledgers.values():
        assert set(ledger.answers) <= {200, 503}  # 503: the sender tries again
    # Even a queue that nothing waits in may have to ask the disk for a page now and then.
    assert all(load.ledgers[name].answers[503] * 10 < load.ledgers[name].answers[200] for name in others)
    assert resident < MEMORY_BYTES
    assert accepted_again == httpx.codes.OK
    assert missing == {name: set() for name in SIGNALS}


def test_space_set_aside_keeps_what_waits_on_a_disk_that_stays_full(
    own_stack: Stack, patients: dict[str, Patient], tmp_path: Path
) -> None:
    loki, bound = patients["loki"], 16_000_000
    compaction = (
        "--set=extensions::file_storage::compaction"  # would begin a new file, with nothing set aside
    )
    disk = SmallDisk(
        patients["otelcol"],
        tmp_path,
        96,
        f"{compaction}::on_start=false",
        f"{compaction}::on_rebound=false",
        f"--set=exporters::otlp_http/loki::sending_queue::queue_size={bound}",
    )
    disk.reserve(megabytes=24)
    with Load(own_stack) as load:
        loki.hang()
        disk.take_all()
        filled = fill(load, bound)
        loki.come_back()
        time.sleep(SOON_SECONDS)
    end = time.monotonic()
    missing = {name: eventually_none_missing(load, name, end, RETURN_SECONDS) for name in SIGNALS}

    assert missing == {name: set() for name in SIGNALS}
    assert disk.free_bytes() < 100_000
    assert filled > 0.9 * bound
    assert {name: set(load.ledgers[name].answers) for name in SIGNALS} == {
        "traces": {200},
        "metrics": {200},
        "logs": {200, 503},
    }


def fill(load: Load, at_most_bytes: int) -> int:
    """Posts large log records until they are refused; returns how many bytes were not."""
    filled = 0
    while load.post("logs", padding_bytes=60_000) == httpx.codes.OK:
        filled += 10 * 60_000
        assert filled < 1.2 * at_most_bytes, "more is accepted than the queue may hold"
    return filled


def eventually_none_missing(load: Load, name: str, before: float, seconds: float) -> set[str]:
    """Returns what is still missing in the end; empty as soon as nothing is."""
    missing: set[str] = set()

    def nothing_missing() -> bool:
        nonlocal missing
        missing = load.missing(name, before)
        return not missing

    eventually(nothing_missing, seconds)
    return missing


def hurry_scrapes(state: Path, prometheus: Patient) -> None:
    """Makes Prometheus look every second, so that an alert's condition is to be seen before long."""
    file = state / "prometheus" / "prometheus.yaml"
    text = file.read_text().replace("scrape_interval: 15s", "scrape_interval: 1s")
    file.unlink()
    file.write_text(text.replace("scrape_timeout: 10s", "scrape_timeout: 1s"))
    prometheus.send(signal.SIGHUP)


def fires(stack: Stack, name: str) -> list[dict[str, dict[str, str]]]:
    """Returns the series for which the condition of a shipped alert holds now."""
    groups = yaml.safe_load((CONFIG / "rules" / "telemetry.yaml").read_text())["groups"]
    (expression,) = (rule["expr"] for group in groups for rule in group["rules"] if rule.get("alert") == name)
    answer = httpx.get(f"{stack['prometheus']}/api/v1/query", params={"query": expression})
    found: list[dict[str, dict[str, str]]] = answer.raise_for_status().json()["data"]["result"]
    return found
