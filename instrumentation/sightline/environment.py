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
from urllib.parse import unquote, urlsplit

from sightline_processors.report import logger

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
        if not value:
            del environ[variable]  # the specification: empty is unset; the SDK does not hold to it everywhere
            continue
        rule = next((rule for rule in _RULES if rule.variables.fullmatch(variable)), None)
        if rule is None or _accepted(rule, value):
            continue
        del environ[variable]
        removed.append(variable)
        logger.warning("%s", _line(variable, value, rule))
    return removed + _remove_contradictions(environ)


def _remove_contradictions(environ: MutableMapping[str, str]) -> list[str]:
    """Removes batch and queue sizes of which the SDK would refuse the pair."""
    removed = []
    for prefix in ("OTEL_BSP", "OTEL_BLRP"):
        batch, queue = f"{prefix}_MAX_EXPORT_BATCH_SIZE", f"{prefix}_MAX_QUEUE_SIZE"
        if int(environ.get(batch) or 512) <= int(environ.get(queue) or 2048):
            continue
        found = [variable for variable in (batch, queue) if environ.pop(variable, None) is not None]
        logger.warning(
            "%s must be at most %s, got the contrary (from the environment); using the defaults 512 and 2048",
            batch,
            queue,
        )
        removed += found
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


def _exporters_of(group: str) -> Callable[[str], bool]:
    """`none`, in any case and alone, or installed exporters."""
    installed = _entry_points_of(group, "otlp")
    return lambda value: value.lower() == "none" or installed(value)


def _one_of(*values: str, any_case: bool = False) -> Callable[[str], bool]:
    return lambda value: (value.lower() if any_case else value) in values


def _whole_number(value: str, *, at_least: int = 0) -> bool:
    return value.isascii() and value.isdigit() and at_least <= int(value) <= MAX_NUMBER


def _positive_whole_number(value: str) -> bool:
    return _whole_number(value, at_least=1)


def _positive_number(value: str) -> bool:
    return 0 < float(value) <= MAX_NUMBER  # not a number fails as well


def _url(value: str) -> bool:
    if "://" not in value and os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL") == "grpc":
        value = f"http://{value}"  # gRPC takes host:port
    return _URL.fullmatch(value) is not None and (urlsplit(value).port or 1) > 0


def _headers(value: str) -> bool:
    """Pairs of a token and a value without control characters, percent-encoded."""
    for item in filter(None, map(str.strip, value.split(","))):
        name, separator, text = item.partition("=")
        decoded = unquote(text)
        if not separator or not _TOKEN.fullmatch(unquote(name).strip()) or not decoded.isprintable():
            return False
    return True


def _sampler_argument(value: str) -> bool:
    if os.environ.get("OTEL_TRACES_SAMPLER", "") not in ("traceidratio", "parentbased_traceidratio"):
        return True  # a sampler of somebody else, with an argument of its own
    return 0 <= float(value) <= 1


def _resource_attributes(value: str) -> bool:
    items = filter(None, map(str.strip, value.split(",")))
    return all("=" in item and item.partition("=")[0].strip() for item in items)


def _rule(
    variables: str, accepts: Callable[[str], bool], must: str, example: str, *, shown: bool = True
) -> Rule:
    return Rule(re.compile(variables), accepts, must, example, shown)


MAX_NUMBER = 2**31 - 1
"""Largest number that a variable may hold: milliseconds, seconds or items."""

_STABILITY_AREAS = frozenset(
    {"http", "database", "rpc", "messaging", "code", "k8s", "gen_ai_latest_experimental"}
)
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_URL = re.compile(
    r"https?://(?:[^\s/@]*@)?(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~-]+)(?::[0-9]{1,5})?(?:[/?][^\s]*)?"
)
_SIGNAL = "(?:_(?:TRACES|METRICS|LOGS))?"
_RULES = (
    _rule(
        "OTEL_TRACES_EXPORTER",
        _exporters_of("opentelemetry_traces_exporter"),
        "installed exporters separated by commas, or none",
        "otlp",
    ),
    _rule(
        "OTEL_METRICS_EXPORTER",
        _exporters_of("opentelemetry_metrics_exporter"),
        "installed exporters separated by commas, or none",
        "otlp",
    ),
    _rule(
        "OTEL_LOGS_EXPORTER",
        _exporters_of("opentelemetry_logs_exporter"),
        "installed exporters separated by commas, or none",
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
        _headers,
        "name=value pairs, percent-encoded, separated by commas",
        "tenant=a",
        shown=False,
    ),
    _rule(f"OTEL_EXPORTER_OTLP{_SIGNAL}_TIMEOUT", _positive_number, "a number of seconds above 0", "10"),
    _rule(
        f"OTEL_EXPORTER_OTLP{_SIGNAL}_COMPRESSION",
        _one_of("gzip", "deflate", "none", any_case=True),
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
        _one_of("cumulative", "delta", "lowmemory", any_case=True),
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
        "OTEL_SEMCONV_STABILITY_OPT_IN",
        lambda value: all(item.strip().removesuffix("/dup") in _STABILITY_AREAS for item in value.split(",")),
        "areas of the conventions, each with /dup or without, separated by commas",
        "http/dup",
    ),
    _rule(
        "OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN",
        lambda value: all(item.strip() in ("logs", "logs/dup") for item in value.split(",")),
        "logs or logs/dup",
        "logs/dup",
    ),
    _rule(
        "OTEL_PYTHON_LOG_LEVEL",
        _one_of("debug", "info", "warning", "error"),
        "debug, info, warning or error",
        "info",
    ),
    _rule(
        "OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS",
        lambda value: all(_TOKEN.fullmatch(item.strip()) for item in value.split(",") if item.strip()),
        "methods separated by commas",
        "GET,POST,PURGE",
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
        _positive_whole_number,
        "a whole number above 0",
        "1000",
    ),
    _rule(
        "OTEL_(?:.*_)?(?:COUNT|LENGTH)_LIMIT",
        _whole_number,
        "a whole number of 0 or more",
        "128",
    ),
    _rule(
        "OTEL_TRACES_SAMPLER_ARG",
        _sampler_argument,
        "a ratio from 0 to 1 for the sampler that is set",
        "0.1",
    ),
    _rule(
        "OTEL_PYTHON_EXPORTER_OTLP_.*CREDENTIAL_PROVIDER",
        _entry_points_of("opentelemetry_otlp_credential_provider"),
        "an installed credential provider",
        "my_provider",
    ),
    _rule(
        "OTEL_PYTHON_(?:LOG_AUTO_INSTRUMENTATION|LOG_CORRELATION|LOG_CODE_ATTRIBUTES|SDK_INTERNAL_METRICS_ENABLED)",
        _one_of("true", "false", any_case=True),
        "true or false",
        "true",
    ),
    _rule(
        "OTEL_CONFIG_FILE", lambda value: Path(value).is_file(), "the path of a readable file", "otel.yaml"
    ),
    _rule("OTEL_SDK_DISABLED", _one_of("true", "false", any_case=True), "true or false", "true"),
    _rule(
        "OTEL_RESOURCE_ATTRIBUTES",
        _resource_attributes,
        "key=value pairs separated by commas",
        "service.namespace=shop",
    ),
)
