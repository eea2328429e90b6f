"""Forwarded headers: they count only from proxies that the operator trusts."""

import asyncio
from ipaddress import ip_network

import pytest
from asgi import call, http_scope
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st

from sightline.proxies import Hop, client_hop

TRUSTED = (ip_network("10.0.0.0/8"), ip_network("192.0.2.7/32"), ip_network("2001:db8::/32"))


def hop(headers, trusted=TRUSTED, **changes):
    pairs = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    return client_hop(http_scope(**changes), pairs, trusted)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], Hop("192.0.2.7", "http")),
        ([("x-forwarded-for", "203.0.113.9")], Hop("203.0.113.9", "http")),
        ([("x-forwarded-for", "1.1.1.1, 203.0.113.9, 10.1.1.1")], Hop("203.0.113.9", "http")),
        ([("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "203.0.113.9")], Hop("203.0.113.9", "http")),
        ([("x-forwarded-for", "10.9.9.9, 10.1.1.1")], Hop("10.9.9.9", "http")),
        ([("x-forwarded-for", "203.0.113.9:4711")], Hop("203.0.113.9", "http")),
        ([("x-forwarded-for", "[2001:db9::1]:4711")], Hop("2001:db9::1", "http")),
        ([("x-forwarded-for", "<script>")], Hop("192.0.2.7", "http")),
        ([("x-forwarded-for", "203.0.113.9, unknown")], Hop("192.0.2.7", "http")),
        ([("x-forwarded-proto", "https")], Hop("192.0.2.7", "https")),
        ([("x-forwarded-proto", "gopher")], Hop("192.0.2.7", "http")),
        (
            [
                ("x-forwarded-for", "203.0.113.9"),
                ("x-forwarded-proto", "https"),
                ("x-forwarded-host", "a.example"),
            ],
            Hop("203.0.113.9", "https", "a.example"),
        ),
        (
            [("forwarded", 'for="[2001:db9::1]:80";proto=https;host=a.example, for=10.1.1.1')],
            Hop("2001:db9::1", "https", "a.example"),
        ),
        (
            [("forwarded", "for=6.6.6.6;host=evil"), ("x-forwarded-for", "203.0.113.9")],
            Hop("192.0.2.7", "http"),
        ),
        ([("forwarded", "for=203.0.113.9"), ("x-forwarded-for", "203.0.113.9")], Hop("203.0.113.9", "http")),
        ([("forwarded", 'for=203.0.113.9;host="a,b";proto=https')], Hop("203.0.113.9", "https", "a,b")),
        ([("forwarded", 'for=203.0.113.9;ext="x\\", for=6.6.6.6;b=\\""')], Hop("203.0.113.9", "http")),
        ([("forwarded", "for=203.0.113.9;for=6.6.6.6")], Hop("192.0.2.7", "http")),
        ([("x-forwarded-for", "::ffff:203.0.113.9")], Hop("203.0.113.9", "http")),
        ([("forwarded", "for=_hidden;proto=https")], Hop("192.0.2.7", "https")),
    ],
)
def test_the_client_is_the_last_hop_that_is_not_trusted(headers, expected):
    assert hop(headers) == expected


@pytest.mark.parametrize("trusted", [(), (ip_network("10.0.0.0/8"),)])
def test_an_untrusted_peer_cannot_say_who_the_client_is(trusted):
    headers = [("x-forwarded-for", "1.1.1.1"), ("x-forwarded-proto", "https"), ("forwarded", "for=1.1.1.1")]
    assert hop(headers, trusted) == Hop("192.0.2.7", "http")


def test_an_ipv4_peer_in_ipv6_form_is_the_same_peer():
    found = hop([("x-forwarded-for", "203.0.113.9")], client=("::ffff:10.0.0.1", 1))
    assert found.address == "203.0.113.9"


def test_a_websocket_keeps_its_kind_of_scheme():
    assert hop([("x-forwarded-proto", "https")], scheme="ws").scheme == "wss"


@given(
    st.lists(
        st.tuples(st.sampled_from(["forwarded", "x-forwarded-for", "x-forwarded-proto"]), st.text()),
        max_size=6,
    )
)
def test_no_header_raises(headers):
    pairs = [(name.encode(), value.encode("utf-8", "replace")) for name, value in headers]
    client_hop(http_scope(), pairs, TRUSTED)


def test_a_very_long_list_costs_a_bounded_number_of_hops():
    assert hop([("x-forwarded-for", ", ".join(["10.0.0.1"] * 50_000))]).address == "10.0.0.1"


def test_the_setting_reaches_the_span_and_nothing_changes_without_it(telemetry, monkeypatch):
    headers = [
        (b"x-forwarded-for", b"203.0.113.9"),
        (b"x-forwarded-proto", b"https"),
        (b"x-forwarded-host", b"a.example"),
    ]
    app = FastAPI()
    telemetry.instrument(app)
    asyncio.run(call(app, http_scope(headers=headers)))
    asyncio.run(call(app, http_scope()))
    plain, bare = (dict(span.attributes) for span in telemetry.spans)
    assert {k: v for k, v in plain.items() if "correlation" not in k} == {
        k: v for k, v in bare.items() if "correlation" not in k
    }
    from sightline import options

    options.process_settings.cache_clear()
    monkeypatch.setenv("SIGHTLINE_TRUSTED_PROXIES", "192.0.2.0/24")
    telemetry.instrument(app)
    asyncio.run(call(app, http_scope(headers=headers)))
    behind = telemetry.spans[-1].attributes
    assert behind["client.address"] == "203.0.113.9"
    assert behind["network.peer.address"] == "192.0.2.7"
    assert (behind["url.scheme"], behind["server.address"], behind["server.port"]) == (
        "https",
        "a.example",
        443,
    )
