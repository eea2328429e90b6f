"""`OTEL_*` variables: a wrong value costs one line, never the telemetry."""

import pytest

from sightline.environment import sanitize_environment, sdk_disabled

WRONG = {
    "OTEL_TRACES_EXPORTER": "otlp,jaegger",
    "OTEL_METRICS_EXPORTER": "statsd",
    "OTEL_LOGS_EXPORTER": "syslog",
    "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json",
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "thrift",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "ftp://collector",
    "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://",
    "OTEL_EXPORTER_OTLP_HEADERS": "Bearer s3cret",
    "OTEL_EXPORTER_OTLP_TIMEOUT": "soon",
    "OTEL_EXPORTER_OTLP_COMPRESSION": "zip",
    "OTEL_EXPORTER_OTLP_CERTIFICATE": "/does/not/exist.pem",
    "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "sometimes",
    "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION": "linear",
    "OTEL_METRICS_EXEMPLAR_FILTER": "sampled",
    "OTEL_TRACES_SAMPLER": "always",
    "OTEL_PROPAGATORS": "tracecontext,b33",
    "OTEL_PYTHON_CONTEXT": "thread_locals",
    "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": "moon",
    "OTEL_PYTHON_ID_GENERATOR": "uuid",
    "OTEL_METRIC_EXPORT_INTERVAL": "0",
    "OTEL_BSP_SCHEDULE_DELAY": "1s",
    "OTEL_BLRP_MAX_QUEUE_SIZE": "-1",
    "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "many",
    "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "-1",
    "OTEL_SDK_DISABLED": "yes",
    "OTEL_RESOURCE_ATTRIBUTES": "shop",
}
RIGHT = {
    "OTEL_TRACES_EXPORTER": "otlp, console",
    "OTEL_METRICS_EXPORTER": "none",
    "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "https://collector.example:4318/path",
    "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20x,tenant=a",
    "OTEL_EXPORTER_OTLP_TIMEOUT": "2.5",
    "OTEL_METRICS_EXEMPLAR_FILTER": "always_on",
    "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
    "OTEL_TRACES_SAMPLER_ARG": "0.1",
    "OTEL_BSP_SCHEDULE_DELAY": "500",
    "OTEL_SPAN_EVENT_COUNT_LIMIT": "0",
    "OTEL_SDK_DISABLED": "false",
    "OTEL_RESOURCE_ATTRIBUTES": "service.namespace=shop,deployment.environment.name=test",
    "OTEL_SOMETHING_OF_A_LIBRARY": "whatever",
}


@pytest.mark.parametrize("variable", WRONG)
def test_a_wrong_value_is_removed_and_reported_in_one_line_with_a_cure(variable, caplog):
    environ = {variable: WRONG[variable], "OTEL_SERVICE_NAME": "shop"}
    assert sanitize_environment(environ) == [variable]
    assert environ == {"OTEL_SERVICE_NAME": "shop"}
    (message,) = caplog.messages
    assert message.startswith(f"{variable} must be ")
    assert f"for example {variable}=" in message


def test_good_values_stay_and_cost_no_line(caplog):
    environ = dict(RIGHT)
    assert sanitize_environment(environ) == []
    assert environ == RIGHT
    assert caplog.text == ""


def test_an_empty_value_is_unset(caplog):
    environ = {"OTEL_EXPORTER_OTLP_PROTOCOL": "", "OTEL_TRACES_EXPORTER": "  ", "OTEL_BSP_SCHEDULE_DELAY": ""}
    assert sanitize_environment(environ) == []
    assert environ == {}
    assert caplog.text == ""


@pytest.mark.parametrize("variable", ["OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_ENDPOINT"])
def test_a_value_that_may_hold_a_secret_is_not_shown(variable, caplog):
    sanitize_environment({variable: "ftp://user:s3cret@collector"})
    assert variable in caplog.text
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize(
    ("value", "disabled"), [("true", True), ("TRUE ", True), ("false", False), ("", False)]
)
def test_the_sdk_is_disabled_by_true_alone(value, disabled):
    assert sdk_disabled({"OTEL_SDK_DISABLED": value}) is disabled
