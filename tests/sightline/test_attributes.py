"""Attributes of a request, against the semantic conventions."""

import pytest
from asgi import http_scope
from hypothesis import given
from hypothesis import strategies as st

from sightline import attributes
from sightline.attributes import split_authority
from sightline.proxies import client_hop


def request_attributes(scope, headers, method):
    return attributes.request_attributes(scope, headers, method, client_hop(scope, headers, ()))


def of(**changes):
    scope = http_scope(**changes)
    method = scope["method"] if scope["method"] in attributes.KNOWN_METHODS else "_OTHER"
    return request_attributes(scope, scope["headers"], method)


@pytest.mark.parametrize(
    ("authority", "expected"),
    [
        ("shop.example", ("shop.example", None)),
        ("shop.example:8080", ("shop.example", 8080)),
        ("[::1]:8000", ("::1", 8000)),
        ("[2001:db8::7]", ("2001:db8::7", None)),
        ("192.0.2.1:80", ("192.0.2.1", 80)),
        ("", None),
        ("[::1", None),
        ("a b", None),
        ("user:secret@shop.example", None),
        ("shop.example:99999", None),
        ("shop.example:http", None),
        ("shop.example/path", None),
        ("a" * 254, None),
        ("évil", None),
    ],
)
def test_host_splits_into_address_and_port(authority, expected):
    assert split_authority(authority) == expected


@given(st.text(max_size=300))
def test_no_authority_raises(authority):
    split_authority(authority)


@pytest.mark.parametrize(
    "hosts",
    [[], [b"a"] * 2, [b"[::1"], [b"\xff\xfe"], [b"x" * 5000]],
    ids=["none", "two", "open", "bytes", "long"],
)
def test_a_missing_duplicate_or_hostile_host_falls_back_to_the_servers_address(hosts):
    scope = http_scope()
    scope["headers"] = [(b"host", host) for host in hosts]
    found = request_attributes(scope, scope["headers"], "GET")
    assert (found["server.address"], found["server.port"]) == ("127.0.0.1", 8000)


@pytest.mark.parametrize(("scheme", "port"), [("http", 80), ("https", 443)])
def test_the_port_of_a_host_without_one_follows_from_the_scheme(scheme, port):
    scope = http_scope(scheme=scheme)
    scope["headers"] = [(b"host", b"shop.example")]
    assert request_attributes(scope, scope["headers"], "GET")["server.port"] == port


def test_forwarded_headers_change_nothing():
    forwarded = [
        (b"x-forwarded-for", b"203.0.113.9"),
        (b"x-forwarded-host", b"evil.example"),
        (b"x-forwarded-proto", b"https"),
        (b"forwarded", b"for=203.0.113.9;host=evil.example;proto=https"),
    ]
    assert of(headers=forwarded) == of()


def test_an_unknown_method_is_other_and_keeps_its_original():
    found = of(method="get")
    assert (found["http.request.method"], found["http.request.method_original"]) == ("_OTHER", "get")
    assert "http.request.method_original" not in of(method="GET")


def test_the_known_methods_are_replaced_as_a_whole(monkeypatch):
    monkeypatch.setenv("OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS", "GET, PURGE")
    assert attributes.known_methods() == {"GET", "PURGE"}


def test_the_query_has_no_question_mark_and_its_secrets_are_redacted():
    found = of(query_string=b"page=2&access_token=abc&sig=x")
    assert found["url.query"] == "page=2&access_token=REDACTED&sig=REDACTED"
    assert "url.query" not in of(query_string=b"")


def test_the_path_is_the_one_that_was_sent():
    assert of(path="/a b", raw_path=b"/a%20b?x")["url.path"] == "/a%20b"
    assert of(raw_path=None)["url.path"] == "/"


@pytest.mark.parametrize(("sent", "recorded"), [("1.1", "1.1"), ("2", "2"), ("2.0", "2"), ("3", "3")])
def test_the_protocol_version_has_the_form_of_the_conventions(sent, recorded):
    assert of(http_version=sent)["network.protocol.version"] == recorded


def test_an_unknown_protocol_version_or_scheme_adds_no_value_of_its_own():
    assert "network.protocol.version" not in of(http_version="9.9")
    assert of(scheme="gopher")["url.scheme"] == "_OTHER"


def test_values_that_a_client_controls_are_bounded_and_encodable():
    found = of(
        path="/" + "p" * 9000,
        query_string=b"q" * 9000,
        method="M" * 9000,
        headers=[(b"user-agent", b"u" * 9000)],
    )
    assert {len(found[name]) for name in ("url.path", "url.query", "user_agent.original")} == {2048}
    assert len(found["http.request.method_original"]) == 2048
    assert of(path="/\udcff", raw_path=None)["url.path"] == "/?"


def test_without_a_peer_there_is_no_peer_attribute():
    found = of(client=None)
    assert not {"client.address", "network.peer.address", "network.peer.port"} & set(found)


@given(
    headers=st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=50)), max_size=8),
    query=st.binary(max_size=60),
    path=st.binary(max_size=60),
    method=st.text(min_size=1, max_size=20),
)
def test_no_request_raises(headers, query, path, method):
    scope = http_scope(query_string=query, raw_path=path, method=method)
    found = request_attributes(scope, headers, "_OTHER")
    for value in found.values():
        str(value).encode()
