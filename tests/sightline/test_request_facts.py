"""What is remembered of connections and outcomes: bounded, and never another request's."""

import asyncio
from typing import Any

import pytest
from asgi import call, http_scope
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from sightline import request_facts


@pytest.fixture
def app(telemetry):
    app = FastAPI()

    @app.get("/items/{item_id}")
    async def read_item(item_id: int, status: int = 200):
        return PlainTextResponse("", status)

    telemetry.instrument(app)
    return app


def serve(app, *scopes):
    async def run():
        for scope in scopes:
            await call(app, scope)

    asyncio.run(run())


async def nothing():
    return {}


def recorder_of(app):
    return app._sightline[1]._recorder


def test_what_differs_between_connections_is_each_spans_own(app, telemetry):
    changes: list[dict[str, Any]] = [
        {"client": ("192.0.2.1", 1)},
        {"client": ("192.0.2.2", 2)},
        {"server": ("10.0.0.1", 80), "headers": [(b"user-agent", b"a")]},
        {"headers": [(b"user-agent", b"b")]},
        {"scheme": "https", "http_version": "2"},
        {"method": "POST"},
    ]
    serve(app, *(http_scope("/items/1", **change) for change in [*changes, *changes]))
    first, second = telemetry.spans[: len(changes)], telemetry.spans[len(changes) :]
    assert [comparable(span) for span in first] == [comparable(span) for span in second]
    assert len({str(comparable(span)) for span in first}) == len(changes)


def comparable(span):
    return {k: v for k, v in (span.attributes or {}).items() if k != "sightline.correlation_id"}


def test_facts_of_clients_are_bounded(app):
    serve(app, *(http_scope("/items/1", client=("192.0.2.1", port)) for port in range(1, 2000)))
    recorder = recorder_of(app)
    assert 0 < len(recorder.facts) <= request_facts.MAX_REMEMBERED
    assert len(recorder.shared_facts) == 1


def test_facts_of_hosts_are_bounded(app):
    scopes = [http_scope("/items/1") for _ in range(1500)]
    for number, scope in enumerate(scopes):
        scope["headers"] = [(b"host", b"h%d" % number)]
    serve(app, *scopes)
    recorder = recorder_of(app)
    assert 0 < len(recorder.shared_facts) <= request_facts.MAX_REMEMBERED


def test_long_headers_are_not_remembered(app, telemetry):
    serve(app, http_scope("/items/1", headers=[(b"user-agent", b"x" * 1000)]))
    assert not recorder_of(app).facts
    assert telemetry.spans[0].attributes["user_agent.original"] == "x" * 1000


def test_endings_are_bounded_and_requests_counted_all_the_same(app, telemetry, monkeypatch):
    monkeypatch.setattr(request_facts, "MAX_ENDINGS", 20)
    scopes = [
        http_scope("/items/1", query_string=b"status=%d" % status)
        for status in range(200, 250)
        for _ in range(2)
    ]
    serve(app, *scopes)
    assert recorder_of(app).remembered_endings <= 20
    assert sum(point.count for point in telemetry.points("http.server.request.duration")) == len(scopes)
    assert len(telemetry.spans) == len(scopes)


def test_routes_of_the_same_path_below_different_mounts_are_told_apart(telemetry):
    async def endpoint(_request):
        return PlainTextResponse("")

    shared = Starlette(routes=[Route("/x", endpoint)])
    app = FastAPI()
    app.router.routes += [Mount("/a", shared), Mount("/b", shared)]
    telemetry.instrument(app)
    serve(app, *(http_scope(path) for path in ("/a/x", "/b/x", "/a/x", "/b/x")))
    assert [span.name for span in telemetry.spans] == ["GET /a/x", "GET /b/x"] * 2


def test_applications_do_not_share_what_they_remember(telemetry):
    apps = []
    for path in ("/one", "/two"):
        app = FastAPI()
        app.add_api_route(path, nothing, methods=["GET"])
        telemetry.instrument(app)
        apps.append((app, path))
    for app, path in apps * 2:
        serve(app, http_scope(path))
    assert [span.name for span in telemetry.spans] == ["GET /one", "GET /two"] * 2


def test_headers_by_the_thousand_are_judged_and_few_remembered(telemetry):
    app = FastAPI()
    app.add_api_route("/", nothing, methods=["GET"])
    telemetry.instrument(app, http_capture_headers_server_request=["x-.*"])
    names = [b"x-%d" % number for number in range(3000)]
    for start in range(0, 3000, 30):
        serve(app, http_scope("/", headers=[(name, b"v") for name in names[start : start + 30]]))
    capture = recorder_of(app).options.captured_request_headers
    assert len(capture._judged) <= 1024
    assert telemetry.spans[-1].attributes["http.request.header.x-2999"] == ("v",)
