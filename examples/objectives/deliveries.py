"""Deliveries, judged by objectives: a default one, two from a file, and one at the route itself.

SIGHTLINE_SLA_FILE=$PWD/objectives.yaml opentelemetry-instrument uvicorn deliveries:app
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, HTTPException
from fastapi.responses import StreamingResponse

from sightline import sla

app = FastAPI(title="Deliveries")
ON_THE_WAY = 3
LOST = 13


@app.get("/deliveries/{number}")
async def read_delivery(number: int) -> dict[str, str]:
    """Looks a delivery up; the one that is lost takes longer than the objective `lookups` allows."""
    if number == LOST:
        await asyncio.sleep(0.4)
    if number <= 0:
        raise HTTPException(404, "no such delivery")
    return {"state": "lost" if number == LOST else "on its way"}


@app.post("/deliveries", status_code=201, tags=["booking"])
async def book(parcels: int = 1) -> dict[str, int]:
    """Books a delivery; too many parcels are turned away, which the file counts as a failure."""
    if parcels > ON_THE_WAY:
        raise HTTPException(429, "no room")
    return {"parcels": parcels}


@app.get("/report")
@sla("10s@95%, 99%", name="report")
async def read_report() -> dict[str, int]:
    """Takes longer than the default objective allows, which is fine: it has one of its own."""
    await asyncio.sleep(0.7)
    return {"deliveries": ON_THE_WAY}


@app.get("/deliveries/{number}/events")
async def watch(number: int) -> StreamingResponse:
    """Sends events for a while; a stream is never slow."""

    async def events() -> AsyncIterator[str]:
        yield f"data: {number} left\n\n"
        await asyncio.sleep(0.4)
        yield f"data: {number} arrived\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


@app.get("/healthz")
async def healthz() -> dict[str, str]:
    """Is asked by probes, which no objective judges."""
    return {"status": "ok"}


@app.get("/broken")
async def broken() -> Any:
    """Fails."""
    raise LookupError("nothing there")


@app.get("/sla")
def read_service_level() -> dict[str, Any]:
    """Says how this process does: keep such a route to yourself."""
    return sla.status().to_dict()
