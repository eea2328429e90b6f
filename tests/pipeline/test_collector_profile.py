"""The one-node collector: what it makes of spans, and what it is like beyond loopback."""

from __future__ import annotations

import json
import os
import secrets
import signal
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import grpc  # type: ignore[import-untyped]  # grpcio has no annotations
import httpx
import pytest
import yaml
from benchmarks.collector_cost import RUNTIME
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
from stack_programs import Layout, programs
from tests.sightline_processors.certificates import Certificates, make_certificates

from .otlp_payloads import Json, attributes, resource
from .ports import HOST, free_addresses
from .profile_collector import collector, lines, post
from .stack_fixture import CONFIG, binary, eventually
from .tiers import Collector, request_of, span

__all__ = ["collector"]

pytestmark = pytest.mark.stack

CALLS = "traces.span.metrics.calls"
EDGES = "traces_service_graph_request_total"
OVERLAYS = ("authenticated.yaml", "authenticated-basic.yaml")


def new_span(**more: object) -> Json:
    return span(secrets.token_hex(16), secrets.token_hex(8), **more)


def database_span(server: str, **more: object) -> Json:
    values = {"db.system.name": "postgresql", "server.address": server}
    return new_span(name="SELECT orders", kind=3, attributes=attributes(values), **more)


def points(collector: Collector, metric: str, label: str) -> list[tuple[dict[str, str], int]]:
    """Returns attributes and value of the newest points of a metric, of exports that hold a label."""
    exports = lines(collector, "metrics", label)
    if not exports:
        return []
    found = {}
    for origin in [each for export in exports for each in json.loads(export)["resourceMetrics"]]:
        for item in [each for scope in origin["scopeMetrics"] for each in scope["metrics"]]:
            for point in item.get("sum", {}).get("dataPoints", []) if item["name"] == metric else []:
                values = _plain(origin["resource"].get("attributes", []) + point["attributes"])
                found[json.dumps(values, sort_keys=True)] = (values, int(point["asInt"]))
    return [(values, count) for values, count in found.values() if label in values.values()]


def _plain(pairs: list[Json]) -> dict[str, str]:
    """Returns attributes as Prometheus would write them."""
    values = {pair["key"]: next(iter(pair["value"].values())) for pair in pairs}
    return {
        key: str(value).lower() if isinstance(value, bool) else str(value) for key, value in values.items()
    }


def counted(collector: Collector, service: str, total: int) -> list[tuple[dict[str, str], int]]:
    """Returns the calls of a service once they are so many."""
    eventually(lambda: sum(count for _, count in points(collector, CALLS, service)) >= total, 10)
    return points(collector, CALLS, service)


def test_processes_of_a_service_share_its_series(collector: Collector) -> None:
    service = f"svc-{secrets.token_hex(4)}"
    for process in ("one", "two", "three"):
        request = request_of(service, [new_span()])
        origin = resource(service, service_namespace="store", service_instance_id=process, process_pid="7")
        request["resourceSpans"][0]["resource"] = origin
        post(collector, "traces", request)

    assert counted(collector, service, 3) == [
        (
            {
                "service.name": service,
                "service.namespace": "store",
                "span.name": "GET /orders/{id}",
                "span.kind": "SPAN_KIND_SERVER",
                "status.code": "STATUS_CODE_UNSET",
            },
            3,
        )
    ]


def test_only_databases_give_their_address_to_the_span_metrics(collector: Collector) -> None:
    service = f"svc-{secrets.token_hex(4)}"
    asked_for = [
        new_span(attributes=attributes({"server.address": f"host-{number}"})) for number in range(20)
    ]
    outgoing = new_span(kind=3, name="GET", attributes=attributes({"server.address": "elsewhere"}))
    old = {"db.system": "redis", "net.peer.name": "cache"}
    calls = [database_span("db-1"), database_span("db-2"), new_span(kind=3, attributes=attributes(old))]
    post(collector, "traces", request_of(service, [*asked_for, outgoing, *calls]))

    found = counted(collector, service, 24)

    servers = [(values.get("db.system.name"), values.get("server.address")) for values, _ in found]
    databases = {("postgresql", "db-1"), ("postgresql", "db-2"), ("redis", "cache")}
    assert len(servers) == 5  # the requests served, the call elsewhere, and these
    assert set(servers) == databases | {(None, None)}


def test_span_names_beyond_the_limit_share_one_series_and_no_call_is_lost(collector: Collector) -> None:
    service = f"svc-{secrets.token_hex(4)}"
    post(collector, "traces", request_of(service, [new_span(name=f"span {n}") for n in range(900)]))

    found = counted(collector, service, 900)

    assert len(found) == 501
    assert sum(count for _, count in found) == 900
    assert any(values.get("otel.metric.overflow") == "true" for values, _ in found)


def test_service_graph_joins_caller_and_called_and_names_databases(collector: Collector) -> None:
    caller, called = (f"{name}-{secrets.token_hex(4)}" for name in ("caller", "called"))
    trace_id, span_id = secrets.token_hex(16), secrets.token_hex(8)
    outgoing = span(trace_id, span_id, kind=3, name="GET")
    post(collector, "traces", request_of(caller, [outgoing, database_span("db-1", status={"code": 2})]))
    incoming = span(trace_id, secrets.token_hex(8), parentSpanId=span_id)
    post(collector, "traces", request_of(called, [incoming]))

    eventually(lambda: len(points(collector, EDGES, caller)) == 2, 10)

    edges = [
        (values["client"], values["server"], values["connection_type"], values["failed"], count)
        for values, count in points(collector, EDGES, caller)
    ]
    assert sorted(edges) == [
        (caller, called, "", "false", 1),
        (caller, "postgresql", "database", "true", 1),
    ]


def ask(stack: dict[str, str], query: str) -> list[Json]:
    answer = httpx.get(f"{stack['prometheus']}/api/v1/query", params={"query": query})
    found: list[Json] = answer.json()["data"]["result"]
    return found


def test_span_metrics_arrive_in_prometheus_as_dashboards_rules_and_jaeger_ask_for_them(
    stack: dict[str, str],
) -> None:
    service = f"svc-{secrets.token_hex(4)}"
    request = request_of(service, [database_span("db-1", status={"code": 2})])
    sent = time.monotonic()
    assert httpx.post(f"{stack['otlp_http']}/v1/traces", json=request).status_code == 200
    labels = (
        f'service_name="{service}",span_name="SELECT orders",span_kind="SPAN_KIND_CLIENT",'
        'status_code="STATUS_CODE_ERROR",db_system_name="postgresql",server_address="db-1"'
    )

    assert eventually(lambda: ask(stack, f"traces_span_metrics_calls_total{{{labels}}}"), 20)
    buckets = ask(stack, f"traces_span_metrics_duration_milliseconds_bucket{{{labels}}}")
    edges = f'traces_service_graph_request_failed_total{{client="{service}",server="postgresql"}}'
    assert eventually(lambda: ask(stack, edges), 20 - (time.monotonic() - sent))
    assert {bucket["metric"]["le"]: bucket["value"][1] for bucket in buckets}["25"] == "1"
    assert "collector_instance_id" not in buckets[0]["metric"]


def secret_files(folder: Path) -> tuple[Certificates, dict[str, str]]:
    """Makes certificate, token and users, and returns the variables that name them."""
    certificates = make_certificates(folder)
    (folder / "tokens").write_text("first-token\nsecond-token\n")
    hashed = subprocess.run(
        ["openssl", "passwd", "-apr1", "right"], capture_output=True, text=True, check=True
    ).stdout
    (folder / "users").write_text(f"shop:{hashed}")
    files = (*certificates.server, folder / "tokens", folder / "users")
    names = ("CERT_FILE", "KEY_FILE", "TOKEN_FILE", "USERS_FILE")
    return certificates, {f"PIPELINE_OTLP_{name}": str(file) for name, file in zip(names, files, strict=True)}


@pytest.fixture(params=OVERLAYS)
def guarded(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Collector, Certificates, str]]:
    """A collector with an overlay, its certificates, and the right `Authorization`."""
    certificates, variables = secret_files(tmp_path)
    addresses = dict(zip(("PIPELINE_OTLP_GRPC", "PIPELINE_OTLP_HTTP"), free_addresses(2), strict=True))
    files = [CONFIG / "otelcol.yaml", CONFIG / "overlays" / request.param]
    started = Collector("guarded", files, tmp_path / "guarded", addresses | variables)
    started.start()
    right = "Bearer second-token" if request.param == OVERLAYS[0] else "Basic c2hvcDpyaWdodA=="
    yield started, certificates, right
    started.end(signal.SIGTERM)


def test_beyond_loopback_nothing_is_taken_without_tls_and_the_right_secret(
    guarded: tuple[Collector, Certificates, str],
) -> None:
    collector, certificates, right = guarded
    http, rpc = (collector.variables[f"PIPELINE_OTLP_{name}"] for name in ("HTTP", "GRPC"))

    with httpx.Client(verify=ssl.create_default_context(cafile=certificates.authority)) as client:
        codes = [
            client.post(f"https://{http}/v1/traces", json={}, headers=headers).status_code
            for headers in ({}, {"authorization": right[:-3]}, {"authorization": right})
        ]
    assert codes == [401, 401, 200]
    assert answer_to_clear_text(http) in ("400", "cut off")
    assert [rpc_code(rpc, certificates, each) for each in (right[:-3], right)] == ["UNAUTHENTICATED", "OK"]


def answer_to_clear_text(address: str) -> str:
    """Returns the status; Go closes before it has read the request, which can overtake its answer."""
    try:
        return str(httpx.post(f"http://{address}/v1/traces", json={}).status_code)
    except httpx.TransportError:
        return "cut off"


def rpc_code(address: str, certificates: Certificates, authorization: str) -> str:
    secured = grpc.ssl_channel_credentials(certificates.authority.read_bytes())
    with grpc.secure_channel(address, secured) as channel:
        try:
            TraceServiceStub(channel).Export(
                ExportTraceServiceRequest(), metadata=[("authorization", authorization)], timeout=10
            )
        except grpc.RpcError as error:
            return str(error.code().name)
    return "OK"


@pytest.mark.parametrize("missing", ["CERT_FILE", "KEY_FILE", "SECRET"])
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_collector_does_not_start_beyond_loopback_without_its_secrets(
    overlay: str, missing: str, tmp_path: Path
) -> None:
    _, variables = secret_files(tmp_path)
    unset = ("TOKEN_FILE", "USERS_FILE") if missing == "SECRET" else (missing,)
    left = {name: value for name, value in variables.items() if not name.endswith(unset)}
    listen = {f"PIPELINE_OTLP_{name}": f"{HOST}:0" for name in ("GRPC", "HTTP")}
    command = [binary("otelcol"), f"--config={CONFIG / 'otelcol.yaml'}"]

    result = subprocess.run(
        [*command, f"--config={CONFIG / 'overlays' / overlay}"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]} | left | listen,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )

    assert result.returncode != 0


def test_collector_is_run_with_the_memory_settings_that_are_measured(tmp_path: Path) -> None:
    started = next(each for each in programs(Layout(tmp_path, 0)) if each.name == "otelcol").variables
    compose = yaml.safe_load((CONFIG / "compose.yaml").read_text())["services"]["collector"]["environment"]
    limiter = yaml.safe_load((CONFIG / "otelcol.yaml").read_text())["processors"]["memory_limiter"]

    for name, value in RUNTIME.items():
        assert started[name] == value
        assert str(compose[name]) == value
    # garbage alone must not make it refuse
    limit = int(RUNTIME["GOMEMLIMIT"].removesuffix("MiB"))
    assert limit < limiter["limit_mib"] - limiter["spike_limit_mib"]
