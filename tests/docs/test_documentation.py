"""The documentation: its code runs, its links lead somewhere, its tables say what the code does."""

import asyncio
import itertools
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from asgi import call, http_scope
from fastapi import BackgroundTasks, FastAPI, WebSocket
from fastapi.responses import StreamingResponse
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from sightline import attributes, background, background_tasks, bounded_statuses, distro, recorder, settings
from sightline_processors.cardinality import limiter, overflow, routes
from sightline_processors.performance_alerts import PerformanceAlerts
from sightline_processors.sla import Catalogue, SlaTracker, parse_objective, rolling, tracker
from sightline_processors.sla.span_processor import SlaSpanProcessor
from sightline_processors.slo_sampling import SloSampler, install_slo_sampling, observe_sampling
from sightline_processors.slow_operations import SlowOperationProcessor

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "collector-config").rglob("*.md")]
)
BLOCK = re.compile(r"^( *)```python\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")


def blocks():
    for page in PAGES:
        for number, match in enumerate(BLOCK.finditer(page.read_text())):
            indent = len(match[1])
            code = "\n".join(line[indent:] for line in match[2].splitlines())
            yield pytest.param(page, code, id=f"{page.relative_to(ROOT)}-{number}")


@pytest.mark.parametrize(("page", "code"), list(blocks()))
def test_every_python_block_runs(page, code, request, monkeypatch):
    monkeypatch.setattr("opentelemetry.trace.set_tracer_provider", lambda provider: None)
    namespace: dict[str, Any] = {"__name__": "documentation"}
    exec(compile(code, str(page), "exec"), namespace)
    for name, claim in list(namespace.items()):
        if name.startswith("test_"):
            claim(request.getfixturevalue("telemetry"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page):
    links = [link for link in LINK.findall(page.read_text()) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


def rows(page, heading):
    """Returns the cells of the first table under a heading."""
    section = (ROOT / "docs" / page).read_text().split(f"\n## {heading}\n", 1)[1].split("\n## ")[0]
    table = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]


def names_in(cell):
    return re.findall(r"`([^`]+)`", cell)


def test_the_settings_page_lists_every_setting_with_its_default():
    documented = {
        names_in(row[0])[0]: "" if row[1] == "none" else names_in(row[1])[0]
        for row in rows("reference/settings.md", "`SIGHTLINE_*`")
    }
    assert documented == {
        settings.PREFIX + name.upper(): settings._written(field.default)
        for name, field in settings.Settings.model_fields.items()
    }


def test_the_settings_page_lists_every_default_of_the_distribution():
    table = rows("reference/settings.md", "Defaults that the distribution sets")
    assert {names_in(row[0])[0]: names_in(row[1])[0] for row in table} == dict(distro.DEFAULTS)


@dataclass
class Emitted:
    """What an application emitted; the metrics as they were while its event loop ran."""

    spans: list[Any]
    metrics: dict[str, Any]
    logs: list[Any]


@pytest.fixture
def emitted(telemetry, monkeypatch):
    """Emits everything there is to emit."""
    monkeypatch.setenv("SIGHTLINE_SLOW_REQUEST", "5ms")
    monkeypatch.setenv("SIGHTLINE_TRUSTED_PROXIES", "192.0.2.7")
    app = FastAPI()

    @app.post("/items/{item_id}")
    async def change(item_id: int, tasks: BackgroundTasks):
        tasks.add_task(fail)
        background.spawn(asyncio.sleep, 0)
        return {}

    @app.get("/slow")
    async def slow():
        await asyncio.sleep(0.4)  # longer than the event loop's timer takes

    @app.get("/broken")
    async def broken():
        raise ValueError("bang")

    @app.get("/stream")
    async def stream():
        async def body():
            yield b"a"
            yield b"b"

        return StreamingResponse(body())

    @app.websocket("/room")
    async def room(websocket: WebSocket):
        await websocket.accept()
        await websocket.send_text(await websocket.receive_text())
        await websocket.close()

    telemetry.instrument(
        app,
        server_request_hook=lambda *_: 1 // 0,
        http_capture_headers_server_request=["x-tenant"],
        http_capture_headers_server_response=["content-type"],
    )

    async def run():
        for scope in (
            http_scope(
                "/items/1", "POST", [(b"x-tenant", b"a"), (b"content-length", b"2"), (b"user-agent", b"u")]
            ),
            http_scope("/broken", query_string=b"a=1", headers=[(b"x-request-id", b"not valid")]),
            http_scope("/stream"),
            http_scope("/slow", headers=[(b"x-request-start", f"t={time.time():.3f}".encode())]),
            http_scope("/", "BREW"),
        ):
            await call(app, scope)
        messages = [{"type": "websocket.connect"}, {"type": "websocket.receive", "text": "hello"}]
        await call(app, http_scope("/room", type="websocket", scheme="ws", subprotocols=[]), messages)
        operate(telemetry)
        overflow.overflows_of(telemetry.meter_provider._measurement_consumer).note(
            "requests", 2000, [("user", 1)]
        )
        return telemetry.metrics

    metrics = asyncio.run(run())
    return Emitted(telemetry.spans, metrics, telemetry.logs)


SLOW_SPANS: tuple[dict[str, Any], ...] = (
    {"db.system.name": "postgresql", "db.namespace": "shop", "db.query.text": "SELECT 1", "error.type": "E"},
    {"http.request.method": "GET", "http.response.status_code": 200, "url.template": "/a/{id}"},
    {"messaging.system": "kafka", "messaging.operation.name": "send", "messaging.operation.type": "send",
     "messaging.destination.name": "orders"},
    {"messaging.system": "kafka", "messaging.destination.template": "orders-{id}"},
)  # fmt: skip


def operate(telemetry):
    """Ends slow spans of other instrumentations, more of them than are logged."""
    logger, meter = (
        telemetry.logger_provider.get_logger("sightline"),
        telemetry.meter_provider.get_meter("other"),
    )
    provider = TracerProvider(shutdown_on_exit=False)
    alerts = PerformanceAlerts(logger, meter, clock=itertools.count(0, 0.5).__next__)
    provider.add_span_processor(SlowOperationProcessor(alerts=alerts))
    for found in SLOW_SPANS * 12:
        further = {"server.address": "db", "server.port": 1, **found}
        span = provider.get_tracer("other").start_span(
            "a", kind=SpanKind.CLIENT, attributes=further, start_time=1
        )
        span.end(5_000_000_000)


def fail():
    raise ValueError("bang")


def attributes_of(spans):
    return {
        re.sub(r"(http\.(?:request|response)\.header)\..*", r"\1.<name>", name)
        for span in spans
        for name in span.attributes
    }


def documented_attributes(heading):
    return {name for row in rows("reference/telemetry.md", heading) for name in names_in(row[0])}


def test_the_telemetry_page_lists_every_span_attribute_and_no_other(emitted):
    servers = [span for span in emitted.spans if span.kind is SpanKind.SERVER]
    sockets = [span for span in servers if "network.protocol.name" in span.attributes]
    requests = [span for span in servers if "network.protocol.name" not in span.attributes]
    tasks = [span for span in emitted.spans if span.name.startswith("background ")]
    assert len(requests) + len(sockets) + len(tasks) == len(emitted.spans)
    assert attributes_of(requests) == documented_attributes("The SERVER span")
    added = documented_attributes("The span of a WebSocket connection")
    assert added <= attributes_of(sockets) <= added | documented_attributes("The SERVER span")
    assert attributes_of(tasks) == documented_attributes("The span of a background task")


def test_the_telemetry_page_lists_every_metric_with_unit_and_attributes(emitted):
    table = {
        names_in(row[0])[0]: (row[1].rsplit("`")[1], frozenset(names_in(row[2])))
        for row in rows("reference/telemetry.md", "Metrics")
    }
    duration = table["http.server.request.duration"][1]
    documented = {
        name: (unit, duration if "body.size" in name else found) for name, (unit, found) in table.items()
    }
    seen = {
        name: (metric.unit, frozenset(key for point in metric.data.data_points for key in point.attributes))
        for name, metric in emitted.metrics.items()
    }
    assert {name: unit for name, (unit, _) in seen.items()} == {
        n: unit for n, (unit, _) in documented.items()
    }
    assert {n: found for n, (_, found) in seen.items() if "body.size" not in n} == {
        n: found for n, (_, found) in documented.items() if "body.size" not in n
    }
    assert all(found <= documented[name][1] for name, (_, found) in seen.items())


def test_the_telemetry_page_lists_every_attribute_of_the_record_of_what_was_slow(emitted):
    alerts = [each.log_record for each in emitted.logs if each.log_record.event_name == "performance_alert"]
    assert {name for each in alerts for name in each.attributes} == documented_attributes(
        "The record of what was slow"
    )


def test_the_telemetry_page_lists_every_attribute_of_the_record_of_a_violation(telemetry):
    objective = parse_objective("1s@99%", name="calls", origin="a test")
    processor = SlaSpanProcessor(
        Catalogue(default=objective), SlaTracker(), logger_provider=telemetry.logger_provider
    )
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    for _ in range(12):
        span = provider.get_tracer("other").start_span("a", kind=SpanKind.SERVER, start_time=1)
        span.set_attribute("http.route", "/a")
        span.end(5_000_000_000)
    (found,) = {frozenset(each.log_record.attributes) for each in telemetry.logs}
    assert found | {"sightline.violations_left_out"} == documented_attributes("The record of a violation")


def test_the_telemetry_page_lists_what_the_sampler_tells(telemetry):
    exporter = InMemorySpanExporter()
    sampler = SloSampler(spans_per_second=0)
    provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    install_slo_sampling(provider)
    observe_sampling(telemetry.meter_provider.get_meter("sightline"), sampler)
    provider.get_tracer("other").start_span("a").end()
    (span,) = exporter.get_finished_spans()
    assert set(span.attributes or {}) == documented_attributes("A sampled span")
    documented = {
        names_in(row[0])[0]: row[1].rsplit("`")[1]
        for row in rows("reference/telemetry.md", "Metrics of the sampler")
    }
    assert documented == {name: metric.unit for name, metric in telemetry.metrics.items()}


def test_the_telemetry_page_tells_the_bounds_of_series():
    documented = [int(row[1]) for row in rows("reference/telemetry.md", "How many series there are at most")]
    assert documented == [
        settings.Settings().cardinality_limit,
        limiter.MAX_SETS_OF_ROUTE,
        routes.MAX_ROUTES,
        len(attributes.KNOWN_METHODS) + 1,
        len(attributes._SCHEMES) + 1,
        len(set(attributes._PROTOCOL_VERSIONS.values())) + 1,
        bounded_statuses.MAX_STATUSES,
        recorder.MAX_ERROR_TYPES,
        background_tasks.MAX_FUNCTIONS,
        rolling.MAX_ACTIVE,
        tracker.MAX_CELLS,
        tracker.MAX_EXPECTED_SERIES,
        overflow.MAX_INSTRUMENTS,
        overflow.MAX_KEYS,
    ]


def test_the_readme_names_only_targets_that_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        mentioned = set(re.findall(r"`?\bmake ([a-z]+(?:-[a-z]+)*)`", page.read_text()))
        assert mentioned <= targets, page


def test_each_rule_of_the_conventions_names_a_test_that_exists():
    page = (ROOT / "docs/reference/semantic-conventions.md").read_text()
    named = re.findall(r"\| `([a-z_/]+\.py)(?:::(\w+))?` \|", page)
    assert len(named) > 40
    for path, name in named:
        source = (ROOT / "tests" / path).read_text()
        assert name == "" or f"def {name}(" in source, f"{path}::{name}"
