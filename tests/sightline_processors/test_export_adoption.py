"""The stock exporters that the SDK has configured give way; whatever is not exactly stock stays."""

import contextlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import requests
import wrapt
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpanExporter
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import Counter, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from otlp_receiver import OtlpReceiver
from tests.sightline_processors.certificates import make_certificates
from tests.sightline_processors.export_support import until
from tests.sightline_processors.faulty_collector import FaultyCollector

from sightline import export_adoption, names
from sightline_processors.export import Engine, OtlpLogRecordProcessor, OtlpMetricExporter, OtlpSpanProcessor
from sightline_processors.export.http_transport import HttpTransport
from sightline_processors.export.self_metrics import DROPPED
from sightline_processors.export.stock import NotStockError, transport_of, transport_of_environment

BIN = Path(sys.executable).parent


class Providers:
    """Stands for the three global providers, of which a process has only one each."""

    engine: Engine | None = None

    def __init__(self, span_processors=(), log_processors=(), readers=()):
        self.tracer = TracerProvider(shutdown_on_exit=False)
        self.logger = LoggerProvider(shutdown_on_exit=False)
        self.meter = MeterProvider(list(readers), shutdown_on_exit=False)
        for processor in span_processors:
            self.tracer.add_span_processor(processor)
        for processor in log_processors:
            self.logger.add_log_record_processor(processor)

    @property
    def span_processors(self):
        return self.tracer._active_span_processor._span_processors

    @property
    def log_processors(self):
        return self.logger._multi_log_record_processor._log_record_processors


@pytest.fixture
def adopt(monkeypatch):
    """Adopts what some providers export with, and ends it all after the test."""
    with contextlib.ExitStack() as stack:

        def run(*arguments, **options):
            providers = Providers(*arguments, **options)
            monkeypatch.setattr("opentelemetry.trace.get_tracer_provider", lambda: providers.tracer)
            monkeypatch.setattr("opentelemetry._logs.get_logger_provider", lambda: providers.logger)
            monkeypatch.setattr("opentelemetry.metrics.get_meter_provider", lambda: providers.meter)
            providers.engine = export_adoption.adopt_exporters()
            for provider in (providers.tracer, providers.logger, providers.meter):
                stack.callback(provider.shutdown)
            return providers

        monkeypatch.setattr(export_adoption, "_adopted", [])
        monkeypatch.setenv("SIGHTLINE_SHUTDOWN_TIMEOUT", "100ms")
        for name in [name for name in os.environ if name.startswith("OTEL_")]:
            monkeypatch.delenv(name)
        yield run


_before = set()


@pytest.fixture(autouse=True)
def threads_before():
    """Other tests of the process, such as the examples of the documentation, may have left some."""
    _before.clear()
    _before.update(threading.enumerate())


def threads():
    own = set(threading.enumerate()) - _before
    return {thread.name for thread in own if thread.name.startswith("OtelBatch")}


def test_all_three_signals_are_adopted_and_the_stock_threads_end(adopt, caplog):
    with FaultyCollector() as collector:
        url = collector.endpoint
        reader = PeriodicExportingMetricReader(
            OTLPMetricExporter(f"{url}/v1/metrics"), export_interval_millis=3_600_000
        )
        providers = adopt(
            [BatchSpanProcessor(OTLPSpanExporter(f"{url}/v1/traces"))],
            [BatchLogRecordProcessor(OTLPLogExporter(f"{url}/v1/logs"))],
            [reader],
        )
        assert [type(each) for each in providers.span_processors] == [OtlpSpanProcessor]
        assert [type(each) for each in providers.log_processors] == [OtlpLogRecordProcessor]
        assert type(reader._exporter) is OtlpMetricExporter
        assert threads() == set()
        assert export_adoption.adopted_engine() is providers.engine
        with providers.tracer.get_tracer("tests").start_as_current_span("span"):
            providers.logger.get_logger("tests").emit(body="record")
            providers.meter.get_meter("tests").create_counter("sold").add(1)
        assert providers.tracer.force_flush()
        assert providers.logger.force_flush()
        assert providers.meter.force_flush()
        assert {request.path for request in collector.requests} == {"/v1/traces", "/v1/logs", "/v1/metrics"}
        assert not caplog.records


def test_the_bounds_of_the_stock_processors_hold(adopt):
    processor = BatchSpanProcessor(
        OTLPSpanExporter("http://127.0.0.1:1/v1/traces", timeout=3),
        max_queue_size=300,
        max_export_batch_size=30,
        schedule_delay_millis=700,
        export_timeout_millis=9000,
    )
    (courier,) = adopt([processor]).engine.couriers
    bounds = courier.lane.limits
    assert (bounds.max_items, bounds.max_batch_items) == (300, 30)
    assert (bounds.schedule_delay_seconds, bounds.export_timeout_seconds) == (0.7, 9.0)
    assert courier.destination.timeout_seconds == 3.0


@pytest.mark.parametrize(
    ("variables", "items"),
    [
        ({}, 1024),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "700"}, 350),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "100000"}, 1024),
        ({"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "512"}, 512),
        ({"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "100"}, 100),
        ({"OTEL_CONFIG_FILE": "otel.yaml"}, 512),
    ],
)
def test_where_nobody_says_it_1024_spans_leave_at_a_time(adopt, monkeypatch, variables, items):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    processor = BatchSpanProcessor(OTLPSpanExporter("http://127.0.0.1:1/v1/traces"))
    (courier,) = adopt([processor]).engine.couriers
    assert courier.lane.limits.batch_items == items


def test_the_preferences_of_the_stock_metric_exporter_hold(adopt, monkeypatch):
    stock = OTLPMetricExporter(
        "http://127.0.0.1:1/v1/metrics", preferred_temporality={Counter: AggregationTemporality.DELTA}
    )
    reader = PeriodicExportingMetricReader(
        stock, export_interval_millis=3_600_000, export_timeout_millis=8000
    )
    providers = adopt(readers=[reader])
    assert reader._exporter._preferred_temporality == stock._preferred_temporality
    assert reader._exporter._preferred_aggregation == stock._preferred_aggregation
    (courier,) = providers.engine.couriers
    assert courier.lane.limits.export_timeout_seconds == 8.0


class OwnExporter(OTLPSpanExporter):
    """Somebody's own."""


def own_session():
    session = requests.Session()
    session.auth = ("user", "password")
    return session


def replaced_method():
    exporter = OTLPSpanExporter("http://127.0.0.1:1/")
    vars(exporter)["export"] = exporter.export
    return exporter


NOT_STOCK = {
    "subclass": lambda: OwnExporter("http://127.0.0.1:1/"),
    "session": lambda: OTLPSpanExporter("http://127.0.0.1:1/", session=own_session()),
    "method": replaced_method,
    "limit": lambda: OTLPSpanExporter("http://127.0.0.1:1/", max_request_size=1000),
    "scheme": lambda: OTLPSpanExporter("unix://socket"),
    "header": lambda: OTLPSpanExporter("http://127.0.0.1:1/", headers={"x": "\N{SNOWMAN}"}),
    "splits": lambda: OTLPMetricExporter("http://127.0.0.1:1/", max_export_batch_size=5),
    "nothing": object,
}


@pytest.mark.parametrize("kind", NOT_STOCK)
def test_an_exporter_that_is_not_exactly_stock_cannot_be_stood_in_for(kind):
    with pytest.raises((NotStockError, ValueError)):
        transport_of(NOT_STOCK[kind]())


def test_what_cannot_be_adopted_stays_as_it_is_in_its_place(adopt, caplog):
    own = BatchSpanProcessor(OwnExporter("http://127.0.0.1:1/"))
    simple = SimpleSpanProcessor(OTLPSpanExporter("http://127.0.0.1:1/"))
    stock = BatchSpanProcessor(OTLPSpanExporter("http://127.0.0.1:1/"))
    providers = adopt([own, stock, simple])
    first, second, third = providers.span_processors
    assert (first, third) == (own, simple)
    assert type(second) is OtlpSpanProcessor
    assert [record for record in caplog.records if record.levelname != "DEBUG"] == []


def passed_on(wrapped, _, arguments, options):
    return wrapped(*arguments, **options)


def test_a_class_that_somebody_has_wrapped_is_not_adopted(adopt, monkeypatch):
    monkeypatch.setattr(OTLPSpanExporter, "export", wrapt.FunctionWrapper(OTLPSpanExporter.export, passed_on))
    processor = BatchSpanProcessor(OTLPSpanExporter("http://127.0.0.1:1/"))
    assert adopt([processor]).span_processors == (processor,)


def test_nothing_to_adopt_is_no_engine(adopt):
    assert adopt([SimpleSpanProcessor(OTLPSpanExporter("http://127.0.0.1:1/"))]).engine is None
    assert export_adoption.adopted_engine() is None


VARIABLES: dict[str, tuple[dict[str, str], dict[str, object]]] = {
    "base": (
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://host:1234/base/"},
        {"endpoint": "http://host:1234/base/v1/traces"},
    ),
    "default": (
        {},
        {"endpoint": "http://localhost:4318/v1/traces", "timeout_seconds": 10.0, "server_port": 4318},
    ),
    "signal": (
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://host:1234",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://other/x?y=z#f",
            "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT": "2.5",
        },
        {"endpoint": "https://other/x", "timeout_seconds": 2.5, "server_port": 443},
    ),
}


@pytest.mark.parametrize("kind", VARIABLES)
def test_the_endpoint_is_the_one_of_the_variables(adopt, monkeypatch, kind):
    variables, expected = VARIABLES[kind]
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    destination = transport_of_environment("traces").destination
    assert {name: getattr(destination, name) for name in expected} == expected


def sent_to(collector, monkeypatch, **variables):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    transport = transport_of_environment("traces")
    verdict = transport.post(b"", 5)
    transport.close()
    return verdict, collector.requests[-1] if collector.requests else None


def stock_sent(collector):
    exporter = OTLPSpanExporter()
    exporter.export([])
    exporter.shutdown()
    return collector.requests[-1]


def comparable(request):
    headers = {
        name: value
        for name, value in request.headers.items()
        if name not in ("connection", "accept-encoding")
    }
    return request.target, request.body, headers


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"OTEL_EXPORTER_OTLP_HEADERS": "x-tenant=a%20b, Authorization=Bearer%20c"},
        {"OTEL_EXPORTER_OTLP_HEADERS": "x=general", "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "x=special"},
        {"OTEL_EXPORTER_OTLP_COMPRESSION": "gzip"},
        {"OTEL_EXPORTER_OTLP_COMPRESSION": "gzip", "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION": "deflate"},
        {"OTEL_EXPORTER_OTLP_HEADERS": "host=collector.internal,user-agent=mine"},
    ],
    ids=str,
)
def test_a_request_is_the_one_that_the_stock_exporter_sends(adopt, monkeypatch, variables):
    with FaultyCollector() as collector:
        _, ours = sent_to(collector, monkeypatch, **variables)
        ours, theirs = comparable(ours), comparable(stock_sent(collector))
        assert ours[0] == theirs[0]
        assert ours[1] == theirs[1]
        ignored = {"content-length"} if "COMPRESSION" in str(variables) else set()
        assert {k: v for k, v in ours[2].items() if k not in ignored} == {
            k: v for k, v in theirs[2].items() if k not in ignored
        }


def test_user_information_of_the_endpoint_is_sent_as_the_stock_exporter_does(adopt, monkeypatch):
    with FaultyCollector() as collector:
        monkeypatch.setenv(
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"http://u:p@127.0.0.1:{collector.port}/v1/traces"
        )
        _, ours = sent_to(collector, monkeypatch)
        assert ours.headers["authorization"] == stock_sent(collector).headers["authorization"] == "Basic dTpw"
        assert "u:p" not in transport_of_environment("traces").destination.endpoint


def test_netrc_is_read_as_the_stock_exporter_does(adopt, monkeypatch, tmp_path):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login u password p\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    with FaultyCollector() as collector:
        _, ours = sent_to(collector, monkeypatch)
        assert ours.headers["authorization"] == stock_sent(collector).headers["authorization"] == "Basic dTpw"


def test_proxies_are_used_as_the_stock_exporter_does(adopt, monkeypatch):
    with FaultyCollector() as proxy:
        for name in ("no_proxy", "NO_PROXY", "http_proxy"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HTTP_PROXY", f"http://u:p@127.0.0.1:{proxy.port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://collector.invalid:4318/v1/traces")
        transport = transport_of_environment("traces")
        assert transport.post(b"", 5).rejected == 0
        transport.close()
        ours, theirs = proxy.requests[-1], stock_sent(proxy)
        assert ours.target == theirs.target == "http://collector.invalid:4318/v1/traces"
        assert ours.headers["proxy-authorization"] == theirs.headers["proxy-authorization"]
        monkeypatch.setenv("NO_PROXY", "collector.invalid")
        transport = transport_of_environment("traces")
        assert transport.post(b"", 5).reason == "unreachable"


def test_a_proxy_that_does_not_speak_http_leaves_the_stock_exporter(adopt, monkeypatch):
    for name in ("no_proxy", "NO_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", "socks5://127.0.0.1:1")
    with pytest.raises(NotStockError):
        transport_of_environment("traces")


def test_certificates_come_from_the_variables(adopt, monkeypatch, tmp_path):
    certificates = make_certificates(tmp_path)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(certificates.authority))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", str(certificates.client[0]))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CLIENT_KEY", str(certificates.client[1]))
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)
    with FaultyCollector(context=certificates.context(asks_client=True)) as collector:
        verdict, _ = sent_to(collector, monkeypatch)
        assert verdict.rejected == 0


def test_grpc_is_adopted(adopt, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=a")
    providers = adopt([BatchSpanProcessor(GrpcSpanExporter("http://127.0.0.1:4317", timeout=4))])
    (courier,) = providers.engine.couriers
    assert courier.destination.endpoint == "grpc://127.0.0.1:4317"
    assert courier.destination.timeout_seconds == 4
    assert courier.transport._settings.metadata == (("x-tenant", "a"),)
    assert courier.transport._settings.credentials is None
    assert threads() == set()


def test_the_name_of_the_metric_is_the_one_of_the_module_of_names():
    assert names.TELEMETRY_DROPPED == DROPPED


def test_compression_of_an_argument_counts():
    exporter = OTLPSpanExporter("http://127.0.0.1:1/", compression=Compression.Gzip)
    transport = transport_of(exporter)
    assert isinstance(transport, HttpTransport)
    assert transport._settings.compression == "gzip"
    assert ("content-encoding", "gzip") in transport._settings.headers


SCRIPT = """
import json, logging, sys, threading
from opentelemetry import trace, metrics, _logs
from sightline.export_adoption import adopted_engine
engine = adopted_engine()
tracer = trace.get_tracer_provider()
with trace.get_tracer("script").start_as_current_span("from the script"):
    logging.getLogger("script").warning("from the script")
metrics.get_meter("script").create_counter("script.runs").add(1)
print(json.dumps({
    "couriers": [[c.destination.component_type, c.lane.limits.max_items] for c in engine.couriers],
    "processors": [type(p).__name__ for p in tracer._active_span_processor._span_processors],
    "threads": sorted(t.name for t in threading.enumerate() if t.name.startswith("Otel")),
}))
"""

CONFIGURATION = """
file_format: "1.0"
tracer_provider:
  processors:
    - batch:
        max_queue_size: 777
        exporter:
          otlp_http: {endpoint: "ENDPOINT/v1/traces"}
meter_provider:
  readers:
    - periodic:
        exporter:
          otlp_http: {endpoint: "ENDPOINT/v1/metrics"}
logger_provider:
  processors:
    - batch:
        exporter:
          otlp_http: {endpoint: "ENDPOINT/v1/logs"}
"""


@pytest.mark.parametrize("path", ["variables", "file"])
def test_zero_code_adopts_and_a_script_delivers_everything_at_its_end(tmp_path, path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    with OtlpReceiver() as receiver:
        environ = {
            name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "SIGHTLINE_"))
        }
        if path == "file":
            configuration = tmp_path / "otel.yaml"
            configuration.write_text(CONFIGURATION.replace("ENDPOINT", receiver.endpoint))
            environ["OTEL_CONFIG_FILE"] = str(configuration)
        else:
            environ |= {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint, "OTEL_BSP_MAX_QUEUE_SIZE": "777"}
        done = subprocess.run(
            [BIN / "opentelemetry-instrument", sys.executable, script],
            env=environ, capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        said = json.loads(done.stdout)
        assert said["processors"] == ["OtlpSpanProcessor", "SlowOperationProcessor"]
        assert sorted(said["couriers"]) == [
            ["otlp_http_log_exporter", 2048],
            ["otlp_http_metric_exporter", 64],
            ["otlp_http_span_exporter", 777],
        ]
        assert said["threads"] == ["OtelPeriodicExportingMetricReader"]
        assert until(lambda: receiver.store.metrics and receiver.store.logs and receiver.store.spans)
        assert [item.data.name for item in receiver.store.spans] == ["from the script"]
        assert {item.data.name for item in receiver.store.metrics} >= {
            "script.runs", "otel.sdk.exporter.span.exported", "otel.sdk.processor.log.queue.capacity",
        }  # fmt: skip
    assert "from the script" in done.stderr
    assert "Traceback" not in done.stderr
