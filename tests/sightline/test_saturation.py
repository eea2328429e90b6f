"""How full the process is: lag of event loops, what waits for a thread, and what waited in front."""

import asyncio
import gc
import os
import socket
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from ipaddress import ip_network
from itertools import pairwise
from typing import Any

import anyio.to_thread
import httpx
import pytest
import uvicorn
import uvloop
from anyio.to_thread import current_default_thread_limiter
from asgi import http_scope
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.metrics import NoOpHistogram, NoOpMeter, NoOpMeterProvider
from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.trace import INVALID_SPAN_CONTEXT, SpanContext, TraceFlags, get_current_span

from sightline import names, saturation
from sightline.request_queue import MAX_PEERS, MAX_QUEUE_SECONDS, RequestQueue, queue_time
from sightline.saturation import MAX_TICKS, MAX_WAITS, request_queue, snapshot, waits, watch_loop
from sightline_processors import report

LAG = "sightline.event_loop.lag"
WAITING = "sightline.threads.waiting"
QUEUE_TIME = "sightline.request.queue_time"
NOW = 1_700_000_000_000_000_000
SAMPLED = SpanContext(0xA1, 0xB2, is_remote=False, trace_flags=TraceFlags(1))

on_every_loop = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])


class Readers:
    """A provider of the SDK, and what its readers collect."""

    def __init__(self, *temporalities, views=()):
        self.readers = [
            InMemoryMetricReader({Histogram: temporality} if temporality else None)
            for temporality in temporalities or (None,)
        ]
        self.provider = MeterProvider(self.readers, views=views, shutdown_on_exit=False)
        self.meter = self.provider.get_meter("sightline")

    def metric(self, name, reader=0):
        data = self.readers[reader].get_metrics_data()
        found = [
            metric
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
        ]
        return found[0] if found else None

    def point(self, name, reader=0):
        metric = self.metric(name, reader)
        return metric.data.data_points[0] if metric else None


@pytest.fixture
def readers():
    made = Readers()
    yield made
    made.provider.shutdown()


@pytest.fixture(autouse=True)
def fresh_watches(monkeypatch):
    monkeypatch.setattr(saturation, "INTERVAL_SECONDS", 0.1)  # so that the tests wait less
    monkeypatch.setattr(saturation, "QUIET_TICKS", 10)
    saturation.release_loops()
    yield
    saturation.release_loops()
    assert report.reported("saturation") == 0


def stall(seconds):
    time.sleep(seconds)  # on purpose: blocks the event loop


# --- event_loop.lag


@on_every_loop
def test_a_stall_is_the_lag_of_its_event_loop(readers, run):
    async def main():
        watch_loop(readers.meter)
        await asyncio.sleep(0.12)
        stall(0.35)
        await asyncio.sleep(0.02)

    run(main())
    point = readers.point(LAG)
    assert 0.2 < point.max < 3
    assert point.min >= 0
    assert tuple(point.explicit_bounds) == saturation.LAG_BOUNDARIES_SECONDS
    assert dict(point.attributes) == {}
    assert readers.metric(LAG).unit == "s"
    assert point.count >= 4  # the tick before, and what three ticks in the stall would have waited


@given(st.floats(0, 1e6), st.sampled_from([0.1, 1.0]))
def test_a_stall_counts_as_what_ticks_in_it_would_have_waited(lag, interval):
    values = waits(lag, interval)
    assert values[0] == lag
    assert 1 <= len(values) <= MAX_WAITS
    assert len(values) == MAX_WAITS or values[-1] <= interval * 1.001
    assert min(values) >= 0
    steps = [before - after for before, after in pairwise(values)]
    assert all(step == pytest.approx(interval, rel=1e-6) for step in steps)


@on_every_loop
def test_a_watched_loop_and_its_meter_are_not_kept(run):
    seen: list[Any] = []

    async def main():
        readers = Readers()
        watch_loop(readers.meter)
        seen.extend([weakref.ref(asyncio.get_running_loop()), weakref.ref(readers.meter)])
        readers.provider.shutdown()

    threads = threading.active_count()
    run(main())
    assert threading.active_count() == threads
    gc.collect()
    assert [each() for each in seen] == [None, None]
    assert saturation._watches == {}


def test_nothing_of_the_request_that_started_the_timer_is_kept_or_becomes_an_exemplar(telemetry):
    class OfRequest:
        pass

    variable = ContextVar("variable")
    meter = telemetry.meter_provider.get_meter("sightline")
    tracer = telemetry.tracer_provider.get_tracer("test")

    async def request():
        mine = OfRequest()
        variable.set(mine)
        with tracer.start_as_current_span("request"):
            watch_loop(meter)
        return weakref.ref(mine)

    async def main():
        kept = await asyncio.create_task(request())
        await asyncio.sleep(0.15)
        gc.collect()
        return kept()

    assert asyncio.run(main()) is None
    (point,) = telemetry.points(LAG)
    assert point.count >= 1
    assert point.exemplars == []


def test_meters_share_one_timer_and_each_gets_the_lag(readers):
    other = Readers()

    async def main():
        for _ in range(25):
            watch_loop(readers.meter)
            watch_loop(other.meter)
            await asyncio.sleep(0.01)

    asyncio.run(main())
    # A second timer would double them; a stall of this machine counts as the ticks that it swallowed.
    assert readers.point(LAG).count == other.point(LAG).count <= 4 + len(waits(readers.point(LAG).max, 0.1))
    other.provider.shutdown()


@on_every_loop
def test_a_quiet_loop_is_woken_less_often_until_the_next_request(readers, run, monkeypatch):
    monkeypatch.setattr(saturation, "INTERVAL_SECONDS", 0.005)
    monkeypatch.setattr(saturation, "QUIET_SECONDS", 5.0)

    async def ticks(watch, more_than):
        until = time.monotonic() + 5
        while len(watch._ticks) <= more_than and time.monotonic() < until:
            await asyncio.sleep(0.01)

    async def main():
        watch_loop(readers.meter)
        watch = saturation._watches[id(asyncio.get_running_loop())]
        await ticks(watch, more_than=saturation.QUIET_TICKS)
        await asyncio.sleep(0.1)
        quiet = len(watch._ticks)
        watch_loop(readers.meter)
        await ticks(watch, more_than=quiet + 3)
        return quiet, len(watch._ticks)

    quiet, after = run(main())
    assert quiet == saturation.QUIET_TICKS + 1  # the first tick saw the request
    assert after > quiet + 3


def test_the_timer_of_a_quiet_loop_does_not_tick_beside_the_one_that_replaces_it(readers, monkeypatch):
    monkeypatch.setattr(saturation, "INTERVAL_SECONDS", 0.03)
    monkeypatch.setattr(saturation, "QUIET_SECONDS", 0.05)
    monkeypatch.setattr(saturation, "QUIET_TICKS", 1)

    async def main():
        watch_loop(readers.meter)
        await asyncio.sleep(0.08)  # quiet since the second tick
        started = time.perf_counter()
        while time.perf_counter() - started < 0.4:
            watch_loop(readers.meter)
            await asyncio.sleep(0.005)
        watch = saturation._watches[id(asyncio.get_running_loop())]
        return sum(at >= started for at, *_ in watch._ticks), (time.perf_counter() - started) / 0.03

    ticks, intervals = asyncio.run(main())
    assert ticks <= intervals + 1


def test_a_loop_that_is_already_watched_costs_three_calls(readers):
    calls = []

    def profile(frame, event, argument):
        if event in {"call", "c_call"}:
            calls.append(getattr(argument, "__name__", frame.f_code.co_name))

    async def main():
        watch_loop(readers.meter)
        sys.setprofile(profile)
        watch_loop(readers.meter)
        sys.setprofile(None)

    asyncio.run(main())
    assert calls[:-1] == ["watch_loop", "get_running_loop", "id", "get"]


def test_what_is_remembered_of_a_loop_is_bounded(readers, monkeypatch):
    monkeypatch.setattr(saturation, "INTERVAL_SECONDS", 0.0001)

    async def main():
        watch_loop(readers.meter)
        watch = saturation._watches[id(asyncio.get_running_loop())]
        for _ in range(2 * MAX_TICKS):
            watch._measure()
        return len(watch._ticks)

    assert asyncio.run(main()) == MAX_TICKS


def test_a_released_loop_is_measured_no_more(readers):
    async def main():
        watch_loop(readers.meter)
        saturation.release_loops()
        await asyncio.sleep(0.12)

    asyncio.run(main())
    assert readers.point(LAG) is None
    assert saturation._watches == {}


def test_without_a_running_loop_nothing_happens(readers):
    watch_loop(readers.meter)
    assert saturation._watches == {}
    assert snapshot() == {}
    assert readers.point(WAITING) is None


def test_a_provider_that_drops_everything_is_no_trouble():
    meter = NoOpMeterProvider().get_meter("sightline")

    async def main():
        watch_loop(meter)
        stall(0.15)
        return snapshot()

    assert asyncio.run(main())[LAG] > 0.03  # spans say so, though no metric does


def test_a_forked_process_starts_without_the_loops_and_values_of_its_parent(readers):
    async def main():
        watch_loop(readers.meter)
        queue = request_queue(readers.meter, [ip_network("10.0.0.0/8")])
        queue.record(0.5, SAMPLED, NOW)
        child = os.fork()
        if child == 0:
            is_clean = not saturation._watches and readers.point(QUEUE_TIME) is None
            os._exit(0 if is_clean else 1)
        return os.waitpid(child, 0)[1]

    assert asyncio.run(main()) == 0
    assert readers.point(QUEUE_TIME).count == 1


# --- threads.waiting


@on_every_loop
def test_what_waits_for_a_thread_is_counted_in_both_pools(readers, run):
    release = threading.Event()

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        current_default_thread_limiter().total_tokens = 2
        work = [asyncio.create_task(anyio.to_thread.run_sync(release.wait, 5)) for _ in range(5)]
        work += [asyncio.create_task(asyncio.to_thread(release.wait, 5)) for _ in range(4)]
        await asyncio.sleep(0.01)
        watch_loop(readers.meter)
        await asyncio.sleep(0.15)
        collected = []
        thread = threading.Thread(target=lambda: collected.append(readers.metric(WAITING)))
        thread.start()
        thread.join()  # a reader collects in its own thread, while the loop stands still
        attributes = snapshot()
        release.set()
        await asyncio.gather(*work)
        return collected[0], attributes

    metric, attributes = run(main())
    (point,) = metric.data.data_points
    assert (point.value, dict(point.attributes), metric.unit) == (3 + 3, {}, "{task}")
    assert attributes[WAITING] == 6
    assert type(attributes[WAITING]) is int


def test_the_loops_of_a_process_are_added_up_and_a_closed_one_is_left_out(readers):
    release = threading.Event()
    watched, collected = threading.Barrier(3), threading.Barrier(3)

    async def serve():
        current_default_thread_limiter().total_tokens = 1
        work = [asyncio.create_task(anyio.to_thread.run_sync(release.wait, 5)) for _ in range(3)]
        await asyncio.sleep(0.01)
        watch_loop(readers.meter)
        await asyncio.sleep(0.15)
        await asyncio.to_thread(watched.wait, 5)
        await asyncio.to_thread(collected.wait, 5)
        await asyncio.gather(*work)

    loops = [asyncio.new_event_loop() for _ in range(2)]
    threads = [threading.Thread(target=loop.run_until_complete, args=(serve(),)) for loop in loops]
    for thread in threads:
        thread.start()
    watched.wait(5)
    together = readers.point(WAITING)
    release.set()
    collected.wait(5)
    for thread, loop in zip(threads, loops, strict=True):
        thread.join()
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
    assert together.value == 4
    assert readers.point(WAITING) is None  # no loop: no data, rather than 0


# --- snapshot


@on_every_loop
def test_a_slow_request_says_that_the_loop_was_stalled(readers, run):
    async def main():
        watch_loop(readers.meter)
        stall(0.3)
        during = snapshot()
        await asyncio.sleep(0.15)
        return during, snapshot(duration_seconds=0.01), snapshot(duration_seconds=10.0)

    during, at_rest, of_all = run(main())
    assert 0.1 < during[LAG] < 3  # the stall is not over for the timer, which has not run yet
    assert at_rest[LAG] < during[LAG]
    assert of_all[LAG] >= during[LAG]
    assert type(of_all[LAG]) is float


def test_queue_time_is_an_attribute_where_it_is_known(readers):
    assert snapshot(queue_seconds=0.25) == {QUEUE_TIME: 0.25}

    async def main():
        watch_loop(readers.meter)
        return snapshot(asyncio.get_running_loop(), queue_seconds=0.0)

    assert set(asyncio.run(main())) == {LAG, WAITING, QUEUE_TIME}


# --- request.queue_time


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"t=1699999999.750", 0.25),  # nginx: t=${msec}
        (b"1699999999.750", 0.25),
        (b"t=1699999999750", 0.25),
        (b"1699999999750", 0.25),  # Heroku
        (b"1699999999750.5", 0.2495),
        (b"t=1699999999750000", 0.25),  # Apache: t=%t
        (b"1699999999750000000", 0.25),
        (b" t=1699999999.750 ", 0.25),
        (b"t=1699999999", 1.0),
        (b"t=1700000000", 0.0),
        (b"t=1700000001", 0.0),  # another machine's clock runs ahead
        (b"t=1699996400", MAX_QUEUE_SECONDS),
        (b"t=1699996399", None),
        (b"t=9999999999", 0.0),
        (b"t=0", None),
        (b"t=169999999999", None),  # twelve digits are no unit
        (b"t=-1699999999", None),
        (b"t=1699999999,t=1699999998", None),
        (b"t=1e9", None),
        (b"t=nan", None),
        (b"", None),
        ("t=١٦٩٩٩٩٩٩٩٩".encode(), None),
        (b"1" * 1_000_000, None),
    ],
)
@pytest.mark.parametrize("name", [b"x-request-start", b"x-queue-start"])
def test_the_forms_that_proxies_write_are_read(name, value, expected):
    assert queue_time({name: value}, NOW) == (expected if expected is None else pytest.approx(expected))


def test_the_second_header_is_read_where_the_first_cannot_be():
    headers = {b"x-request-start": b"soon", b"x-queue-start": b"t=1699999999"}
    assert queue_time(headers, NOW) == 1.0
    assert queue_time({b"x-request-start": b"t=1699999998", **headers} | {}, NOW) == 1.0
    assert queue_time({}, NOW) is None


@given(st.integers(0, 3600 * 10**9), st.sampled_from([(10, 9), (13, 6), (16, 3), (19, 0)]), st.booleans())
def test_a_time_is_read_back_in_every_unit(ago_ns, form, has_prefix):
    digits, decimals = form
    text = str(NOW - ago_ns)
    text = text[:digits] + (f".{text[digits:]}" if decimals else "")
    value = b"t=" * has_prefix + text.encode()
    assert queue_time({b"x-request-start": value}, NOW) == pytest.approx(ago_ns / 1e9, abs=1e-9)


@settings(max_examples=50)
@given(
    st.binary(max_size=60) | st.from_regex(rb"(t=)?[0-9]{8,20}(\.[0-9]{0,10})?", fullmatch=True),
    st.integers(),
)
def test_no_header_raises_or_gives_more_than_an_hour(value, received_unix_ns):
    found = queue_time({b"x-request-start": value}, received_unix_ns)
    assert found is None or 0 <= found <= MAX_QUEUE_SECONDS


HEADER = {b"x-request-start": b"t=1699999999"}


@pytest.mark.parametrize(
    ("client", "expected"),
    [
        (("10.1.2.3", 40_000), 1.0),
        (["10.1.2.3", 40_000], 1.0),
        (("::ffff:10.1.2.3", 40_000), 1.0),
        (("192.0.2.7", 40_000), None),
        (("testclient", 50_000), None),
        (None, None),
        ([], None),
    ],
)
def test_only_a_trusted_proxy_can_say_when_a_request_started(readers, client, expected):
    queue = request_queue(readers.meter, [ip_network("10.0.0.0/8")])
    assert queue.seconds(http_scope(client=client), HEADER, NOW) == expected


def test_where_no_proxy_is_trusted_there_is_no_queue(readers):
    assert request_queue(readers.meter, ()) is None


def test_a_server_that_departs_from_asgi_is_no_trouble(readers, monkeypatch):
    queue = request_queue(readers.meter, [ip_network("10.0.0.0/8")])
    assert queue.seconds(http_scope(client=(b"10.1.2.3", 1)), HEADER, NOW) is None
    headers: Any = {b"x-request-start": None}
    assert queue.seconds(http_scope(client=("10.1.2.3", 1)), headers, NOW) is None
    assert report.reported("saturation") == 2
    monkeypatch.setattr(report, "_kinds", {})


def test_the_peers_that_are_remembered_are_bounded(readers):
    queue = request_queue(readers.meter, [ip_network("10.0.0.0/8")])
    for number in range(3 * MAX_PEERS):
        peer = f"10.0.{number // 250}.{number % 250}"
        assert queue.seconds(http_scope(client=(peer, 1)), HEADER, NOW) == 1.0
        assert len(queue._peers) <= MAX_PEERS


def test_queue_times_reach_every_reader_with_the_span_as_exemplar():
    readers = Readers(AggregationTemporality.CUMULATIVE, AggregationTemporality.DELTA)
    queue = request_queue(readers.meter, [ip_network("10.0.0.0/8")])
    for _ in range(300):  # more than are aggregated at once
        queue.record(0.25, SAMPLED, NOW)
    assert [readers.point(QUEUE_TIME, each).count for each in (0, 1)] == [300, 300]
    queue.record(2.0, INVALID_SPAN_CONTEXT, NOW)
    cumulative, delta = (readers.point(QUEUE_TIME, each) for each in (0, 1))
    assert (cumulative.count, delta.count) == (301, 1)
    assert cumulative.sum == pytest.approx(77.0)
    assert (cumulative.max, delta.max) == (2.0, 2.0)
    assert readers.metric(QUEUE_TIME).unit == "s"
    readers.provider.shutdown()


def test_the_exemplar_of_a_queue_time_names_the_span(readers):
    request_queue(readers.meter, [ip_network("10.0.0.0/8")]).record(0.25, SAMPLED, NOW)
    (exemplar,) = readers.point(QUEUE_TIME).exemplars
    assert (exemplar.trace_id, exemplar.span_id, exemplar.value) == (0xA1, 0xB2, 0.25)


def test_a_view_with_exponential_buckets_wins():
    view = View(instrument_name="sightline.*", aggregation=ExponentialBucketHistogramAggregation())
    readers = Readers(views=[view])
    request_queue(readers.meter, [ip_network("10.0.0.0/8")]).record(0.25, SAMPLED, NOW)
    point = readers.point(QUEUE_TIME)
    assert (point.count, point.sum, point.zero_count) == (1, 0.25, 0)
    readers.provider.shutdown()


def test_another_sdk_gets_each_queue_time_at_once():
    recorded = []

    class ForeignHistogram(NoOpHistogram):
        def record(self, amount, attributes=None, context=None):
            recorded.append((amount, get_current_span(context).get_span_context().span_id))

    class ForeignMeter(NoOpMeter):
        def create_histogram(self, name, *arguments, **options):
            return ForeignHistogram(name)

    queue = request_queue(ForeignMeter("sightline"), [ip_network("10.0.0.0/8")])
    queue.record(0.25, SAMPLED, NOW)
    assert recorded == [(0.25, 0xB2)]


def test_no_queue_time_is_lost_between_threads(readers):
    queue = request_queue(readers.meter, [ip_network("10.0.0.0/8")])

    def record():
        for _ in range(2000):
            queue.record(0.01, SAMPLED, NOW)

    threads = [threading.Thread(target=record) for _ in range(4)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            readers.point(QUEUE_TIME)
    finally:
        sys.setswitchinterval(before)
    assert readers.point(QUEUE_TIME).count == 8000


# --- with a server


@contextmanager
def serving(app, loop):
    config = uvicorn.Config(
        app, loop=loop, lifespan="off", log_config=None, proxy_headers=False, timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_slow_answer_of_a_server_says_why_it_was_slow(readers, loop):
    queue = RequestQueue([ip_network("127.0.0.0/8")], saturation._metrics_of(readers.meter).queue_times)
    said: list[Any] = []

    async def app(scope, receive, send):
        received = time.time_ns()
        watch_loop(readers.meter)
        seconds = queue.seconds(scope, dict(scope["headers"]), received)
        queue.record(seconds or 0.0, SAMPLED, received)
        stall(0.25)
        said.append(snapshot(duration_seconds=0.3, queue_seconds=seconds))
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    with serving(app, loop) as url:
        started = f"t={time.time() - 2:.3f}"
        assert httpx.get(url, headers={"X-Request-Start": started}).status_code == 204
    (attributes,) = said
    assert 0.1 < attributes[LAG] < 3
    assert attributes[WAITING] == 0
    assert 1.9 < attributes[QUEUE_TIME] < 10
    assert readers.point(QUEUE_TIME).sum == pytest.approx(attributes[QUEUE_TIME])


def test_the_names_are_of_our_namespace():
    assert (names.EVENT_LOOP_LAG, names.THREADS_WAITING) == (LAG, WAITING)
    assert names.REQUEST_QUEUE_TIME == QUEUE_TIME
