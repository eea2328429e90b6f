"""The instruments of one application and the attribute sets that its requests share.

A request's attributes fall in two parts. Those that follow from method, scheme, protocol version, route,
status and error type are computed once and kept in a bounded cache; those of the single request are
computed once in `attributes.py`.
"""

from dataclasses import dataclass
from importlib.metadata import version
from typing import Final, NamedTuple

from opentelemetry._logs import Logger, get_logger
from opentelemetry.context import Context
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
from sightline.old_conventions import OldMetrics, is_duplicated, renamed
from sightline.options import CaptureOptions
from sightline.types import Attributes

SCOPE_NAME: Final = "sightline"
SCHEMA_URL: Final = Schemas.V1_44_0.value

DURATION_BOUNDARIES_SECONDS: Final = (
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
)  # fmt: skip
"""Advised bucket boundaries. Source: semantic conventions v1.44.0, http.server.request.duration."""

LONG_BOUNDARIES_SECONDS: Final = (
    0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 10800.0,
)  # fmt: skip
"""Boundaries for what lasts longer than a request: connections and background tasks, 10 ms to 3 hours."""

BODY_SIZE_BOUNDARIES_BYTES: Final = (0, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000)

MAX_OUTCOMES: Final = 10_000
"""Cached outcomes per application; beyond them an outcome is computed each time, nothing is evicted."""

MAX_ERROR_TYPES: Final = 200
"""Distinct `error.type` values per application; further ones are `_OTHER`."""


class BoundedNames:
    """Lets the first names through and replaces further ones by `_OTHER`; constant memory.

    Args:
        limit: Distinct names that keep their value, for the life of the process.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._seen: set[str] = set()

    def bounded(self, name: str) -> str:
        """Returns the name, or `_OTHER`."""
        if name in self._seen:
            return name
        if len(self._seen) >= self._limit:
            return OTHER_METHOD
        self._seen.add(name)
        return name


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
    route_attributes: Attributes
    is_error: bool
    span_attributes: Attributes
    metric_attributes: Attributes


def instrumentation_scope(options: CaptureOptions) -> tuple[Tracer, Meter, Logger]:
    """Returns tracer, meter and logger of the instrumentation scope `sightline`."""
    package_version = version("sightline")
    return (
        get_tracer(SCOPE_NAME, package_version, options.tracer_provider, schema_url=SCHEMA_URL),
        get_meter(SCOPE_NAME, package_version, options.meter_provider, schema_url=SCHEMA_URL),
        get_logger(SCOPE_NAME, package_version, options.logger_provider, schema_url=SCHEMA_URL),
    )


class Recorder:
    """Holds tracer, logger and instruments of one application; safe from any thread."""

    def __init__(self, options: CaptureOptions) -> None:
        self.tracer, meter, self.logger = instrumentation_scope(options)
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
        self.first_byte = meter.create_histogram(
            names.STREAM_FIRST_BYTE,
            unit="s",
            description="Time to the first body byte of streamed responses.",
            explicit_bucket_boundaries_advisory=DURATION_BOUNDARIES_SECONDS,
        )
        self._create_websocket_instruments(meter)
        self.old_metrics = OldMetrics(meter) if is_duplicated() else None
        self._outcomes: dict[OutcomeKey, Outcome] = {}
        self._error_types = BoundedNames(MAX_ERROR_TYPES)

    def _create_websocket_instruments(self, meter: Meter) -> None:
        self.websocket_active = meter.create_up_down_counter(
            names.WEBSOCKET_ACTIVE, unit="{connection}", description="Number of open WebSocket connections."
        )
        self.websocket_duration = meter.create_histogram(
            names.WEBSOCKET_DURATION,
            unit="s",
            description="Duration of WebSocket connections.",
            explicit_bucket_boundaries_advisory=LONG_BOUNDARIES_SECONDS,
        )
        self.websocket_messages = meter.create_counter(
            names.WEBSOCKET_MESSAGES, unit="{message}", description="WebSocket messages."
        )
        self.websocket_io = meter.create_counter(
            names.WEBSOCKET_IO, unit="By", description="Payload bytes of WebSocket messages."
        )

    def record_request(
        self,
        seconds: float,
        request_bytes: int | None,
        response_bytes: int | None,
        outcome: Outcome,
        context: Context,
    ) -> None:
        """Records one request; a size that is None is not known and not recorded."""
        attributes = outcome.metric_attributes
        self.duration.record(seconds, attributes, context)
        if request_bytes is not None:
            self.request_body_size.record(request_bytes, attributes, context)
        if response_bytes is not None:
            self.response_body_size.record(response_bytes, attributes, context)
        if self.old_metrics is not None:
            self.old_metrics.record_duration(seconds, attributes, context)
            self.old_metrics.record_sizes(request_bytes, response_bytes, attributes, context)

    def record_first_byte(self, seconds: float, outcome: Outcome, reason: str, context: Context) -> None:
        """Records the time to the first byte of a streamed response."""
        self.first_byte.record(seconds, {**outcome.route_attributes, names.END_REASON: reason}, context)

    def outcome(self, key: OutcomeKey) -> Outcome:
        """Returns the shared name and attributes of an outcome."""
        cached = self._outcomes.get(key)
        if cached is None:
            cached = _outcome(key, duplicated=self.old_metrics is not None)
            if len(self._outcomes) < MAX_OUTCOMES:
                self._outcomes[key] = cached
        return cached

    def error_type(self, error: BaseException) -> str:
        """Returns the fully qualified class of an exception, from a bounded set of names."""
        return self._error_types.bounded(qualified_name(type(error)))


def qualified_name(cls: type) -> str:
    """Returns `module.Class`, or `Class` for a builtin."""
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def route_attributes(route: str | None) -> Attributes:
    """Returns `http.route`, where a route handled the request."""
    return {} if route is None else {HTTP_ROUTE: route}


def span_name(method: str, route: str | None) -> str:
    """Returns `{method} {route}` or `{method}`, with `HTTP` for an unknown method."""
    verb = "HTTP" if method == OTHER_METHOD else method
    return verb if route is None else f"{verb} {route}"


def _outcome(key: OutcomeKey, *, duplicated: bool) -> Outcome:
    ended = route_attributes(key.route)
    if key.status_code is not None:
        ended[HTTP_RESPONSE_STATUS_CODE] = key.status_code
    if key.error_type is not None:
        ended[ERROR_TYPE] = key.error_type
    metric: Attributes = {HTTP_REQUEST_METHOD: key.method, URL_SCHEME: key.scheme, **ended}
    if key.protocol_version is not None:
        metric[NETWORK_PROTOCOL_VERSION] = key.protocol_version
    if duplicated:
        ended = {**ended, **renamed(ended)}
    return Outcome(
        span_name(key.method, key.route),
        route_attributes(key.route),
        key.error_type is not None,
        ended,
        metric,
    )
