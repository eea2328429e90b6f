"""The same route with one span made by hand."""

from fastapi import FastAPI
from opentelemetry import trace

# Its own spans would follow the SDK of one of the cases; only the span by hand is compared.
app = FastAPI(telemetry={"tracing": False, "metrics": False, "logs": False})
tracer = trace.get_tracer("benchmark")


@app.get("/items/{item_id}")
async def read_item(item_id: int) -> dict[str, int]:
    """Returns its own ID from within a span with two attributes."""
    with tracer.start_as_current_span("read item") as span:
        span.set_attribute("item.id", item_id)
        span.set_attribute("item.kind", "book")
        return {"item_id": item_id}
