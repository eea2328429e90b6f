"""From the end of a span to its acknowledgement: nothing is lost without a count, whatever happens."""

import logging
import random
import threading
import time
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry import context as otel_context
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from tests.sightline_processors.export_support import (
    RecordingTransport,
    engine_of,
    http_transport,
    limits,
    log_source,
    meter_provider,
    span_source,
    until,
)
from tests.sightline_processors.faulty_collector import (
    PROTOBUF,
    FaultyCollector,
    accept,
    drip,
    hang_up,
    raw,
    reject,
    reset,
    silent,
    status,
)

from sightline_processors import report
from sightline_processors.export import (
    Backoff,
    Engine,
    Ledger,
    Limits,
    OtlpLogRecordProcessor,
    OtlpMetricExporter,
    OtlpSpanProcessor,
    Retry,
    Signal,
)
from sightline_processors.otlp.spans import encode_span

HTML = b"<html>Log in</html>"

FAULTS = {
    "503": status(503),
    "429": status(429, ("retry-after", "0")),
    "429-negative": status(429, ("retry-after", "-3600")),
    "429-huge": status(429, ("retry-after", "99999999999999999999")),
    "429-garbage": status(429, ("retry-after", "\x01soon;drop table")),
    "429-past": status(429, ("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT")),
    "502-html": status(502, ("content-type", "text/html"), body=HTML),
    "307": status(307, ("location", "http://127.0.0.1:1/v1/traces")),
    "200-html": status(200, ("content-type", "text/html"), body=HTML),
    "200-garbage": status(200, PROTOBUF, body=b"\xff\xfe\xfd"),
    "400": status(400),
    "reset": reset,
    "hang-up": hang_up,
    "not-http": raw(b"220 smtp.example ESMTP\r\n"),
    "truncated": raw(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nab"),
    "partial": reject(3),
    "partial-all": reject(10_000),
    "drip-head": drip(b"HTTP/1.1 200 OK\r\n\r\n", 0.05),
    "silent": silent,
}


def conserved(engine, signal, items, collector):
    """Checks the account against what the application handed in and what the collector took."""
    ledger = engine.ledger(signal)
    assert ledger.accepted == len(items)
    assert ledger.acknowledged + sum(ledger.dropped.values()) + ledger.pending == len(items)
    assert set(collector.stored) <= set(items)
    assert len(collector.stored) >= ledger.acknowledged  # an item may arrive although the answer did not
    return ledger


def produce(source, count=400, threads=4):
    """Ends items in several threads and returns their IDs."""
    items = []

    def run():
        for number in range(count // threads):
            items.append(source())
            if number % 25 == 0:
                time.sleep(0.005)

    running = [threading.Thread(target=run) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return items


@pytest.mark.parametrize("fault", FAULTS)
def test_every_item_is_accounted_for_with_one_kind_of_fault(fault):
    with FaultyCollector(script=[FAULTS[fault], accept] * 2) as collector, engine_of() as engine:
        transport = http_transport(collector, timeout_seconds=0.15)
        processor = OtlpSpanProcessor(transport, limits(export_timeout_seconds=0.8), engine)
        items = produce(span_source(processor), 200)
        processor.force_flush(5_000)
        ledger = conserved(engine, "traces", items, collector)
        assert ledger.pending == 0
        assert ledger.acknowledged > 0


@pytest.mark.parametrize("seed", range(4))
def test_every_item_is_accounted_for_with_a_collector_that_flaps(seed):
    generator = random.Random(seed)
    script = [generator.choice([accept, *FAULTS.values()]) for _ in range(25)]
    with FaultyCollector(script=script) as collector, engine_of() as engine:
        spans = OtlpSpanProcessor(
            http_transport(collector, timeout_seconds=0.1), limits(export_timeout_seconds=0.6), engine
        )
        logs = OtlpLogRecordProcessor(
            http_transport(collector, "logs", timeout_seconds=0.1), limits(export_timeout_seconds=0.6), engine
        )
        ended = produce(span_source(spans), 1000)
        emitted = produce(log_source(logs), 600)
        spans.force_flush(5_000)
        logs.force_flush(5_000)
        everything = {*ended, *emitted}
        assert set(collector.stored) <= everything
        total = 0
        pairs: tuple[tuple[Signal, list[str]], ...] = (("traces", ended), ("logs", emitted))
        for signal, items in pairs:
            ledger = engine.ledger(signal)
            assert ledger.accepted == len(items)
            assert ledger.pending == 0
            total += ledger.acknowledged
        assert len(collector.stored) >= total


def test_what_was_acknowledged_is_not_sent_again():
    with FaultyCollector(script=[reject(5), accept, reject(1)]) as collector, engine_of() as engine:
        processor = OtlpSpanProcessor(http_transport(collector), limits(), engine)
        items = produce(span_source(processor), 300)
        processor.force_flush(5_000)
        ledger = conserved(engine, "traces", items, collector)
        assert ledger.dropped == {"rejected": 6}
        assert set(collector.stored.values()) == {1}
        sent = [item for request in collector.requests for item in request.items]
        assert sorted(sent) == sorted(items)


def test_an_outage_costs_nothing_while_the_queue_holds_it():
    with FaultyCollector(then=status(503)) as collector, engine_of() as engine:
        processor = OtlpSpanProcessor(http_transport(collector), limits(), engine)
        items = produce(span_source(processor), 300)
        assert until(lambda: len(collector.requests) > 3)
        collector.then = accept
        assert processor.force_flush(5_000)
        assert set(collector.stored) == set(items)
        assert engine.ledger("traces").acknowledged == 300


def test_a_batch_is_given_up_at_its_deadline():
    with FaultyCollector(then=status(503)) as collector, engine_of() as engine:
        processor = OtlpSpanProcessor(http_transport(collector), limits(export_timeout_seconds=0.2), engine)
        source = span_source(processor)
        started = time.monotonic()
        source()
        assert until(lambda: engine.ledger("traces").dropped == {"unavailable": 1}, 3)
        assert 0.15 < time.monotonic() - started < 1.5
        assert len(collector.requests) > 2


def test_a_huge_wait_gets_one_more_attempt_before_the_deadline():
    asks = status(429, ("retry-after", "86400"))
    with FaultyCollector(script=[asks]) as collector, engine_of() as engine:
        processor = OtlpSpanProcessor(http_transport(collector), limits(export_timeout_seconds=0.5), engine)
        item = span_source(processor)()
        assert until(lambda: engine.ledger("traces").acknowledged == 1, 3)
        assert set(collector.stored) == {item}
        assert len(collector.requests) == 2


def test_the_wait_that_the_collector_asks_for_is_kept():
    with FaultyCollector(script=[status(503, ("retry-after", "1"))]) as collector, engine_of() as engine:
        processor = OtlpSpanProcessor(http_transport(collector), limits(), engine)
        span_source(processor)()
        assert until(lambda: len(collector.requests) == 1)
        started = time.monotonic()
        assert until(lambda: collector.stored, 3)
        assert time.monotonic() - started > 0.9


def test_the_oldest_items_are_dropped_while_the_collector_is_down():
    with FaultyCollector(then=status(503)) as collector, engine_of() as engine:
        processor = OtlpSpanProcessor(
            http_transport(collector), limits(max_items=100, max_batch_items=20), engine
        )
        items = produce(span_source(processor), 500, threads=1)
        assert until(
            lambda: not engine.couriers[0].lane.batch or not engine.couriers[0].lane.batch.is_on_wire
        )
        collector.then = accept
        assert processor.force_flush(5_000) in (True, False)
        ledger = conserved(engine, "traces", items, collector)
        assert ledger.dropped.keys() == {"queue_full"}
        assert items[-1] in collector.stored
        assert len(collector.stored) == ledger.acknowledged == 500 - ledger.dropped["queue_full"]
        assert set(items[-60:]) <= set(collector.stored)


def test_a_span_that_is_not_sampled_is_not_accepted():
    with engine_of() as engine:
        processor = OtlpSpanProcessor(RecordingTransport(), limits(), engine)
        provider = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
        provider.add_span_processor(processor)
        provider.get_tracer("tests").start_span("span").end()
        assert engine.ledger("traces").accepted == 0


def test_what_only_looks_like_a_span_is_dropped_and_counted():
    with engine_of() as engine:
        processor = OtlpSpanProcessor(RecordingTransport(), limits(), engine)
        looks_like_a_span: Any = object()
        processor.on_end(looks_like_a_span)
        assert engine.ledger("traces").dropped == {"encoding": 1}


def test_a_batch_that_cannot_be_joined_is_dropped_and_counted():
    transport = RecordingTransport()
    with engine_of() as engine:
        processor = OtlpSpanProcessor(transport, limits(), engine)
        not_bytes: Any = "not bytes"
        processor.put_encoded(None, None, not_bytes)
        processor.force_flush(1_000)
        assert engine.ledger("traces").dropped == {"encoding": 1}
        span_source(processor)()
        assert processor.force_flush(1_000)
        assert len(transport.requests) == 1


def encoded_spans(count, size=10):
    """Returns the resource, the scope and the bytes of spans with a text of a size."""
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("tests")
    spans: list[Any] = [tracer.start_span("span", attributes={"text": "x" * size}) for _ in range(count)]
    for span in spans:
        span.end()
    first = spans[0]
    return first.resource, first.instrumentation_scope, [encode_span(span) for span in spans]


@pytest.mark.parametrize(
    ("bounds", "size", "entries"),
    [
        ({"max_items": 2048, "max_batch_items": 512}, 10, 1),
        ({"max_items": 511, "max_batch_items": 255}, 10, 64),  # a small part of the queue no longer
        ({"max_items": 2048, "max_batch_items": 63}, 10, 64),  # more than a request takes
        ({"max_items": 2048, "max_batch_items": 512}, 20_000, 64),  # too many bytes to drop at a time
    ],
)
def test_spans_that_come_together_are_one_entry_where_it_is_a_small_part_of_the_queue(bounds, size, entries):
    transport = RecordingTransport()
    with engine_of() as engine:
        processor = OtlpSpanProcessor(transport, limits(**bounds, schedule_delay_seconds=60), engine)
        resource, scope, items = encoded_spans(64, size=size)
        processor.put_all(resource, scope, items)
        lane = processor.courier.lane
        assert len(lane.items) == entries or lane.batch is not None
        assert lane.ledger().pending + lane.ledger().acknowledged == 64
        assert processor.force_flush(5_000)
        requests = [ExportTraceServiceRequest.FromString(request) for request in transport.requests]
        batches = [len(request.resource_spans[0].scope_spans[0].spans) for request in requests]
        assert sum(batches) == 64
        assert max(batches) <= lane.limits.batch_items
        assert engine.ledger("traces") == Ledger("traces", acknowledged=64)


def test_spans_that_are_one_entry_are_dropped_together_and_each_is_counted():
    never = RecordingTransport(*[Retry("unreachable")] * 1000)
    with engine_of() as engine:
        processor = OtlpSpanProcessor(
            never, limits(max_items=512, max_batch_items=256, schedule_delay_seconds=60), engine
        )
        resource, scope, items = encoded_spans(64)
        for _ in range(20):
            processor.put_all(resource, scope, items)
        ledger = engine.ledger("traces")
        assert ledger.accepted == 20 * 64
        assert 512 - 64 <= ledger.pending <= 512
        assert ledger.dropped == {"queue_full": 20 * 64 - ledger.pending}


def test_spans_that_come_together_after_the_end_are_dropped_and_counted():
    with engine_of() as engine:
        processor = OtlpSpanProcessor(RecordingTransport(), limits(max_batch_items=512), engine)
        processor.shutdown()
        resource, scope, items = encoded_spans(64)
        processor.put_all(resource, scope, items)
        assert engine.ledger("traces").dropped == {"shutdown": 64}


def test_log_records_arrive_as_they_were_when_they_were_emitted():
    with FaultyCollector() as collector, engine_of() as engine:
        processor = OtlpLogRecordProcessor(http_transport(collector, "logs"), limits(), engine)
        bodies = produce(log_source(processor), 100)
        assert processor.force_flush(5_000)
        assert collector.stored == dict.fromkeys(bodies, 1)


def test_metrics_are_counted_in_data_points():
    with FaultyCollector(script=[reject(1)]) as collector, engine_of() as engine:
        exporter = OtlpMetricExporter(http_transport(collector, "metrics"), Limits.of_metrics(10.0), engine)
        provider = meter_provider(exporter)
        counter = provider.get_meter("tests").create_counter("shop.sold")
        for colour in ("red", "green", "blue"):
            counter.add(1, {"colour": colour})
        assert provider.force_flush()
        ledger = engine.ledger("metrics")
        assert (ledger.accepted, ledger.acknowledged, ledger.dropped) == (3, 2, {"rejected": 1})
        counter.add(1, {"colour": "red"})
        provider.shutdown()
        assert engine.ledger("metrics").acknowledged == 5


def test_a_hanging_signal_keeps_the_others_for_one_attempt_at_most():
    with (
        FaultyCollector(then=silent) as stuck,
        FaultyCollector() as healthy,
        engine_of() as engine,
    ):
        spans = OtlpSpanProcessor(http_transport(stuck, timeout_seconds=0.3), limits(), engine)
        logs = OtlpLogRecordProcessor(http_transport(healthy, "logs"), limits(), engine)
        end_span, emit = span_source(spans), log_source(logs)
        for _ in range(6):
            end_span()
            assert until(partial(healthy.stored.__contains__, emit()), 0.9)


def test_a_signal_that_waits_for_a_retry_keeps_nobody():
    with (
        FaultyCollector(then=status(503, ("retry-after", "60"))) as failing,
        FaultyCollector() as healthy,
        engine_of() as engine,
    ):
        spans = OtlpSpanProcessor(http_transport(failing), limits(), engine)
        logs = OtlpLogRecordProcessor(http_transport(healthy, "logs"), limits(), engine)
        span_source(spans)()
        assert until(lambda: failing.requests)
        emitted = log_source(logs)()
        assert until(lambda: emitted in healthy.stored, 0.5)


def test_a_flush_does_not_wait_for_the_retry():
    with FaultyCollector(script=[status(503, ("retry-after", "60"))]) as collector, engine_of() as engine:
        processor = OtlpSpanProcessor(http_transport(collector), limits(export_timeout_seconds=100), engine)
        item = span_source(processor)()
        assert until(lambda: collector.requests)
        started = time.monotonic()
        assert processor.force_flush(5_000) is True
        assert time.monotonic() - started < 1
        assert set(collector.stored) == {item}


def test_a_flush_tells_the_truth_about_time():
    with FaultyCollector(then=silent) as collector, engine_of() as engine:
        processor = OtlpSpanProcessor(http_transport(collector), limits(), engine)
        span_source(processor)()
        started = time.monotonic()
        assert processor.force_flush(200) is False
        assert 0.15 < time.monotonic() - started < 0.7


@pytest.mark.parametrize("fault", ["400", "200-html", "partial"])
def test_a_flush_tells_the_truth_about_items_that_were_not_taken(fault):
    with FaultyCollector(then=FAULTS[fault]) as collector, engine_of() as engine:
        processor = OtlpSpanProcessor(http_transport(collector), limits(), engine)
        source = span_source(processor)
        for _ in range(5):
            source()
        assert processor.force_flush(2_000) is False
        assert engine.ledger("traces").pending == 0


def test_a_flush_with_nothing_to_send_is_done():
    with engine_of() as engine:
        processor = OtlpSpanProcessor(RecordingTransport(), limits(), engine)
        assert processor.force_flush(0) is True
        assert processor.force_flush() is True
        assert engine.thread_id is None


def test_a_flush_delivers_what_a_source_ends_when_it_is_asked():
    with FaultyCollector() as collector, engine_of() as engine:
        processor = OtlpSpanProcessor(http_transport(collector), limits(schedule_delay_seconds=60), engine)
        end_span, ended = span_source(processor), []

        def decide():  # as a sampler does about a trace: its spans come to the processor while it asks
            if not ended:
                ended.append(end_span())

        processor.draw_from(decide)
        assert processor.force_flush(5_000)
        assert list(collector.stored) == ended
        assert len(ended) == 1


def test_a_small_queue_takes_what_a_large_one_would():
    with FaultyCollector() as collector, engine_of() as engine:
        bounds = limits(max_items=16, max_batch_items=4, schedule_delay_seconds=60)
        processor = OtlpSpanProcessor(http_transport(collector), bounds, engine)
        end_span = span_source(processor)
        for number in range(1, 41):
            end_span()
            assert until(lambda number=number: len(collector.stored) >= number // 4 * 4, 2)  # type: ignore[misc]
        assert processor.force_flush(5_000)
        assert engine.ledger("traces") == Ledger("traces", acknowledged=40)


def test_the_account_is_whole_while_another_thread_encodes():
    class Slow:
        """Is in the middle of the first span until it is let go."""

        def __init__(self):
            self.reached, self.go_on = threading.Event(), threading.Event()

        def rewrite(self, span):
            if not self.reached.is_set():
                self.reached.set()
                self.go_on.wait(5)
            return span

    with FaultyCollector() as collector, engine_of() as engine:
        processor = OtlpSpanProcessor(http_transport(collector), limits(schedule_delay_seconds=60), engine)
        slow = Slow()
        processor.span_rewriters = (slow,)
        end_span = span_source(processor)
        for _ in range(20):
            end_span()
        thread = threading.Thread(target=processor._lane.draw)
        thread.start()
        assert slow.reached.wait(5)
        assert processor.force_flush(5_000)
        assert len(collector.stored) == 19  # all but the one in the other thread's hands
        slow.go_on.set()
        thread.join()
        assert processor.force_flush(5_000)
        assert engine.ledger("traces") == Ledger("traces", acknowledged=20)


def test_a_logging_filter_that_raises_keeps_no_span_from_being_delivered():
    def refuse(record):
        raise RuntimeError("filter")

    logger = logging.getLogger("sightline")
    no_span: Any = SimpleNamespace(context=SimpleNamespace(trace_flags=1))  # a line about it is logged
    with FaultyCollector() as collector, engine_of() as engine:
        processor = OtlpSpanProcessor(http_transport(collector), limits(schedule_delay_seconds=60), engine)
        end_span = span_source(processor)
        logger.addFilter(refuse)
        try:
            before = end_span()
            processor.on_end(no_span)
            after = end_span()
            assert processor.force_flush(5_000)
        finally:
            logger.removeFilter(refuse)
        assert collector.stored == {before: 1, after: 1}
        assert engine.ledger("traces").dropped == {"encoding": 1}


def test_a_rewriter_may_end_spans_itself():
    with FaultyCollector() as collector, engine_of() as engine:
        processor = OtlpSpanProcessor(http_transport(collector), limits(schedule_delay_seconds=60), engine)
        end_span, ended = span_source(processor), []

        class Tracing:
            def rewrite(self, span):
                if len(ended) < 100:
                    ended.append(end_span())
                return span

        processor.span_rewriters = (Tracing(),)
        for _ in range(100):
            ended.append(end_span())
        started = time.monotonic()
        while engine.ledger("traces").acknowledged < len(ended):
            assert processor.force_flush(5_000)
            assert time.monotonic() < started + 5
        assert collector.stored == dict.fromkeys(ended, 1)


def test_few_spans_do_not_wait_for_others_longer_than_the_delay():
    with FaultyCollector() as collector, engine_of() as engine:
        processor = OtlpSpanProcessor(http_transport(collector), limits(schedule_delay_seconds=0.1), engine)
        end_span = span_source(processor)
        mine = [end_span(), end_span()]
        assert not collector.stored
        assert until(lambda: set(collector.stored) == set(mine), 2)
        mine.append(end_span())  # the thread sleeps by now, or will soon
        assert until(lambda: set(collector.stored) == set(mine), 2)


def test_a_flush_does_not_need_the_thread(monkeypatch):
    def no_thread(*_):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr("_thread.start_new_thread", no_thread)
    with FaultyCollector(script=[status(503)]) as collector, engine_of() as engine:
        processor = OtlpSpanProcessor(http_transport(collector), limits(), engine)
        items = [span_source(processor)() for _ in range(100)]
        assert processor.force_flush(2_000)
        assert set(collector.stored) == set(items)


def test_an_endpoint_that_has_been_down_for_long_gets_one_attempt_of_a_flush(monkeypatch):
    monkeypatch.setattr("sightline_processors.export.courier.KNOWN_DOWN_SECONDS", 0.1)
    with FaultyCollector(then=status(503)) as collector, engine_of() as engine:
        processor = OtlpSpanProcessor(http_transport(collector), limits(), engine)
        span_source(processor)()
        assert until(lambda: len(collector.requests) > 2)
        time.sleep(0.15)
        started = time.monotonic()
        assert processor.force_flush(5_000) is False
        assert time.monotonic() - started < 1


def test_a_shutdown_delivers_and_closes():
    with FaultyCollector() as collector:
        engine = Engine()
        processor = OtlpSpanProcessor(http_transport(collector), limits(schedule_delay_seconds=60), engine)
        source = span_source(processor)
        items = [source() for _ in range(100)]
        processor.shutdown()
        assert set(collector.stored) == set(items)
        source()
        processor.shutdown()
        ledger = engine.ledger("traces")
        assert (ledger.acknowledged, ledger.dropped, ledger.pending) == (100, {"shutdown": 1}, 0)


@pytest.mark.parametrize("behaviour", [silent, status(503), drip(b"HTTP/1.1 200 OK\r\n\r\n", 0.1)])
def test_a_shutdown_ends_in_time_and_counts_what_is_lost(behaviour, caplog):
    with FaultyCollector(then=behaviour) as collector:
        engine = Engine(shutdown_timeout_seconds=0.3)
        spans = OtlpSpanProcessor(http_transport(collector), limits(), engine)
        logs = OtlpLogRecordProcessor(http_transport(collector, "logs"), limits(), engine)
        metrics = OtlpMetricExporter(http_transport(collector, "metrics"), Limits.of_metrics(9.0), engine)
        end_span, emit, provider = span_source(spans), log_source(logs), meter_provider(metrics)
        provider.get_meter("tests").create_counter("shop.sold").add(1)
        for _ in range(200):
            end_span()
            emit()
        started = time.monotonic()
        spans.shutdown()
        logs.shutdown()
        provider.shutdown()
        assert time.monotonic() - started < 1.5
        counts: dict[Signal, int] = {"traces": 200, "logs": 200, "metrics": 1}
        for signal, count in counts.items():
            ledger = engine.ledger(signal)
            assert ledger.accepted == count
            assert ledger.dropped == {"shutdown": count}
    lines = [each.getMessage() for each in caplog.records if "the process ended" in each.getMessage()]
    assert len(lines) == 1


def test_the_thread_starts_with_the_first_item_and_ends_with_the_engine():
    with FaultyCollector() as collector:
        engine = Engine()
        processor = OtlpSpanProcessor(http_transport(collector), limits(), engine)
        assert engine.thread_id is None
        span_source(processor)()
        thread_id = engine.thread_id
        assert until(lambda: collector.stored)
        assert {thread.name for thread in threading.enumerate() if thread.ident == thread_id} <= {
            "sightline-export"
        }
        processor.shutdown()
        assert until(lambda: thread_id not in __import__("sys")._current_frames())


def test_the_thread_sleeps_while_nothing_waits():
    transport = RecordingTransport()
    with engine_of() as engine:
        turns = []
        original = engine._turn

        def counted_turn():
            turns.append(1)
            return original()

        vars(engine)["_turn"] = counted_turn
        processor = OtlpSpanProcessor(transport, limits(), engine)
        span_source(processor)()
        assert until(lambda: transport.requests)
        time.sleep(0.1)
        before = len(turns)
        time.sleep(0.2)
        assert len(turns) == before


def test_the_thread_outlives_an_error_that_nobody_thought_of():
    transport = RecordingTransport()
    with engine_of() as engine:
        processor = OtlpSpanProcessor(transport, limits(), engine)
        transport.gate = lambda: (_ for _ in ()).throw(MemoryError)
        source = span_source(processor)
        source()
        assert until(lambda: report.reported("export_defect"))
        transport.gate = lambda: None
        source()
        assert processor.force_flush(3_000)
        assert engine.ledger("traces").acknowledged == 2


def test_each_kind_of_fault_is_one_line_a_minute_without_what_came_over_the_network(caplog):
    secret = b"<html>SECRET-BODY</html>"
    script = [
        status(503, ("retry-after", "SECRET-HEADER"), body=secret), status(503), status(503),
        status(307, ("location", "http://SECRET-HEADER/")), status(307), reset, reset, hang_up,
        status(200, ("content-type", "text/html"), body=secret), status(200, PROTOBUF, body=b"\xff"),
        status(400, body=secret), status(401), reject(1), reject(2), drip(b"SECRET" * 5, 0.1), silent,
    ]  # fmt: skip
    with FaultyCollector(script=script) as collector, engine_of() as engine:
        transport = http_transport(collector, timeout_seconds=0.5, headers=(("x-key", "SECRET-KEY"),))
        processor = OtlpSpanProcessor(transport, limits(max_batch_items=5), engine)
        source = span_source(processor)
        for _ in range(20):
            source()
            processor.force_flush(2_000)
    lines = [each.getMessage() for each in caplog.records if each.name == "sightline"]
    kinds = [line.split(": ")[1].split(" (")[0].split(";")[0] for line in lines]
    assert len(kinds) == len(set(kinds)) == 7
    assert all(line.startswith("Failed to export spans batch to http://127.0.0.1") for line in lines)
    assert "SECRET" not in " ".join(lines)


def test_the_engine_logs_at_a_bounded_rate_under_overflow(caplog):
    with FaultyCollector(then=status(503)) as collector, engine_of() as engine:
        processor = OtlpSpanProcessor(http_transport(collector), limits(max_items=20), engine)
        produce(span_source(processor), 400)
        assert until(lambda: any("the queue is full" in each.getMessage() for each in caplog.records))
    assert len([each for each in caplog.records if each.name == "sightline"]) == 2


def test_exports_are_kept_from_instrumentation():
    seen = []
    transport = RecordingTransport()
    transport.gate = lambda: seen.append(otel_context.get_value(_SUPPRESS_INSTRUMENTATION_KEY))
    with engine_of() as engine:
        processor = OtlpSpanProcessor(transport, limits(), engine)
        source = span_source(processor)
        source()
        assert until(lambda: transport.requests)
        source()
        processor.force_flush(1_000)
    assert seen == [True, True]
    assert otel_context.get_value(_SUPPRESS_INSTRUMENTATION_KEY) is None


def test_a_record_that_is_logged_about_an_export_does_not_lead_to_another_one():
    with FaultyCollector(then=status(503)) as collector, engine_of() as engine:
        processor = OtlpLogRecordProcessor(http_transport(collector, "logs"), limits(), engine)
        emit = log_source(processor)

        class Exporting(logging.Handler):
            def emit(self, record):
                emit()

        handler = Exporting()
        logging.getLogger("sightline").addHandler(handler)
        try:
            emit()
            assert until(lambda: len(collector.requests) > 3)
        finally:
            logging.getLogger("sightline").removeHandler(handler)
        assert engine.ledger("logs").accepted == 2


def test_several_endpoints_of_a_signal_have_an_account_each_and_one_together():
    with FaultyCollector() as first, FaultyCollector(then=status(400)) as second, engine_of() as engine:
        one = OtlpSpanProcessor(http_transport(first), limits(), engine)
        two = OtlpSpanProcessor(http_transport(second), limits(), engine)
        for _ in range(3):
            span_source(one)()
            span_source(two)()
        engine.force_flush(2.0)
        ledger = engine.ledger("traces")
        assert (ledger.acknowledged, ledger.dropped, ledger.accepted) == (3, {"refused": 3}, 6)


def test_retries_wait_longer_and_longer():
    waits = []
    transport = RecordingTransport(*[Retry("unavailable")] * 5)

    class Full(Backoff):
        def seconds(self, attempts):
            waits.append(attempts)
            return 0.0

    with engine_of(backoff=Full()) as engine:
        processor = OtlpSpanProcessor(transport, limits(), engine)
        span_source(processor)()
        assert until(lambda: engine.ledger("traces").acknowledged == 1)
    assert waits == [1, 2, 3, 4, 5]
