"""How long to wait before a batch is sent again."""

import random
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential backoff with full jitter: a random part of a ceiling that doubles with each attempt.

    Source: OTLP specification 1.5 (exponential backoff with jitter); AWS Architecture Blog, "Exponential
    Backoff and Jitter" (full jitter).

    Attributes:
        initial_seconds: Ceiling after the first attempt.
        max_seconds: Highest ceiling.
        generator: Source of randomness; one of its own, so that an application's `random.seed` does not make
            a fleet of processes retry in step.
    """

    initial_seconds: float = 1.0
    max_seconds: float = 10.0
    generator: random.Random = field(default_factory=random.Random, repr=False, compare=False)

    def seconds(self, attempts: int) -> float:
        """Returns the wait after so many attempts, from 0 to `max_seconds`."""
        doublings = min(max(attempts - 1, 0), 30)
        return self.generator.uniform(0.0, min(self.max_seconds, self.initial_seconds * 2.0**doublings))

    def forget(self) -> None:
        """Draws from another sequence than the process that this one was forked from."""
        self.generator.seed()
