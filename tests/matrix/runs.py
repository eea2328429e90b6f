"""One run: a server in one environment, a few requests, and everything that reached the receiver."""

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
from otlp_receiver import Item, OtlpReceiver, Store, attributes
from shop_process import end
from tests.matrix.environments import ENVIRONMENTS, Environment

DURATION: Final = "http.server.request.duration"
ERROR: Final = "app.ShopError"
HEADER: Final = "x-correlation-id"

EXPORT_INTERVAL_MS: Final = 300
DELIVERY_TIMEOUT_SECONDS: Final = 10
START_TIMEOUT_SECONDS: Final = 60
STOP_TIMEOUT_SECONDS: Final = 10

NAMED: Final = "named"
"""The variables name Sightline's distribution and configurator."""
UNNAMED: Final = "unnamed"
"""No variable, and no other distribution is installed."""
STOCK_FIRST: Final = "stock-first"
"""No variable; the stock distribution is found before Sightline's."""
SIGHTLINE_FIRST: Final = "sightline-first"
"""No variable; Sightline's distribution is found before the stock one."""
IN_CODE: Final = "in-code"
"""Plain `uvicorn`: the program configures the SDK."""


@dataclass(frozen=True, slots=True)
class Case:
    """Names one run.

    Attributes:
        environment: Where the server runs.
        setup: The function of `app.py` that builds the application.
        distro: How the distribution is chosen.
        fastapi_exports: Whether `FASTAPI_OTEL_AUTO_CONFIGURE=true` asks FastAPI to export as well.
    """

    environment: Environment
    setup: str
    distro: str
    fastapi_exports: bool = False

    def __str__(self) -> str:
        setup = f"{self.setup}{'+auto_configure' if self.fastapi_exports else ''}"
        return f"{self.environment.name}-{setup}-{self.distro}"


def _cases(environment: Environment) -> Iterator[Case]:
    if not environment.stock:
        yield Case(environment, "shop", UNNAMED)
        yield Case(environment, "shop", NAMED)
        yield Case(environment, "shop", UNNAMED, fastapi_exports=True)
    else:
        yield Case(environment, "shop", SIGHTLINE_FIRST)
        for distro in (NAMED, STOCK_FIRST):
            yield Case(environment, "shop", distro)
            yield Case(environment, "shop", distro, fastapi_exports=True)
            yield Case(environment, "stock_instrument_app", distro)
            yield Case(environment, "stock_instrument", distro)
            yield Case(environment, "stock_middleware_outside", distro)
            yield Case(environment, "stock_middleware_inside", distro)
    yield Case(environment, "programmatic", IN_CODE)
    yield Case(environment, "programmatic_log_handler", IN_CODE)


CASES: Final = tuple(case for environment in ENVIRONMENTS for case in _cases(environment))


@dataclass(frozen=True, slots=True)
class Request:
    """One request and what it shall lead to.

    Attributes:
        method: HTTP method.
        path: What is asked for.
        status: The response's status.
        route: The route template, or None where no route handles the path.
        correlation_id: What is sent in the correlation header; None sends none.
        logs: Bodies of the records that the application logs.
        body: JSON to send.
    """

    method: str
    path: str
    status: int
    route: str | None
    correlation_id: str | None
    logs: tuple[str, ...] = ()
    body: dict[str, Any] | None = None

    @property
    def raises(self) -> bool:
        """Whether the application raises an error that nothing handles."""
        return self.status == 500


REQUESTS: Final = (
    Request("GET", "/items/1", 200, "/items/{item_id}", "item-1", ("async handler",)),
    Request("GET", "/items/2", 200, "/items/{item_id}", "item-2", ("async handler",)),
    Request("GET", "/items/3", 200, "/items/{item_id}", None, ("async handler",)),
    Request("GET", "/sync/1", 200, "/sync/{item_id}", "sync-1", ("dependency", "sync handler")),
    Request("POST", "/orders", 201, "/orders", "order-1", ("order",), {"quantity": 1}),
    Request("POST", "/orders", 422, "/orders", "invalid-1", (), {"quantity": "many"}),
    Request("GET", "/items/none", 422, "/items/{item_id}", "invalid-2"),
    Request("GET", "/api/users/1", 200, "/api/users/{user_id}", "user-1"),
    Request("GET", "/mounted/things/1", 200, "/mounted/things/{thing_id}", "thing-1"),
    Request("GET", "/nowhere/1", 404, None, "missing-1"),
    Request("GET", "/nowhere/2", 404, None, "missing-2"),
    Request("DELETE", "/items/1", 405, "/items/{item_id}", "method-1"),
    Request("GET", "/errors/1", 500, "/errors/{error_id}", "error-1"),
    Request("GET", "/errors/2", 500, "/errors/{error_id}", "error-2"),
    Request("GET", "/mounted/errors", 500, "/mounted/errors", "error-3"),
)


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request with what the client saw.

    Attributes:
        request: What was sent.
        status: The response's status.
        headers: Values of the correlation header in the response.
    """

    request: Request
    status: int
    headers: list[str]

    @property
    def correlation_id(self) -> str:
        """The correlation ID of the exchange, as the client knows it."""
        return self.headers[0] if self.headers else "no correlation header"


@dataclass(frozen=True, slots=True)
class Run:
    """Everything that one run led to.

    Attributes:
        service: The `service.name` that the server was given.
        exchanges: One for each of `REQUESTS`, in order.
        store: What the receiver got.
        stderr: What the server wrote.
    """

    service: str
    exchanges: tuple[Exchange, ...]
    store: Store
    stderr: str

    def records(self, scope: str) -> list[Item]:
        """Returns the log records of one logger."""
        return [item for item in list(self.store.logs) if item.scope == scope]

    def error_records(self) -> list[Item]:
        """Returns the log records that carry an exception."""
        return [
            item for item in list(self.store.logs) if "exception.type" in attributes(item.data.attributes)
        ]

    def trace_id(self, correlation_id: str | None) -> bytes | None:
        """Returns the trace ID of the request with that correlation ID, as its span tells it."""
        for item in self.store.spans:
            if attributes(item.data.attributes).get("sightline.correlation_id") == correlation_id:
                trace_id: bytes = item.data.trace_id
                return trace_id
        return None

    def series(self, metric: str) -> list[tuple[dict[str, Any], Any]]:
        """Returns attributes and newest point of each series of a metric.

        Series of different scopes or readers are apart from each other, so that a double one is seen.
        """
        newest: dict[tuple[str, str, int], tuple[dict[str, Any], Any]] = {}
        for item in list(self.store.metrics):
            if item.data.name != metric:
                continue
            for point in getattr(item.data, item.data.WhichOneof("data")).data_points:
                named = attributes(point.attributes)
                key = (item.scope, repr(sorted(named.items())), point.start_time_unix_nano)
                newest[key] = max((named, point), newest.get(key, (named, point)), key=_time)
        return list(newest.values())


def _time(series: tuple[dict[str, Any], Any]) -> int:
    return int(series[1].time_unix_nano)


def observe(case: Case, programs: Path, folder: Path) -> Run:
    """Starts the server, sends the requests, waits for the telemetry and stops the server.

    Args:
        case: What to run.
        programs: The environment's folder of programs.
        folder: A folder of this run alone.
    """
    service = f"matrix {case}"
    log = folder / "stderr"
    with OtlpReceiver() as receiver:
        environ = _environ(case, programs, folder, service, receiver.endpoint)
        with _server(case, programs, environ, log) as url:
            exchanges = tuple(_send(url))
            run = Run(service, exchanges, receiver.store, log.read_text())
            if _wait(lambda: _delivered(run)):
                _wait_for_exports(run.store, 2)  # time for whatever might be exported twice
        return Run(service, exchanges, receiver.store, log.read_text())


def _environ(case: Case, programs: Path, folder: Path, service: str, endpoint: str) -> dict[str, str]:
    foreign = ("OTEL_", "SIGHTLINE_", "FASTAPI_", "PYTHON", "UVICORN_", "VIRTUAL_ENV")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    environ |= {
        "PATH": f"{programs}{os.pathsep}{environ['PATH']}",
        "MATRIX_SETUP": case.setup,
        "OTEL_SERVICE_NAME": service,
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_BSP_SCHEDULE_DELAY": str(EXPORT_INTERVAL_MS),
        "OTEL_BLRP_SCHEDULE_DELAY": str(EXPORT_INTERVAL_MS),
        "OTEL_METRIC_EXPORT_INTERVAL": str(EXPORT_INTERVAL_MS),
    }
    if case.fastapi_exports:
        environ["FASTAPI_OTEL_AUTO_CONFIGURE"] = "true"
    if case.distro == NAMED:
        environ |= {"OTEL_PYTHON_DISTRO": "sightline", "OTEL_PYTHON_CONFIGURATOR": "sightline"}
    elif case.distro in (STOCK_FIRST, SIGHTLINE_FIRST):
        first = "opentelemetry_distro" if case.distro == STOCK_FIRST else "sightline"
        environ["PYTHONPATH"] = str(_found_first(first, programs, folder))
    return environ


def _found_first(distribution: str, programs: Path, folder: Path) -> Path:
    """Returns a folder in which the distribution's entry points are found before any other.

    Which one comes first among installed distributions depends on the file system otherwise.
    """
    (metadata,) = programs.parent.glob(f"lib/python*/site-packages/{distribution}-*.dist-info")
    first = folder / "first"
    first.mkdir()
    (first / metadata.name).symlink_to(metadata)
    return first


@contextmanager
def _server(case: Case, programs: Path, environ: dict[str, str], log: Path) -> Iterator[str]:
    """Serves the application on a free port; gives its URL."""
    command = ["uvicorn", "app:app", "--host", "127.0.0.1", "--port", "0", "--no-use-colors"]
    if case.distro != IN_CODE:
        command.insert(0, "opentelemetry-instrument")
    command[0] = str(programs / command[0])
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            command, cwd=Path(__file__).parent, env=environ, stdout=subprocess.DEVNULL, stderr=stderr
        )
    try:
        yield _url(process, log)
    finally:
        if not end(process, STOP_TIMEOUT_SECONDS):
            raise AssertionError("the server did not end when asked")


def _url(process: subprocess.Popen[bytes], log: Path) -> str:
    running = re.compile(r"Uvicorn running on (http://127\.0\.0\.1:\d+)")
    _wait(
        lambda: running.search(log.read_text()) is not None or process.poll() is not None,
        START_TIMEOUT_SECONDS,
    )
    match = running.search(log.read_text())
    if match is None:
        raise RuntimeError(f"the server does not run:\n{log.read_text()}")
    return match[1]


def _send(url: str) -> Iterator[Exchange]:
    # No connection is used twice: uvicorn closes the one on which an error was not handled.
    limits = httpx.Limits(max_keepalive_connections=0)
    with httpx.Client(base_url=url, limits=limits, timeout=START_TIMEOUT_SECONDS, trust_env=False) as client:
        for request in REQUESTS:
            headers = {HEADER: request.correlation_id} if request.correlation_id else {}
            response = client.request(request.method, request.path, json=request.body, headers=headers)
            yield Exchange(request, response.status_code, response.headers.get_list(HEADER))


def _delivered(run: Run) -> bool:
    """Tells whether at least as much has arrived as shall arrive."""
    application_records = 1 + sum(len(request.logs) for request in REQUESTS)
    return (
        len(run.store.spans) >= len(REQUESTS)
        and sum(point.count for _, point in run.series(DURATION)) >= len(REQUESTS)
        and len(run.records("shop")) >= application_records
        and len(run.error_records()) >= sum(request.raises for request in REQUESTS)
    )


def _wait_for_exports(store: Store, number: int) -> None:
    """Waits until the server has exported metrics so many times more."""
    enough = _exports(store) + number
    _wait(lambda: _exports(store) >= enough)


def _exports(store: Store) -> int:
    return sum(item.data.name == DURATION for item in list(store.metrics))


def _wait(condition: Callable[[], bool], timeout_seconds: float = DELIVERY_TIMEOUT_SECONDS) -> bool:
    """Waits for a condition and tells whether it holds; what is missing, the tests tell."""
    until = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True
