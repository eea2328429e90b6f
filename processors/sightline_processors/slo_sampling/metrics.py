"""What the sampler tells about itself, read at each collection."""

from collections.abc import Iterator
from typing import Final

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from sightline_processors.slo_sampling.choices import REASON
from sightline_processors.slo_sampling.sampler import SloSampler

SPANS: Final = "sightline.sampling.spans"
"""Counter, `{span}`, by `sightline.sampling.reason`: spans that were kept, and those that were not
(`not_sampled`, `buffer_full`, `unfinished`). Eight series at most."""
HELD: Final = "sightline.sampling.held"
"""Up-down counter, `By`: estimated memory of the spans that wait for the verdict of their trace."""


def observe_sampling(meter: Meter, sampler: SloSampler) -> None:
    """Makes the instruments of a sampler; once per sampler.

    Args:
        meter: Where they are made.
        sampler: Is read at each collection.
    """

    def spans(_: CallbackOptions) -> Iterator[Observation]:
        counts = {**sampler.kept(), **sampler.buffer.not_kept()}
        for reason, count in sorted(counts.items()):
            yield Observation(count, {REASON: reason})

    def held(_: CallbackOptions) -> Iterator[Observation]:
        yield Observation(sampler.buffer.held_bytes)

    meter.create_observable_counter(
        SPANS, [spans], unit="{span}", description="Spans that were kept, or not, by reason."
    )
    meter.create_observable_up_down_counter(
        HELD, [held], unit="By", description="Memory of the spans that wait for the verdict of their trace."
    )
