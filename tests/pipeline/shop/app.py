"""A shop with one of everything: what it does well, badly, slowly, and behind the request's back."""

# mypy: disable-error-code="import-not-found"
# The clients are installed in the environment of these tests, not in that of the tools.

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import redis.asyncio
from fastapi import BackgroundTasks, Body, FastAPI, HTTPException, Request, WebSocket
from fastapi.responses import StreamingResponse
from opentelemetry import metrics, trace
from opentelemetry._logs import SeverityNumber, get_logger
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.trace import SpanKind
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

ADDRESS = f"postgresql+asyncpg://shop@127.0.0.1:{os.environ['POSTGRESQL_PORT']}/postgres"
STOCK = os.environ["STOCK_URL"]
HELD_MS = 150  # longer than SIGHTLINE_SLOW_QUERY
BLOCKED_SECONDS = 0.6
ANCIENT_SECONDS = 30 * 86_400  # older than Loki takes

log = logging.getLogger("shop")
log.setLevel(logging.INFO)
engine = create_async_engine(ADDRESS, pool_size=20)
cache = redis.asyncio.Redis(host="127.0.0.1", port=int(os.environ["REDIS_PORT"]))
stock = httpx.AsyncClient(base_url=STOCK, trust_env=False)
tracer = trace.get_tracer("shop.handmade")
visits = metrics.get_meter("shop.handmade").create_counter("shop.visits", unit="{visit}")


class Unreliable(SpanProcessor):
    """A processor of the application's own that fails for some spans."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Takes no interest."""

    def on_end(self, span: ReadableSpan) -> None:
        """Fails for the hand-made span."""
        if span.name == "handmade":
            raise RuntimeError("the application's own processor fails")


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Adds the application's own processor, and closes what is open."""
    provider = trace.get_tracer_provider()
    assert isinstance(provider, TracerProvider)
    provider.add_span_processor(Unreliable())
    yield
    await stock.aclose()
    await cache.aclose()
    await engine.dispose()


app = FastAPI(lifespan=lifespan)


async def query(statement: str) -> int:
    """Asks PostgreSQL for one number."""
    async with engine.connect() as connection:
        value: int = (await connection.execute(text(statement))).scalar_one()
    return value


@app.get("/orders/{order_id}")
async def read_order(order_id: int) -> dict[str, int]:
    """Asks the cache and the database, and logs."""
    await cache.incr(f"order-{order_id}")
    log.info("order %d was read", order_id)
    return {"order": order_id, "total": await query("SELECT 6 * 7")}


@app.post("/orders", status_code=201)
async def place_order(tasks: BackgroundTasks, lines: list[str] = Body()) -> dict[str, int]:  # noqa: B008  FastAPI's way
    """Asks the database and the second service; a receipt is sent afterwards."""
    total = await query("SELECT 42")
    (await stock.get("/stock/7")).raise_for_status()
    tasks.add_task(send_receipt)
    return {"lines": len(lines), "total": total}


async def send_receipt() -> None:
    """Works after the response."""
    await asyncio.sleep(0.01)
    log.info("receipt sent")


@app.post("/letters")
async def write_letter(tasks: BackgroundTasks) -> None:
    """Answers before it fails."""
    tasks.add_task(send_letter)


async def send_letter() -> None:
    """Fails where no client sees it."""
    raise ConnectionError("no mail server")


@app.post("/payments")
async def pay(request: Request) -> None:
    """Has an objective of its own, and fails when it is told to."""
    if "x-fail" in request.headers:
        raise HTTPException(503)


@app.get("/nightly")
async def run_nightly(request: Request) -> None:
    """Is rarely called, and fails when it is told to."""
    if "x-fail" in request.headers:
        raise HTTPException(500)


@app.get("/reports/{name}")
async def make_report(name: str) -> str:
    """Is slower than its objective and than SIGHTLINE_SLOW_REQUEST."""
    await asyncio.sleep(0.25)
    return name


@app.get("/broken")
async def break_down() -> None:
    """Raises, and logs an error first."""
    log.error("about to break")
    raise ValueError("broken on purpose")


@app.get("/slow-query")
async def query_slowly() -> int:
    """Has a statement that is slow."""
    return await query(f"SELECT 42 FROM pg_sleep({HELD_MS / 1000})")


@app.get("/slow-cache")
async def pause_cache() -> None:
    """Has a command of Redis that is slow."""
    await cache.execute_command("CLIENT", "PAUSE", HELD_MS, "ALL")
    await cache.get("order-1")


@app.get("/slow-call")
async def call_slowly() -> int:
    """Has an outgoing call that is slow."""
    return (await stock.get("/slow")).status_code


@app.get("/failing-call")
async def call_in_vain() -> int:
    """Has an outgoing call that fails."""
    return (await stock.get("/broken")).status_code


@app.get("/blocked")
async def block_loop() -> None:
    """Holds the event loop."""
    time.sleep(BLOCKED_SECONDS)


@app.get("/threads")
def wait_in_thread() -> None:
    """Holds one of 40 threads."""
    time.sleep(0.3)


@app.get("/events")
async def stream_events() -> StreamingResponse:
    """Streams ten server-sent events."""

    async def events() -> AsyncIterator[str]:
        for number in range(10):
            yield f"data: {number}\n\n"
            await asyncio.sleep(0.02)

    return StreamingResponse(events(), media_type="text/event-stream")


@app.websocket("/chat/{room}")
async def chat(socket: WebSocket, room: str) -> None:
    """Echoes; closes with the code that it is told; refuses the room `private`."""
    if room == "private":
        await socket.close(1008)
        return
    await socket.accept()
    while (message := await socket.receive_text()) != "end":
        if message.isdecimal():
            await socket.close(int(message))
            return
        await socket.send_text(message)
    await socket.close()


@app.post("/visits/{visitor}")
async def count_visit(visitor: str) -> None:
    """Has a metric with an attribute that a client chooses."""
    visits.add(1, {"user.id": visitor})


@app.get("/handmade")
async def make_by_hand() -> None:
    """Has a span, a slow message and a log record of its own; the record is older than a back end takes."""
    with tracer.start_as_current_span("handmade"):
        attributes = {"messaging.system": "kafka", "messaging.destination.name": "orders"}
        with tracer.start_as_current_span("send orders", kind=SpanKind.PRODUCER, attributes=attributes):
            await asyncio.sleep(0.25)
    then = time.time_ns() - ANCIENT_SECONDS * 10**9
    get_logger("shop.handmade").emit(
        timestamp=then, severity_number=SeverityNumber.INFO, body="from another month"
    )


@app.get("/healthz")
async def tell_health() -> str:
    """Is excluded from all objectives."""
    return "ok"
