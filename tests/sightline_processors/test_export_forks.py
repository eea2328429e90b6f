"""Forked processes: an empty queue, a thread, connections and an account of their own; nothing twice."""

import multiprocessing
import os
import threading
import time
from contextlib import contextmanager

from tests.sightline_processors.export_support import engine_of, http_transport, limits, span_source, until
from tests.sightline_processors.faulty_collector import FaultyCollector, accept, silent, status

from sightline_processors import report
from sightline_processors.export import Ledger, OtlpSpanProcessor

DEADLINE_SECONDS = 10


def in_child(work):
    """Forks, does the work in the child and returns its answer; fails when the child does not end."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        answer = "failed"
        try:
            answer = str(work())
        except BaseException as error:
            answer = repr(error)
        finally:
            os.write(writer, answer.encode())
            os._exit(0)
    os.close(writer)
    assert until(lambda: os.waitpid(pid, os.WNOHANG)[0] == pid, DEADLINE_SECONDS), "the child does not end"
    answer = os.read(reader, 1 << 16).decode()
    os.close(reader)
    return answer


@contextmanager
def exporting(behaviour=accept, **bounds):
    with FaultyCollector(then=behaviour) as collector, engine_of() as engine:
        transport = http_transport(collector, timeout_seconds=2)
        processor = OtlpSpanProcessor(transport, limits(**bounds), engine)
        yield collector, engine, processor, span_source(processor)


def test_a_child_starts_with_nothing():
    with exporting(status(503)) as (_, engine, _, end_span):
        for _ in range(100):
            end_span()
        assert until(lambda: engine.thread_id is not None)
        assert (
            in_child(lambda: engine.ledger("traces") == Ledger("traces") and engine.thread_id is None)
            == "True"
        )
        assert engine.ledger("traces").accepted == 100


def test_parent_and_child_deliver_their_own_items_once():
    with exporting(schedule_delay_seconds=0.3) as (collector, engine, processor, end_span):
        mine = [end_span() for _ in range(50)]

        def work():
            ids = [end_span() for _ in range(50)]
            assert until(lambda: engine.ledger("traces").acknowledged == 50, 5), engine.ledger("traces")
            return ",".join(ids)

        theirs = in_child(work).split(",")
        assert processor.force_flush(5_000)
        assert collector.stored == dict.fromkeys([*mine, *theirs], 1)


def test_a_child_has_a_connection_of_its_own():
    with exporting() as (collector, _, processor, end_span):
        end_span()
        assert processor.force_flush(5_000)
        assert collector.connections == 1
        assert in_child(lambda: (end_span(), processor.force_flush(5_000))[1]) == "True"
        assert collector.connections == 2
        end_span()
        assert processor.force_flush(5_000)
        assert collector.connections == 2


def test_a_fork_while_the_parent_is_sending_does_not_stop_the_child():
    with exporting(silent) as (collector, _, processor, end_span):
        end_span()
        assert until(lambda: collector.requests)
        collector.then = accept
        assert in_child(lambda: (end_span(), processor.force_flush(5_000))[1]) == "True"
        assert len(collector.stored) == 1


def test_a_fork_while_any_lock_is_held_does_not_stop_the_child():
    with exporting() as (_, engine, processor, end_span):
        end_span()
        processor.force_flush(5_000)
        (courier,) = engine.couriers
        release, held = threading.Event(), threading.Event()

        def hold():
            with courier.lane.lock, courier.sending, report._lock:
                held.set()
                release.wait(DEADLINE_SECONDS)

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait(DEADLINE_SECONDS)

        def work():
            for _ in range(200):
                end_span()
            report.report("fork", "a line")
            return processor.force_flush(5_000)

        answer = in_child(work)
        release.set()
        thread.join()
        assert answer == "True"


def test_many_forks_under_load_neither_stop_nor_repeat_anything():
    with exporting() as (collector, _, processor, end_span):
        ended, running = [], threading.Event()

        def load():
            while not running.is_set():
                ended.append(end_span())
                time.sleep(0.0005)

        threads = [threading.Thread(target=load) for _ in range(2)]
        for thread in threads:
            thread.start()

        def work():
            ids = [end_span() for _ in range(20)]
            return ",".join(ids) if processor.force_flush(5_000) else "lost"

        theirs = [item for _ in range(8) for item in in_child(work).split(",")]
        running.set()
        for thread in threads:
            thread.join()
        assert processor.force_flush(5_000)
        assert collector.stored == dict.fromkeys([*ended, *theirs], 1)


def test_a_child_of_a_child_delivers():
    with exporting() as (collector, _, processor, end_span):

        def grandchild():
            end_span()
            return processor.force_flush(5_000)

        assert in_child(lambda: in_child(grandchild)) == "True"
        assert len(collector.stored) == 1


def test_a_process_of_multiprocessing_delivers():
    context = multiprocessing.get_context("fork")
    with exporting() as (collector, _, processor, end_span):
        queue = context.SimpleQueue()

        def work():
            queue.put(end_span())
            processor.force_flush(5_000)

        process = context.Process(target=work)
        process.start()
        process.join(DEADLINE_SECONDS)
        assert process.exitcode == 0
        assert collector.stored == {queue.get(): 1}
        queue.close()
