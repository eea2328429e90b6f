"""10,000 routes, which differ in their paths only, and what Sightline holds of them."""

from fastapi import FastAPI

from sightline import sla
from sightline.series import process_routes

REGISTERED = 10_000
app = FastAPI(openapi_url=None)  # no routes but those below


async def read_item(item_id: int) -> dict[str, int]:
    """Returns its own ID."""
    return {"item_id": item_id}


@app.get("/held")
async def held() -> dict[str, int]:
    """Returns how many of the routes are reserved, and how many have been judged."""
    templates = (getattr(route, "path", "") for route in app.routes)
    return {
        "reserved": sum(process_routes.is_reserved({"http.route": template}) for template in templates),
        "judged": sum(each.route is not None for each in sla.status().routes),
    }


for prefix in ("/items", *(f"/items-{number}" for number in range(1, REGISTERED - 1))):
    app.get(f"{prefix}/{{item_id}}")(read_item)
