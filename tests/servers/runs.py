"""One run: a server in one mode, requests to every worker, and everything that reached the receiver."""

import os
import secrets
import shutil
import signal
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
from otlp_receiver import Item, OtlpReceiver, Store, attributes
from shop_process import free_port
from tests.listening import listens
from tests.servers.modes import ACCESS_LOGGERS, Mode
from websockets.sync.client import connect

APP: Final = Path(__file__).with_name("app.py")
DURATION: Final = "http.server.request.duration"
HEADER: Final = "x-correlation-id"
INSTANCE: Final = "service.instance.id"

BATCH_DELAY_MS: Final = 100
METRIC_INTERVAL_MS: Final = 500
CLIENTS: Final = 4
"""Connections at the same time: while one worker is busy, another one gets some."""
ROUNDS: Final = 200
"""Bound of the rounds of `CLIENTS` requests until every worker has answered."""
START_TIMEOUT_SECONDS: Final = 40
RENEWAL_TIMEOUT_SECONDS: Final = 40
DELIVERY_TIMEOUT_SECONDS: Final = 10
STOP_TIMEOUT_SECONDS: Final = 20
LOAD_SECONDS: Final = 4 * BATCH_DELAY_MS / 1000
"""A preloaded application takes so long that the loading process exports before it forks."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One request and what the client saw.

    Attributes:
        path: What was asked for.
        correlation_id: What was sent in the correlation header.
        status: The response's status; 101 for a WebSocket handshake.
        headers: Values of the correlation header in the response.
        pid: The process that answered; None where the response does not say.
    """

    path: str
    correlation_id: str
    status: int
    headers: list[str]
    pid: int | None

    @property
    def is_request(self) -> bool:
        """Whether it was an HTTP request, not a WebSocket handshake."""
        return self.status != 101

    @property
    def is_logged(self) -> bool:
        """Whether the application logs a record for it."""
        return self.is_request and self.status != 404


@dataclass(frozen=True)
class Telemetry:
    """What has arrived, by process instance."""

    store: Store

    def snapshot(self) -> "Telemetry":
        """Returns what has arrived so far; the receiver goes on adding to its own."""
        store = self.store
        return Telemetry(Store(store.spans.copy(), store.metrics.copy(), store.logs.copy()))

    @property
    def servers(self) -> list[Item]:
        """The SERVER spans."""
        return [item for item in self.store.spans if item.data.kind == item.data.SPAN_KIND_SERVER]

    def spans(self, correlation_id: str) -> list[Item]:
        """Returns the spans that carry the ID."""
        return [
            item
            for item in self.store.spans
            if attributes(item.data.attributes).get("sightline.correlation_id") == correlation_id
        ]

    def records(self, *loggers: str) -> list[Item]:
        """Returns the log records of some loggers."""
        return [item for item in self.store.logs if item.scope in loggers]

    def error_records(self, text: str) -> list[Item]:
        """Returns the log records about an exception, wherever they have its text."""
        return [item for item in self.store.logs if text.encode() in item.data.SerializeToString()]

    def durations(self) -> dict[str, int]:
        """Returns how many requests the newest duration points of each instance count."""
        newest: dict[tuple[str, str, str], Any] = {}
        for item in self.store.metrics:
            if item.data.name != DURATION:
                continue
            for point in item.data.histogram.data_points:
                series = (instance_of(item), item.scope, repr(sorted(attributes(point.attributes).items())))
                newest[series] = max(point, newest.get(series, point), key=lambda each: each.time_unix_nano)
        counts: defaultdict[str, int] = defaultdict(int)
        for (instance, _, _), point in newest.items():
            counts[instance] += point.count
        return dict(counts)

    def metric_exports(self, instance: str) -> int:
        """Returns how often an instance has exported its durations."""
        return sum(
            item.data.name == DURATION and instance_of(item) == instance for item in self.store.metrics
        )


def instance_of(item: Item) -> str:
    """Returns the `service.instance.id` that an item came with."""
    return str(item.resource[INSTANCE])


def correlation_of(item: Item) -> str | None:
    """Returns the correlation ID of a log record."""
    value = attributes(item.data.attributes).get("correlation_id")
    return value if isinstance(value, str) else None


@dataclass
class Run:
    """Everything that one run led to.

    Attributes:
        mode: How the server was started.
        answers: What the client saw until every worker had answered.
        telemetry: What had arrived then.
        old_pid: The worker that was replaced afterwards.
        renewed: The first answer of the worker that replaced it.
        afterwards: What had arrived when the new worker's telemetry was there.
        output: What the server wrote until it was stopped.
    """

    mode: Mode
    answers: list[Answer] = field(default_factory=list)
    telemetry: Telemetry = field(default_factory=lambda: Telemetry(Store()))
    old_pid: int = 0
    renewed: Answer | None = None
    afterwards: Telemetry = field(default_factory=lambda: Telemetry(Store()))
    output: str = ""

    @property
    def requests(self) -> list[Answer]:
        """The HTTP requests."""
        return [answer for answer in self.answers if answer.is_request]

    @property
    def handshake(self) -> Answer:
        """The WebSocket handshake."""
        (answer,) = (answer for answer in self.answers if not answer.is_request)
        return answer

    @property
    def failure(self) -> Answer:
        """The request that ended in an unhandled error."""
        (answer,) = (answer for answer in self.answers if answer.status == 500)
        return answer

    @property
    def pids(self) -> set[int]:
        """The processes that answered."""
        return {answer.pid for answer in self.answers if answer.pid is not None}

    def instances(self, pid: int) -> set[str]:
        """Returns the instances whose spans say that they served what a process answered."""
        mine = (answer.correlation_id for answer in self.answers if answer.pid == pid)
        return {instance_of(span) for each in mine for span in self.telemetry.spans(each)}

    @property
    def workers(self) -> set[str]:
        """The instances that served anything."""
        return {instance_of(span) for span in self.telemetry.servers}


def observe(mode: Mode, programs: Path, folder: Path) -> Run:
    """Starts the server, asks every worker, replaces one where the mode says how, and stops the server.

    Args:
        mode: How to start it.
        programs: The environment's folder of programs.
        folder: A folder of this run alone; the application is copied there.
    """
    run = Run(mode)
    with OtlpReceiver() as receiver:
        arrived = Telemetry(receiver.store)
        variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint}
        if mode.loads_in_parent:
            variables["SERVERS_LOAD_SECONDS"] = str(LOAD_SECONDS)
        with serving(mode, programs, folder, variables) as client:
            run.answers = list(_ask_all(client, mode))
            until(lambda: _is_delivered(run.answers, arrived.snapshot()))
            time.sleep(2 * METRIC_INTERVAL_MS / 1000)  # time for whatever might be exported twice
            run.telemetry = arrived.snapshot()
            if mode.renewal is not None:
                run.old_pid = min(run.pids)
                run.renewed = _renew(client, mode.renewal, run, folder)
                correlation_id = run.renewed.correlation_id
                until(lambda: _is_served(arrived.snapshot(), correlation_id))
                run.afterwards = arrived.snapshot()
        run.output = (folder / "output").read_text()
    return run


@contextmanager
def serving(mode: Mode, programs: Path, folder: Path, variables: Mapping[str, str]) -> Iterator[httpx.Client]:
    """Serves a copy of the application; gives a client that never uses a connection twice.

    Args:
        mode: How to start the server.
        programs: The environment's folder of programs.
        folder: Gets the copy, and what the server writes as `output`.
        variables: Environment variables on top.
    """
    shutil.copy(APP, folder)
    port = free_port()
    command = [argument.format(port=port) for argument in mode.command]
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            [programs / "opentelemetry-instrument", *command],
            cwd=folder,
            env={**_environ(programs), "OTEL_SERVICE_NAME": f"servers {mode}", **variables},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        _wait_until_up(process, port, folder)
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}",
            limits=httpx.Limits(max_keepalive_connections=0),
            timeout=START_TIMEOUT_SECONDS,
            trust_env=False,
        ) as client:
            yield client
    finally:
        _stop(process)


def _environ(programs: Path) -> dict[str, str]:
    foreign = (
        "OTEL_",
        "SIGHTLINE_",
        "FASTAPI_",
        "PYTHON",
        "UVICORN_",
        "GUNICORN_",
        "GRANIAN_",
        "VIRTUAL_ENV",
    )
    environ = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return environ | {
        "PATH": f"{programs}{os.pathsep}{environ['PATH']}",
        "PYTHONUNBUFFERED": "1",
        "NO_PROXY": "127.0.0.1",
        "OTEL_BSP_SCHEDULE_DELAY": str(BATCH_DELAY_MS),
        "OTEL_BLRP_SCHEDULE_DELAY": str(BATCH_DELAY_MS),
        "OTEL_METRIC_EXPORT_INTERVAL": str(METRIC_INTERVAL_MS),
        "SIGHTLINE_ACCESS_LOG": "on",
    }


def _wait_until_up(process: subprocess.Popen[bytes], port: int, folder: Path) -> None:
    if not listens(process, port, START_TIMEOUT_SECONDS):
        raise RuntimeError(f"the server does not run:\n{(folder / 'output').read_text()}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Stops the server as an operator does; what is left of its own session after that is killed."""
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise


def ask_every_worker(client: httpx.Client, workers: int) -> Iterator[Answer]:
    """Asks until so many processes have answered."""
    pids: set[int | None] = set()
    with ThreadPoolExecutor(CLIENTS) as pool:
        for _ in range(ROUNDS):
            answers = list(pool.map(ask, [client] * CLIENTS, ["/items/1"] * CLIENTS))
            pids.update(answer.pid for answer in answers)
            yield from answers
            if len(pids) >= workers:
                return


def _ask_all(client: httpx.Client, mode: Mode) -> Iterator[Answer]:
    """Asks every worker, then for everything else once."""
    yield from ask_every_worker(client, mode.workers)
    for path in ("/sync", "/nowhere", "/errors"):
        yield ask(client, path)
    yield _shake_hands(client)


def ask(client: httpx.Client, path: str) -> Answer:
    """Sends one request with a correlation ID of its own."""
    correlation_id = secrets.token_hex(8)
    response = client.get(path, headers={HEADER: correlation_id})
    pid = response.json()["pid"] if response.status_code == 200 else None
    return Answer(path, correlation_id, response.status_code, response.headers.get_list(HEADER), pid)


def _shake_hands(client: httpx.Client) -> Answer:
    correlation_id = secrets.token_hex(8)
    url = f"ws://127.0.0.1:{client.base_url.port}/room"
    with connect(url, additional_headers={HEADER: correlation_id}, proxy=None) as connection:
        assert connection.response is not None
        headers = connection.response.headers.get_all(HEADER)
        connection.recv()
    return Answer("/room", correlation_id, connection.response.status_code, headers, None)


def _renew(client: httpx.Client, renewal: str, run: Run, folder: Path) -> Answer:
    """Replaces a worker and returns the first answer of the new one."""
    path = "/items/1"
    if renewal == "kill":
        os.kill(run.old_pid, signal.SIGKILL)
    else:
        file = folder / APP.name
        file.write_text(file.read_text().replace('VERSION: Final = "one"', 'VERSION: Final = "two"'))
        path = "/version/two"
    deadline = time.monotonic() + RENEWAL_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        try:
            answer = ask(client, path)
        except httpx.TransportError:  # the connection was the dead worker's
            continue
        if answer.status == 200 and answer.pid not in run.pids:
            return answer
        time.sleep(0.01)
    raise RuntimeError(f"no new worker answers:\n{(folder / 'output').read_text()}")


def _is_delivered(answers: list[Answer], telemetry: Telemetry) -> bool:
    """Tells whether at least as much has arrived as shall arrive."""
    requests = sum(answer.is_request for answer in answers)
    return (
        len(telemetry.servers) >= len(answers)
        and sum(telemetry.durations().values()) >= requests
        and len(telemetry.records("shop")) >= sum(answer.is_logged for answer in answers)
        and len(telemetry.records(*ACCESS_LOGGERS)) >= requests
        and len(telemetry.error_records("ShopError")) >= 1
    )


def _is_served(telemetry: Telemetry, correlation_id: str) -> bool:
    """Tells whether span, record and metric of one request have arrived."""
    spans = telemetry.spans(correlation_id)
    return (
        len(spans) > 0
        and any(correlation_of(record) == correlation_id for record in telemetry.records("shop"))
        and instance_of(spans[0]) in telemetry.durations()
    )


def until(condition: Callable[[], bool]) -> None:
    """Waits for a condition; what is missing in the end, the tests tell."""
    deadline = time.monotonic() + DELIVERY_TIMEOUT_SECONDS
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.1)
