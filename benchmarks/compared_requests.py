"""What is measured with whole requests or on an event loop: sampling, saturation, access records."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_network
from typing import Any, Final

from benchmarks import in_process
from benchmarks.compared_pipelines import LogPipeline, MetricPipeline, SpanPipeline
from benchmarks.comparisons import Comparison, Part
from benchmarks.processors import SECOND
from fastapi import FastAPI
from opentelemetry.sdk.trace.sampling import Sampler
from opentelemetry.trace import INVALID_SPAN_CONTEXT, Tracer

from sightline.logs import add_ids_to_records
from sightline.middleware import SightlineMiddleware
from sightline.names import EVENT_LOOP_LAG, REQUEST_QUEUE_TIME
from sightline.options import capture_options
from sightline.saturation import request_queue, snapshot, watch_loop
from sightline.types import ASGIApp, Message, Receive, Scope, Send
from sightline_processors.sla.verdict import OUTCOME_ATTRIBUTE, Verdict
from sightline_processors.slo_sampling import install_slo_sampling
from sightline_processors.slo_sampling.sampler import SloSampler

SPANS_PER_REQUEST: Final = 2
KEEPS_ALL = 1e6
KEEPS_NONE = 0.0
FIRST_OF_BUCKETS: Final = 40
"""Requests at most that are kept without a budget: exemplars of each bucket, for a minute."""

ACCESS_LOGGER: Final = "uvicorn.access"
OTHER_LOGGER: Final = "benchmark.access"
SETTLE_SECONDS = 0.25
BLOCK_SECONDS = 1.0


class RequestPipeline:
    """An application that is captured by Sightline, and served without a server.

    Args:
        sampler: The SDK's default when omitted.
        app: One route, whose requests make a child span, when omitted.
        access_logger: Where the server writes its access records; it writes none when omitted.

    Attributes:
        spans: Where the spans go.
        served: Requests so far.
    """

    def __init__(
        self, sampler: Sampler | None = None, app: ASGIApp | None = None, access_logger: str = ""
    ) -> None:
        self.spans = SpanPipeline(sampler=sampler)
        if sampler is not None:
            install_slo_sampling(self.spans.provider)
        options = capture_options(
            tracer_provider=self.spans.provider,
            meter_provider=MetricPipeline().provider,
            logger_provider=LogPipeline().provider,
        )
        captured: ASGIApp = SightlineMiddleware(app or _application(self.spans.tracer), options)
        self._target = in_process.Target(_served(captured, access_logger) if access_logger else captured)
        self._runner = asyncio.Runner()
        self.served = 0

    def requests(self, count: int) -> None:
        """Serves so many requests and exports their spans."""
        self._runner.run(in_process.serve(self._target, count))
        self.spans.flush()
        self.served += count

    def close(self) -> None:
        """Ends the event loop, and the thread that exports."""
        self._runner.close()
        self.spans.close()


def kept_traces() -> Comparison:
    """Compares requests that the sampler keeps with those of the default sampler."""
    with_it, compared = RequestPipeline(SloSampler(KEEPS_ALL)), RequestPipeline()

    def fault() -> str:
        kept, served = with_it.spans.acknowledged(), with_it.served
        return "" if kept == SPANS_PER_REQUEST * served else f"{kept} spans of {served} requests were kept"

    return _of_requests(compared, with_it, fault)


def dropped_traces() -> Comparison:
    """Compares requests that the sampler drops with those of the default sampler, which exports them."""
    sampler = SloSampler(KEEPS_NONE)
    with_it, compared = RequestPipeline(sampler), RequestPipeline()

    def fault() -> str:
        kept, served = with_it.spans.acknowledged(), with_it.served
        most = SPANS_PER_REQUEST * FIRST_OF_BUCKETS
        if not 0 < kept <= most:
            return f"{kept} spans of {served} requests were kept, 1 to {most} are due"
        return "" if sum(sampler.buffer.counts.values()) else "the sampler has dropped nothing"

    return _of_requests(compared, with_it, fault)


def access_records() -> Comparison:
    """Compares requests whose access record carries the verdict with those of a logger that is no server's.

    The application is a bare ASGI one: what is compared is small beside what FastAPI does.
    """
    add_ids_to_records()
    records = {name: _logger_of(name) for name in (OTHER_LOGGER, ACCESS_LOGGER)}
    logging.getLogger(ACCESS_LOGGER).disabled = True  # while the one side looks whether a server writes any
    without, with_it = (RequestPipeline(app=_answer, access_logger=name) for name in records)
    without.requests(1)
    logging.getLogger(ACCESS_LOGGER).disabled = False

    def fault() -> str:
        found = [vars(each.record).get(OUTCOME_ATTRIBUTE) for each in records.values()]
        return "" if found == [None, Verdict.OK] else f"the verdicts on the records are {found}"

    compared = _of_requests(without, with_it, fault)
    return replace(compared, items=600, blocks=6, close=(*compared.close, *map(_restoring, records)))


def loop_watch_seconds() -> Comparison:
    """Compares a second of an event loop that is watched with one of an idle loop."""
    metrics = MetricPipeline()
    meter = metrics.provider.get_meter("sightline")
    idle, watched = asyncio.Runner(), asyncio.Runner()

    async def watch(seconds: float) -> None:
        watch_loop(meter)
        await asyncio.sleep(seconds)

    def settle() -> None:
        # The tick that is overdue since the last block would tell of a stall, which is not what is measured.
        watched.run(watch(SETTLE_SECONDS))

    def fault() -> str:
        return "" if metrics.points(EVENT_LOOP_LAG) else "no lag was measured"

    return Comparison(
        without=lambda seconds: idle.run(asyncio.sleep(seconds * BLOCK_SECONDS)),
        with_it=lambda seconds: watched.run(watch(seconds * BLOCK_SECONDS)),
        fault=fault,
        settle=settle,
        items=1,
        blocks=1,
        close=(idle.close, watched.close),
    )


def loop_watch_requests() -> Comparison:
    """Compares the call that a request makes where none was pending with nothing."""
    meter = MetricPipeline().provider.get_meter("sightline")
    seen: list[bool] = []

    async def watch(count: int) -> None:
        for _ in range(count):
            watch_loop(meter)
        seen.append(EVENT_LOOP_LAG in snapshot())

    async def idle(count: int) -> None:
        for _ in range(count):
            pass
        snapshot()

    def fault() -> str:
        return "" if seen and all(seen) else "the event loop was not watched"

    return _on_loops(idle, watch, fault)


def queue_times() -> Comparison:
    """Compares requests whose time in a proxy's queue is read and recorded with nothing."""
    metrics = MetricPipeline()
    meter = metrics.provider.get_meter("sightline")
    queue = request_queue(meter, (ip_network("127.0.0.0/8"),))
    scope = in_process.scope(in_process.DEFAULT_PATH)
    headers = [*scope["headers"], (b"x-request-start", b"t=%.3f" % time.time())]

    async def read(count: int) -> None:
        for _ in range(count):
            by_name, now = dict(headers), time.time_ns()
            seconds = queue.seconds(scope, by_name, now) if queue is not None else None
            if queue is not None and seconds is not None:
                queue.record(seconds, INVALID_SPAN_CONTEXT, now)

    async def idle(count: int) -> None:
        for _ in range(count):
            time.time_ns()

    def fault() -> str:
        watch_loop(meter)
        return "" if metrics.points(REQUEST_QUEUE_TIME) else "no queue time was recorded"

    return _on_loops(idle, read, fault)


def _application(tracer: Tracer) -> FastAPI:
    app = FastAPI(telemetry={"tracing": False, "metrics": False, "logs": False})

    @app.get("/items/{item_id}")
    async def read_item(item_id: int) -> dict[str, int]:
        with tracer.start_as_current_span("read item"):
            return {"item_id": item_id}

    return app


async def _answer(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"{}"})


class _LastRecord(logging.Handler):
    record = logging.makeLogRecord({})

    def emit(self, record: logging.LogRecord) -> None:
        self.record = record


def _logger_of(name: str) -> _LastRecord:
    """Returns what keeps the last record of a logger, which has no other handler."""
    logger, handler = logging.getLogger(name), _LastRecord()
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    return handler


def _restoring(name: str) -> Callable[[], None]:
    def restore() -> None:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.setLevel(logging.NOTSET)
        logger.propagate = True

    return restore


def _served(app: ASGIApp, logger_name: str) -> ASGIApp:
    """Returns an application whose server writes an access record when a response starts, as uvicorn does."""
    logger = logging.getLogger(logger_name)

    async def server(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_logged(message: Message) -> None:
            if message["type"] == "http.response.start":
                logger.info("%s - %s %d", scope["client"], scope["path"], message["status"])
            await send(message)

        await app(scope, receive, send_logged)

    return server


def _of_requests(without: RequestPipeline, with_it: RequestPipeline, fault: Callable[[], str]) -> Comparison:
    return Comparison(
        without=without.requests,
        with_it=with_it.requests,
        fault=fault,
        items=300,
        clock=time.process_time,  # spans are encoded by whoever sends them: all threads count
        close=(without.close, with_it.close),
    )


def _on_loops(
    without: Callable[[int], Any], with_it: Callable[[int], Any], fault: Callable[[], str]
) -> Comparison:
    idle, busy = asyncio.Runner(), asyncio.Runner()
    return Comparison(
        without=lambda count: idle.run(without(count)),
        with_it=lambda count: busy.run(with_it(count)),
        fault=fault,
        items=2_000,
        close=(idle.close, busy.close),
    )


PARTS: Final = (
    Part("sampler `sightline_slo`, kept", "request with a child span", kept_traces),
    Part("sampler `sightline_slo`, dropped", "request with a child span", dropped_traces),
    Part("saturation: the timer of an idle event loop", SECOND, loop_watch_seconds),
    Part("saturation: its look-up", "request that finds none pending", loop_watch_requests),
    Part("saturation: queue time", "request behind a trusted proxy", queue_times),
    Part("verdict on access records", "request with an access record", access_records),
)
