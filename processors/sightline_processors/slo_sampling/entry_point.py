"""`OTEL_TRACES_SAMPLER=sightline_slo`: the sampler from the environment.

Entry point `sightline_slo` of the group `opentelemetry_traces_sampler`.
"""

import math
import os
from typing import Final

from opentelemetry import trace
from opentelemetry.sdk.environment_variables import OTEL_METRIC_EXPORT_INTERVAL

from sightline_processors.report import warn_once
from sightline_processors.slo_sampling.processor import install_slo_sampling
from sightline_processors.slo_sampling.sampler import (
    EXEMPLAR_INTERVAL_SECONDS,
    SPANS_PER_SECOND,
    SloSampler,
)

MAX_SPANS_PER_SECOND: Final = 1_000_000.0


def slo_sampler(argument: float | str | None = None) -> SloSampler:
    """Returns the sampler that `OTEL_TRACES_SAMPLER=sightline_slo` names.

    Its processor takes the place of the exporting ones of the global provider when the first trace begins. A
    wrong value is one line in the log, and the default holds.

    Args:
        argument: `OTEL_TRACES_SAMPLER_ARG`: spans per second, 0 to 1,000,000; 100 when empty.
    """
    sampler = SloSampler(_spans_per_second(argument), exemplar_interval_seconds=_interval_seconds())

    def attach() -> None:
        if install_slo_sampling(trace.get_tracer_provider()) is None and sampler.processor is None:
            warn_once(
                "sightline_slo exports only part of what it keeps: the global TracerProvider has another "
                "sampler or no exporter yet; call install_slo_sampling(provider) after adding exporters"
            )

    sampler.on_first_root = attach
    return sampler


def _spans_per_second(argument: float | str | None) -> float:
    if argument is None or argument == "":
        return SPANS_PER_SECOND
    number = _number(argument)
    if number is not None and 0 <= number <= MAX_SPANS_PER_SECOND:
        return number
    warn_once(
        "spans per second must be 0 to 1000000, got %s (from OTEL_TRACES_SAMPLER_ARG); the default of "
        "100 holds; for 50 a second write 50",
        str(argument)[:40],
    )
    return SPANS_PER_SECOND


def _interval_seconds() -> float:
    """Returns how often metrics are collected; whoever configures them tells of a wrong value."""
    millis = _number(os.environ.get(OTEL_METRIC_EXPORT_INTERVAL, ""))
    return millis / 1000 if millis is not None and millis > 0 else EXEMPLAR_INTERVAL_SECONDS


def _number(value: float | str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
