"""The application that every server serves: `app:app`. Its routes say which process answered."""

import logging
import os
import time
from typing import Final

import fastapi
from opentelemetry import metrics

logger = logging.getLogger("shop")
logger.setLevel(logging.INFO)

VERSION: Final = "one"
"""What a test changes to make a server reload."""

HOLD_SECONDS: Final = 0.02


class ShopError(Exception):
    """What no handler handles."""


app = fastapi.FastAPI()


@app.get("/items/{item_id}")
async def item(item_id: int) -> dict[str, int]:
    """Keeps its process from taking another connection for a moment, so that the others take some."""
    logger.info("answered")
    time.sleep(HOLD_SECONDS)
    return {"pid": os.getpid()}


@app.get("/sync")
def sync() -> dict[str, int]:
    """Answers from a thread."""
    logger.info("answered")
    return {"pid": os.getpid()}


@app.get(f"/version/{VERSION}")
async def version() -> dict[str, int]:
    """Exists in one version of this file only."""
    logger.info("answered")
    return {"pid": os.getpid()}


@app.get("/errors")
async def errors() -> None:
    """Fails."""
    logger.info("answered")
    raise ShopError("nobody handles this")


@app.websocket("/room")
async def room(websocket: fastapi.WebSocket) -> None:
    """Says which process serves the connection."""
    await websocket.accept()
    await websocket.send_json({"pid": os.getpid()})
    await websocket.close()


metrics.get_meter("shop").create_counter("shop.loaded").add(1)
logger.info("loaded by %d", os.getpid())
if seconds := os.environ.get("SERVERS_LOAD_SECONDS"):
    time.sleep(float(seconds))  # long enough for the loading process to export that
