"""Sockets of which every operation ends by one deadline, whatever the other side does."""

import encodings.idna  # noqa: F401  what a look-up imports otherwise, in the thread of exports, beside a fork
import io
import socket
import ssl
import time
from collections.abc import Sequence
from typing import Any


class Deadline:
    """Holds the moment by which an attempt must be over.

    Args:
        seconds: From now on, above 0.
    """

    __slots__ = ("_ends_at",)

    def __init__(self, seconds: float) -> None:
        self._ends_at = time.monotonic() + seconds

    def left(self) -> float:
        """Returns the seconds that are left, above 0.

        Raises:
            TimeoutError: When none are.
        """
        left = self._ends_at - time.monotonic()
        if left <= 0:
            raise TimeoutError("the deadline of the attempt has passed")
        return left


def connect(host: str, port: int, deadline: Deadline, opened: list[socket.socket]) -> socket.socket:
    """Connects to the first address of a host that answers.

    The look-up of the name itself is the system's, and cannot be cut short.

    Args:
        host: Name or address.
        port: TCP port.
        deadline: Of the attempt.
        opened: Holds the socket while it connects, for whoever wants to end that.

    Raises:
        OSError: When there is no address, or none answers in time.
    """
    problem: OSError = OSError("the name has no address")
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        connection = socket.socket(family, kind, protocol)
        opened[:] = [connection]
        try:
            connection.settimeout(deadline.left())
            connection.connect(address)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            connection.close()
            opened.clear()
            problem = error
        else:
            return connection
    raise problem


def send(connection: socket.socket, parts: Sequence[bytes], deadline: Deadline) -> None:
    """Sends everything, or raises by the deadline.

    Args:
        connection: Where to.
        parts: One after the other; without a copy of them as a whole where there is no TLS.
        deadline: Of the attempt.

    Raises:
        OSError: When the connection breaks or the deadline passes.
    """
    is_single = isinstance(connection, ssl.SSLSocket) or not hasattr(connection, "sendmsg")
    rest = [memoryview(part) for part in ([b"".join(parts)] if is_single else parts)]
    while rest:
        connection.settimeout(deadline.left())
        sent = connection.send(rest[0]) if is_single else connection.sendmsg(rest)
        while rest and sent >= len(rest[0]):
            sent -= len(rest.pop(0))
        if rest:
            rest[0] = rest[0][sent:]


def is_quiet(connection: socket.socket) -> bool:
    """Tells whether a connection that waits has neither been closed by the other side nor said anything."""
    try:
        connection.settimeout(0)
        socket.socket.recv(connection, 1, socket.MSG_PEEK)  # of a TLS connection, what is below TLS
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def receive(connection: socket.socket, deadline: Deadline) -> bytes:
    """Returns the next bytes, `io.DEFAULT_BUFFER_SIZE` at most; none where the other side has ended.

    Raises:
        OSError: When the connection breaks or the deadline passes.
    """
    connection.settimeout(deadline.left())
    return connection.recv(io.DEFAULT_BUFFER_SIZE)


class Answer:
    """Stands for a socket in `http.client.HTTPResponse`: what it reads ends by the deadline.

    Args:
        connection: Where the answer comes from; stays open.
        deadline: Of the attempt.
        first: What has been received of it.
    """

    def __init__(self, connection: socket.socket, deadline: Deadline, first: bytes) -> None:
        self._reader = _Reader(connection, deadline, first)

    def makefile(self, *_: Any) -> io.BufferedReader:
        """Returns the stream of the answer."""
        return io.BufferedReader(self._reader)


class _Reader(io.RawIOBase):
    def __init__(self, connection: socket.socket, deadline: Deadline, first: bytes) -> None:
        super().__init__()
        self._connection = connection
        self._deadline = deadline
        self._first: bytes | None = first

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        received = receive(self._connection, self._deadline) if self._first is None else self._first
        taken = received[: len(buffer)]
        buffer[: len(taken)] = taken
        self._first = received[len(taken) :] or None
        return len(taken)
