"""Checks `OTEL_*` variables before the SDK reads them.

The SDK raises on several wrong values, and one of them would leave the program without any telemetry.
Here each wrong value costs one line and is removed, so that its default holds.
"""

import os
import re
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from urllib.parse import urlsplit

from sightline.report import logger

_SHOWN_CHARACTERS = 80


@dataclass(frozen=True, slots=True)
class Rule:
    """Says what a variable's value must be.

    Attributes:
        variables: Full-match pattern of the variables' names.
        accepts: Tells whether a value, stripped and not empty, is good.
        must: The rule in words, after "must be".
        example: A good value.
        shown: Whether the value may be printed.
    """

    variables: re.Pattern[str]
    accepts: Callable[[str], bool]
    must: str
    example: str
    shown: bool = True


def sanitize_environment(
    environ: MutableMapping[str, str] | None = None, *, prefix: str = "OTEL_"
) -> list[str]:
    """Removes wrong values, says so in one line each, and returns the variables' names.

    Args:
        environ: Variables to check and change; `os.environ` when omitted.
        prefix: Beginning of the variables to check.
    """
    environ = os.environ if environ is None else environ
    removed = []
    for variable in sorted(name for name in environ if name.startswith(prefix)):
        value = environ[variable].strip()
        rule = next((rule for rule in _RULES if rule.variables.fullmatch(variable)), None)
        if rule is None or not value or _accepted(rule, value):
            continue
        del environ[variable]
        removed.append(variable)
        logger.warning("%s", _line(variable, value, rule))
    return removed


def sdk_disabled(environ: Mapping[str, str] | None = None) -> bool:
    """Tells whether `OTEL_SDK_DISABLED` asks to leave the program untouched."""
    environ = os.environ if environ is None else environ
    return environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def _accepted(rule: Rule, value: str) -> bool:
    try:
        return rule.accepts(value)
    except ValueError:
        return False


def _line(variable: str, value: str, rule: Rule) -> str:
    shown = f"{value[:_SHOWN_CHARACTERS]!r}" if rule.shown else "a value that is not shown"
    return (
        f"{variable} must be {rule.must}, got {shown} (from the environment); "
        f"using the default; for example {variable}={rule.example}"
    )


def _entry_points_of(group: str, *others: str) -> Callable[[str], bool]:
    def accepts(value: str) -> bool:
        wanted = {item.strip() for item in value.split(",")}.difference(others)
        return not wanted or wanted <= {entry_point.name for entry_point in entry_points(group=group)}

    return accepts


def _one_of(*values: str) -> Callable[[str], bool]:
    return lambda value: value.lower() in values


def _whole_number(value: str) -> bool:
    return int(value) >= 0


def _positive_number(value: str) -> bool:
    return float(value) > 0


def _url(value: str) -> bool:
    parts = urlsplit(value if "://" in value else f"http://{value}")
    return bool(parts.hostname) and parts.scheme in ("http", "https") and (parts.port or 1) > 0


def _pairs(value: str) -> bool:
    return all("=" in item for item in value.split(",") if item.strip())


def _rule(
    variables: str, accepts: Callable[[str], bool], must: str, example: str, *, shown: bool = True
) -> Rule:
    return Rule(re.compile(variables), accepts, must, example, shown)


_SIGNAL = "(?:_(?:TRACES|METRICS|LOGS))?"
_RULES = (
    _rule(
        "OTEL_TRACES_EXPORTER",
        _entry_points_of("opentelemetry_traces_exporter", "otlp", "none"),
        "installed exporters separated by commas",
        "otlp",
    ),
    _rule(
        "OTEL_METRICS_EXPORTER",
        _entry_points_of("opentelemetry_metrics_exporter", "otlp", "none"),
        "installed exporters separated by commas",
        "otlp",
    ),
    _rule(
        "OTEL_LOGS_EXPORTER",
        _entry_points_of("opentelemetry_logs_exporter", "otlp", "none"),
        "installed exporters separated by commas",
        "otlp",
    ),
    _rule(
        f"OTEL_EXPORTER_OTLP{_SIGNAL}_PROTOCOL",
        _one_of("grpc", "http/protobuf"),
        "http/protobuf or grpc",
        "http/protobuf",
    ),
    _rule(
        f"OTEL_EXPORTER_OTLP{_SIGNAL}_ENDPOINT",
        _url,
        "an http or https URL",
        "http://localhost:4318",
        shown=False,
    ),
    _rule(
        f"OTEL_EXPORTER_OTLP{_SIGNAL}_HEADERS",
        _pairs,
        "key=value pairs separated by commas",
        "tenant=a",
        shown=False,
    ),
    _rule(f"OTEL_EXPORTER_OTLP{_SIGNAL}_TIMEOUT", _positive_number, "a number of seconds above 0", "10"),
    _rule(
        f"OTEL_EXPORTER_OTLP{_SIGNAL}_COMPRESSION",
        _one_of("gzip", "deflate", "none"),
        "gzip, deflate or none",
        "gzip",
    ),
    _rule(
        f"OTEL_EXPORTER_OTLP{_SIGNAL}_(?:CERTIFICATE|CLIENT_KEY|CLIENT_CERTIFICATE)",
        lambda value: Path(value).is_file(),
        "the path of a readable file",
        "collector-ca.pem",
    ),
    _rule(
        "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
        _one_of("cumulative", "delta", "lowmemory"),
        "cumulative, delta or lowmemory",
        "cumulative",
    ),
    _rule(
        "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION",
        _one_of("explicit_bucket_histogram", "base2_exponential_bucket_histogram"),
        "explicit_bucket_histogram or base2_exponential_bucket_histogram",
        "explicit_bucket_histogram",
    ),
    _rule(
        "OTEL_METRICS_EXEMPLAR_FILTER",
        _one_of("trace_based", "always_on", "always_off"),
        "trace_based, always_on or always_off",
        "trace_based",
    ),
    _rule(
        "OTEL_PROPAGATORS",
        _entry_points_of("opentelemetry_propagator", "tracecontext", "baggage", "none"),
        "installed propagators separated by commas",
        "tracecontext,baggage",
    ),
    _rule(
        "OTEL_PYTHON_CONTEXT",
        _entry_points_of("opentelemetry_context", "contextvars_context"),
        "an installed context implementation",
        "contextvars_context",
    ),
    _rule(
        "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS",
        _entry_points_of("opentelemetry_resource_detector", "*"),
        "installed resource detectors separated by commas",
        "otel,process",
    ),
    _rule(
        "OTEL_TRACES_SAMPLER",
        _entry_points_of("opentelemetry_traces_sampler"),
        "an installed sampler",
        "parentbased_traceidratio",
    ),
    _rule(
        "OTEL_PYTHON_ID_GENERATOR",
        _entry_points_of("opentelemetry_id_generator"),
        "an installed generator",
        "random",
    ),
    _rule("OTEL_METRIC_EXPORT_(?:INTERVAL|TIMEOUT)", _positive_number, "milliseconds above 0", "15000"),
    _rule(
        "OTEL_(?:BSP|BLRP)_(?:SCHEDULE_DELAY|EXPORT_TIMEOUT|MAX_QUEUE_SIZE|MAX_EXPORT_BATCH_SIZE)",
        lambda value: int(value) > 0,
        "a whole number above 0",
        "1000",
    ),
    _rule(
        "OTEL_(?:.*_)?(?:COUNT|LENGTH)_LIMIT",
        _whole_number,
        "a whole number of 0 or more",
        "128",
    ),
    _rule("OTEL_SDK_DISABLED", _one_of("true", "false"), "true or false", "true"),
    _rule(
        "OTEL_RESOURCE_ATTRIBUTES", _pairs, "key=value pairs separated by commas", "service.namespace=shop"
    ),
)
