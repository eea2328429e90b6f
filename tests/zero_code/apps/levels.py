"""An application whose routes end in every way that an objective knows."""

import asyncio
import os
from typing import Any

from fastapi import FastAPI, Request, Response, WebSocket
from starlette.responses import StreamingResponse

from sightline import sla

app = FastAPI()


@app.get("/ok")
async def ok() -> dict[str, str]:
    """Answers at once; the tests' own way to know that all has arrived."""
    return {"status": "ok"}


@app.get("/takes/{milliseconds}")
async def takes(milliseconds: int) -> dict[str, str]:
    """Takes a while."""
    await asyncio.sleep(milliseconds / 1000)
    return {"status": "ok"}


@app.get("/own/{milliseconds}")
@sla("10s@99%", name="own")
async def own(milliseconds: int) -> dict[str, str]:
    """Takes a while, and has an objective of its own."""
    await asyncio.sleep(milliseconds / 1000)
    return {"status": "ok"}


@app.get("/status/{status}")
async def answers(status: int) -> Response:
    """Answers with a status."""
    return Response(status_code=status)


@app.get("/broken")
async def broken() -> None:
    """Fails."""
    raise LookupError("nothing there")


@app.get("/stream")
async def stream() -> StreamingResponse:
    """Sends two pieces, slowly."""

    async def parts() -> Any:
        yield b"a"
        await asyncio.sleep(0.3)
        yield b"b"

    return StreamingResponse(parts(), media_type="text/event-stream")


@app.get("/gone")
async def gone(request: Request) -> None:
    """Waits until its client is gone."""
    while not await request.is_disconnected():
        await asyncio.sleep(0.01)


@app.get("/never-asked-for")
async def never() -> None:
    """Is there, and nobody asks for it."""


@app.websocket("/room")
async def room(websocket: WebSocket) -> None:
    """Accepts, and closes after a while."""
    await websocket.accept()
    await asyncio.sleep(0.3)
    await websocket.close()


@app.get("/levels")
async def levels() -> dict[str, Any]:
    """Says how the service level is, in this process and in one that it forks."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writing, str(_requests()).encode())
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    forked = int(os.read(reading, 100) or b"-1")
    os.close(reading)
    os.close(writing)
    return {"here": _requests(), "forked": forked}


def _requests() -> int:
    return sum(sum(each.requests.values()) for each in sla.status().objectives)
