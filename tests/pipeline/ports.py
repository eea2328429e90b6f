"""Loopback ports for programs of a test, below those that outgoing connections take."""

import random
from pathlib import Path
from typing import Final

import processes

HOST: Final = "127.0.0.1"

_given: set[int] = set()


def free_ports(count: int) -> list[int]:
    """Returns ports that nobody listens on, each given once; no connection of somebody's gets one later."""
    first_outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    candidates = set(random.sample(range(10_000, first_outgoing), 200)) - _given
    free = [port for port in candidates if processes.is_port_free(HOST, port)][:count]
    _given.update(free)
    return free


def free_port() -> int:
    """Returns one of them."""
    return free_ports(1)[0]


def free_addresses(count: int) -> list[str]:
    """Returns loopback addresses with such ports."""
    return [f"{HOST}:{port}" for port in free_ports(count)]
