"""What a worker inherits when gunicorn forks it from a process that exports already."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from otlp_receiver import OtlpReceiver
from tests.servers.collector import SlowCollector
from tests.servers.modes import PRELOAD
from tests.servers.runs import Answer, Telemetry, ask_every_worker, instance_of, serving, until

LOAD_SECONDS = "1.5"
"""Time for the loading process to export its first record, and to begin an export of metrics."""


IMPORT_SECONDS = 3
"""How long the first export of the process above takes to import what it needs; it forks meanwhile."""

SLOW_MODULE = f"""
import time
time.sleep({IMPORT_SECONDS})

class NetrcParseError(Exception):
    pass

class netrc:
    def __init__(self, file):
        raise OSError
"""
"""Stands in for a module of the standard library that `requests` imports at its first request."""


@dataclass(frozen=True)
class Forked:
    """What two workers exported that were forked during an export of the process above them."""

    answers: list[Answer]
    collector: SlowCollector
    telemetry: Telemetry

    @property
    def workers(self) -> set[str]:
        return {instance_of(span) for span in self.telemetry.servers}


@pytest.fixture(scope="module")
def forked(programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forked]:
    with SlowCollector() as collector:
        variables = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
            "SERVERS_LOAD_SECONDS": LOAD_SECONDS,
        }
        with serving(PRELOAD, programs, tmp_path_factory.mktemp("forks"), variables) as client:
            answers = list(ask_every_worker(client, PRELOAD.workers))
            telemetry = Telemetry(collector.store)
            until(lambda: sum(telemetry.snapshot().durations().values()) == len(answers))
            collector.release.set()
            yield Forked(answers, collector, telemetry.snapshot())


def test_workers_forked_during_an_export_of_metrics_export_theirs(forked: Forked) -> None:
    assert len(forked.workers) == PRELOAD.workers
    assert set(forked.telemetry.durations()) == forked.workers
    assert sum(forked.telemetry.durations().values()) == len(forked.answers)


def test_no_two_processes_share_a_connection_to_the_collector(forked: Forked) -> None:
    assert len(set.union(*forked.collector.instances.values())) == 1 + PRELOAD.workers
    assert {len(instances) for instances in forked.collector.instances.values()} == {1}


def test_what_was_counted_before_the_fork_is_exported_by_the_process_that_counted_it(forked: Forked) -> None:
    assert set(forked.telemetry.durations()) == forked.workers
    exporting = {
        instance_of(item) for item in forked.telemetry.store.metrics if item.data.name == "shop.loaded"
    }
    assert len(exporting) == 1
    assert exporting.isdisjoint(forked.workers)


def test_workers_forked_while_the_first_export_imports_a_module_export_all_signals(
    programs: Path, tmp_path: Path
) -> None:
    (tmp_path / "netrc.py").write_text(SLOW_MODULE)
    with OtlpReceiver() as receiver:
        variables = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
            "PYTHONPATH": str(tmp_path),
            "SERVERS_LOAD_SECONDS": LOAD_SECONDS,
        }
        with serving(PRELOAD, programs, tmp_path, variables) as client:
            answers = list(ask_every_worker(client, PRELOAD.workers))
            telemetry = Telemetry(receiver.store)
            until(
                lambda: (
                    sum(telemetry.snapshot().durations().values())
                    == len(telemetry.snapshot().servers)
                    == len(answers)
                )
            )
            arrived = telemetry.snapshot()
    workers = {instance_of(span) for span in arrived.servers}
    assert len(arrived.servers) == len(answers)
    assert set(arrived.durations()) == workers
    records = (item for item in arrived.records("shop") if item.data.body.string_value == "answered")
    assert {instance_of(record) for record in records} == workers
    assert len(workers) == PRELOAD.workers
