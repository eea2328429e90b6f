"""The documentation: its code runs, its links lead somewhere, its tables say what the code does."""

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from asgi import call, http_scope
from fastapi import BackgroundTasks, FastAPI, WebSocket
from fastapi.responses import StreamingResponse
from opentelemetry.trace import SpanKind

from sightline import background, distro, settings

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


@pytest.fixture
def emitted(telemetry):
    """Emits everything there is to emit."""
    app = FastAPI()

    @app.post("/items/{item_id}")
    async def change(item_id: int, tasks: BackgroundTasks):
        tasks.add_task(fail)
        background.spawn(asyncio.sleep, 0)
        return {}

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
            http_scope("/", "BREW"),
        ):
            await call(app, scope)
        messages = [{"type": "websocket.connect"}, {"type": "websocket.receive", "text": "hello"}]
        await call(app, http_scope("/room", type="websocket", scheme="ws", subprotocols=[]), messages)
        await asyncio.sleep(0.01)

    asyncio.run(run())
    return telemetry


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
