"""Verdicts on the spans of any instrumentation, without FastAPI: as a metric and as log records.

    tracker = SlaTracker()
    observe_sla(meter, tracker)
    provider.add_span_processor(SlaSpanProcessor(Catalogue(), tracker))

A span that has ended cannot be edited, so the verdict is not on it. Only recorded spans are judged: where a
sampler drops some, what is counted is a sample of the requests.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Final

from opentelemetry._logs import LoggerProvider
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.semconv.attributes.http_attributes import (
    HTTP_REQUEST_METHOD,
    HTTP_RESPONSE_STATUS_CODE,
    HTTP_ROUTE,
)
from opentelemetry.semconv.attributes.url_attributes import URL_PATH, URL_SCHEME
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.util.types import AttributeValue

from sightline_processors.performance_alerts import SCOPE
from sightline_processors.report import report
from sightline_processors.sla.catalogue import FIRST_SERVER_ERROR, Catalogue
from sightline_processors.sla.objectives import Objective
from sightline_processors.sla.tracker import SlaTracker
from sightline_processors.sla.verdict import Verdict, verdict_of
from sightline_processors.sla.violations import ViolationLog
from sightline_processors.tracing.delivery import ReadingSpanProcessor

KINDS: Final = (SpanKind.SERVER, SpanKind.CLIENT, SpanKind.CONSUMER)

MAX_NAMES: Final = 1_000
"""Span names that stand for a route, at most; spans with a further one are counted without route."""

_MAX_CHARACTERS: Final = 200
_METHODS: Final = frozenset(
    {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"}
)
_OTHER: Final = "_OTHER"
_SWITCHING_PROTOCOLS: Final = 101
_FIRST_CLIENT_ERROR: Final = 400
_SOCKET_SCHEMES: Final = frozenset({"ws", "wss"})

# Names of before the stable conventions: instrumentations that have not moved on use them still.
_OLD_METHOD: Final = "http.method"
_OLD_STATUS: Final = "http.status_code"
_OLD_SCHEME: Final = "http.scheme"
_OLD_TARGET: Final = "http.target"

_Attributes = Mapping[str, AttributeValue]


class SlaSpanProcessor(ReadingSpanProcessor):
    """Judges spans by their objectives when they end, and hands the verdicts to a tracker.

    A SERVER span is excluded by its path. A span has failed if its status is an error, or its HTTP status is
    one that fails; but a CLIENT span whose error is nothing but a 4xx fails only where the catalogue says so:
    4xx are not failures unless configured. WebSockets are never slow. The route is `http.route`, else the
    name of the span, of which the first `MAX_NAMES` are told apart; the method is empty for what is not HTTP.
    Any thread may end spans, and nothing raises.

    Args:
        catalogue: The objectives.
        tracker: Counts the verdicts; its metrics are made by `observe_sla`.
        kinds: The kinds of spans that are judged.
        ignored_scopes: Instrumentation scopes whose spans are not judged. Sightline judges the requests that
            it captures itself, and they would count twice; pass none where the tracker gets verdicts from
            here alone.
        logger_provider: Where what is slow or has failed is logged, at a bounded rate; the global one when
            omitted.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        tracker: SlaTracker,
        kinds: Collection[SpanKind] = KINDS,
        *,
        ignored_scopes: Collection[str] = (SCOPE,),
        logger_provider: LoggerProvider | None = None,
    ) -> None:
        self.kinds = frozenset(kinds)
        self._catalogue = catalogue
        self._tracker = tracker
        self._ignored_scopes = frozenset(ignored_scopes)
        self._names: set[str] = set()
        self._violations = ViolationLog(logger_provider)
        self._report_on(catalogue, instead_of=())

    def replace_catalogue(self, catalogue: Catalogue) -> None:
        """Judges what ends from now on by other objectives: an `on_change` of `ObjectivesFile`."""
        self._report_on(catalogue, instead_of=self._catalogue.objectives)
        self._catalogue = catalogue

    def on_end(self, span: ReadableSpan) -> None:
        """Judges a span."""
        try:
            if span.kind not in self.kinds:
                return
            scope = span.instrumentation_scope
            if scope is None or scope.name not in self._ignored_scopes:
                self._judge(span)
        except Exception as error:  # noqa: BLE001  an object that only looks like a span
            report("sla_span", "could not judge a span by its objective", error=error)

    def _report_on(self, catalogue: Catalogue, instead_of: Iterable[Objective]) -> None:
        """Tells the tracker of the objectives; those that others have told it of stay."""
        replaced = {each.name for each in instead_of}
        kept = (each for each in self._tracker.objectives() if each.name not in replaced)
        self._tracker.set_objectives((*kept, *catalogue.objectives))

    def _judge(self, span: ReadableSpan) -> None:
        if span.start_time is None or span.end_time is None:
            return
        seconds = max(0, span.end_time - span.start_time) / 1e9
        catalogue, attributes = self._catalogue, span.attributes or {}
        route, method = self._route(span, attributes), _method(attributes)
        objective = catalogue.objective_for(route, method)
        is_eligible = not _is_socket(attributes)
        outcome = verdict_of(
            excluded=_is_excluded(span, attributes, catalogue),
            failed=_has_failed(span, attributes, catalogue),
            eligible=is_eligible,
            duration_seconds=seconds,
            objective=objective,
        )
        cell = self._tracker.cell(objective, method, route, latency_eligible=is_eligible)
        cell.add(outcome, (seconds,))
        if outcome in (Verdict.SLOW, Verdict.FAILED):
            self._violations.log(span, outcome, objective, seconds, route)

    def _route(self, span: ReadableSpan, attributes: _Attributes) -> str | None:
        route = attributes.get(HTTP_ROUTE)
        if isinstance(route, str) and route:
            return route[:_MAX_CHARACTERS]
        name = span.name[:_MAX_CHARACTERS]
        if name not in self._names:
            if len(self._names) >= MAX_NAMES:
                return None
            self._names.add(name)
        return name


def _method(attributes: _Attributes) -> str:
    method = attributes.get(HTTP_REQUEST_METHOD) or attributes.get(_OLD_METHOD)
    if not method:
        return ""
    return method if isinstance(method, str) and method in _METHODS else _OTHER


def _status(attributes: _Attributes) -> int:
    """Returns the HTTP status; 0 for none."""
    status = attributes.get(HTTP_RESPONSE_STATUS_CODE) or attributes.get(_OLD_STATUS)
    return status if isinstance(status, int) else 0


def _has_failed(span: ReadableSpan, attributes: _Attributes, catalogue: Catalogue) -> bool:
    status = _status(attributes)
    if catalogue.fails(status):
        return True
    if span.status.status_code is not StatusCode.ERROR:
        return False
    is_for_the_client_error = (
        span.kind is SpanKind.CLIENT
        and _FIRST_CLIENT_ERROR <= status < FIRST_SERVER_ERROR
        and attributes.get(ERROR_TYPE, str(status)) == str(status)
    )
    return not is_for_the_client_error


def _is_excluded(span: ReadableSpan, attributes: _Attributes, catalogue: Catalogue) -> bool:
    if span.kind is not SpanKind.SERVER:
        return False
    path = attributes.get(URL_PATH) or attributes.get(_OLD_TARGET)
    return isinstance(path, str) and catalogue.is_excluded_path(path.partition("?")[0])


def _is_socket(attributes: _Attributes) -> bool:
    scheme = attributes.get(URL_SCHEME) or attributes.get(_OLD_SCHEME)
    return scheme in _SOCKET_SCHEMES or _status(attributes) == _SWITCHING_PROTOCOLS
