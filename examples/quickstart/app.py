"""A small shop, without a line of telemetry: everything that it emits comes from outside.

opentelemetry-instrument uvicorn app:app
"""

import asyncio
import logging
import os
import random
import time
from typing import Annotated

import httpx
from fastapi import BackgroundTasks, FastAPI, HTTPException, Path, Request
from pydantic import BaseModel, Field

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
logging.getLogger("httpx").setLevel(logging.WARNING)
log = logging.getLogger("shop")

app = FastAPI(title="Shop")
PRICES = {1: 250, 2: 1900, 3: 75}


class Order(BaseModel):
    """What a customer orders."""

    item_id: int
    quantity: int = Field(gt=0, le=100)


@app.get("/items/{item_id}")
async def read_item(item_id: Annotated[int, Path(gt=0)]) -> dict[str, int]:
    """Returns an item's price in cents; an async handler."""
    log.info("looking up item %d", item_id)
    await asyncio.sleep(random.uniform(0.001, 0.02))
    if item_id not in PRICES:
        raise HTTPException(status_code=404, detail="no such item")
    return {"item_id": item_id, "price": PRICES[item_id]}


@app.get("/report")
def read_report() -> dict[str, int]:
    """Adds up all prices; a sync handler, which runs in a worker thread."""
    log.info("adding up %d prices", len(PRICES))
    time.sleep(0.01)
    return {"total": sum(PRICES.values())}


@app.post("/orders", status_code=201)
async def create_order(order: Order, request: Request, background: BackgroundTasks) -> dict[str, int]:
    """Orders an item: asks the shop for its price (an outgoing call) and sends a receipt later."""
    async with httpx.AsyncClient(base_url=_own_url(request)) as client:
        answer = await client.get(f"/items/{order.item_id}")
    if answer.is_error:
        raise HTTPException(status_code=409, detail="item cannot be ordered")
    total = answer.json()["price"] * order.quantity
    log.info("ordered %d of item %d", order.quantity, order.item_id)
    background.add_task(send_receipt, total)
    return {"total": total}


@app.get("/broken")
async def broken() -> None:
    """Fails with an error that nobody handles."""
    log.warning("about to divide by zero")
    _ = 1 // 0


def send_receipt(total: int) -> None:
    """Sends a receipt after the response; a background task."""
    time.sleep(0.05)
    log.info("receipt over %d cents sent", total)


def _own_url(request: Request) -> str:
    # The address that the server is bound to: never what a client put in its Host header.
    host, port = request.scope["server"]
    return os.environ.get("SHOP_URL", f"http://{host}:{port}")
