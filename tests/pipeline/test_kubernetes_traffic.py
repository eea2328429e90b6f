"""Agent and gateway run with what their pods would have: with credentials data passes, without not."""

from __future__ import annotations

import contextlib
import os
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from . import kubernetes_model
from .kubernetes_model import BACKENDS, Manifest, lay_out
from .ports import free_port
from .stack_fixture import CONFIG, binary, eventually

pytestmark = pytest.mark.stack

# The back ends' side: TLS and a token, what arrives goes into a file.
SINK = """
extensions:
  bearertokenauth: {{filename: {secrets}/backends-token}}
receivers:
  otlp:
    protocols:
      grpc: &secured
        endpoint: 127.0.0.1:{grpc}
        tls: {{cert_file: {secrets}/sink.crt, key_file: {secrets}/sink.key}}
        auth: {{authenticator: bearertokenauth}}
exporters:
  file: {{path: {folder}/arrived.json, flush_interval: 100ms}}
service:
  extensions: [bearertokenauth]
  pipelines:
    traces: {{receivers: [otlp], exporters: [file]}}
  telemetry: {{metrics: {{level: none}}}}
"""


@pytest.fixture(scope="module")
def shipped() -> list[Manifest]:
    """What `kubectl apply -k collector-config` would apply."""
    return kubernetes_model.build(CONFIG)


@pytest.fixture(scope="module")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the script makes, and what the back ends would give."""
    folder = tmp_path_factory.mktemp("credentials")
    make_credentials(folder)
    (folder / "backends-token").write_text("of the back ends\n")
    shutil.copy(folder / "ca.crt", folder / "backends-ca.crt")
    # Signed for an address, because the exporter is told one.
    (folder / "extensions").write_text("subjectAltName=IP:127.0.0.1\n")
    key = (
        "openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=sink -keyout sink.key"
    )
    sign = "openssl x509 -req -CA ca.crt -CAkey ca.key -days 1 -extfile extensions -out sink.crt"
    subprocess.run(f"{key} | {sign}", cwd=folder, shell=True, stderr=subprocess.DEVNULL, check=True)
    return folder


def make_credentials(folder: Path, *arguments: str) -> None:
    script = CONFIG / "kubernetes/make-credentials.sh"
    subprocess.run(["sh", script, folder, *arguments], timeout=20, check=True)


def lay_out_secrets(tier: str, credentials: Path, root: Path) -> None:
    """Writes a pod's secrets under `root` as the how-to page fills them."""
    folder = root / "etc/sightline/secrets"
    folder.mkdir(parents=True)
    files = {"tls.crt": f"{tier}.crt", "tls.key": f"{tier}.key", "agents-token": "gateway-token"}
    for key in ("tls.crt", "tls.key", "ca.crt", "apps-token", "gateway-token", "agents-token"):
        shutil.copy(credentials / files.get(key, key), folder / key)
    for key in ("backends-token", "backends-ca.crt"):
        shutil.copy(credentials / key, folder / key)


def test_certificates_are_for_the_names_of_the_services_and_stay(credentials: Path, tmp_path: Path) -> None:
    make_credentials(tmp_path, "telemetry")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    make_credentials(tmp_path, "telemetry")

    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    for name in ("agent", "gateway"):
        command = ["openssl", "verify", "-CAfile", "ca.crt", "-verify_hostname"]
        command += [f"sightline-{name}.telemetry.svc", f"{name}.crt"]
        assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode == 0
    assert {path.stat().st_mode & 0o077 for path in tmp_path.iterdir()} == {0}
    assert (credentials / "apps-token").read_bytes() != before["apps-token"]
    assert len(before["apps-token"].strip()) == 64


@contextlib.contextmanager
def collector(arguments: list[str], variables: dict[str, str], folder: Path) -> Iterator[Path]:
    """Runs a collector until the end; yields its log."""
    log = folder / "log"
    environment = {"PATH": os.environ["PATH"]} | variables
    with (
        log.open("w") as output,
        subprocess.Popen([binary("otelcol"), *arguments], env=environment, stderr=output) as process,
    ):
        try:
            assert eventually(lambda: "Everything is ready" in log.read_text(), 20), log.read_text()
            yield log
        finally:
            process.terminate()


@pytest.fixture
def running(shipped: list[Manifest], credentials: Path, tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """Agent, gateway and back end, each with TLS and tokens; yields the agent's port and what has arrived."""
    ports = {name: free_port() for name in ("http", "grpc", "gateway", "sink")}
    sink = tmp_path / "sink"
    sink.mkdir()
    (sink / "sink.yaml").write_text(SINK.format(secrets=credentials, grpc=ports["sink"], folder=sink))
    addresses = {
        "agent": {
            "PIPELINE_OTLP_HTTP": f"127.0.0.1:{ports['http']}",
            "PIPELINE_OTLP_GRPC": f"127.0.0.1:{ports['grpc']}",
            "PIPELINE_GATEWAYS_NAME": "127.0.0.1",
            "PIPELINE_GATEWAYS_PORT": str(ports["gateway"]),
            "PIPELINE_GATEWAY": f"127.0.0.1:{ports['gateway']}",
        },
        "gateway": BACKENDS
        | {
            "PIPELINE_GATEWAY_LISTEN": f"127.0.0.1:{ports['gateway']}",
            "PIPELINE_JAEGER_OTLP": f"127.0.0.1:{ports['sink']}",
        },
    }
    with contextlib.ExitStack() as programs:
        programs.enter_context(collector([f"--config={sink}/sink.yaml"], {}, sink))
        for name in ("gateway", "agent"):
            root = tmp_path / name
            arguments = lay_out(shipped, name, root)
            lay_out_secrets(name, credentials, root)
            own = {
                "PIPELINE_COLLECTOR_HEALTH": f"127.0.0.1:{free_port()}",
                "PIPELINE_COLLECTOR_METRICS_PORT": str(free_port()),
            }
            variables = kubernetes_model.environment(shipped, name, root) | addresses[name] | own
            programs.enter_context(collector(arguments, variables, root))
        yield ports["http"], sink / "arrived.json"


def post_error(port: int, credentials: Path, token: str) -> int:
    """Sends a failed span to the agent, as an application in the cluster does; returns the status."""
    request = ExportTraceServiceRequest()
    span = request.resource_spans.add().scope_spans.add().spans.add()
    span.trace_id, span.span_id, span.name = os.urandom(16), os.urandom(8), f"with {token}"
    span.start_time_unix_nano, span.end_time_unix_nano = 1, 2
    span.status.code = Status.STATUS_CODE_ERROR
    context = ssl.create_default_context(cafile=str(credentials / "ca.crt"))
    with httpx.Client(verify=context, trust_env=False) as client:
        answer = client.post(
            f"https://127.0.0.1:{port}/v1/traces",
            content=request.SerializeToString(),
            headers={"content-type": "application/x-protobuf", "authorization": f"Bearer {token}"},
            extensions={"sni_hostname": "sightline-agent.sightline.svc"},
        )
    return answer.status_code


def test_span_passes_both_tiers_with_tokens_and_is_refused_without(
    running: tuple[int, Path], credentials: Path
) -> None:
    port, arrived = running
    token = (credentials / "apps-token").read_text().strip()

    assert post_error(port, credentials, "guessed") == 401
    assert post_error(port, credentials, token) == 200
    assert eventually(lambda: arrived.exists() and f"with {token}" in arrived.read_text(), 45)
    assert "with guessed" not in arrived.read_text()


@pytest.mark.parametrize("tier", kubernetes_model.WORKLOADS)
def test_collector_without_its_secrets_does_not_start(
    tier: str, shipped: list[Manifest], tmp_path: Path
) -> None:
    arguments = lay_out(shipped, tier, tmp_path)
    variables = kubernetes_model.environment(shipped, tier, tmp_path) | BACKENDS
    own = {"PIPELINE_COLLECTOR_HEALTH": "127.0.0.1:0", "PIPELINE_COLLECTOR_METRICS_PORT": str(free_port())}
    command = [binary("otelcol"), *arguments]

    result = subprocess.run(
        command, env=variables | own, capture_output=True, text=True, timeout=30, check=False
    )

    assert result.returncode != 0
    assert "no such file or directory" in result.stderr
