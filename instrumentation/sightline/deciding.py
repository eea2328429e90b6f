"""Puts what decides and bounds into the pipeline that the SDK has configured.

Redaction, limits on span names, slow operations, sampling: right after `export_adoption`, while nothing has
been recorded yet. Each part stands by itself: one that cannot be put in place is reported, the others are.
"""

from collections.abc import Callable

from opentelemetry import _logs, metrics, trace
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.trace import TracerProvider

from sightline.correlation import correlation_id_of
from sightline.options import process_redactor, process_settings
from sightline.series import SCOPE_NAME
from sightline.settings import Settings
from sightline_processors.cardinality.span_processor import CardinalitySpanProcessor
from sightline_processors.export.rewriters import rewrite_exports
from sightline_processors.redaction import Redactor
from sightline_processors.redaction.processor import RedactionProcessor, redact_logs_of
from sightline_processors.report import report
from sightline_processors.slo_sampling import install_slo_sampling, observe_sampling
from sightline_processors.slow_operations import SlowOperationProcessor, SlowThresholds


def decide_and_bound() -> None:
    """Puts the processors of `sightline_processors` into the global providers; never raises."""
    settings = process_settings()
    redactor = process_redactor()
    installs: tuple[Callable[[], object], ...] = (
        lambda: rewrite_exports(
            trace.get_tracer_provider(), RedactionProcessor(redactor), CardinalitySpanProcessor()
        ),
        lambda: _redact_logs(redactor),
        lambda: _watch_operations(settings),
        _sample,
    )
    for install in installs:
        try:
            install()
        except Exception as error:  # noqa: BLE001  another SDK: the others are put in place
            report("deciding", "a processor could not be put in place; the others are", error=error)


def _redact_logs(redactor: Redactor) -> None:
    provider = _logs.get_logger_provider()
    if isinstance(provider, LoggerProvider):
        redact_logs_of(provider, redactor)


def _sample() -> None:
    processor = install_slo_sampling(trace.get_tracer_provider())
    if processor is not None:
        observe_sampling(metrics.get_meter(SCOPE_NAME), processor.sampler)


def _watch_operations(settings: Settings) -> None:
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        return
    thresholds = SlowThresholds(settings.slow_request, settings.slow_query, settings.slow_call)
    logger, meter = _logs.get_logger(SCOPE_NAME), metrics.get_meter(SCOPE_NAME)
    provider.add_span_processor(
        SlowOperationProcessor(thresholds, logger, meter, correlation_id_of=correlation_id_of)
    )
