"""The instruments of one application and the attribute sets that its requests share.

A request's attributes fall in two parts. Those that follow from method, scheme, protocol version, route,
status and error type are computed once and kept in a bounded cache; those of the single request are
computed once in `attributes.py`.
"""

import sys
from collections.abc import Mapping, Sequence
from hmac import compare_digest
from importlib.metadata import version
from typing import Any, Final

from opentelemetry import metrics, propagate, trace
from opentelemetry._logs import Logger, get_logger, get_logger_provider
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.metrics import Meter, get_meter
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.sdk.trace import Tracer as SdkTracer
from opentelemetry.semconv.schemas import Schemas
from opentelemetry.trace import NonRecordingSpan, Tracer, get_tracer
from opentelemetry.trace.propagation import _SPAN_KEY as SPAN_KEY
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from sightline import names
from sightline.attributes import OTHER_METHOD
from sightline.boundaries import DURATION_BOUNDARIES_SECONDS, LONG_BOUNDARIES_SECONDS
from sightline.bounded_statuses import BoundedStatuses
from sightline.context_headers import HeaderGetter, remote_parent
from sightline.correlation import correlation_id_of
from sightline.known_routes import known_routes
from sightline.old_conventions import OldMetrics, is_duplicated
from sightline.options import CaptureOptions
from sightline.outcome import Outcome, OutcomeKey, outcome_of
from sightline.request_facts import RequestFacts, SharedFacts
from sightline.request_metrics import RequestRecording, request_metrics
from sightline.saturation import request_queue
from sightline.series import SCOPE_NAME, guard_metrics, process_routes
from sightline.server_tracer import ForeignTracer, ServerTracer
from sightline.service_levels import process_objectives
from sightline.types import RawHeader, Scope
from sightline_processors.bounded_names import BoundedNames
from sightline_processors.performance_alerts import PerformanceAlerts

_getter = HeaderGetter()

SCHEMA_URL: Final = Schemas.V1_44_0.value

MAX_OUTCOMES: Final = 10_000
"""Cached outcomes per application; beyond them an outcome is computed each time, nothing is evicted."""

PROBE_HEADER: Final = b"x-sightline-probe"
"""Carries `SIGHTLINE_PROBE_TOKEN`, by which a probe makes itself known."""

MAX_ERROR_TYPES: Final = 200
"""Distinct `error.type` values per application; further ones are `_OTHER`."""


def instrumentation_scope(options: CaptureOptions) -> tuple[Tracer, Meter, Logger]:
    """Returns tracer, meter and logger of the instrumentation scope `sightline`."""
    package_version = version("sightline")
    return (
        get_tracer(SCOPE_NAME, package_version, options.tracer_provider, schema_url=SCHEMA_URL),
        get_meter(SCOPE_NAME, package_version, options.meter_provider, schema_url=SCHEMA_URL),
        get_logger(SCOPE_NAME, package_version, options.logger_provider, schema_url=SCHEMA_URL),
    )


class Recorder:
    """Holds tracer, logger and instruments of one application; safe from any thread.

    Attributes:
        options: What the application's capture is configured with.
        facts: What `request_facts` remembers of connections.
        shared_facts: What it remembers for all of them.
        is_plain: Whether no URL is excluded and no request header captured.
        telling_headers: Names of the headers that bring a trace, baggage or a correlation ID.
        remembers: Whether the server may write its access records after the request, in its task.
        is_swift: Whether a request needs nothing but its exchange: it is settled, and no hook is called.
        is_settled: Whether there is an SDK; until there is one, it may still come.
        statuses: Keeps the statuses of responses in a closed set.
        server_tracer: Starts the spans of requests.
        roots: The same, where it has all ready for requests that bring no trace; None where it cannot.
        requests: The metrics of requests.
        w3c_propagator: The global propagator, if it reads nothing but W3C trace context and baggage.
    """

    def __init__(self, options: CaptureOptions, app: object = None) -> None:
        self.options = options
        self._app = app
        self._routes = -1
        self._set_up()
        process_objectives().users.add(self)

    def _set_up(self) -> None:
        self._providers = _providers(self.options)
        self.tracer, meter, self.logger = instrumentation_scope(self.options)
        sdk_tracer = _sdk_tracer(self.tracer)
        self.is_settled = sdk_tracer is not None
        self.remembers = not _is_uvicorn_alone()
        self.is_swift = self.is_settled and self.options.server_request_hook is None
        self.telling_headers = frozenset({*_TRACE_HEADERS, *self.options.correlation_headers})
        self.requests = request_metrics(meter)
        self.levels = self.requests.levels
        self.alerts = PerformanceAlerts(self.logger, meter, correlation_id_of=correlation_id_of)
        self.alert_over_ns = round(self.options.settings.slow_request * 1e9)
        self.request_queue = request_queue(meter, self.options.settings.trusted_proxies)
        self.is_plain = self._is_plain()
        self.server_tracer: ServerTracer | ForeignTracer = (
            ForeignTracer(self.tracer)
            if sdk_tracer is None
            else ServerTracer(sdk_tracer, self.requests, self.options)
        )
        self.roots = self._roots()
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
        self._outcomes: dict[tuple[Any, ...], Outcome] = {}
        self._recordings: dict[Outcome, RequestRecording] = {}
        self.facts: dict[tuple[Any, ...], RequestFacts] = {}
        self.remembered_endings = 0
        self.shared_facts: dict[tuple[Any, ...], SharedFacts] = {}
        self.statuses = BoundedStatuses()
        guard_metrics(self._providers[1], self.options.settings)
        self.requests.recorders.add(self)
        if sdk_tracer is not None:
            self.requests.follow(sdk_tracer.sampler)
        self.learn_routes()
        self._error_types = BoundedNames(MAX_ERROR_TYPES, OTHER_METHOD)
        self.w3c_propagator: TextMapPropagator | None = None

    def extract(
        self, headers: Sequence[RawHeader], by_name: Mapping[bytes, bytes], current: Context
    ) -> Context:
        """Returns the context that the caller sends along, on top of the current one."""
        propagator = propagate.get_global_textmap()
        if propagator is not self.w3c_propagator and _is_w3c(propagator):
            self.w3c_propagator = propagator
        if propagator is self.w3c_propagator and len(by_name) == len(headers) and _reads_trace(propagator):
            remote = remote_parent(by_name)
            if remote is not None:
                return Context({**current, SPAN_KEY: NonRecordingSpan(remote)})
        return propagator.extract(headers, current, getter=_getter)

    def _is_plain(self) -> bool:
        return not (
            self.options.excludes_urls
            or self.options.captured_request_headers is not None
            or self.levels.objectives.excludes_paths
            or self.request_queue is not None
            or self.options.settings.probe_token
        )

    def _roots(self) -> ServerTracer | None:
        """Returns what makes spans ahead, where nothing of a request decides about its span."""
        tracer = self.server_tracer
        if not (self.is_plain and self.is_swift and isinstance(tracer, ServerTracer)):
            return None
        return tracer if tracer.knows_roots and self.requests.active is not None else None

    def excludes(self, scope: Scope, by_name: Mapping[bytes, bytes]) -> bool:
        """Tells whether a request is a probe, which no objective judges."""
        token = self.options.settings.probe_token
        if token and compare_digest(by_name.get(PROBE_HEADER, b""), token.encode()):
            return True
        objectives = self.levels.objectives
        return objectives.excludes_paths and objectives.is_excluded(str(scope.get("path", "")))

    def renew_objectives(self) -> None:
        """Forgets what follows from objectives that no longer hold."""
        self.is_plain = self._is_plain()
        self.roots = self._roots()
        self.forget()
        self.learn_routes()

    def learn_routes(self) -> None:
        """Reserves series for the application's routes, whose counters begin at 0."""
        routes = known_routes(self._app)
        self._routes = _route_count(self._app)
        for route in routes:
            process_routes.reserve(route.template)
        self.levels.expect(routes)

    def look_at_routes(self) -> None:
        """Learns the routes anew when the application has got some."""
        if _route_count(self._app) != self._routes:
            self.learn_routes()

    def forget(self) -> None:
        """Forgets what requests have in common; it is worked out again, and memory stays bounded."""
        for shared in list(self.shared_facts.values()):
            shared.endings.clear()  # a request that has found it already may remember it anew
        self.facts.clear()
        self.shared_facts.clear()
        self.remembered_endings = 0

    def settle(self) -> None:
        """Follows global providers that are configured after the first request."""
        if self._providers != _providers(self.options):
            self._set_up()

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

    def record_first_byte(self, seconds: float, outcome: Outcome, reason: str, context: Context) -> None:
        """Records the time to the first byte of a streamed response."""
        self.first_byte.record(seconds, {**outcome.route_attributes, names.END_REASON: reason}, context)

    def outcome(
        self,
        method: str,
        scheme: str,
        protocol_version: str | None,
        route: str | None,
        status_code: int | None,
        error_type: str | None,
    ) -> Outcome:
        """Returns what all requests with one outcome share; the arguments are from bounded sets."""
        key = (method, scheme, protocol_version, route, status_code, error_type)
        found = self._outcomes.get(key)
        if found is None:
            found = outcome_of(OutcomeKey(*key), duplicated=self.old_metrics is not None)
            if len(self._outcomes) < MAX_OUTCOMES:
                self._outcomes[key] = found
            else:
                found.is_passing = True
        return found

    def recording(self, outcome: Outcome) -> RequestRecording:
        """Returns what takes the requests of an outcome."""
        if outcome.is_passing:
            return self.requests.recording(outcome)
        found = self._recordings.get(outcome)
        if found is None:
            found = self._recordings[outcome] = self.requests.recording(outcome)
        return found

    def error_type(self, error: BaseException) -> str:
        """Returns the fully qualified class of an exception, from a bounded set of names."""
        return self._error_types.bounded(qualified_name(type(error)))


def _is_uvicorn_alone() -> bool:
    """Tells whether the only server of this process is one that writes its access records in `send`."""
    return "uvicorn" in sys.modules and not sys.modules.keys() & {"granian", "hypercorn", "daphne"}


def _route_count(app: object) -> int:
    return len(getattr(getattr(app, "router", None), "routes", ()))


def qualified_name(cls: type) -> str:
    """Returns `module.Class`, or `Class` for a builtin."""
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def _providers(options: CaptureOptions) -> tuple[object, object, object]:
    """Returns the providers that the options name, or the global ones as they are now."""
    return (
        options.tracer_provider or trace.get_tracer_provider(),
        options.meter_provider or metrics.get_meter_provider(),
        options.logger_provider or get_logger_provider(),
    )


def _sdk_tracer(tracer: Tracer) -> SdkTracer | None:
    """Returns the SDK's tracer behind a tracer; None for a foreign one, or one with its own `start_span`."""
    tracer = getattr(tracer, "_tracer", tracer)  # behind the API's proxy
    is_known = isinstance(tracer, SdkTracer) and type(tracer).start_span is SdkTracer.start_span
    return tracer if is_known else None  # type: ignore[return-value]


_TRACE_HEADERS: Final = (b"traceparent", b"baggage")

_W3C: Final = frozenset({TraceContextTextMapPropagator, W3CBaggagePropagator})


def _reads_trace(propagator: Any) -> bool:
    """Tells whether a composite of W3C propagators reads `traceparent`."""
    return any(type(member) is TraceContextTextMapPropagator for member in propagator._propagators)  # noqa: SLF001


def _is_w3c(propagator: TextMapPropagator) -> bool:
    members = getattr(propagator, "_propagators", None) if type(propagator) is CompositePropagator else None
    return members is not None and all(type(member) in _W3C for member in members)
