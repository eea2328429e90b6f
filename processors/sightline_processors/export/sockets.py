"""Sockets of which every operation ends by one deadline, whatever the other side does."""

import io
import selectors
import socket
import time
from typing import Any, Final

_CHUNK_BYTES: Final = 256 * 1024


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


def send(connection: socket.socket, data: bytes, deadline: Deadline) -> None:
    """Sends everything, or raises by the deadline.

    Raises:
        OSError: When the connection breaks or the deadline passes.
    """
    rest = memoryview(data)
    while rest:
        connection.settimeout(deadline.left())
        rest = rest[connection.send(rest[:_CHUNK_BYTES]) :]


def is_quiet(connection: socket.socket) -> bool:
    """Tells whether a connection that waits has neither been closed by the other side nor said anything."""
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(connection, selectors.EVENT_READ)
            return not selector.select(0)
    except (OSError, ValueError):
        return False


class Answer:
    """Stands for a socket in `http.client.HTTPResponse`: what it reads ends by the deadline.

    Args:
        connection: Where the answer comes from; stays open.
        deadline: Of the attempt.
    """

    def __init__(self, connection: socket.socket, deadline: Deadline) -> None:
        self._reader = _Reader(connection, deadline)

    def makefile(self, *_: Any) -> io.BufferedReader:
        """Returns the stream of the answer."""
        return io.BufferedReader(self._reader)


class _Reader(io.RawIOBase):
    def __init__(self, connection: socket.socket, deadline: Deadline) -> None:
        super().__init__()
        self._connection = connection
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._connection.settimeout(self._deadline.left())
        return self._connection.recv_into(buffer)
