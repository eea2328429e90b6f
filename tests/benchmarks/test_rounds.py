"""A round counts when everything arrived that was sent, and says why when it does not."""

import dataclasses
import math
import sys
from pathlib import Path

import pytest
from benchmarks import rounds
from benchmarks.cases import CORRELATION_ID, OURS, SCENARIOS, VARIANTS, Arrival
from benchmarks.load import Load
from benchmarks.rounds import Plan, Side, block_ratio, run_round, verdict
from benchmarks.runs import run_rounds
from benchmarks.servers import Laboratory, Receiver, Server, free_port
from benchmarks.workers import OURS as OURS_EVERYWHERE

UNSAMPLED = next(case for case in SCENARIOS if case.arrival is Arrival.MEASURED)
CHILD = next(case for case in SCENARIOS if case.name == "child span, Sightline")
SOCKET = next(case for case in SCENARIOS if case.is_websocket and case.environment == "sightline")


def counts(**changed):
    whole = {"requests": 10, "spans": 10, "measured": 10, "exemplars": 1, "repeated": 0, "unreadable": 0}
    return whole | changed


@pytest.mark.parametrize(
    ("case", "changed", "reason"),
    [
        (OURS, {}, ""),
        (OURS, {"requests": 9, "spans": 9, "measured": 9}, "1 of 10 requests did not arrive"),
        (OURS, {"requests": 15, "spans": 15}, "2 more requests arrived than were made"),
        (OURS, {"spans": 40}, "40 spans for 10 requests, 1 for each are due"),
        (OURS, {"measured": 8}, "8 requests in the histogram, 10 in spans"),
        (OURS, {"exemplars": 0}, "the histogram has no exemplar"),
        (OURS, {"repeated": 2}, "2 items arrived twice"),
        (OURS, {"unreadable": 1}, "1 deliveries could not be parsed"),
        (UNSAMPLED, {"requests": 0, "spans": 0, "exemplars": 0}, ""),
        (UNSAMPLED, {"measured": 9}, "1 of 10 requests did not arrive"),
        (UNSAMPLED, {}, "10 spans for 10 requests, 0 for each are due"),
        (CORRELATION_ID, {"requests": 0, "spans": 0}, ""),
    ],
)
def test_a_round_counts_only_when_everything_arrived(case, changed, reason):
    assert verdict(case, counts(**changed), sent=10, in_flight=3) == reason


def test_requests_under_way_when_the_load_ended_may_arrive():
    arrived = counts(requests=13, spans=13, measured=13)
    assert verdict(OURS, arrived, sent=10, in_flight=3) == ""


@pytest.mark.parametrize(
    "case", [case for case in VARIANTS if case.arrival is Arrival.SPANS], ids=lambda c: c.name
)
def test_missing_spans_disqualify_every_variant_that_sends_them(case):
    assert "1 of 10" in verdict(case, counts(requests=9), sent=10, in_flight=0)


def test_blocks_in_which_the_machine_did_something_else_do_not_count():
    assert block_ratio([110.0] * 12, [100.0] * 12) == pytest.approx(1.1)
    disturbed = [110.0, 500.0, 20.0] + [110.0] * 9
    assert block_ratio(disturbed, [100.0] * 11 + [900.0]) == pytest.approx(1.1)
    # Every second block pays for the export of two: neither half is left out.
    assert block_ratio([100.0, 120.0] * 6, [100.0] * 12) == pytest.approx(1.1)


def test_what_a_server_does_after_a_block_is_part_of_it(monkeypatch):
    clock = iter([1.0, 1.0, 3.0, 3.0, 7.0])
    monkeypatch.setattr(rounds, "cpu_seconds", lambda _: next(clock))
    side = Side(CORRELATION_ID, Server(1, 2, 0.1), Receiver(), "wrk")
    monkeypatch.setattr(rounds, "_full_load", lambda *_: Load(1_000_000, 0, 1.0, 0.1, 0.1))
    for _ in range(4):
        side.load_block(1)
    side.finish()
    assert side.block_us() == [0.0, 2.0, 0.0, 4.0]


@pytest.fixture
def laboratory(receiver, base_receiver, tmp_path, monkeypatch):
    """A laboratory whose programs are those of the development environment, and whose rounds are short."""
    monkeypatch.setattr(rounds, "WARM_UP_REQUESTS", 50)
    monkeypatch.setattr(rounds, "ARRIVAL_SECONDS", 0.3)
    made = Laboratory((receiver, base_receiver), tmp_path)
    made._programs = dict.fromkeys(("bare", "sightline"), Path(sys.executable).parent)
    return made


def with_our_distribution(case, **variables):
    ours = {**OURS_EVERYWHERE, "OTEL_BSP_SCHEDULE_DELAY": "100"}
    return dataclasses.replace(case, variables={**case.variables, **ours, **variables})


def test_a_round_of_sightline_counts(laboratory):
    sample = run_round(laboratory, with_our_distribution(OURS), Plan(200, 200, "asyncio"))
    assert sample.lost == ""
    assert 20 < sample.base_us < sample.cpu_us < 20_000
    assert sample.base_rate > 0
    assert 10 < sample.rss_mb < 500
    assert 0 < sample.p50_ms <= sample.p99_ms
    assert sample.base_p99_ms > 0
    assert laboratory.receivers[0].counts()["requests"] == 1 + 50 + 192 + 200


def test_a_round_of_websocket_messages_counts(laboratory):
    sample = run_round(laboratory, with_our_distribution(SOCKET), Plan(200, 0, "asyncio"))
    assert sample.lost == ""
    assert laboratory.receivers[0].counts()["requests"] == 1 + 13 * 16


def test_a_round_compares_sightline_with_itself_where_that_is_the_base(laboratory):
    case = with_our_distribution(CHILD)
    sample = run_round(
        laboratory, dataclasses.replace(case, base=with_our_distribution(OURS)), Plan(60, 0, "asyncio")
    )
    assert sample.lost == ""
    spans = [receiver.counts()["spans"] for receiver in laboratory.receivers]
    assert spans == [2 * 111, 111]


def test_a_case_of_several_pairs_has_a_sample_of_each(laboratory):
    case = with_our_distribution(dataclasses.replace(UNSAMPLED, pairs=2))
    case = dataclasses.replace(case, base=with_our_distribution(OURS))
    samples = run_rounds(laboratory, [case], Plan(60, 60, "asyncio"), 2)[case.name]
    assert [sample.lost for sample in samples] == [""] * 4
    assert all(math.isnan(sample.p99_ms) for sample in samples)
    assert laboratory.receivers[1].counts()["requests"] == 1 + 50 + 24


def test_a_round_with_the_collector_down_does_not_count(laboratory):
    nowhere = f"http://127.0.0.1:{free_port()}"
    case = with_our_distribution(
        OURS, OTEL_EXPORTER_OTLP_ENDPOINT=nowhere, SIGHTLINE_SHUTDOWN_TIMEOUT="200ms"
    )
    assert run_round(laboratory, case, Plan(50, 0, "asyncio")).lost == "99 of 99 requests did not arrive"


def test_a_server_that_does_not_start_says_why(laboratory):
    case = dataclasses.replace(OURS, application="missing")
    assert 'Could not import module "missing"' in run_round(laboratory, case, Plan(50, 0, "asyncio")).lost
