"""Trace and span IDs from a generator of our own.

Private, because an application's `random.seed()` must not make IDs repeat; seeded anew in forked processes.
"""

import os
import random

from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator

from sightline_processors.report import report

_random = random.Random()  # noqa: S311  an ID is not a secret
os.register_at_fork(after_in_child=_random.seed)

random_bits = _random.getrandbits

_MESSAGE = "the ID generator raised, or gave no number; a random ID stands in"


def random_trace_id() -> int:
    """Returns 128 random bits, never 0."""
    return random_bits(128) or 1


def random_span_id() -> int:
    """Returns 64 random bits, never 0."""
    return random_bits(64) or 1


def trace_id_from(generator: IdGenerator) -> tuple[int, bool]:
    """Returns a trace ID and whether it is random; a generator that raises is counted and stood in for."""
    if type(generator) is RandomIdGenerator:
        return random_bits(128) or 1, True
    try:
        return _number(generator.generate_trace_id()), bool(generator.is_trace_id_random())
    except Exception as error:  # noqa: BLE001  a generator of the application's own
        report("id_generator", _MESSAGE, error=error)
        return random_trace_id(), True


def span_id_from(generator: IdGenerator) -> int:
    """Returns a span ID; a generator that raises is counted and stood in for."""
    if type(generator) is RandomIdGenerator:
        return random_bits(64) or 1
    try:
        return _number(generator.generate_span_id())
    except Exception as error:  # noqa: BLE001  a generator of the application's own
        report("id_generator", _MESSAGE, error=error)
        return random_span_id()


def _number(identity: object) -> int:
    """Returns an ID as it is; 0 and what is too big are valid numbers, of a span context that is not."""
    if not isinstance(identity, int):
        raise TypeError(f"not an int: {type(identity).__name__}")
    return identity
