"""What could not be sent is kept on disk, bounded and private, and sent once by whoever starts next."""

import os
import stat
import threading
import zlib
from pathlib import Path

import pytest
from tests.sightline_processors.export_support import (
    RecordingTransport,
    engine_of,
    http_transport,
    limits,
    span_source,
    until,
)
from tests.sightline_processors.faulty_collector import FaultyCollector, accept, reject, silent, status

from sightline_processors.export import (
    Engine,
    Ledger,
    OtlpLogRecordProcessor,
    OtlpSpanProcessor,
    Signal,
    open_spool,
)

KEYS: list[tuple[Signal, str]] = [("traces", "key")]


def files(folder):
    return sorted(path for path in Path(folder).rglob("*") if path.is_file())


def mode(path):
    return stat.S_IMODE(Path(path).stat().st_mode)


@pytest.fixture
def spool(tmp_path):
    return open_spool(tmp_path / "spool")


def spooled(collector, folder, count=100):
    """Ends spans while the collector does not take them, shuts down, and returns IDs and account."""
    engine = Engine(spool=open_spool(folder), shutdown_timeout_seconds=0.2)
    processor = OtlpSpanProcessor(http_transport(collector), limits(), engine)
    source = span_source(processor)
    items = [source() for _ in range(count)]
    processor.shutdown()
    return items, engine.ledger("traces")


@pytest.mark.parametrize("behaviour", [status(503), silent])
def test_what_the_end_left_is_sent_by_the_next_start_and_deleted(tmp_path, behaviour):
    folder = tmp_path / "spool"
    with FaultyCollector(then=behaviour) as collector:
        items, ledger = spooled(collector, folder)
        assert ledger == Ledger("traces", spooled=100)
        assert ledger.accepted == 100
        assert files(folder)
        collector.then = accept
        collector.stored.clear()
        with engine_of(spool=open_spool(folder)) as engine:
            OtlpSpanProcessor(http_transport(collector), limits(), engine)
            assert until(lambda: not files(folder))
            assert until(lambda: engine.ledger("traces").acknowledged == 100)
            assert engine.ledger("traces") == Ledger("traces", acknowledged=100, recovered=100)
            assert engine.ledger("traces").accepted == 0
    assert collector.stored == dict.fromkeys(items, 1)


def test_files_are_private_and_whole(tmp_path):
    folder = tmp_path / "parent" / "spool"
    with FaultyCollector(then=status(503)) as collector:
        spooled(collector, folder)
    assert mode(folder) == 0o700
    assert {mode(path) for path in files(folder)} == {0o600}
    assert all(path.suffix == ".otlp" for path in files(folder))


def test_a_batch_whose_deadline_has_passed_is_kept_and_sent_when_the_collector_is_back(tmp_path, monkeypatch):
    monkeypatch.setattr("sightline_processors.export.engine._SPOOL_INTERVAL_SECONDS", 0.1)
    folder = tmp_path / "spool"
    with FaultyCollector(then=status(503)) as collector, engine_of(spool=open_spool(folder)) as engine:
        processor = OtlpSpanProcessor(http_transport(collector), limits(export_timeout_seconds=0.1), engine)
        source = span_source(processor)
        lost = source()
        assert until(lambda: engine.ledger("traces").spooled == 1)
        assert len(files(folder)) == 1
        collector.then = accept
        new = source()
        assert until(lambda: len(collector.stored) == 2)
        assert until(lambda: not files(folder))
        assert collector.stored == {lost: 1, new: 1}
        ledger = engine.ledger("traces")
        assert (ledger.accepted, ledger.acknowledged, ledger.spooled, ledger.recovered) == (2, 2, 1, 1)


def test_new_items_go_before_those_of_the_spool(tmp_path):
    folder = tmp_path / "spool"
    with FaultyCollector(then=status(503)) as collector:
        spooled(collector, folder, count=300)
        kept = len(files(folder))
        assert kept == 5
        collector.then = accept
        collector.requests.clear()
        engine = Engine(spool=open_spool(folder))
        engine._starting.acquire()  # nothing is sent before there are items
        processor = OtlpSpanProcessor(http_transport(collector), limits(), engine)
        source = span_source(processor)
        new = [source() for _ in range(64)]
        engine._starting.release()
        engine._wake()
        assert until(lambda: not files(folder))
        assert set(collector.requests[0].items) == set(new)
        engine.finish()


def test_two_processes_never_send_the_same_file(tmp_path):
    spools = [open_spool(tmp_path / "spool") for _ in range(2)]
    for number in range(40):
        assert spools[0].write("traces", "key", 1, bytes([number]))
    taken, lock = [], threading.Lock()

    def drain(each):
        while (claimed := each.claim(KEYS)) is not None:
            with lock:
                taken.append(claimed.body)
            claimed.done()

    threads = [threading.Thread(target=drain, args=(each,)) for each in spools * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == [bytes([number]) for number in range(40)]


def test_a_file_is_locked_against_other_processes_until_it_is_released(spool):
    spool.write("traces", "key", 1, b"body")
    claimed = spool.claim(KEYS)
    pid = os.fork()
    if pid == 0:
        os._exit(0 if open_spool(spool.folder).claim(KEYS) is None else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    claimed.release()
    again = spool.claim(KEYS)
    assert again.body == b"body"
    again.done()
    assert spool.claim(KEYS) is None


def test_a_fork_does_not_keep_a_lock(spool):
    spool.write("traces", "key", 1, b"body")
    claimed = spool.claim(KEYS)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.read(reader, 1)
        os._exit(0)
    claimed.release()
    again = spool.claim(KEYS)
    os.write(writer, b"x")
    os.waitpid(pid, 0)
    os.close(reader)
    os.close(writer)
    assert again is not None
    again.done()


def test_the_oldest_file_makes_room(tmp_path):
    lost = []
    spool = open_spool(tmp_path / "spool", max_bytes=1000)
    spool.lost = lambda *what: lost.append(what)
    for number in range(5):
        assert spool.write("traces", "key", number + 1, bytes([number]) * 200)
    assert sum(path.stat().st_size for path in files(spool.folder)) <= 1000
    assert lost == [("traces", 1, "spool_full"), ("traces", 2, "spool_full")]
    assert spool.claim(KEYS).items == 3


def test_a_file_that_is_being_sent_makes_no_room(tmp_path):
    spool = open_spool(tmp_path / "spool", max_bytes=500)
    assert spool.write("traces", "key", 1, b"a" * 300)
    claimed = spool.claim(KEYS)
    assert not spool.write("traces", "key", 1, b"b" * 300)
    claimed.release()
    assert spool.write("traces", "key", 1, b"b" * 300)


def test_a_request_bigger_than_the_spool_is_not_kept(tmp_path):
    spool = open_spool(tmp_path / "spool", max_bytes=100)
    assert not spool.write("traces", "key", 1, b"a" * 101)
    assert not files(spool.folder)


def broken_contents(good):
    flipped = good[:-1] + bytes([good[-1] ^ 1])
    return {
        "empty": b"", "flipped": flipped, "cut": good[:-1], "longer": good + b"x", "other": b"\x7fELF" * 10,
        "no-head": b"SIGHTLINE SPOOL 1\n", "list": b"SIGHTLINE SPOOL 1\n[]\nbody",
        "deep": b"SIGHTLINE SPOOL 1\n" + b"[" * 4000 + b"\n",
    }  # fmt: skip


@pytest.mark.parametrize("kind", broken_contents(b"x"))
def test_a_broken_file_is_deleted_and_counted(spool, kind, caplog):
    spool.write("traces", "key", 7, b"body")
    (path,) = files(spool.folder)
    path.write_bytes(broken_contents(path.read_bytes())[kind])
    with engine_of(spool=spool) as engine:
        transport = RecordingTransport()
        OtlpSpanProcessor(transport, limits(), engine)
        assert until(lambda: not files(spool.folder))
        assert until(lambda: engine.ledger("traces").dropped == {"spool_corrupt": 7})
        assert engine.ledger("traces").accepted == 0
        assert not transport.requests
    assert len([each for each in caplog.records if "SIGHTLINE_SPOOL_DIR" in each.getMessage()]) == 1


def test_a_file_for_another_endpoint_stays(spool):
    spool.write("traces", "elsewhere", 1, b"body")
    spool.write("logs", "key", 1, b"body")
    assert spool.claim(KEYS) is None
    assert len(files(spool.folder)) == 2
    claimed = spool.claim([("traces", "elsewhere")])
    assert claimed.body == b"body"
    claimed.release()


def test_files_of_others_are_left_alone(spool):
    foreign = spool.folder / "notes.otlp"
    foreign.write_bytes(b"x" * 100)
    (spool.folder / "folder.otlp").mkdir()
    link = spool.folder / f"{1:020d}-1-1.traces.1.otlp"
    link.symlink_to(foreign)
    assert spool.claim(KEYS) is None
    assert foreign.exists()
    assert link.is_symlink()


def test_what_was_never_finished_is_deleted_after_an_hour(spool):
    stale = spool.folder / ".old.part"
    stale.write_bytes(b"x")
    os.utime(stale, (0, 0))
    fresh = spool.folder / ".new.part"
    fresh.write_bytes(b"x")
    spool.claim(KEYS)
    assert not stale.exists()
    assert fresh.exists()


def test_a_refused_file_is_deleted_and_counted(spool):
    with FaultyCollector(then=status(400)) as collector, engine_of(spool=spool) as engine:
        transport = http_transport(collector)
        spool.write("traces", transport.destination.key, 4, b"")
        OtlpSpanProcessor(transport, limits(), engine)
        assert until(lambda: engine.ledger("traces").dropped == {"refused": 4})
        assert not files(spool.folder)


def test_rejected_items_of_a_file_are_counted(spool):
    with FaultyCollector(then=reject(1)) as collector, engine_of(spool=spool) as engine:
        transport = http_transport(collector)
        spool.write("traces", transport.destination.key, 4, b"")
        OtlpSpanProcessor(transport, limits(), engine)
        assert until(lambda: engine.ledger("traces").acknowledged == 3)
        assert engine.ledger("traces").dropped == {"rejected": 1}


def test_a_file_stays_while_the_collector_is_down(spool, monkeypatch):
    monkeypatch.setattr("sightline_processors.export.engine._SPOOL_INTERVAL_SECONDS", 0.05)
    with FaultyCollector(script=[status(503)] * 3) as collector, engine_of(spool=spool) as engine:
        transport = http_transport(collector)
        spool.write("traces", transport.destination.key, 4, b"")
        processor = OtlpSpanProcessor(transport, limits(), engine)
        assert until(lambda: collector.requests)
        assert len(files(spool.folder)) == 1
        span_source(processor)()
        assert until(lambda: not files(spool.folder))
        assert until(lambda: engine.ledger("traces").acknowledged == 5)


def test_files_of_an_endpoint_that_answers_do_not_wait_for_one_that_does_not(spool, monkeypatch):
    with FaultyCollector(then=status(503)) as down, FaultyCollector() as up, engine_of() as engine:
        failing, healthy = http_transport(down), http_transport(up, "logs")
        spans = OtlpSpanProcessor(failing, limits(), engine)
        OtlpLogRecordProcessor(healthy, limits(), engine)
        span_source(spans)()
        assert until(lambda: engine.couriers[0].is_failing)
        spool.write("traces", failing.destination.key, 1, b"")
        spool.write("logs", healthy.destination.key, 1, b"")
        engine._spool = spool
        engine._wake()
        assert until(lambda: len(files(spool.folder)) == 1)
        assert files(spool.folder)[0].name.split(".")[1] == "traces"


def test_a_folder_that_others_may_read_gets_a_private_one_inside(tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o755)
    (shared / "file").touch()
    spool = open_spool(shared)
    assert spool.folder == shared / f"sightline-{os.geteuid()}"
    assert mode(spool.folder) == 0o700
    assert mode(shared) == 0o755


def test_an_empty_folder_is_made_private(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir(mode=0o755)
    assert open_spool(empty).folder == empty
    assert mode(empty) == 0o700


@pytest.mark.parametrize("kind", ["file", "null", "below-a-file", "no-name"])
def test_a_folder_that_cannot_be_used_is_one_line_and_no_spool(tmp_path, kind, caplog):
    (tmp_path / "file").touch()
    path = {
        "file": tmp_path / "file", "null": "/dev/null", "below-a-file": tmp_path / "file" / "spool",
        "no-name": f"{tmp_path}/a\0b",
    }[kind]  # fmt: skip
    assert open_spool(path) is None
    (record,) = [each for each in caplog.records if each.name == "sightline"]
    assert record.getMessage().startswith(
        "SIGHTLINE_SPOOL_DIR must be a folder that this process may write to"
    )


def test_a_disk_that_takes_nothing_is_one_line_and_a_counted_drop(tmp_path, monkeypatch, caplog):
    spool = open_spool(tmp_path / "spool")
    spool.folder.rmdir()
    with FaultyCollector(then=status(503)) as collector:
        engine = Engine(spool=spool, shutdown_timeout_seconds=0.1)
        processor = OtlpSpanProcessor(http_transport(collector), limits(), engine)
        source = span_source(processor)
        for _ in range(200):
            source()
        processor.shutdown()
        assert engine.ledger("traces") == Ledger("traces", dropped={"shutdown": 200})
    assert len([each for each in caplog.records if "could not take" in each.getMessage()]) == 1


def test_the_check_sum_is_that_of_the_body(spool):
    spool.write("traces", "key", 1, b"body")
    (path,) = files(spool.folder)
    head = path.read_bytes().split(b"\n")[1]
    assert f'"crc32": {zlib.crc32(b"body")}'.encode() in head
