"""The application under measurement: one JSON route, and nothing else."""

from fastapi import FastAPI

app = FastAPI()


@app.get("/items/{item_id}")
async def read_item(item_id: int) -> dict[str, int]:
    """Returns its own ID."""
    return {"item_id": item_id}
