"""Sends hostile requests to an application, over ASGI in this process: a parser would cost most of the time.

Run under `opentelemetry-instrument python`; prints what it has measured as one line of JSON.
"""

import asyncio
import gc
import json
import os
import random
import sys
from collections import Counter
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI, HTTPException
from opentelemetry import metrics
from starlette.responses import Response

REQUESTS: Final = int(os.environ["REQUESTS"])
MARK: Final = "zqx"
"""Part of everything that the client makes up."""
KNOWN_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECT")
FRESH: Final = 4

app = FastAPI(openapi_url=None)
chance = random.Random(6)  # the same attack each time
statuses: Counter[int] = Counter()


@app.get("/items/{item_id}")
async def item(item_id: str) -> str:
    """Takes anything."""
    return item_id


@app.api_route("/status/{code}", methods=["GET", "POST"])
async def status(code: int) -> Response:
    """Answers what is asked for."""
    if code % 7 == 0:
        raise HTTPException(code)
    return Response(status_code=code)


@app.post("/orders")
async def order() -> dict[str, str]:
    """Is there to be attacked."""
    return {}


async def fresh() -> dict[str, str]:
    """Is requested after the attack."""
    return {}


for number in range(FRESH):
    app.add_api_route(f"/fresh/{number}", fresh)


def word() -> str:
    """Returns something new."""
    return f"{MARK}{chance.getrandbits(48):x}"


def path() -> str:
    """Returns a path that is new, or one of a route."""
    return chance.choice(
        (
            f"/{word()}",
            f"/{word()}/{word()}",
            f"/items/{word()}",
            "/orders",
            f"/status/{chance.randrange(100, 1000, 15)}",
        )
    )


def headers() -> list[tuple[bytes, bytes]]:
    """Returns headers that are new; some twice, some not valid."""
    trace = f"{chance.getrandbits(128):032x}-{chance.getrandbits(64):016x}"
    made = [
        (b"host", chance.choice((word(), f"{word()}:{chance.randint(0, 99999)}", f"[{word()}", "")).encode()),
        (b"user-agent", f"{word()} {'x' * chance.choice((0, 10, 1000))}".encode()),
        (b"x-correlation-id", chance.choice((word(), f"{word()} not valid \xff")).encode("latin-1")),
        (b"x-forwarded-proto", word().encode()),
        (b"x-forwarded-host", word().encode()),
        (b"traceparent", f"00-{trace}-0{chance.randint(0, 1)}".encode()),
    ]
    return made + made[:1] if chance.random() < 0.05 else made


def scope(path: str, method: str, **changes: Any) -> dict[str, Any]:
    """Returns a scope as uvicorn makes it."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"shop.example")],
        "client": ("192.0.2.7", 40123),
        "server": ("127.0.0.1", 8000),
        **changes,
    }


def hostile() -> dict[str, Any]:
    """Returns a request of which everything is the client's choice."""
    method = chance.choice((*KNOWN_METHODS, "GET", "GET", "POST", word().upper(), word()))
    return scope(
        path(),
        method,
        http_version=chance.choice(("1.0", "1.1", "2", "3", word())),
        scheme=chance.choice(("http", "https", word())),
        query_string=f"{word()}={word()}".encode(),
        headers=headers(),
        client=(f"192.0.2.{chance.randint(1, 254)}", chance.randint(1024, 65535)),
    )


async def receive() -> dict[str, Any]:
    """Returns an empty body."""
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(message: MutableMapping[str, Any]) -> None:
    """Counts the answers."""
    if message["type"] == "http.response.start":
        statuses[message["status"]] += 1


def resident_bytes() -> int:
    """Returns the memory of this process that is in use."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def attack() -> list[int]:
    """Sends the requests; returns the memory after each tenth of them."""
    memory = []
    for number in range(1, REQUESTS + 1):
        await app(hostile(), receive, send)
        if number % 100 == 0:
            await asyncio.sleep(0)  # lets timers run
        if number % (REQUESTS // 10) == 0:
            metrics.get_meter_provider().force_flush()  # type: ignore[attr-defined]  # of the SDK
            memory.append(resident_bytes())
    return memory


async def main() -> None:
    """Attacks, then requests what nobody has requested before."""
    memory = await attack()
    app.add_api_route("/later", fresh)
    for target in (*(f"/fresh/{number}" for number in range(FRESH)), "/later"):
        await app(scope(target, "GET"), receive, send)
    sys.stdout.write(json.dumps({"memory": memory, "answers": statuses.total()}) + "\n")


asyncio.run(main())
