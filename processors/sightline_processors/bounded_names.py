"""Names that become attributes of metrics and do not come from a closed set."""


class BoundedNames:
    """Lets the first names through and replaces further ones; for the life of the process, constant memory.

    Args:
        limit: Distinct names that keep their value; threads that come at once may add one more each.
        other: What stands for all others.
    """

    def __init__(self, limit: int, other: str) -> None:
        self._limit = limit
        self._other = other
        self._seen: set[str] = set()

    def bounded(self, name: str) -> str:
        """Returns the name, or what stands for the others."""
        if name in self._seen:
            return name
        if len(self._seen) >= self._limit:
            return self._other
        self._seen.add(name)
        return name
