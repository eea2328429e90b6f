"""What is measured: each case is one way to run a server, and one kind of load.

In variables, `{sink}` stands for the receiver's URL, `{sink_address}` for its host and port, `{tls_port}`
for its port with TLS, and `{certificates}` for the folder of its certificate. Every variant keeps its
defaults but for what the load needs: queues deep enough for a load that is faster than any service, and
delays so short that a round can wait for what is buffered.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from benchmarks.environments import SIGHTLINE

FOLDER: Final = Path(__file__).parent
QUEUE_ITEMS: Final = 200_000
CAPTURED: Final = tuple(f"x-bench-{number:02}" for number in range(64))
"""Names of the request headers that the scenario of captured attributes sends."""


class Arrival(Enum):
    """How a round finds out whether every request has been reported."""

    NOTHING = "nothing is exported"
    SPANS = "each request is a span at the receiver"
    MEASURED = "each request is in the exported histogram"
    SCRAPED = "each request is in the scraped counter"
    AT_EXIT = "each request is in what the server sends when it ends"


class Kind(Enum):
    """What a case is part of."""

    VARIANT = "variants"
    SCENARIO = "scenarios"


OTLP: Final = MappingProxyType(
    {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "{sink}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_METRICS_EXPORTER": "otlp",
        "OTEL_LOGS_EXPORTER": "otlp",
        "OTEL_SERVICE_NAME": "bench",
        "OTEL_BSP_MAX_QUEUE_SIZE": str(QUEUE_ITEMS),
        "OTEL_BSP_SCHEDULE_DELAY": "1000",
        "OTEL_BLRP_SCHEDULE_DELAY": "1000",
        "OTEL_METRIC_EXPORT_INTERVAL": "5000",
    }
)
ZERO_CODE: Final = ("opentelemetry-instrument",)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One row of a table.

    Attributes:
        name: What tables and `--only` call it.
        environment: Key of `environments.ENVIRONMENTS`.
        package: The distribution whose version stands beside the name, if any.
        application: Module in `applications/`, and its attribute `app`.
        command: What runs before `uvicorn` and its arguments.
        variables: Environment variables.
        arrival: How it is known that nothing was lost.
        path: What is asked for.
        headers: Request headers beside `Host`, `User-Agent` and `Accept`.
        is_websocket: Whether the load is messages on WebSocket connections.
        base: What it is compared with, and loaded in turn with.
        pairs: Pairs of fresh servers in a round, where a difference of a few percent must show; each pair
            gets half of the requests.
        spans_per_request: How many spans each request must have, exactly; None where that is not ours to say.
        kind: The table that it is part of.
    """

    name: str
    environment: str
    package: str = ""
    application: str = "bare"
    command: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    arrival: Arrival = Arrival.NOTHING
    path: str = "/items/7"
    headers: tuple[tuple[str, str], ...] = ()
    is_websocket: bool = False
    spans_per_request: int | None = None
    base: "Case | None" = None
    pairs: int = 1
    kind: Kind = Kind.VARIANT


BARE: Final = Case(name="bare", environment="bare")
"""What every variant is compared with."""

OURS: Final = Case(
    name="Sightline",
    environment=SIGHTLINE,
    command=ZERO_CODE,
    variables=OTLP,
    arrival=Arrival.SPANS,
    spans_per_request=1,
    base=BARE,
)
CORRELATION_ID: Final = Case(
    name="asgi-correlation-id",
    environment="correlation-id",
    base=BARE,
    package="asgi-correlation-id",
    application="with_correlation_id",
)
CONTRIB: Final = Case(
    name="OTel contrib, zero-code",
    environment="contrib",
    base=BARE,
    package="opentelemetry-instrumentation-fastapi",
    command=ZERO_CODE,
    variables=OTLP,
    arrival=Arrival.SPANS,
)

VARIANTS: Final = (
    replace(BARE, base=BARE),  # a second bare server: its range is what the method can tell apart
    OURS,
    CORRELATION_ID,
    Case(
        name="prometheus-fastapi-instrumentator",
        environment="prometheus",
        base=BARE,
        package="prometheus-fastapi-instrumentator",
        application="with_prometheus",
        arrival=Arrival.SCRAPED,
    ),
    Case(
        name="FastAPI native + OTel SDK",
        environment="native",
        base=BARE,
        package="opentelemetry-sdk",
        variables={**OTLP, "FASTAPI_OTEL_AUTO_CONFIGURE": "true"},
        arrival=Arrival.SPANS,
    ),
    CONTRIB,
    Case(
        name="ddtrace",
        environment="ddtrace",
        base=BARE,
        package="ddtrace",
        command=("ddtrace-run",),
        variables={"DD_TRACE_AGENT_URL": "{sink}", "DD_SERVICE": "bench"},
        arrival=Arrival.SPANS,
    ),
    Case(
        name="elastic-apm",
        environment="elastic-apm",
        base=BARE,
        package="elastic-apm",
        application="with_elastic_apm",
        variables={
            "ELASTIC_APM_SERVER_URL": "{sink}",
            "ELASTIC_APM_SERVICE_NAME": "bench",
            "ELASTIC_APM_CLOUD_PROVIDER": "none",
            "ELASTIC_APM_API_REQUEST_TIME": "1s",
        },
        arrival=Arrival.SPANS,
    ),
    Case(
        name="newrelic",
        environment="newrelic",
        base=BARE,
        package="newrelic",
        application="with_newrelic",
        command=("newrelic-admin", "run-program"),
        variables={
            "NEW_RELIC_CONFIG_FILE": str(FOLDER / "applications" / "newrelic.ini"),
            "NEW_RELIC_APP_NAME": "bench",
            "NEW_RELIC_LICENSE_KEY": "0" * 40,
            "NEW_RELIC_HOST": "localhost",
            "NEW_RELIC_PORT": "{tls_port}",
            "NEW_RELIC_CA_BUNDLE_PATH": "{certificates}/client.pem",
            "NEW_RELIC_STARTUP_TIMEOUT": "10",
        },
        arrival=Arrival.AT_EXIT,
    ),
    Case(
        name="sentry-sdk",
        environment="sentry",
        base=BARE,
        package="sentry-sdk",
        application="with_sentry",
        variables={"SENTRY_DSN": "http://key@{sink_address}/1"},
        arrival=Arrival.SPANS,
    ),
    Case(
        name="logfire",
        environment="logfire",
        base=BARE,
        package="logfire",
        application="with_logfire",
        variables=OTLP,
        arrival=Arrival.SPANS,
    ),
)


def _scenario(name: str, like: Case, **changes: Any) -> Case:
    return replace(like, name=name, kind=Kind.SCENARIO, **changes)


def _variation(like: Case, **changes: Any) -> Case:
    return replace(like, base=None, **changes)


_MANY: Final[Mapping[str, Any]] = {"application": "many_routes", "path": "/items-500/7"}
_HEADERS: Final[Mapping[str, Any]] = {"headers": tuple((name, "some value") for name in CAPTURED)}
_SOCKET: Final[Mapping[str, Any]] = {"application": "echo", "path": "/echo", "is_websocket": True}
_CAPTURE: Final = "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST"

WITH_SDK: Final = Case(
    name="bare + SDK", environment="contrib", application="with_sdk", variables=OTLP, kind=Kind.SCENARIO
)
"""An SDK that nobody uses: Sightline's memory is compared with it, and its spans with those of Sightline."""

SCENARIOS: Final = (
    _scenario("500 routes", OURS, base=_variation(BARE, **_MANY), **_MANY),
    _scenario(
        "1 of 64 headers captured",
        OURS,
        variables={**OTLP, _CAPTURE: CAPTURED[0]},
        base=_variation(BARE, **_HEADERS),
        **_HEADERS,
    ),
    _scenario(
        "64 headers captured",
        OURS,
        variables={**OTLP, _CAPTURE: ",".join(CAPTURED)},
        base=_variation(BARE, **_HEADERS),
        **_HEADERS,
    ),
    _scenario(
        "sampled at 0 %",
        OURS,
        variables={**OTLP, "OTEL_TRACES_SAMPLER": "always_off"},
        arrival=Arrival.MEASURED,
        spans_per_request=0,
        base=OURS,
        pairs=6,
    ),
    _scenario("WebSocket message", OURS, base=_variation(BARE, **_SOCKET), **_SOCKET),
    _scenario("child span, bare", BARE, base=BARE, application="child_span"),
    _scenario("child span, Sightline", OURS, base=OURS, application="child_span", spans_per_request=2),
    _scenario(
        "child span, SDK", WITH_SDK, base=WITH_SDK, application="with_sdk_and_child", arrival=Arrival.SPANS
    ),
)

CASES: Final = (*VARIANTS, *SCENARIOS)
