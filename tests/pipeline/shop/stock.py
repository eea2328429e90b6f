"""The service that the shop calls."""

import asyncio

from fastapi import FastAPI, HTTPException

app = FastAPI()


@app.get("/stock/{item}")
async def read_stock(item: int) -> int:
    """Answers at once."""
    return item


@app.get("/slow")
async def wait() -> None:
    """Takes longer than SIGHTLINE_SLOW_CALL of its caller."""
    await asyncio.sleep(0.25)


@app.get("/broken")
async def fail() -> None:
    """Fails."""
    raise HTTPException(503)
