"""The correlation ID in outgoing calls, and in the log records of three libraries."""

from urllib.parse import quote

import pytest
from otlp_receiver import attributes
from tests.libraries.service import HEADER, Downstream, Service, eventually

CLIENTS = ["/httpx", "/httpx-sync", "/aiohttp"]


def carried(headers: dict[str, str]) -> tuple[str | None, str | None]:
    """Returns the correlation header and the baggage of a request."""
    return headers.get(HEADER), headers.get("baggage")


@pytest.mark.parametrize("path", CLIENTS)
def test_the_id_is_carried_to_a_configured_host(shop: Service, called: Downstream, path: str) -> None:
    sent = f"carried{path.replace('/', '-')}"
    shop.get(f"{path}?url={quote(called.url())}", sent)
    assert carried(called.requests[-1]) == (sent, f"sightline.correlation_id={sent}")


@pytest.mark.parametrize("path", CLIENTS)
def test_the_id_is_not_carried_to_any_other_host(shop: Service, called: Downstream, path: str) -> None:
    shop.get(f"{path}?url={quote(called.url('localhost'))}", "not-carried")
    assert carried(called.requests[-1]) == (None, None)
    assert called.requests[-1]["host"] == f"localhost:{called.port}"


@pytest.mark.parametrize("path", CLIENTS)
def test_the_id_is_not_carried_anywhere_by_default(one_layer: Service, called: Downstream, path: str) -> None:
    one_layer.get(f"{path}?url={quote(called.url())}", "default")
    assert carried(called.requests[-1]) == (None, None)


@pytest.mark.parametrize(
    "path",
    [
        "/httpx",
        "/httpx-sync",
        "/aiohttp",
    ],
)
def test_the_id_is_carried_in_an_unsampled_trace_too(
    unsampled: Service, called: Downstream, path: str
) -> None:
    sent = f"unsampled{path.replace('/', '-')}"
    unsampled.get(f"{path}?url={quote(called.url())}", sent)
    assert carried(called.requests[-1]) == (sent, f"sightline.correlation_id={sent}")


@pytest.mark.parametrize("path", CLIENTS)
def test_the_id_is_not_carried_to_another_host_in_an_unsampled_trace(
    unsampled: Service, called: Downstream, path: str
) -> None:
    unsampled.get(f"{path}?url={quote(called.url('localhost'))}", "not-carried")
    assert carried(called.requests[-1]) == (None, None)


@pytest.mark.parametrize("path", CLIENTS)
def test_the_id_does_not_follow_a_redirect_to_another_host(
    shop: Service, called: Downstream, path: str
) -> None:
    target = called.redirect(called.url("localhost"))
    shop.get(f"{path}?url={quote(target)}", "redirected")
    assert called.requests[-1]["host"] == f"localhost:{called.port}"
    assert carried(called.requests[-1]) == (None, None)


def test_records_of_three_libraries_are_exported_once_with_the_stock_instrumentor_installed(
    shop: Service,
) -> None:
    shop.get("/log", "first")
    shop.get("/log", "last")
    request = shop.request("first")
    assert eventually(lambda: len(shop.logs("last")) >= 3)
    records = shop.logs("first")
    named = [(item.data.body.string_value, item.scope, attributes(item.data.attributes)) for item in records]
    assert sorted(named, key=str) == [
        ("from logging", "shop", {"correlation_id": "first"}),
        ("from loguru", "shop", {"correlation_id": "first", "item": 7}),
        ("from structlog", "structlog", {"correlation_id": "first", "item": 7}),
    ]
    assert {(item.data.trace_id, item.data.span_id) for item in records} == {
        (request.trace_id, request.span_id)
    }
