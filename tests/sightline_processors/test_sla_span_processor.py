"""Verdicts on the spans of any instrumentation, in a pipeline of the SDK."""

from typing import Any, cast

import pytest
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, Status, StatusCode

from sightline_processors.report import reported
from sightline_processors.sla import Catalogue, MatchedObjective, SlaSpanProcessor, parse_objective
from sightline_processors.sla.metrics import observe_sla
from sightline_processors.sla.span_processor import MAX_NAMES
from sightline_processors.sla.tracker import SlaTracker
from sightline_processors.sla.verdict import VERDICTS
from sightline_processors.sla.violations import VIOLATIONS_PER_MINUTE, ViolationLog

MILLISECOND = 1_000_000
ERROR = Status(StatusCode.ERROR)
CATALOGUE = Catalogue(
    [MatchedObjective(parse_objective("2s@99%", name="reports"), ("/reports/*",))],
    parse_objective("500ms@99%, 99.9%"),
    excluded_paths=["/health", "/health/*"],
    failed_statuses=[429],
)


class Pipeline:
    """Is a provider with the processor under test, and what came out of it."""

    def __init__(self, catalogue=CATALOGUE, sampler=None, **options):
        self.tracker = SlaTracker()
        self.records = InMemoryLogRecordExporter()
        loggers = LoggerProvider(shutdown_on_exit=False)
        loggers.add_log_record_processor(SimpleLogRecordProcessor(self.records))
        self.processor = SlaSpanProcessor(catalogue, self.tracker, logger_provider=loggers, **options)
        self.provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        self.provider.add_span_processor(self.processor)

    def end(
        self,
        name="GET",
        kind=SpanKind.SERVER,
        *,
        millis=1.0,
        status=None,
        scope="another.library",
        **attributes,
    ):
        """Starts and ends a span that takes `millis`; attributes have `_` for a dot and `__` for `_`."""
        named = {
            "_".join(part.replace("_", ".") for part in key.split("__")): value
            for key, value in attributes.items()
        }
        start = 1_700_000_000_000_000_000
        span = self.provider.get_tracer(scope).start_span(name, kind=kind, attributes=named, start_time=start)
        if status is not None:
            span.set_status(status)
        span.end(start + int(millis * MILLISECOND))
        return span

    def counts(self):
        """Returns the number of spans by objective, method, route and outcome."""
        return {
            (cell.objective, cell.method, cell.route, outcome): count
            for cell in self.tracker.cells()
            for outcome, count in zip(VERDICTS, cell.counts, strict=True)
            if count
        }

    def outcomes(self):
        return [outcome for (*_, outcome), count in self.counts().items() for _ in range(count)]

    def logged(self) -> list[LogRecord]:
        return [each.log_record for each in self.records.get_finished_logs()]


@pytest.mark.parametrize(
    ("span", "outcome"),
    [
        ({"millis": 500}, "ok"),
        ({"millis": 500.000001}, "slow"),
        ({"millis": -1}, "ok"),
        ({"status": ERROR, "millis": 900}, "failed"),
        ({"http_response_status__code": 503}, "failed"),
        ({"http_status__code": 503}, "failed"),
        ({"http_response_status__code": 404}, "ok"),
        ({"http_response_status__code": 429}, "failed"),
        ({"http_response_status__code": 404, "status": ERROR}, "failed"),
        ({"http_response_status__code": 503, "url_path": "/health/live"}, "excluded"),
        ({"millis": 900, "http_target": "/health?deep=1"}, "excluded"),
        ({"millis": 900, "url_path": "/x", "http_target": "/health"}, "slow"),
        ({"kind": SpanKind.CLIENT, "millis": 900, "url_path": "/health"}, "slow"),
        ({"kind": SpanKind.CLIENT, "http_response_status__code": 404, "status": ERROR, "error_type": "404"},
         "ok"),
        ({"kind": SpanKind.CLIENT, "http_status__code": 404, "status": ERROR}, "ok"),
        ({"kind": SpanKind.CLIENT, "http_response_status__code": 429, "status": ERROR}, "failed"),
        ({"kind": SpanKind.CLIENT, "http_response_status__code": 404, "status": ERROR, "error_type": "Slow"},
         "failed"),
        ({"kind": SpanKind.CLIENT, "status": ERROR, "error_type": "Timeout"}, "failed"),
        ({"kind": SpanKind.CONSUMER, "name": "process orders", "millis": 501}, "slow"),
        ({"millis": 90_000, "url_scheme": "wss"}, "ok"),
        ({"millis": 90_000, "http_scheme": "ws"}, "ok"),
        ({"millis": 90_000, "http_response_status__code": 101}, "ok"),
        ({"http_response_status__code": "what"}, "ok"),
    ],
)  # fmt: skip
def test_a_span_gets_the_verdict_that_its_end_deserves(span, outcome):
    pipeline = Pipeline()
    pipeline.end(**span)
    assert pipeline.outcomes() == [outcome]


def test_verdicts_are_counted_by_objective_method_and_route():
    pipeline = Pipeline()
    for _ in range(3):
        pipeline.end("GET /reports/{id}", http_request_method="GET", http_route="/reports/{id}", millis=1900)
    pipeline.end("x", http_method="POST", http_route="/orders", millis=1900)
    pipeline.end("x", http_request_method="HACK", http_route="/orders")
    pipeline.end("process orders", SpanKind.CONSUMER)
    assert pipeline.counts() == {
        ("reports", "GET", "/reports/{id}", "ok"): 3,
        ("default", "POST", "/orders", "slow"): 1,
        ("default", "_OTHER", "/orders", "ok"): 1,
        ("default", "", "process orders", "ok"): 1,
    }


def test_what_the_latency_objective_leaves_out_is_counted_apart():
    pipeline = Pipeline()
    pipeline.end(http_route="/ws", url_scheme="ws", millis=90_000)
    assert [cell.latency_eligible for cell in pipeline.tracker.cells()] == [False]


def test_other_kinds_sightlines_own_spans_and_unsampled_ones_are_not_judged():
    pipeline = Pipeline()
    pipeline.end(kind=SpanKind.INTERNAL)
    pipeline.end(kind=SpanKind.PRODUCER)
    pipeline.end(scope="sightline")
    assert pipeline.counts() == {}
    everything = Pipeline(kinds=[SpanKind.INTERNAL], ignored_scopes=())
    everything.end(kind=SpanKind.INTERNAL, scope="sightline")
    everything.end(kind=SpanKind.SERVER)
    assert everything.outcomes() == ["ok"]
    unsampled = Pipeline(sampler=ALWAYS_OFF)
    unsampled.end()
    assert unsampled.counts() == {}


def test_span_names_that_stand_for_routes_are_bounded_and_totals_stay():
    pipeline = Pipeline()
    for number in range(MAX_NAMES + 50):
        pipeline.end(f"GET /users/{number}" + "x" * 300)
    pipeline.end("GET /users/0" + "x" * 300)
    routes = {route for _, _, route, _ in pipeline.counts()}
    assert len(routes) == MAX_NAMES + 1
    assert max(len(route) for route in routes if route) == 200
    assert pipeline.counts()["default", "", None, "ok"] == 50
    assert len(pipeline.outcomes()) == MAX_NAMES + 51


def test_the_verdict_is_a_metric_in_any_pipeline():
    reader = InMemoryMetricReader()
    meters = MeterProvider([reader], shutdown_on_exit=False)
    pipeline = Pipeline()
    observe_sla(meters.get_meter("sightline"), pipeline.tracker)
    pipeline.end(http_request_method="GET", http_route="/orders", millis=900)
    [scope] = reader.get_metrics_data().resource_metrics[0].scope_metrics
    points: dict[str, Any] = {metric.name: metric.data.data_points for metric in scope.metrics}
    assert [(dict(point.attributes), point.value) for point in points["sightline.sla.requests"]] == [
        (
            {
                "http.request.method": "GET",
                "http.route": "/orders",
                "sightline.sla.objective": "default",
                "sightline.sla.outcome": outcome,
            },
            count,
        )
        for outcome, count in (("ok", 0), ("slow", 1), ("failed", 0))
    ]
    thresholds = points["sightline.sla.threshold"]
    assert {each.attributes["sightline.sla.objective"]: each.value for each in thresholds} == {
        "default": 0.5,
        "reports": 2.0,
    }
    meters.shutdown()


def test_a_violation_is_an_event_with_the_ids_of_its_span():
    pipeline = Pipeline()
    pipeline.end(http_route="/fine")
    span = pipeline.end(http_route="/reports/{id}", millis=2500)
    [record] = pipeline.logged()
    assert (record.trace_id, record.span_id) == (span.context.trace_id, span.context.span_id)
    assert (record.event_name, record.severity_number) == ("sla_violation", SeverityNumber.WARN)
    assert record.timestamp == span.end_time
    assert record.body == "slow by the objective reports (2s@99%): took 2.500 s"
    assert dict(record.attributes or {}) == {
        "sightline.sla.outcome": "slow",
        "sightline.sla.objective": "reports",
        "sightline.duration_seconds": 2.5,
        "sightline.threshold_seconds": 2.0,
        "http.route": "/reports/{id}",
    }


def test_violations_are_logged_at_a_bounded_rate_and_those_left_out_are_counted():
    now = [100.0]
    pipeline = Pipeline()
    loggers = pipeline.processor._violations._logger_provider
    pipeline.processor._violations = ViolationLog(loggers, clock=lambda: now[0])
    for _ in range(VIOLATIONS_PER_MINUTE + 7):
        pipeline.end(status=ERROR)
    assert len(pipeline.logged()) == VIOLATIONS_PER_MINUTE
    now[0] -= 1_000  # a clock that steps back gives nothing, and takes nothing
    pipeline.end(status=ERROR)
    assert len(pipeline.logged()) == VIOLATIONS_PER_MINUTE
    now[0] += 60.0 / VIOLATIONS_PER_MINUTE
    pipeline.end(status=ERROR)
    last = pipeline.logged()[-1]
    assert len(pipeline.logged()) == VIOLATIONS_PER_MINUTE + 1
    assert dict(last.attributes or {})["sightline.violations_left_out"] == 8
    now[0] += 60.0 / VIOLATIONS_PER_MINUTE
    pipeline.end(status=ERROR)
    assert "sightline.violations_left_out" not in dict(pipeline.logged()[-1].attributes or {})
    assert pipeline.outcomes() == ["failed"] * (VIOLATIONS_PER_MINUTE + 10)


def test_other_objectives_judge_what_ends_after_they_came():
    pipeline = Pipeline()
    pipeline.tracker.set_objectives((*pipeline.tracker.objectives(), parse_objective("9%", name="from_code")))
    pipeline.end(http_route="/orders", millis=900)
    pipeline.processor.replace_catalogue(Catalogue(default=parse_objective("1s@99%")))
    pipeline.end(http_route="/orders", millis=900)
    assert sorted(pipeline.outcomes()) == ["ok", "slow"]
    assert {each.name: each.latency_seconds for each in pipeline.tracker.objectives()} == {
        "from_code": None,
        "default": 1.0,
    }


def test_what_only_looks_like_a_span_costs_a_report_and_raises_nothing():
    pipeline = Pipeline()
    pipeline.processor.on_end(cast("ReadableSpan", object()))
    assert reported("sla_span") == 1
