"""What one application's capture is configured with: values from code, else from variables."""

import fnmatch
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial

from opentelemetry._logs import LoggerProvider
from opentelemetry.context import create_key
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider
from opentelemetry.util.http import (
    OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SANITIZE_FIELDS,
    OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST,
    OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_RESPONSE,
    ExcludeList,
    get_custom_headers,
    get_excluded_urls,
    parse_excluded_urls,
)

from sightline.attributes import KNOWN_METHODS, known_methods
from sightline.configuration_file import file_configuration
from sightline.errors import SettingsError
from sightline.header_capture import HeaderCapture
from sightline.settings import OFF, Settings, load_settings
from sightline.types import ClientHook, ServerRequestHook
from sightline_processors.redaction import Redactor, redact_query
from sightline_processors.report import warn_once

OPTIONS_KEY = create_key("sightline.options")
"""Context key of the options with which the current request is captured."""

CREDENTIAL_HEADERS = (
    ".*auth.*", ".*cookie.*", ".*credential.*", ".*jwt.*", ".*key.*", ".*oidc.*", ".*passw.*", ".*secret.*",
    ".*session.*", ".*signature.*", ".*token.*", "x-sightline-probe",
)  # fmt: skip
"""Patterns of header names whose captured values are always masked."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)  # compared, and hashed, by identity
class CaptureOptions:
    """Holds the options of one `SightlineMiddleware`; immutable.

    Attributes:
        settings: The process-wide `SIGHTLINE_*` settings.
        correlation_headers: Lower-case names of `settings.correlation_headers`, as bytes.
        tracer_provider: None for the global one.
        meter_provider: None for the global one.
        logger_provider: None for the global one.
        server_request_hook: Called with the SERVER span and the ASGI scope when a request starts.
        client_request_hook: Called with span, scope and each message that the application receives.
        client_response_hook: Called with span, scope and each message that the application sends.
        excluded_urls: Matched against the full URL; such requests are counted but not traced.
        excludes_urls: Whether there is any such pattern.
        methods: Methods that keep their name.
        captured_request_headers: Captures them; None for none.
        captured_response_headers: The same of responses.
        redactor: Redacts what others put on spans.
        redact_query: Redacts query strings.
    """

    settings: Settings
    correlation_headers: tuple[bytes, ...]
    tracer_provider: TracerProvider | None = None
    meter_provider: MeterProvider | None = None
    logger_provider: LoggerProvider | None = None
    server_request_hook: ServerRequestHook | None = None
    client_request_hook: ClientHook | None = None
    client_response_hook: ClientHook | None = None
    excluded_urls: ExcludeList
    excludes_urls: bool
    methods: frozenset[str]
    captured_request_headers: HeaderCapture | None
    captured_response_headers: HeaderCapture | None
    redactor: Redactor
    redact_query: Callable[[str], str]


def capture_options(
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    logger_provider: LoggerProvider | None = None,
    server_request_hook: ServerRequestHook | None = None,
    client_request_hook: ClientHook | None = None,
    client_response_hook: ClientHook | None = None,
    excluded_urls: str | None = None,
    http_capture_headers_server_request: Sequence[str] | None = None,
    http_capture_headers_server_response: Sequence[str] | None = None,
    http_capture_headers_sanitize_fields: Sequence[str] | None = None,
) -> CaptureOptions:
    """Builds the options from the stock instrumentor's arguments; what is omitted comes from `OTEL_*`.

    Raises:
        SettingsError: When a pattern given in code is not a regular expression.
    """
    settings = process_settings()
    file = file_configuration()
    if file is not None:
        # The file silences the variables: where it says nothing, the defaults hold.
        excluded_urls = _valid_urls(file.excluded_urls) if excluded_urls is None else excluded_urls
        http_capture_headers_server_request = http_capture_headers_server_request or _valid_names(
            file.request_captured_headers
        )
        http_capture_headers_server_response = http_capture_headers_server_response or _valid_names(
            file.response_captured_headers
        )
        http_capture_headers_sanitize_fields = http_capture_headers_sanitize_fields or ()
    masked = _name_patterns(
        http_capture_headers_sanitize_fields, OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SANITIZE_FIELDS
    )
    urls = _excluded_urls() if excluded_urls is None else parse_excluded_urls(excluded_urls)
    return CaptureOptions(
        settings=settings,
        correlation_headers=tuple(name.encode("ascii") for name in settings.correlation_headers),
        tracer_provider=tracer_provider,
        meter_provider=meter_provider,
        logger_provider=logger_provider,
        server_request_hook=server_request_hook,
        client_request_hook=client_request_hook,
        client_response_hook=client_response_hook,
        excluded_urls=urls,
        excludes_urls=bool(getattr(urls, "_excluded_urls", True)),
        methods=known_methods() if file is None else file.known_methods or KNOWN_METHODS,
        redactor=process_redactor(),
        redact_query=_query_redaction(None if file is None else file.sensitive_query_parameters),
        captured_request_headers=_capture(
            "request",
            _name_patterns(
                http_capture_headers_server_request, OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST
            ),
            masked,
        ),
        captured_response_headers=_capture(
            "response",
            _name_patterns(
                http_capture_headers_server_response,
                OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_RESPONSE,
            ),
            masked,
        ),
    )


@cache
def process_settings() -> Settings:
    """Returns the `SIGHTLINE_*` settings, read and reported once per process."""
    file = file_configuration()
    return load_settings(file_options=None if file is None else file.options)


@cache
def process_redactor() -> Redactor:
    """Returns what redacts for this process."""
    keys = process_settings().redact
    return Redactor(enabled=False) if keys == (OFF,) else Redactor(keys)


def _query_redaction(keys: frozenset[str] | None) -> Callable[[str], str]:
    """Returns what redacts query strings: by the keys of the configuration file, if it has some."""
    return process_redactor().query if keys is None else partial(redact_query, keys=keys)


def _excluded_urls() -> ExcludeList:
    try:
        return get_excluded_urls("FASTAPI")
    except re.error as error:
        warn_once(
            "OTEL_PYTHON_FASTAPI_EXCLUDED_URLS and OTEL_PYTHON_EXCLUDED_URLS must be regular expressions "
            "separated by commas (%s); excluding nothing; for example healthz,metrics$",
            error,
        )
        return ExcludeList([])


def _name_patterns(given: Sequence[str] | None, variable: str) -> list[str]:
    """Returns the patterns given in code, else the valid ones of a variable."""
    if given is not None:
        for name in given:
            _compiled(name)
        return list(given)
    names = []
    for name in get_custom_headers(variable):
        try:
            _compiled(name)
        except SettingsError:
            warn_once(
                "%s must list regular expressions, got %r (from the environment); ignoring it; "
                "for example x-tenant,x-.*-id",
                variable,
                name,
            )
        else:
            names.append(name)
    return names


def _valid_urls(patterns: str | None) -> str:
    """Returns the patterns of the configuration file; none where they are not regular expressions."""
    try:
        parse_excluded_urls(patterns or "")
    except re.error as error:
        warn_once(
            "excluded_urls must be regular expressions separated by commas (%s) (from the configuration "
            "file); excluding nothing; for example healthz,metrics$",
            error,
        )
        return ""
    return patterns or ""


def _valid_names(names: Sequence[str] | None) -> list[str]:
    """Returns the patterns of the configuration file that are regular expressions."""
    valid = []
    for name in names or ():
        try:
            _compiled(name)
        except SettingsError:
            warn_once(
                "captured headers must be regular expressions, got %r (from the configuration file); "
                "ignoring it; for example x-tenant",
                name,
            )
        else:
            valid.append(name)
    return valid


def _capture(side: str, wanted: Sequence[str], masked: Sequence[str]) -> HeaderCapture | None:
    if not wanted:
        return None
    extra = [fnmatch.translate(key) for key in process_settings().redact if key != OFF]
    return HeaderCapture(side, _any_of(wanted), _any_of((*masked, *extra, *CREDENTIAL_HEADERS)))


def _any_of(names: Sequence[str]) -> re.Pattern[str]:
    return _compiled("|".join(f"(?:{name})" for name in names))


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern, re.IGNORECASE)
    except re.error as error:
        raise SettingsError(
            f"header patterns must be regular expressions, got {pattern!r} ({error}); "
            "escape a literal name with re.escape"
        ) from error
