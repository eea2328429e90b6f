"""The application that every environment of the matrix serves: `uvicorn app:app`.

`MATRIX_SETUP` names the function that builds it, one for each way in which applications are instrumented.
"""

import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated

import fastapi
from pydantic import BaseModel
from starlette.types import ASGIApp

logger = logging.getLogger("shop")
logger.setLevel(logging.INFO)


class ShopError(Exception):
    """What no handler handles."""


class Order(BaseModel):
    """The body of a POST."""

    quantity: int


@asynccontextmanager
async def lifespan(_: fastapi.FastAPI) -> AsyncIterator[None]:
    """Logs once, outside any request."""
    logger.info("opened")
    yield


def looked_up(item_id: int) -> int:
    """A dependency that runs in a worker thread."""
    logger.info("dependency")
    return item_id


def shop() -> fastapi.FastAPI:
    """Builds the application with a router and a mounted application."""
    app = fastapi.FastAPI(lifespan=lifespan)

    @app.get("/items/{item_id}")
    async def item(item_id: int) -> dict[str, int]:
        logger.info("async handler")
        return {"item": item_id}

    @app.get("/sync/{item_id}")
    def sync_item(item_id: Annotated[int, fastapi.Depends(looked_up)]) -> dict[str, int]:
        logger.info("sync handler")
        return {"item": item_id}

    @app.post("/orders", status_code=201)
    async def order(body: Order) -> Order:
        logger.info("order")
        return body

    @app.get("/errors/{error_id}")
    async def error(error_id: int) -> None:
        raise ShopError(f"error {error_id}")

    router = fastapi.APIRouter(prefix="/users")

    @router.get("/{user_id}")
    async def user(user_id: int) -> dict[str, int]:
        return {"user": user_id}

    app.include_router(router, prefix="/api")
    app.mount("/mounted", mounted())
    return app


def mounted() -> fastapi.FastAPI:
    """Builds the application that the other one mounts."""
    app = fastapi.FastAPI()

    @app.get("/things/{thing_id}")
    async def thing(thing_id: int) -> dict[str, int]:
        return {"thing": thing_id}

    @app.get("/errors")
    async def error() -> None:
        raise ShopError("mounted error")

    return app


def stock_instrument_app() -> ASGIApp:
    """The application calls the stock instrumentor for itself."""
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

    app = shop()
    FastAPIInstrumentor.instrument_app(app)
    return app


def stock_instrument() -> ASGIApp:
    """The program calls the stock instrumentor for every application, before it makes one."""
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

    FastAPIInstrumentor().instrument()
    return shop()


def stock_middleware_outside() -> ASGIApp:
    """The stock middleware wraps the application."""
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

    middleware: ASGIApp = OpenTelemetryMiddleware(shop())
    return middleware


def stock_middleware_inside() -> ASGIApp:
    """The application adds the stock middleware to its own."""
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

    app = shop()
    app.add_middleware(OpenTelemetryMiddleware)
    return app


def programmatic() -> ASGIApp:
    """The program sets the SDK up and instruments its application; `opentelemetry-instrument` is not used."""
    from opentelemetry import _logs, metrics, trace
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    from sightline import SightlineInstrumentor

    tracer_provider = TracerProvider()
    tracer_provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(tracer_provider)
    metrics.set_meter_provider(MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())]))
    logger_provider = LoggerProvider()
    logger_provider.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
    _logs.set_logger_provider(logger_provider)
    app = shop()
    SightlineInstrumentor().instrument_app(app)
    return app


def programmatic_log_handler() -> ASGIApp:
    """The same program with the stock handler on its root logger, as OpenTelemetry's manual has it."""
    from opentelemetry.instrumentation.logging.handler import LoggingHandler

    app = programmatic()
    logging.getLogger().addHandler(LoggingHandler())
    return app


SETUPS: dict[str, Callable[[], ASGIApp]] = {
    set_up.__name__: set_up
    for set_up in (
        shop,
        stock_instrument_app,
        stock_instrument,
        stock_middleware_outside,
        stock_middleware_inside,
        programmatic,
        programmatic_log_handler,
    )
}

app = SETUPS[os.environ["MATRIX_SETUP"]]()
