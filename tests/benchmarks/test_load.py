"""The clients send what they are asked for, and a latency is what a user would have waited."""

import asyncio
import time
from contextlib import asynccontextmanager, suppress

import pytest
from benchmarks.load import LoadError, closed_loop, has_wrk, open_loop, request_bytes, run, wrk
from benchmarks.memory import distinct_request

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
REQUEST = b"GET / HTTP/1.1\r\n\r\n"


@asynccontextmanager
async def server(answer_of):
    """A server that answers each request with the parts that a function returns."""

    handlers: set[asyncio.Task] = set()

    async def serve(reader, writer):
        if task := asyncio.current_task():
            handlers.add(task)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                for part in await answer_of(await reader.readuntil(b"\r\n\r\n")):
                    writer.write(part)
                    await asyncio.sleep(0.001 if len(part) < len(ANSWER) else 0)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    running = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield running.sockets[0].getsockname()[1]
    finally:
        running.close()
        await asyncio.gather(*handlers)


CLIENTS = {"asyncio": lambda port: run(closed_loop(port, 100, lambda _: REQUEST))}
if has_wrk():
    CLIENTS["wrk"] = lambda port: wrk(port, "/", 100)


@pytest.mark.parametrize("client", CLIENTS.values(), ids=CLIENTS)
def test_every_client_stops_after_the_requests_that_were_asked_for(client):
    seen = []

    async def answer(head):
        seen.append(head)
        return [ANSWER]

    async def load():
        async with server(answer) as port:
            return await asyncio.to_thread(client, port)

    found = asyncio.run(load())
    assert 100 <= found.requests <= len(seen) <= 100 + found.in_flight
    assert 0 < found.p50_ms <= found.p99_ms


def test_a_closed_loop_sends_each_request_once():
    seen = []

    async def answer(head):
        seen.append(head)
        return [ANSWER]

    async def load():
        async with server(answer) as port:
            return await closed_loop(port, 100, lambda n: b"GET /%d HTTP/1.1\r\n\r\n" % n)

    assert run(load()).requests == 100
    assert sorted(seen) == sorted(b"GET /%d HTTP/1.1\r\n\r\n" % n for n in range(100))


def test_an_answer_may_come_in_parts():
    async def answer(head):
        return ANSWER[:10], ANSWER[10:30], ANSWER[30:]

    async def load():
        async with server(answer) as port:
            return await closed_loop(port, 30, lambda _: REQUEST)

    assert run(load()).requests == 30


@pytest.mark.parametrize("answer", [b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", b""])
def test_a_refused_request_ends_the_load(answer):
    async def refuse(head):
        if not answer:
            raise ConnectionError
        return [answer]

    async def load():
        async with server(refuse) as port:
            await closed_loop(port, 10, lambda _: REQUEST)

    with pytest.raises(LoadError):
        run(load())


def test_an_open_loop_keeps_its_rate_and_counts_the_wait_of_requests_that_were_due():
    stalled = []

    async def answer(head):
        if not stalled:
            stalled.append(head)
            time.sleep(0.2)  # the whole server stands still; client and server share the loop
        return [ANSWER]

    async def load():
        async with server(answer) as port:
            return await open_loop(port, rate=500, requests=250, request=REQUEST)

    found = run(load())
    assert found.requests == 250
    assert found.seconds == pytest.approx(0.5, abs=0.2)
    # 100 requests were due while nothing moved: a closed loop would have seen one slow request.
    assert found.p99_ms > 150


def test_wrk_that_cannot_connect_is_an_error(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises((LoadError, FileNotFoundError)):
        wrk(1, "/", 1)


def test_requests_carry_the_headers_that_a_case_asks_for():
    assert request_bytes(80, "/a", (("x-b", "c"),)).endswith(b"Accept: */*\r\nx-b: c\r\n\r\n")


def test_distinct_requests_have_nothing_in_common():
    first, second = (distinct_request(n).decode().split("\r\n") for n in (0, 1))
    same = {one for one, other in zip(first, second, strict=True) if one == other}
    assert same == {"Accept: */*", ""}
