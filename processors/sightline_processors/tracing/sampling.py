"""Sampling decisions: the SDK's own samplers decided in place, any other one asked."""

from collections.abc import Sequence
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.sdk.trace import sampling
from opentelemetry.sdk.trace.sampling import (
    Decision,
    ParentBased,
    ParentBasedTraceIdRatio,
    Sampler,
    SamplingResult,
    StaticSampler,
    TraceIdRatioBased,
)
from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags
from opentelemetry.util.types import Attributes

from sightline_processors.report import report


def _with_private(public: set[Any], *private: str) -> frozenset[Any]:
    """Returns samplers with those that the SDK makes for `OTEL_TRACES_SAMPLER`, where it has them."""
    return frozenset(public | {getattr(sampling, name) for name in private if hasattr(sampling, name)})


_PARENT_BASED: Final = _with_private(
    {ParentBased, ParentBasedTraceIdRatio}, "_ParentBasedAlwaysOn", "_ParentBasedAlwaysOff"
)
_STATIC: Final = _with_private({StaticSampler}, "_AlwaysOn", "_AlwaysOff")


RANDOM_PART: Final = TraceIdRatioBased.TRACE_ID_LIMIT
"""A mask: the bits of a trace ID that a ratio looks at."""


def known_decision(sampler: Sampler, parent: SpanContext | None, trace_id: int) -> bool | None:
    """Returns whether a span is sampled, or None for a sampler that has to be asked.

    Args:
        sampler: Exactly a sampler of the SDK, not a subclass, for an answer.
        parent: The valid parent, or None for a root span.
        trace_id: Of the span.
    """
    if type(sampler) in _PARENT_BASED:
        sampler = _delegate(sampler, parent)
    if type(sampler) in _STATIC:
        decision = sampler._decision  # type: ignore[attr-defined]  # noqa: SLF001  there is no public way
        return None if decision is Decision.RECORD_ONLY else decision is Decision.RECORD_AND_SAMPLE
    if type(sampler) is TraceIdRatioBased:
        return trace_id & RANDOM_PART < sampler.bound
    return None


def root_bound(sampler: Sampler) -> int | None:
    """Returns below which number the random part of a trace ID (`RANDOM_PART`) has a root span sampled.

    Args:
        sampler: Of the SDK; None is returned where it is another one than a ratio for root spans.
    """
    if type(sampler) in _PARENT_BASED:
        sampler = _delegate(sampler, None)
    return sampler.bound if type(sampler) is TraceIdRatioBased else None


class Decisions:
    """What a sampler decides where that depends on the parent alone; None where it has to be asked each time.

    Attributes:
        sampler: The sampler.
        of_root: Of a span without a parent.
        of_child: Of the others, by `2 * is_remote + is_sampled` of the parent.
    """

    __slots__ = ("of_child", "of_root", "sampler")

    def __init__(self, sampler: Sampler) -> None:
        self.sampler = sampler
        self.of_root = _decision(sampler, None)
        self.of_child = tuple(
            _decision(sampler, SpanContext(1, 1, is_remote=is_remote, trace_flags=TraceFlags(flags)))
            for is_remote in (False, True)
            for flags in (0, 1)
        )


_ALL_BITS: Final = (1 << 128) - 1


def _decision(sampler: Sampler, parent: SpanContext | None) -> bool | None:
    first, last = (known_decision(sampler, parent, trace_id) for trace_id in (0, _ALL_BITS))
    return first if first is last else None  # it depends on the trace ID


def _delegate(sampler: Any, parent: SpanContext | None) -> Sampler:
    """Returns the sampler that a parent-based one asks. Source: `ParentBased`, SDK 1.45."""
    if parent is None:
        chosen = sampler._root  # noqa: SLF001  there is no public way to the delegates
    elif parent[2]:  # remote
        chosen = (
            sampler._remote_parent_sampled  # noqa: SLF001
            if parent[3] & 1
            else sampler._remote_parent_not_sampled  # noqa: SLF001
        )
    else:
        chosen = (
            sampler._local_parent_sampled  # noqa: SLF001
            if parent[3] & 1
            else sampler._local_parent_not_sampled  # noqa: SLF001
        )
    return chosen  # type: ignore[no-any-return]


def is_sampled(decision: Decision) -> bool:
    """Tells whether a span is exported."""
    return decision is Decision.RECORD_AND_SAMPLE


def is_recorded(decision: Decision) -> bool:
    """Tells whether a span is recorded, exported or not."""
    return decision is not Decision.DROP


def asked_decision(
    sampler: Sampler,
    context: Context | None,
    trace_id: int,
    name: str,
    kind: SpanKind,
    attributes: Attributes,
    links: Sequence[Link],
) -> SamplingResult:
    """Asks a sampler; one that raises, or answers nothing of use, is counted, and its span is not sampled."""
    try:
        result = sampler.should_sample(context, trace_id, name, kind, attributes, links)
        result.decision, result.attributes, result.trace_state  # noqa: B018  raises for what is no result
    except Exception as error:  # noqa: BLE001  a sampler of the application's own
        report("sampler", "the sampler raised; the span is not sampled", error=error)
        return SamplingResult(Decision.DROP)
    return result
