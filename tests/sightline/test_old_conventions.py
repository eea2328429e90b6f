"""`http/dup`: the old names beside the stable ones, without what a client could blow up."""

import asyncio

import pytest
from asgi import call, http_scope
from fastapi import FastAPI, Request

OLD_METRICS = {"http.server.duration", "http.server.request.size", "http.server.response.size"}


def served(telemetry, *, hosts=(b"shop.example:8000",)):
    app = FastAPI()

    @app.post("/items/{item_id}")
    async def change(item_id: int, request: Request):
        await request.body()
        await asyncio.sleep(0.01)
        return {}

    telemetry.instrument(app)
    for host in hosts:
        scope = http_scope("/items/1", "POST", query_string=b"token=a")
        scope["headers"] = [(b"host", host), (b"user-agent", b"u"), (b"content-length", b"2")]
        asyncio.run(call(app, scope))
    return telemetry


@pytest.mark.parametrize("mode", ["", "http", "database/dup"])
def test_without_dup_only_the_stable_conventions_are_emitted(telemetry, monkeypatch, mode):
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", mode)
    served(telemetry)
    assert not OLD_METRICS & set(telemetry.metrics)
    assert not {"http.method", "http.url", "net.peer.ip"} & set(telemetry.spans[0].attributes)


@pytest.mark.parametrize("mode", ["http/dup", "http,http/dup"])
def test_with_dup_both_conventions_are_emitted_and_one_line_says_what_that_costs(
    telemetry, monkeypatch, mode, caplog
):
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", mode)
    served(telemetry)
    attributes = dict(telemetry.spans[0].attributes)
    assert attributes["http.method"] == attributes["http.request.method"] == "POST"
    assert attributes["http.status_code"] == attributes["http.response.status_code"] == 200
    assert attributes["http.target"] == "/items/1"
    assert (attributes["http.host"], attributes["net.host.port"]) == ("127.0.0.1:8000", 8000)
    assert attributes["http.server_name"] == "shop.example:8000"
    assert attributes["http.url"] == "http://shop.example:8000/items/1?token=REDACTED"
    assert (attributes["http.flavor"], attributes["net.peer.ip"], attributes["net.peer.port"]) == (
        "1.1",
        "192.0.2.7",
        40123,
    )
    assert len([m for m in caplog.messages if "double the series" in m]) == 1


def test_the_old_duration_is_in_whole_milliseconds(telemetry, monkeypatch):
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "http/dup")
    served(telemetry)
    (old,) = telemetry.points("http.server.duration")
    (stable,) = telemetry.points("http.server.request.duration")
    assert telemetry.metrics["http.server.duration"].unit == "ms"
    assert old.sum == round(stable.sum * 1000) >= 10
    assert dict(old.attributes) == {
        "http.method": "POST",
        "http.scheme": "http",
        "http.flavor": "1.1",
        "http.status_code": 200,
        "http.target": "/items/{item_id}",
    }


def test_a_forged_host_adds_no_old_series(telemetry, monkeypatch):
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "http/dup")
    served(telemetry, hosts=[f"host-{number}.example".encode() for number in range(50)])
    for metric in OLD_METRICS:
        assert len(telemetry.points(metric)) == 1
