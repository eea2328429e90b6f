"""What clients do to the shop: the ordinary, and each thing that goes wrong."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

PAUSE_SECONDS: Final = 0.03
BETWEEN_PAYMENTS_SECONDS: Final = 0.25
VISITORS: Final = 100  # more than SIGHTLINE_CARDINALITY_LIMIT
REFUSED_ID: Final = "{jndi:ldap://attacker}"
FAIL: Final = {"x-fail": "please"}


class Clients:
    """All clients of the shop, and some of the service behind it. A failing response is a response."""

    def __init__(self, shop: str, stock: str) -> None:
        limits = httpx.Limits(max_connections=200, max_keepalive_connections=50)
        self._http = httpx.AsyncClient(base_url=shop, timeout=30, limits=limits)
        self._fresh = httpx.AsyncClient(
            base_url=shop, timeout=30, limits=httpx.Limits(max_keepalive_connections=0)
        )
        self._stock = httpx.AsyncClient(base_url=stock, timeout=30)
        self._chat = shop.replace("http://", "ws://") + "/chat/"

    async def close(self) -> None:
        """Closes connections."""
        await self._http.aclose()
        await self._fresh.aclose()
        await self._stock.aclose()

    async def get(self, path: str, **headers: str) -> httpx.Response:
        """Sends one request."""
        return await self._send("GET", path, headers)

    async def _post(self, path: str, **body: Any) -> httpx.Response:
        return await self._send("POST", path, {}, **body)

    async def _send(self, method: str, path: str, headers: dict[str, str], **body: Any) -> httpx.Response:
        try:
            return await self._http.request(method, path, headers=headers, **body)
        except httpx.TransportError:  # uvicorn closes a connection after an unhandled error without saying so
            return await self._fresh.request(method, path, headers=headers, **body)

    async def browse(self) -> None:
        """Does what ordinary clients do, until it is cancelled."""
        number = 0
        while True:
            number += 1
            await self._look_around(number)

    async def _look_around(self, number: int) -> None:
        waited = {"x-request-start": f"t={time.time() - 0.02:.3f}"}
        unsampled = {"traceparent": f"00-{number + 1:032x}-{number + 1:016x}-00"}
        steps: tuple[Callable[[], Awaitable[object]], ...] = (
            lambda: self.get(f"/orders/{number % 5}", **waited),
            lambda: self._post("/orders", json=["tea", "milk"]),
            lambda: self.get("/healthz"),
            lambda: self.get("/nowhere"),
            lambda: self.talk("hello", "end"),
            lambda: self.get("/events"),
            lambda: self._stock.get(f"/stock/{number % 5}", headers=unsampled),
        )
        for step in steps:
            await step()
            await asyncio.sleep(PAUSE_SECONDS)

    async def talk(self, *messages: str, room: str = "lobby") -> None:
        """Opens a WebSocket connection, says something, and listens until the other side closes it."""
        try:
            async with connect(self._chat + room) as socket:
                for message in messages:
                    await socket.send(message)
                while True:
                    await socket.recv()
        except (ConnectionClosed, InvalidStatus):
            pass

    async def vanish(self) -> None:
        """Opens a WebSocket connection, and an event stream, and breaks both off."""
        socket = await connect(self._chat + "lobby")
        await socket.send("hello")
        socket.transport.abort()
        async with self._http.stream("GET", "/events") as response:
            async for _ in response.aiter_raw():
                break

    async def pay(self, times: int) -> None:
        """Uses the route with an objective of its own."""
        await self._repeat("POST", "/payments", times, {})

    async def pay_in_vain(self, times: int) -> None:
        """Does so without success, at some length: an alert on it is not over when it begins."""
        for _ in range(times):
            await self._repeat("POST", "/payments", 1, FAIL)
            await asyncio.sleep(BETWEEN_PAYMENTS_SECONDS)

    async def run_nightly(self, times: int, *, failing: bool = False) -> None:
        """Uses the route that is rarely used."""
        await self._repeat("GET", "/nightly", times, FAIL if failing else {})

    async def _repeat(self, method: str, path: str, times: int, headers: dict[str, str]) -> None:
        for _ in range(times):
            await self._send(method, path, headers)

    async def suffer_in_connections(self) -> None:
        """Has connections closed in every way."""
        await _all(self.talk("1011") for _ in range(25))
        await _all(self.talk("4001") for _ in range(3))
        await _all(self.talk(room="private") for _ in range(3))
        await _all(self.vanish() for _ in range(3))

    async def suffer_unseen(self) -> None:
        """Asks for background work that fails, sends IDs that are not valid, and names without end."""
        await _all(self._post("/letters") for _ in range(8))
        await _all(self.get("/orders/1", **{"x-correlation-id": REFUSED_ID}) for _ in range(3))
        await _all(self._post(f"/visits/visitor-{number}") for number in range(VISITORS))
        await _all(self.get("/handmade") for _ in range(3))

    async def suffer_slowness(self) -> None:
        """Waits: for the database, the cache, another service, a thread, an event loop, a report."""
        await _all(self.get("/slow-query") for _ in range(60))
        for _ in range(5):
            await self.get("/slow-cache")
        await _all(self.get("/slow-call") for _ in range(10))
        await _all(self.get("/threads") for _ in range(60))
        await _all(self.get(f"/reports/{number}") for number in range(30))
        for _ in range(4):
            await self.get("/blocked")

    async def suffer_errors(self) -> None:
        """Gets errors of the shop's own, and those of the service behind it."""
        await _all(self.get("/broken") for _ in range(20))
        await _all(self.get("/failing-call") for _ in range(5))


async def _all(calls: Iterable[Awaitable[object]]) -> None:
    await asyncio.gather(*calls)
