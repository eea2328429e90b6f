"""SLO-aware sampling: keeps what an objective was missed by, and a fair share of the rest.

`sampler.py` decides what is recorded, `buffer.py` holds the spans of a trace until its local root has ended,
`processor.py` exports what is kept. Source of the thresholds in `tracestate`: OpenTelemetry specification,
TraceState: Probability Sampling (OTEP 235).
"""

from sightline_processors.slo_sampling.choices import PROBABILITY, REASON, Sampled
from sightline_processors.slo_sampling.entry_point import slo_sampler
from sightline_processors.slo_sampling.metrics import observe_sampling
from sightline_processors.slo_sampling.processor import (
    EncodedSloSamplingProcessor,
    SloSamplingProcessor,
    install_slo_sampling,
    slo_sampling_processor,
)
from sightline_processors.slo_sampling.roots import RootFacts
from sightline_processors.slo_sampling.sampler import SloSampler

__all__ = [
    "PROBABILITY",
    "REASON",
    "EncodedSloSamplingProcessor",
    "RootFacts",
    "Sampled",
    "SloSampler",
    "SloSamplingProcessor",
    "install_slo_sampling",
    "observe_sampling",
    "slo_sampler",
    "slo_sampling_processor",
]
