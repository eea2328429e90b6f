"""An application that does what it should not: tells secrets, makes up labels, blocks, fails."""

import asyncio
import logging
import time

from fastapi import FastAPI
from opentelemetry import metrics, trace
from opentelemetry.trace import Link, Status, StatusCode

from sightline_processors.cardinality.attribute_rules import Cap
from sightline_processors.cardinality.span_processor import CardinalitySpanProcessor
from sightline_processors.export.rewriters import rewrite_exports

SECRET = "hunter2"
IBAN = "DE00hunter2"
BEARER = "Bearer hunter2hunter2hunter2"
TEXT = f"password={SECRET} iban={IBAN} authorization: {BEARER}"

log = logging.getLogger("bounded")
log.setLevel(logging.INFO)
tracer = trace.get_tracer("bounded")
users = metrics.get_meter("bounded").create_counter("bounded.users")
app = FastAPI()
rewrite_exports(trace.get_tracer_provider(), CardinalitySpanProcessor({"customer": Cap(10)}))


@app.get("/ok")
async def ok() -> None:
    """Logs once."""
    log.info("ok")


@app.get("/attributes")
async def attributes() -> None:
    """Puts secrets on the SERVER span."""
    span = trace.get_current_span()
    span.set_attributes({"user.password": SECRET, "user.iban": IBAN, "note": TEXT, "kept": "visible"})


@app.get("/event")
async def event() -> None:
    """Puts secrets into an event of the SERVER span."""
    trace.get_current_span().add_event("paid", {"iban": IBAN, "note": TEXT, "kept": "visible"})


@app.get("/status")
async def status() -> None:
    """Puts secrets into the description of the SERVER span's status."""
    trace.get_current_span().set_status(Status(StatusCode.ERROR, TEXT))


@app.get("/name")
async def name() -> None:
    """Puts secrets into the SERVER span's name."""
    trace.get_current_span().update_name(f"pay {TEXT}")


@app.get("/raises")
async def raises() -> None:
    """Fails with a text that has secrets in it."""
    raise RuntimeError(TEXT)


@app.get("/recorded")
async def recorded() -> None:
    """Records an exception on the SERVER span by itself."""
    trace.get_current_span().record_exception(RuntimeError(TEXT))


@app.get("/child")
async def child() -> None:
    """Puts secrets on a span of its own, and on its link."""
    links = [Link(trace.get_current_span().get_span_context(), {"iban": IBAN})]
    with tracer.start_as_current_span(f"pay {TEXT}", attributes={"iban": IBAN}, links=links) as span:
        span.set_attribute("note", TEXT)


@app.get("/log")
async def tell() -> None:
    """Logs secrets: in the text, as an argument, as an attribute."""
    log.info(TEXT)
    log.info("paid by %s", {"iban": IBAN, "kept": "visible"})
    log.info("paid", extra={"iban": IBAN, "note": TEXT, "kept": "visible"})


@app.get("/user/{name}")
async def user(name: str) -> None:
    """Measures with a label that the client chooses."""
    users.add(1, {"user": name})


@app.get("/customer/{number}")
async def customer(number: int) -> None:
    """Makes a span whose name and attribute differ from call to call."""
    with tracer.start_as_current_span(f"load /customers/{number}") as span:
        span.set_attribute("customer", f"customer{number}")


@app.get("/block")
async def block() -> None:
    """Blocks the event loop."""
    time.sleep(0.6)  # as it should not; two ticks of the timer are due meanwhile, the first within 0.25 s


@app.get("/slow")
async def slow() -> None:
    """Is slow with a span below it."""
    with tracer.start_as_current_span("waits"):
        await asyncio.sleep(0.06)


@app.get("/quick/{number}")
async def quick(number: int) -> int:
    """Is quick with a span below it."""
    with tracer.start_as_current_span("works"):
        return number


@app.get("/fail")
async def fail() -> None:
    """Fails with a span below it that does not."""
    with tracer.start_as_current_span("works"):
        pass
    raise RuntimeError("nobody handles this")
