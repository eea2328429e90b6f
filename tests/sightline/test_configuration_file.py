"""The declarative configuration file: our options, the general ones, and what it silences."""

import asyncio

import pytest
from asgi import call, http_scope
from fastapi import FastAPI

from sightline import configuration_file, options
from sightline.configuration_file import load_configuration_file

FILE = """
file_format: "1.0"
instrumentation/development:
  general:
    http:
      server:
        known_methods: [GET, PURGE]
        request_captured_headers: [x-tenant]
        response_captured_headers: [content-type]
    sanitization:
      url:
        sensitive_query_parameters: [page]
  python:
    sightline:
      correlation_headers: [x-trace-token]
      trusted_proxies: [192.0.2.0/24]
      access_log: true
      excluded_urls: healthz
"""


@pytest.fixture
def load(tmp_path, monkeypatch):
    monkeypatch.setattr(configuration_file, "_loaded", [])

    def loaded(text):
        path = tmp_path / "otel.yaml"
        path.write_text(text)
        load_configuration_file(str(path))
        options.process_settings.cache_clear()

    return loaded


def test_the_options_of_the_file_hold(load, telemetry):
    load(FILE)
    app = FastAPI()
    telemetry.instrument(app)
    headers = [(b"x-trace-token", b"abc"), (b"x-tenant", b"t"), (b"x-forwarded-for", b"203.0.113.9")]
    answer = asyncio.run(
        call(app, http_scope(headers=headers, query_string=b"page=2&token=x", method="PURGE"))
    )
    asyncio.run(call(app, http_scope("/healthz", method="POST")))
    (span,) = telemetry.spans
    assert answer.header("x-trace-token") == "abc"
    assert span.name == "PURGE"
    assert span.attributes["http.request.header.x-tenant"] == ("t",)
    assert span.attributes["http.response.header.content-type"] == ("application/json",)
    assert span.attributes["url.query"] == "page=REDACTED&token=x"
    assert span.attributes["client.address"] == "203.0.113.9"
    assert options.process_settings().access_log is True
    assert {
        p.attributes["http.request.method"] for p in telemetry.points("http.server.request.duration")
    } == {"PURGE", "_OTHER"}


def test_the_file_wins_over_variables_and_one_warning_names_them(load, monkeypatch, caplog):
    monkeypatch.setenv("SIGHTLINE_ACCESS_LOG", "off")
    monkeypatch.setenv("OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS", "GET")
    monkeypatch.setenv("OTEL_PYTHON_DISTRO", "sightline")
    load(FILE)
    assert options.process_settings().access_log is True
    assert "PURGE" in options.capture_options().methods
    (line,) = caplog.messages
    assert "SIGHTLINE_ACCESS_LOG" in line
    assert "OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS" in line
    assert "OTEL_PYTHON_DISTRO" not in line


def test_a_file_without_our_part_gives_the_defaults_and_silences_variables(load, monkeypatch, caplog):
    monkeypatch.setenv("SIGHTLINE_ACCESS_LOG", "on")
    load('file_format: "1.0"\n')
    assert options.process_settings().access_log is False
    assert "GET" in options.capture_options().methods
    assert "SIGHTLINE_ACCESS_LOG" in caplog.text


def test_wrong_and_unknown_options_are_one_line_each_and_the_default(load, caplog):
    load(
        FILE.replace("access_log: true", "access_log: perhaps").replace(
            "excluded_urls: healthz", "acess_log: true"
        )
    )
    assert options.process_settings().access_log is False
    assert options.process_settings().correlation_headers == ("x-trace-token",)
    assert len(caplog.messages) == 2
    assert "sightline.acess_log is not an option" in caplog.messages[0]
    assert (
        "SIGHTLINE_ACCESS_LOG must be on or off, got 'perhaps' (from the configuration file)"
        in caplog.messages[1]
    )


def test_enabled_false_switches_sightline_off(load):
    load(FILE.replace("correlation_headers: [x-trace-token]", "enabled: false"))
    assert configuration_file.file_configuration().is_enabled is False
