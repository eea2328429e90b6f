"""What a run has measured, for tables and for other programs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from benchmarks.figures import Samples
from benchmarks.memory import Memory
from benchmarks.processors import Cost
from benchmarks.route_memory import RouteMemory
from benchmarks.startup import StartUp


@dataclass(frozen=True)
class Results:
    """What a run has measured; parts that it left out are empty.

    Attributes:
        samples: The rounds.
        start_up: Seconds to start.
        memory: Megabytes over many requests.
        setting: How and where: what it was, by what it is called.
        processors: What each costs by itself.
        routes: Megabytes of many registered routes.
    """

    samples: Samples
    start_up: Sequence[StartUp] = ()
    memory: Sequence[Memory] = ()
    setting: Mapping[str, str] = field(default_factory=dict)
    processors: Sequence[Cost] = ()
    routes: RouteMemory | None = None

    def as_json(self) -> str:
        """Returns everything."""
        return json.dumps(asdict(self), indent=2)

    def uncounted(self) -> list[str]:
        """Returns the cases and processors without a single round that counts."""
        cases = [name for name, rounds in self.samples.items() if all(sample.lost for sample in rounds)]
        return [*cases, *(cost.name for cost in self.processors if cost.lost)]
