"""Clocks that a test sets."""

EPOCH = 1_800_000_000.0
"""Wall time at which these tests begin: a multiple of an hour, so that slots begin there as well."""


class Clocks:
    """Is a monotonic and a wall clock, which move together unless one is set."""

    def __init__(self, monotonic=1_000.0, wall=EPOCH):
        self.monotonic = monotonic
        self.wall = wall

    def read_monotonic(self):
        return self.monotonic

    def read_wall(self):
        return self.wall

    def advance(self, seconds):
        self.monotonic += seconds
        self.wall += seconds
