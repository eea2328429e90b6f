"""The instruments of one application and the attribute sets that its requests share.

A request's attributes fall in two parts. Those that follow from method, scheme, protocol version, route,
status and error type are computed once and kept in a bounded cache; those of the single request are
computed once in `attributes.py`.
"""

from dataclasses import dataclass
from importlib.metadata import version
from typing import Final, NamedTuple

from opentelemetry.metrics import Meter, get_meter
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.semconv.attributes.http_attributes import (
    HTTP_REQUEST_METHOD,
    HTTP_RESPONSE_STATUS_CODE,
    HTTP_ROUTE,
)
from opentelemetry.semconv.attributes.network_attributes import NETWORK_PROTOCOL_VERSION
from opentelemetry.semconv.attributes.url_attributes import URL_SCHEME
from opentelemetry.semconv.metrics.http_metrics import HTTP_SERVER_REQUEST_DURATION
from opentelemetry.semconv.schemas import Schemas
from opentelemetry.trace import Tracer, get_tracer

from sightline import names
from sightline.attributes import OTHER_METHOD
from sightline.options import CaptureOptions
from sightline.types import Attributes

SCOPE_NAME: Final = "sightline"
SCHEMA_URL: Final = Schemas.V1_44_0.value

DURATION_BOUNDARIES_SECONDS: Final = (
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
)  # fmt: skip
"""Advised bucket boundaries. Source: semantic conventions v1.44.0, http.server.request.duration."""

BODY_SIZE_BOUNDARIES_BYTES: Final = (0, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000)

MAX_OUTCOMES: Final = 10_000
"""Cached outcomes per application; beyond them an outcome is computed each time, nothing is evicted."""

MAX_ERROR_TYPES: Final = 200
"""Distinct `error.type` values per process; further ones are `_OTHER`."""


class OutcomeKey(NamedTuple):
    """Names everything that a request's static attributes follow from."""

    method: str
    scheme: str
    protocol_version: str | None
    route: str | None
    status_code: int | None
    error_type: str | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """Holds the span name and the attributes that all requests with one outcome share."""

    span_name: str
    span_attributes: Attributes
    metric_attributes: Attributes


class Recorder:
    """Holds tracer and instruments of one application; safe from any thread."""

    def __init__(self, options: CaptureOptions) -> None:
        package_version = version("sightline")
        self.tracer: Tracer = get_tracer(
            SCOPE_NAME, package_version, options.tracer_provider, schema_url=SCHEMA_URL
        )
        meter: Meter = get_meter(SCOPE_NAME, package_version, options.meter_provider, schema_url=SCHEMA_URL)
        self.duration = meter.create_histogram(
            HTTP_SERVER_REQUEST_DURATION,
            unit="s",
            description="Duration of HTTP server requests.",
            explicit_bucket_boundaries_advisory=DURATION_BOUNDARIES_SECONDS,
        )
        self.active_requests = meter.create_up_down_counter(
            names.ACTIVE_REQUESTS, unit="{request}", description="Number of active HTTP server requests."
        )
        self.request_body_size = meter.create_histogram(
            names.REQUEST_BODY_SIZE,
            unit="By",
            description="Size of HTTP server request bodies.",
            explicit_bucket_boundaries_advisory=BODY_SIZE_BOUNDARIES_BYTES,
        )
        self.response_body_size = meter.create_histogram(
            names.RESPONSE_BODY_SIZE,
            unit="By",
            description="Size of HTTP server response bodies.",
            explicit_bucket_boundaries_advisory=BODY_SIZE_BOUNDARIES_BYTES,
        )
        self.correlation_rejected = meter.create_counter(
            names.CORRELATION_REJECTED,
            unit="{request}",
            description="Requests whose correlation header was present but not valid.",
        )
        self._outcomes: dict[OutcomeKey, Outcome] = {}
        self._error_types: set[str] = set()

    def outcome(self, key: OutcomeKey) -> Outcome:
        """Returns the shared name and attributes of an outcome."""
        cached = self._outcomes.get(key)
        if cached is None:
            cached = _outcome(key)
            if len(self._outcomes) < MAX_OUTCOMES:
                self._outcomes[key] = cached
        return cached

    def error_type(self, error: BaseException) -> str:
        """Returns the fully qualified class of an exception, from a bounded set of names."""
        name = qualified_name(type(error))
        if name in self._error_types:
            return name
        if len(self._error_types) >= MAX_ERROR_TYPES:
            return OTHER_METHOD
        self._error_types.add(name)
        return name


def qualified_name(cls: type) -> str:
    """Returns `module.Class`, or `Class` for a builtin."""
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def span_name(method: str, route: str | None) -> str:
    """Returns `{method} {route}` or `{method}`, with `HTTP` for an unknown method."""
    verb = "HTTP" if method == OTHER_METHOD else method
    return verb if route is None else f"{verb} {route}"


def _outcome(key: OutcomeKey) -> Outcome:
    ended: Attributes = {}
    if key.route is not None:
        ended[HTTP_ROUTE] = key.route
    if key.status_code is not None:
        ended[HTTP_RESPONSE_STATUS_CODE] = key.status_code
    if key.error_type is not None:
        ended[ERROR_TYPE] = key.error_type
    metric: Attributes = {HTTP_REQUEST_METHOD: key.method, URL_SCHEME: key.scheme, **ended}
    if key.protocol_version is not None:
        metric[NETWORK_PROTOCOL_VERSION] = key.protocol_version
    return Outcome(span_name(key.method, key.route), ended, metric)
