"""Spans of outgoing and data calls, by the stock instrumentors, of real clients against real servers."""

import re
from urllib.parse import quote

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from otlp_receiver import Item, attributes
from tests.libraries.service import Downstream, Service

CONTRIB = "opentelemetry.instrumentation"
QUERY = "SELECT 6 * 7"


def described(calls: list[Item]) -> list[tuple[str, str]]:
    """Returns the instrumentation and the name of each span."""
    return [(item.scope.removeprefix(f"{CONTRIB}."), item.data.name) for item in calls]


def statements(calls: list[Item], scope: str) -> list[str]:
    """Returns the statements of one instrumentation."""
    found = (attributes(item.data.attributes) for item in calls if item.scope == f"{CONTRIB}.{scope}")
    return [named["db.query.text"] for named in found if "db.query.text" in named]


@pytest.mark.parametrize(
    ("path", "answer", "scope", "name"),
    [
        ("/asyncpg", 42, "asyncpg", "SELECT"),
        ("/psycopg", 42, "psycopg", "SELECT"),
        ("/psycopg-sync", 42, "psycopg", "SELECT"),
        ("/redis", True, "redis", "SET"),
        ("/redis-sync", True, "redis", "SET"),
    ],
)
def test_a_data_call_is_one_client_span_below_the_request(
    shop: Service, path: str, answer: object, scope: str, name: str
) -> None:
    sent = f"span{path.replace('/', '-')}"
    assert shop.get(path, sent) == answer
    calls = shop.calls(sent)
    assert described(calls) == [(scope, name)]
    assert calls[0].data.parent_span_id == shop.request(sent).span_id


@pytest.mark.parametrize(
    ("path", "scope"), [("/httpx", "httpx"), ("/httpx-sync", "httpx"), ("/aiohttp", "aiohttp_client")]
)
def test_an_http_call_is_one_client_span_below_the_request(
    shop: Service, called: Downstream, path: str, scope: str
) -> None:
    sent = f"span{path.replace('/', '-')}"
    assert shop.get(f"{path}?url={quote(called.url())}", sent) == 200
    calls = shop.calls(sent)
    assert described(calls) == [(scope, "GET")]
    assert calls[0].data.parent_span_id == shop.request(sent).span_id


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
def test_sqlalchemy_and_its_driver_each_record_the_statement_once(shop: Service, driver: str) -> None:
    sent = f"layers-{driver}"
    assert shop.get(f"/sqlalchemy-{driver}", sent) == 42
    calls = shop.calls(sent)
    assert statements(calls, "sqlalchemy") == [QUERY]
    assert statements(calls, driver).count(QUERY) == 1


@pytest.mark.parametrize(("driver", "name"), [("asyncpg", "SELECT"), ("psycopg", "SELECT postgres")])
def test_sqlalchemy_without_its_drivers_spans_is_one_span_for_each_call(
    one_layer: Service, driver: str, name: str
) -> None:
    sent = f"one-layer-{driver}"
    assert one_layer.get(f"/sqlalchemy-{driver}", sent) == 42
    calls = one_layer.calls(sent)
    assert described(calls) == [("sqlalchemy", "connect"), ("sqlalchemy", name)]
    assert {item.data.parent_span_id for item in calls} == {one_layer.request(sent).span_id}


def test_the_opt_in_gives_data_and_http_calls_the_stable_conventions(
    one_layer: Service, called: Downstream
) -> None:
    one_layer.get("/redis", "stable-redis")
    one_layer.get(f"/httpx?url={quote(called.url())}", "stable-httpx")
    ((redis,), (httpx,)) = one_layer.calls("stable-redis"), one_layer.calls("stable-httpx")
    data, http = attributes(redis.data.attributes), attributes(httpx.data.attributes)
    assert (data["db.system.name"], data["server.address"]) == ("redis", "127.0.0.1")
    assert (http["http.request.method"], http["url.full"]) == ("GET", called.url())
    assert not {"db.system", "net.peer.name"} & data.keys()
    assert not {"http.method", "http.url"} & http.keys()


@pytest.mark.parametrize("path", ["/httpx", "/httpx-sync", "/aiohttp"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_trace_context_arrives_at_every_host(shop: Service, called: Downstream, path: str, host: str) -> None:
    sent = f"context{path.replace('/', '-')}-{host}"
    shop.get(f"{path}?url={quote(called.url(host))}", sent)
    (call,) = shop.calls(sent)
    match = re.fullmatch("00-([0-9a-f]{32})-([0-9a-f]{16})-03", called.requests[-1]["traceparent"])
    assert match is not None
    assert (match[1], match[2]) == (call.data.trace_id.hex(), call.data.span_id.hex())


@pytest.mark.parametrize("path", ["/httpx", "/httpx-sync", "/aiohttp"])
def test_an_unsampled_trace_arrives_as_unsampled(unsampled: Service, called: Downstream, path: str) -> None:
    unsampled.get(f"{path}?url={quote(called.url())}", "unsampled")
    assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-02", called.requests[-1]["traceparent"])
    assert [item for item in unsampled.store.spans if isinstance(item.data, Span)] == []
