"""Messages on WebSocket connections, echoed one at a time: RFC 6455 as far as a trusting client needs it."""

import asyncio
import base64
import os
import time
from typing import Final

from benchmarks.load import LIMIT_SECONDS, Load, LoadError, percentile_99

CONNECTIONS: Final = 16
TEXT: Final = b"a message of thirty-two bytes ..."[:32]
_MASK: Final = b"\x00\x00\x00\x00"
"""A mask that changes nothing: the frame must say that it is masked, the text may stay as it is."""

FRAME: Final = bytes((0x81, 0x80 | len(TEXT))) + _MASK + TEXT
ECHO: Final = bytes((0x81, len(TEXT))) + TEXT


async def echoes(port: int, path: str, messages: int, connections: int = CONNECTIONS) -> Load:
    """Sends messages and awaits the echo of each.

    Raises:
        LoadError: When the server refuses a connection or sends something else.
    """
    latencies: list[float] = []
    share, more = divmod(messages, connections)
    started = time.perf_counter()
    async with asyncio.timeout(LIMIT_SECONDS):
        await asyncio.gather(*(_talk(port, path, share + (n < more), latencies) for n in range(connections)))
    latencies.sort()
    return Load(
        requests=len(latencies),
        in_flight=0,
        seconds=time.perf_counter() - started,
        p50_ms=latencies[len(latencies) // 2] * 1e3,
        p99_ms=percentile_99(latencies) * 1e3,
    )


async def _talk(port: int, path: str, messages: int, latencies: list[float]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    key = base64.b64encode(os.urandom(16)).decode()
    writer.write(
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 101"):
        raise LoadError(head[:60].decode(errors="replace"))
    for _ in range(messages):
        sent = time.perf_counter()
        writer.write(FRAME)
        if await reader.readexactly(len(ECHO)) != ECHO:
            raise LoadError("the echo differs")
        latencies.append(time.perf_counter() - sent)
    writer.close()
    await writer.wait_closed()
