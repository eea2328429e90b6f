"""Rewriters that come when the exporters are there already."""

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NoOpTracerProvider

from sightline_processors.export.rewriters import rewrite_exports
from sightline_processors.slo_sampling import SloSampler, install_slo_sampling
from sightline_processors.tracing.rewriting import changed


class Adding:
    """Adds a letter to the name of each span."""

    def __init__(self, letter: str) -> None:
        self.letter = letter

    def rewrite(self, span: ReadableSpan) -> ReadableSpan:
        return changed(span, name=span.name + self.letter)


def names(provider: TracerProvider, exporter: InMemorySpanExporter) -> list[str]:
    provider.get_tracer("test").start_span("x").end()
    provider.force_flush()
    return [span.name for span in exporter.get_finished_spans()]


def provider_with(exporter: SpanExporter, kind: type, **options: object) -> TracerProvider:
    provider = TracerProvider(shutdown_on_exit=False, **options)  # type: ignore[arg-type]
    provider.add_span_processor(kind(exporter))
    return provider


def test_each_exporter_of_the_sdk_gets_rewritten_spans() -> None:
    for kind in (SimpleSpanProcessor, BatchSpanProcessor):
        exporter = InMemorySpanExporter()
        provider = provider_with(exporter, kind)
        assert rewrite_exports(provider, Adding("a"), Adding("b")) == 1
        assert names(provider, exporter) == ["xab"], kind
        provider.shutdown()


def test_rewriters_that_come_later_act_last_and_each_once() -> None:
    exporter, first, second = InMemorySpanExporter(), Adding("a"), Adding("b")
    provider = provider_with(exporter, SimpleSpanProcessor)
    rewrite_exports(provider, first)
    rewrite_exports(provider, second, first)
    assert names(provider, exporter) == ["xab"]


def test_exporters_behind_the_sampler_get_rewritten_spans() -> None:
    exporter = InMemorySpanExporter()
    provider = provider_with(exporter, SimpleSpanProcessor, sampler=SloSampler(spans_per_second=100))
    assert install_slo_sampling(provider) is not None
    assert rewrite_exports(provider, Adding("a")) == 1
    assert names(provider, exporter) == ["xa"]


def test_another_provider_is_left_alone() -> None:
    assert rewrite_exports(NoOpTracerProvider(), Adding("a")) == 0
