"""Wrong values of `OTEL_*` and `SIGHTLINE_*`: one line each, the default holds, the app starts and serves.

Each case is a process of its own; they run side by side.
"""

import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import pytest
from uvicorn_process import eventually, observed

SECRET = "hunter2"  # must never be printed


class Wrong(NamedTuple):
    """One wrong value.

    Attributes:
        variable: Its name.
        value: What it is set to.
        arrives: The signals that arrive nonetheless.
        others: Further variables, good ones, that give the value its meaning.
    """

    variable: str
    value: str
    arrives: frozenset[str] = frozenset({"spans", "metrics", "logs"})
    others: tuple[tuple[str, str], ...] = ()

    @property
    def label(self) -> str:
        """Names the case in pytest's output."""
        return f"{self.variable}={self.value[:24].replace(SECRET, 'SECRET')}"


NOTHING: frozenset[str] = frozenset()
NO_METRICS_YET = frozenset({"spans", "logs"})
"""The default interval of 15 s holds, which is longer than a test waits."""
RATIO = (("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),)

TOGETHER = {
    "OTEL_TRACES_EXPORTER": "nonsense",
    "OTEL_METRICS_EXPORTER": "otlp,nonsense",
    "OTEL_LOGS_EXPORTER": "nonsense",
    "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json",
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "carrier-pigeon",
    "OTEL_EXPORTER_OTLP_TIMEOUT": "quick",
    "OTEL_EXPORTER_OTLP_LOGS_TIMEOUT": "0",
    "OTEL_EXPORTER_OTLP_COMPRESSION": "zip",
    "OTEL_EXPORTER_OTLP_METRICS_COMPRESSION": "brotli",
    "OTEL_EXPORTER_OTLP_CERTIFICATE": "missing-ca.pem",
    "OTEL_EXPORTER_OTLP_CLIENT_KEY": "missing-key.pem",
    "OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE": "missing-client.pem",
    "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "sometimes",
    "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION": "pie",
    "OTEL_METRICS_EXEMPLAR_FILTER": "nonsense",
    "OTEL_METRIC_EXPORT_TIMEOUT": "-1",
    "OTEL_PYTHON_ID_GENERATOR": "nonsense",
    "OTEL_TRACES_SAMPLER": "nonsense",
    "OTEL_BSP_SCHEDULE_DELAY": "soon",
    "OTEL_BSP_MAX_QUEUE_SIZE": "1.5",
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "0",
    "OTEL_BSP_EXPORT_TIMEOUT": "-1",
    "OTEL_BLRP_SCHEDULE_DELAY": "soon",
    "OTEL_BLRP_MAX_QUEUE_SIZE": "many",
    "OTEL_ATTRIBUTE_COUNT_LIMIT": "many",
    "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "long",
    "OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT": "-1",
    "OTEL_SDK_DISABLED": "maybe",
    "OTEL_PYTHON_LOG_HANDLER_LEVEL": "loud",
    "OTEL_PYTHON_FASTAPI_EXCLUDED_URLS": "[",
    "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST": "(",
    "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SANITIZE_FIELDS": "(",
}
"""Wrong values that do not touch each other: one process has them all."""

ALONE = (
    # Sampling
    Wrong("OTEL_TRACES_SAMPLER_ARG", "most", others=RATIO),
    Wrong("OTEL_TRACES_SAMPLER_ARG", "7", others=RATIO),
    Wrong("OTEL_TRACES_SAMPLER_ARG", "nan", others=RATIO),
    # Limits: the SDK reads these when it is imported
    Wrong("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "-1"),
    Wrong("OTEL_SPAN_EVENT_COUNT_LIMIT", "many"),
    Wrong("OTEL_RESOURCE_ATTRIBUTES", "nonsense"),
    Wrong("OTEL_RESOURCE_ATTRIBUTES", "=value"),
    Wrong("OTEL_EXPERIMENTAL_RESOURCE_DETECTORS", "nonsense"),
    # Exporters and protocols
    Wrong("OTEL_TRACES_EXPORTER", "otlp,none"),
    Wrong("OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER", "nonsense"),
    # Numbers beyond what the platform takes, and two that contradict each other
    Wrong("OTEL_EXPORTER_OTLP_TIMEOUT", "inf"),
    Wrong("OTEL_METRIC_EXPORT_INTERVAL", "often", NO_METRICS_YET),
    Wrong("OTEL_METRIC_EXPORT_INTERVAL", "1e30", NO_METRICS_YET),
    Wrong("OTEL_BSP_SCHEDULE_DELAY", "9" * 400),
    Wrong("OTEL_BSP_MAX_QUEUE_SIZE", "9" * 40),
    Wrong("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "100000"),
    Wrong("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "100000"),
    # Where it goes, with secrets
    Wrong("OTEL_EXPORTER_OTLP_ENDPOINT", f"ht!tp://user:{SECRET}@", NOTHING),
    Wrong("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://user:{SECRET}@127.0.0.1:port", NOTHING),
    Wrong("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://user:{SECRET}@not a host", NOTHING),
    Wrong("OTEL_EXPORTER_OTLP_ENDPOINT", f"user:{SECRET}@127.0.0.1:4318", NOTHING),
    Wrong("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4318", NOTHING),
    Wrong("OTEL_EXPORTER_OTLP_ENDPOINT", "http://[::1", NOTHING),
    Wrong("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"ftp://user:{SECRET}@127.0.0.1"),
    Wrong("OTEL_EXPORTER_OTLP_HEADERS", SECRET),
    Wrong("OTEL_EXPORTER_OTLP_HEADERS", f"={SECRET}"),
    Wrong("OTEL_EXPORTER_OTLP_HEADERS", f"two words={SECRET}"),
    Wrong("OTEL_EXPORTER_OTLP_TRACES_HEADERS", f"é={SECRET}"),
    Wrong("OTEL_EXPORTER_OTLP_HEADERS", f"authorization={SECRET}%0d%0ax"),
    # What the API reads at its import, before any plug-in runs
    Wrong("OTEL_PYTHON_CONTEXT", "nonsense"),
    Wrong("OTEL_PROPAGATORS", "tracecontext,nonsense"),
    # What decides who configures
    Wrong("OTEL_CONFIG_FILE", "missing.yaml"),
    Wrong("OTEL_PYTHON_EXCLUDED_URLS", "("),
)


@dataclass(frozen=True)
class Outcome:
    """What one process did."""

    status: int
    correlation_id: str
    arrived: frozenset[str]
    stderr: str

    def lines_naming(self, variable: str) -> list[str]:
        """Returns the lines of stderr that hold the variable's whole name."""
        return [line for line in self.stderr.splitlines() if re.search(rf"\b{variable}\b", line)]


def _run(variables: dict[str, str], arrives: frozenset[str]) -> Outcome:
    with observed("app:app", variables=variables) as setup:
        response = setup.server.get("/ok", ("x-correlation-id", "served"))

        def arrived() -> frozenset[str]:
            signals = {"spans": setup.store.spans, "metrics": setup.store.metrics, "logs": setup.store.logs}
            return frozenset(name for name, items in signals.items() if items)

        eventually(lambda: arrived() >= arrives, 5)
        return Outcome(response.status, response.correlation_id, arrived(), setup.server.stderr)


@pytest.fixture(scope="module")
def outcomes() -> Iterator[dict[Wrong, Future[Outcome]]]:
    """Starts every case of `ALONE`, three at a time, and yields what each did, ready or not."""
    with ThreadPoolExecutor(3) as pool:
        yield {
            case: pool.submit(_run, {case.variable: case.value, **dict(case.others)}, case.arrives)
            for case in ALONE
        }


@pytest.fixture(scope="module")
def together() -> Outcome:
    """Returns what the process with all the values of `TOGETHER` did."""
    return _run(TOGETHER, frozenset({"spans", "metrics", "logs"}))


def test_app_with_many_wrong_values_serves_and_exports_everything(together: Outcome) -> None:
    assert (together.status, together.correlation_id) == (200, "served")
    assert together.arrived == {"spans", "metrics", "logs"}
    assert "Traceback" not in together.stderr


@pytest.mark.parametrize("variable", TOGETHER)
def test_wrong_value_is_one_line_with_rule_value_origin_and_cure(together: Outcome, variable: str) -> None:
    (line,) = together.lines_naming(variable)
    assert "must" in line
    assert TOGETHER[variable].lower() in line.lower() or "position 0" in line
    assert "for example" in line


@pytest.mark.parametrize("case", ALONE, ids=lambda case: case.label)
def test_wrong_value_costs_one_line_and_no_other_telemetry(
    outcomes: dict[Wrong, Future[Outcome]], case: Wrong
) -> None:
    outcome = outcomes[case].result()
    assert (outcome.status, outcome.correlation_id) == (200, "served")
    assert outcome.arrived == case.arrives
    assert len(outcome.lines_naming(case.variable)) == 1
    assert "Traceback" not in outcome.stderr
    assert SECRET not in outcome.stderr


@pytest.mark.parametrize(
    "case", [case for case in ALONE if SECRET in case.value], ids=lambda case: case.label
)
def test_secret_in_a_wrong_value_is_never_printed(
    outcomes: dict[Wrong, Future[Outcome]], case: Wrong
) -> None:
    assert SECRET not in outcomes[case].result().stderr


def test_secrets_in_good_values_are_never_printed() -> None:
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://user:{SECRET}@127.0.0.1:9",  # nothing listens there
        "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Basic%20{SECRET},x-api-key={SECRET}",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "0.2",
    }
    with observed("app:app", variables=variables) as setup:
        assert setup.server.get("/ok").status == 200
        for signal in ("spans", "metrics", "logs"):
            assert eventually(lambda: f"Failed to export {signal} batch" in setup.server.stderr)  # noqa: B023
        assert SECRET not in setup.server.stderr + setup.server.stdout


@pytest.fixture(scope="module")
def wrong_sightline() -> Outcome:
    """Returns what a process with two wrong settings of ours did."""
    variables = {"SIGHTLINE_ACCESS_LOG": "maybe", "SIGHTLINE_CORRELATION_HEADERS": "x-id, not a header"}
    return _run(variables, frozenset({"spans", "metrics", "logs"}))


def test_wrong_setting_is_one_line_with_rule_value_origin_and_cure(wrong_sightline: Outcome) -> None:
    assert wrong_sightline.lines_naming("SIGHTLINE_ACCESS_LOG") == [
        (
            "SIGHTLINE_ACCESS_LOG must be on or off, got 'maybe' (from the environment); using the default "
            "off; for example SIGHTLINE_ACCESS_LOG=off"
        )
    ]
    assert wrong_sightline.lines_naming("SIGHTLINE_CORRELATION_HEADERS") == [
        (
            "SIGHTLINE_CORRELATION_HEADERS must be header names (RFC 9110 tokens) separated by commas, got "
            "'x-id, not a header' (from the environment); using the default x-correlation-id,x-request-id; "
            "for example SIGHTLINE_CORRELATION_HEADERS=x-correlation-id,x-request-id"
        )
    ]


def test_default_holds_where_a_setting_is_wrong(wrong_sightline: Outcome) -> None:
    assert (wrong_sightline.status, wrong_sightline.correlation_id) == (200, "served")
    assert wrong_sightline.arrived == {"spans", "metrics", "logs"}
    assert "Traceback" not in wrong_sightline.stderr
