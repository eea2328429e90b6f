"""A stock exporter that will be adopted is read without `requests`, and as `requests` would read it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import requests
import wrapt
from hypothesis import example, given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.http.transport._requests import RequestsHTTPTransport
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpanExporter
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from tests.sightline_processors.faulty_collector import FaultyCollector

from sightline_processors.export import deferred
from sightline_processors.export.deferred import DeferredSessions, DeferringTransport, plain_endpoint
from sightline_processors.export.http_transport import HttpTransport
from sightline_processors.export.stock import NotStockError, transport_of
from sightline_processors.export.stock_session import endpoint_of_session

ODD = [
    "[::1]",
    "BIG",
    "bücher",
    ":",
    ":04318",
    ":70000",
    "/..",
    "/./x",
    "//",
    "%7e",
    "%zz",
    " ",
    "?y=z",
    "#f",
    "u:p@",
    "*",
]
PLAIN_URLS = st.from_regex(deferred._PLAIN_URL, fullmatch=True)
ODD_URLS = st.builds(
    lambda url, place, odd: url[: place % len(url)] + odd + url[place % len(url) :],
    PLAIN_URLS,
    st.integers(0, 1000),
    st.one_of(st.sampled_from(ODD), st.characters()),
)
NAMES = st.one_of(
    st.from_regex(deferred._HEADER_NAME, fullmatch=True),
    st.sampled_from(["Authorization", "user-agent", "accept", "Connection", "host", "x y", "cookie", "x:"]),
)
VALUES = st.one_of(st.text(max_size=6), st.sampled_from(["Bearer a", " a", "a ", "a\r\nb", "\N{SNOWMAN}"]))


def asked(exporter=OTLPSpanExporter):
    return DeferredSessions().get(exporter, {})


@pytest.fixture(autouse=True)
def quiet(monkeypatch, tmp_path):
    """An environment in which nothing asks for `requests`, as in a process that has just started."""
    for name in list(os.environ):
        if name.upper().endswith(deferred._TELLING_ENDINGS) or name in deferred._AUTHORITY_VARIABLES:
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delitem(sys.modules, "requests")
    return monkeypatch


def settings_of(exporter):
    transport = transport_of(exporter)
    assert isinstance(transport, HttpTransport)
    return transport._settings


@settings(max_examples=500)
@given(
    st.one_of(PLAIN_URLS, ODD_URLS),
    st.dictionaries(NAMES, VALUES, max_size=3),
    st.sampled_from(list(Compression)),
)
@example("http://localhost:4318/v1/traces", {}, Compression.Gzip)
@example("https://collector.internal/v1/traces", {"authorization": "Bearer a"}, Compression.NoCompression)
@example("http://127.0.0.1:40000/v1/traces", {"user-agent": "mine", "connection": "x"}, Compression.Deflate)
def test_what_is_plain_is_what_requests_would_send(url, headers, compression):
    client = OTLPSpanExporter(
        url, headers=headers, timeout=3, compression=compression, _transport=DeferringTransport()
    )._client
    plain = plain_endpoint(client)
    if plain is None:
        return  # the next test tells which ones must not be
    with requests.Session() as session:
        expected = endpoint_of_session(session, client)
    assert dict(plain.headers) == dict(expected.headers)
    assert len(plain.headers) == len(expected.headers)
    for name in ("url", "timeout_seconds", "compression", "client_certificate", "proxy", "proxy_headers"):
        assert getattr(plain, name) == getattr(expected, name)
    assert plain.verify == expected.verify or url.startswith("http:")


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:4318/v1/traces",
        "http://127.0.0.1:14318/v1/logs",
        "https://otlp.eu-west-1.example.com/otlp/v1/metrics",
        "http://otel-collector.observability.svc.cluster.local:4318/v1/traces",
    ],
)
def test_a_usual_endpoint_is_plain(url):
    client = OTLPSpanExporter(url, headers={"api-key": "a b"}, _transport=DeferringTransport())._client
    assert plain_endpoint(client).url == url


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_authorities_of_the_environment_count_where_there_is_tls(monkeypatch, tmp_path, variable):
    monkeypatch.setenv(variable, str(tmp_path))
    plain, secure = (
        settings_of(OTLPSpanExporter(url, _transport=DeferringTransport()))
        for url in ("http://127.0.0.1:1/v1/traces", "https://127.0.0.1:1/v1/traces")
    )
    assert (plain.verify, secure.verify) == ("", str(tmp_path))


def test_a_session_is_deferred_where_nothing_asks_for_it(quiet):
    exporter = OTLPSpanExporter("http://127.0.0.1:1/v1/traces", **asked())
    assert transport_of(exporter).destination.endpoint == "http://127.0.0.1:1/v1/traces"
    exporter.shutdown()
    assert "requests" not in sys.modules


@pytest.mark.parametrize(
    "variable",
    [
        "https_proxy",
        "ALL_PROXY",
        "NETRC",
        "OTEL_EXPORTER_OTLP_CERTIFICATE",
        "OTEL_EXPORTER_OTLP_LOGS_CLIENT_CERTIFICATE",
        "OTEL_EXPORTER_OTLP_CLIENT_KEY",
        "OTEL_PYTHON_EXPORTER_OTLP_HTTP_TRACES_CREDENTIAL_PROVIDER",
    ],
)
def test_no_session_is_deferred_where_a_variable_asks_for_it(quiet, variable):
    quiet.setenv(variable, "something")
    assert not asked()


@pytest.mark.parametrize("name", [".netrc", "_netrc"])
def test_no_session_is_deferred_beside_a_file_of_credentials(quiet, tmp_path, name):
    (tmp_path / name).touch()
    assert not asked()


def test_no_session_is_deferred_where_another_system_may_know_proxies(quiet):
    assert asked()
    quiet.setattr(sys, "platform", "darwin")
    assert not asked()


def test_no_session_is_deferred_where_requests_is_in_use(quiet):
    quiet.setitem(sys.modules, "requests", requests)
    assert not asked()


class OwnExporter(OTLPSpanExporter):
    """Somebody's own, whose constructor takes what it likes."""

    def __init__(self):
        super().__init__("http://127.0.0.1:1/")


def test_only_stock_exporters_over_http_are_asked_to_defer(quiet):
    classes = (OTLPSpanExporter, OTLPMetricExporter, OTLPLogExporter, GrpcSpanExporter, OwnExporter)
    assert [bool(asked(each)) for each in classes] == [True, True, True, False, False]
    quiet.setattr(OTLPSpanExporter, "__init__", wrapt.FunctionWrapper(OTLPSpanExporter.__init__, print))
    assert not asked()


def test_what_changes_before_the_endpoint_is_read_counts(quiet):
    exporter = OTLPSpanExporter("http://127.0.0.1:1/", **asked())
    quiet.setenv("NO_PROXY", "")
    assert plain_endpoint(exporter._client) is None


def test_a_session_that_somebody_has_looked_at_is_read(quiet):
    transport = DeferringTransport()
    transport._session.auth = ("user", "password")
    exporter = OTLPSpanExporter("http://127.0.0.1:1/", _transport=transport)
    quiet.delitem(sys.modules, "requests", raising=False)
    with pytest.raises(NotStockError):
        transport_of(exporter)


def test_exporters_that_stay_have_their_session_before_their_first_request():
    sessions = DeferredSessions()
    arguments = [sessions.get(OTLPSpanExporter, {}) for _ in range(2)]
    adopted, _ = (OTLPSpanExporter("http://127.0.0.1:1/", **each) for each in arguments)
    adopted.shutdown()
    sessions.open_those_in_use()
    assert [each["_transport"].has_session for each in arguments] == [False, True]


def test_an_exporter_that_is_not_adopted_exports_with_a_session_of_its_own():
    with FaultyCollector() as collector:
        exporter = OTLPSpanExporter(f"{collector.endpoint}/v1/traces", _transport=DeferringTransport())
        exporter.export([])
        exporter.shutdown()
        assert [request.path for request in collector.requests] == ["/v1/traces"]


def test_an_endpoint_that_is_not_plain_is_still_adopted():
    exporter = OTLPSpanExporter("http://u:p@127.0.0.1:1/v1/traces", _transport=DeferringTransport())
    assert ("authorization", "Basic dTpw") in settings_of(exporter).headers


def test_a_transport_that_somebody_has_wrapped_is_not_read(monkeypatch):
    monkeypatch.setattr(RequestsHTTPTransport, "request", print)
    with pytest.raises(NotStockError):
        transport_of(OTLPSpanExporter("http://127.0.0.1:1/", _transport=DeferringTransport()))


@pytest.mark.parametrize(
    ("variables", "imported"), [({}, False), ({"HTTP_PROXY": "http://127.0.0.1:1"}, True)]
)
def test_a_start_without_code_does_not_import_requests(tmp_path, variables, imported):
    done = subprocess.run(
        ["opentelemetry-instrument", "python", "-c", "import sys; print('requests' in sys.modules)"],
        env={
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "HOME": str(tmp_path),
            "SIGHTLINE_SHUTDOWN_TIMEOUT": "100ms",
            **variables,
        },
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout.split() == [str(imported)]
