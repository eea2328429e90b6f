"""Settings: a wrong value is one line and the default."""

import pytest

from sightline.settings import Settings, load_settings


def test_nothing_set_gives_the_defaults(caplog):
    assert load_settings({}) == Settings(
        correlation_headers=("x-correlation-id", "x-request-id"), access_log=False
    )
    assert caplog.text == ""


def test_values_are_read_as_they_are_written():
    settings = load_settings(
        {"SIGHTLINE_CORRELATION_HEADERS": "X-Trace , x-trace,X-Request-ID", "SIGHTLINE_ACCESS_LOG": " On "}
    )
    assert settings.correlation_headers == ("x-trace", "x-request-id")
    assert settings.access_log is True


@pytest.mark.parametrize(
    ("variable", "value", "rule", "default"),
    [
        ("SIGHTLINE_CORRELATION_HEADERS", "x id", "must be header names", "x-correlation-id,x-request-id"),
        (
            "SIGHTLINE_CORRELATION_HEADERS",
            ",",
            "must name at least one header",
            "x-correlation-id,x-request-id",
        ),
        ("SIGHTLINE_ACCESS_LOG", "maybe", "must be on or off", "off"),
        (
            "SIGHTLINE_CORRELATION_HEADERS",
            "x-id,Content-Length",
            "must not name a header that frames the message or carries a credential",
            "x-correlation-id,x-request-id",
        ),
        ("SIGHTLINE_SHUTDOWN_TIMEOUT", "5", "must be a duration from 1ms to 24h", "5s"),
        ("SIGHTLINE_SHUTDOWN_TIMEOUT", "0s", "must be a duration from 1ms to 24h", "5s"),
        ("SIGHTLINE_TRUSTED_PROXIES", "10.0.0.1/8", "must be networks in CIDR form", "of none"),
        ("SIGHTLINE_CORRELATION_PROPAGATE", "http://orders", "must be host names", "of none"),
    ],
)
def test_a_wrong_value_is_one_line_with_setting_rule_value_origin_and_cure(
    caplog, variable, value, rule, default
):
    assert load_settings({variable: value}) == Settings()
    (message,) = caplog.messages
    assert message.startswith(f"{variable} {rule}")
    assert f"got {value!r} (from the environment)" in message
    assert f"using the default {default}" in message
    assert "\n" not in message


def test_a_name_that_is_not_a_setting_is_one_line_with_the_nearest_one(caplog):
    load_settings({"SIGHTLINE_CORELATION_HEADERS": "x-id"})
    (line,) = caplog.messages
    assert line.startswith("SIGHTLINE_CORELATION_HEADERS is not a setting of this version")
    assert line.endswith("did you mean SIGHTLINE_CORRELATION_HEADERS?")


@pytest.mark.parametrize(
    ("value", "seconds"), [("250ms", 0.25), ("5s", 5), ("1.5 s", 1.5), ("10m", 600), ("1H", 3600)]
)
def test_durations_have_a_unit(value, seconds):
    assert load_settings({"SIGHTLINE_SHUTDOWN_TIMEOUT": value}).shutdown_timeout == seconds


def test_a_wrong_value_does_not_cost_the_other_settings(caplog):
    settings = load_settings({"SIGHTLINE_ACCESS_LOG": "on", "SIGHTLINE_CORRELATION_HEADERS": "\n\t ü"})
    assert settings == Settings(access_log=True)


def test_a_long_value_is_cut():
    assert len(load_settings({"SIGHTLINE_ACCESS_LOG": "x" * 10_000}).model_dump_json()) < 1_000


def test_settings_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        Settings().access_log = True


def test_a_secret_is_never_shown(caplog):
    assert "hunter2" not in repr(load_settings({"SIGHTLINE_PROBE_TOKEN": "hunter2"}))
    assert load_settings(file_options={"probe_token": ["hunter2"]}) == Settings()
    (line,) = caplog.messages
    assert line.startswith("SIGHTLINE_PROBE_TOKEN ")
    assert "hunter2" not in line


def test_a_secret_of_digits_needs_no_quotes_in_the_configuration_file():
    assert load_settings(file_options={"probe_token": 12345678}).probe_token == "12345678"
