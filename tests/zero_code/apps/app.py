"""An application without a line of telemetry, whose routes say what they see from inside."""

import asyncio
import logging
from typing import Any

from fastapi import BackgroundTasks, FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from starlette.applications import Starlette
from starlette.responses import StreamingResponse
from starlette.routing import Mount

log = logging.getLogger("app")
log.setLevel(logging.INFO)
app = FastAPI()
_tasks: set[asyncio.Task[None]] = set()


@app.get("/ok")
async def ok() -> dict[str, str]:
    """Logs from an async handler."""
    log.info("from the handler")
    return {"status": "ok"}


@app.get("/items/{name:path}")
async def item(name: str, request: Request) -> dict[str, Any]:
    """Says which path and which headers arrived."""
    return {"name": name.encode("utf-8", "backslashreplace").decode(), "headers": len(request.headers.raw)}


@app.get("/number/{value}")
async def number(value: int) -> int:
    """Takes a number, so that anything else is a 422."""
    return value


@app.get("/sync")
def sync() -> None:
    """Logs from a worker thread."""
    log.info("from the handler")


@app.get("/threadpool")
async def threadpool() -> None:
    """Logs from a function in the thread pool."""
    await run_in_threadpool(log.info, "from the thread pool")


@app.get("/task")
async def task() -> None:
    """Logs from a task that outlives the request."""
    created = asyncio.create_task(_log_later("from the task"))
    _tasks.add(created)
    created.add_done_callback(_tasks.discard)


@app.get("/background")
async def background(tasks: BackgroundTasks) -> None:
    """Logs from an async and a sync background task."""
    tasks.add_task(_log_later, "from the async background task")
    tasks.add_task(log.info, "from the sync background task")


async def _log_later(message: str) -> None:
    await asyncio.sleep(0.05)
    log.info(message)


@app.get("/stream")
async def stream() -> StreamingResponse:
    """Logs while the response is being sent."""

    async def body() -> Any:
        for number in range(3):
            log.info("from the stream")
            yield f"{number}\n"

    return StreamingResponse(body(), media_type="text/plain")


@app.get("/extra")
async def extra() -> dict[str, Any]:
    """Logs with attributes that have the names of ours, and returns what the record holds."""
    seen: dict[str, Any] = {}

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.update(record.__dict__)

    handler = Keep()
    log.addHandler(handler)
    try:
        mine = {"correlation_id": "my-correlation", "trace_id": "my-trace", "span_id": "my-span"}
        log.info("with extra", extra=mine)
    finally:
        log.removeHandler(handler)
    return {name: seen[name] for name in ("correlation_id", "trace_id", "span_id")}


@app.get("/odd-extra")
async def odd_extra() -> None:
    """Logs with an attribute that OpenTelemetry has no type for."""
    log.info("with an object", extra={"thing": object()})


@app.get("/fail")
async def fail() -> None:
    """Fails with an error that nobody handles."""
    raise RuntimeError("nobody handles this")


@app.get("/root-warning")
async def root_warning() -> None:
    """Logs on the root logger by the module's function, which configures it when it has no handler."""
    logging.warning("from the root logger")  # noqa: LOG015  the function under test


@app.get("/inside")
async def inside() -> dict[str, Any]:
    """Says how the process looks from inside."""
    record = log.makeRecord("app", logging.INFO, __file__, 1, "a record", (), None)
    plain = logging.LogRecord("app", logging.INFO, __file__, 1, "a record", (), None)
    root = logging.getLogger()
    return {
        "call_module": FastAPI.__call__.__module__,
        "record_attributes": sorted(record.__dict__.keys() - plain.__dict__.keys()),
        "make_record_is_original": logging.Logger.makeRecord.__code__.co_filename == logging.__file__,
        "call_handlers_is_original": not hasattr(logging.Logger.callHandlers, "__wrapped__"),
        "record_factory_is_original": logging.getLogRecordFactory() is logging.LogRecord,
        "root_level": root.level,
        "root_handlers": [type(handler).__name__ for handler in root.handlers],
    }


def create() -> FastAPI:
    """Makes the application, for `uvicorn --factory`."""
    made = FastAPI()
    made.include_router(app.router)
    return made


class Wrapped:
    """An ASGI callable around the application, as proxies and feature switches are."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Passes everything on with a copied scope."""
        await app({**scope}, receive, send)


wrapped = Wrapped()


inside_starlette = Starlette(routes=[Mount("/", app=app)])
