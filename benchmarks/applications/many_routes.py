"""The same route behind 499 others: the router tries them in order, so the last costs the most."""

from fastapi import FastAPI

app = FastAPI()


async def read_item(item_id: int) -> dict[str, int]:
    """Returns its own ID."""
    return {"item_id": item_id}


for prefix in ("/items", *(f"/items-{number}" for number in range(2, 501))):
    app.get(f"{prefix}/{{item_id}}")(read_item)
