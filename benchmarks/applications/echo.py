"""One WebSocket route, which sends back what it receives."""

from fastapi import FastAPI, WebSocket, WebSocketDisconnect

app = FastAPI()


@app.websocket("/echo")
async def echo(websocket: WebSocket) -> None:
    """Echoes texts until the client leaves."""
    await websocket.accept()
    try:
        while True:
            await websocket.send_text(await websocket.receive_text())
    except WebSocketDisconnect:
        return


@app.get("/items/{item_id}")
async def read_item(item_id: int) -> dict[str, int]:
    """Returns its own ID: a server is asked for it to find out whether it is ready."""
    return {"item_id": item_id}
