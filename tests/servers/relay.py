"""Passes bytes between two sockets, as a proxy does."""

import socket
from collections.abc import Callable
from contextlib import suppress


def pump(source: socket.socket, target: socket.socket, tell: Callable[[int], None] = lambda _: None) -> None:
    """Passes on what comes until either side has ended, then ends the other's stream.

    Args:
        source: Read until its end.
        target: Gets the bytes; stays open to be read.
        tell: Called with the number of bytes before they are passed on.
    """
    with suppress(OSError):  # a reset of either side is an end
        while chunk := source.recv(65536):
            tell(len(chunk))
            target.sendall(chunk)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
