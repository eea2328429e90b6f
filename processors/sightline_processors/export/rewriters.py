"""Puts rewriters of spans in front of the exporters that a provider has already."""

from typing import Any

from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor

from sightline_processors.export.processors import OtlpSpanProcessor
from sightline_processors.slo_sampling.processor import SloSamplingProcessor
from sightline_processors.tracing.rewriting import RewritingSpanExporter, SpanRewriter


def rewrite_exports(provider: object, *rewriters: SpanRewriter) -> int:
    """Lets every exporter of a provider get its spans as rewriters want them, from now on.

    They act after those that are there already, and in this order. Exporting are `OtlpSpanProcessor`,
    `BatchSpanProcessor` and `SimpleSpanProcessor`, and those that a `SloSamplingProcessor` hands spans to; a
    processor of another class is left as it is, and one that is added later too. Adding a rewriter again
    changes nothing. The SERVER spans that Sightline encodes itself are not rewritten: they are bounded as
    they are made, and what an application put on them is redacted.

    Args:
        provider: A `TracerProvider` of the SDK; for another nothing is done.
        rewriters: Called from any thread.

    Returns:
        How many exporters there are whose spans are rewritten.
    """
    if not isinstance(provider, TracerProvider):
        return 0
    present = provider._active_span_processor._span_processors  # noqa: SLF001  no public way to them
    return sum(_rewrite(processor, rewriters) for processor in present)


def _rewrite(processor: SpanProcessor, rewriters: tuple[SpanRewriter, ...]) -> int:
    if isinstance(processor, SloSamplingProcessor):
        return sum(_rewrite(target, rewriters) for target in processor.targets)
    if isinstance(processor, OtlpSpanProcessor):
        _extend(processor, rewriters)
    elif type(processor) is SimpleSpanProcessor:
        processor.span_exporter = _rewriting(processor.span_exporter, rewriters)
    elif type(processor) is BatchSpanProcessor:
        batch: Any = processor._batch_processor  # noqa: SLF001  no public way to its exporter
        batch._exporter = _rewriting(batch._exporter, rewriters)  # noqa: SLF001  likewise
    else:
        return 0
    return 1


def _rewriting(exporter: Any, rewriters: tuple[SpanRewriter, ...]) -> RewritingSpanExporter:
    if isinstance(exporter, RewritingSpanExporter):
        _extend(exporter, rewriters)
        return exporter
    return RewritingSpanExporter(exporter, rewriters)


def _extend(holder: OtlpSpanProcessor | RewritingSpanExporter, rewriters: tuple[SpanRewriter, ...]) -> None:
    new = tuple(each for each in rewriters if each not in holder.span_rewriters)
    holder.span_rewriters += new
