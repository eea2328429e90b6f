"""Service levels of a real server: the verdict wherever it is told, and what survives a restart."""

import json
import re
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from otlp_receiver import Item, attributes
from uvicorn_process import Setup, eventually, observed

REQUESTS, DURATION = "sightline.sla.requests", "http.server.request.duration"
OUTCOME, OBJECTIVE = "sightline.sla.outcome", "sightline.sla.objective"
FILE = """
default: 240ms@99%, 99.9%
failed_statuses: [429]
exclude: {paths: [/ok]}
objectives:
  - name: patient
    match: {route: "/takes/*", methods: [POST]}
    objective: 1m@99%
"""


@dataclass(frozen=True)
class Judged:
    """A running server with objectives."""

    setup: Setup
    file: Path
    state: Path

    def points(self, metric: str) -> list[Any]:
        """Returns the newest data points of a metric."""
        found = [item.data for item in list(self.setup.store.metrics) if item.data.name == metric]
        return [
            *(
                found[-1].histogram.data_points or found[-1].sum.data_points or found[-1].gauge.data_points
                if found
                else ()
            )
        ]

    def counts(self) -> dict[tuple[str, str, str, bool], int]:
        """Returns the counter: by route, verdict, objective and whether latency is judged."""
        found = {}
        for point in self.points(REQUESTS):
            has = attributes(point.attributes)
            key = (has.get("http.route", ""), has[OUTCOME], has[OBJECTIVE])
            found[*key, has.get("sightline.sla.latency_eligible", True)] = point.as_int
        return found

    def requests(self) -> int:
        """Returns how many requests are counted, connections included."""
        return sum(self.counts().values())

    def server_spans(self) -> list[Item]:
        """Returns the SERVER spans so far."""
        return [item for item in list(self.setup.store.spans) if item.data.kind == item.data.SPAN_KIND_SERVER]


def running(folder: Path, **variables: str) -> Any:
    """Runs the server with objectives from a file."""
    return observed(
        "levels:app",
        variables={
            "SIGHTLINE_SLA_FILE": str(folder / "objectives.yaml"),
            "SIGHTLINE_STATE_DIR": str(folder / "state"),
            "SIGHTLINE_PROBE_TOKEN": "s3cret",
            "SIGHTLINE_ACCESS_LOG": "on",
            "OTEL_PYTHON_EXCLUDED_URLS": "status/418",
            **variables,
        },
    )


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judged]:
    """Yields a server that the tests of this module share, in their order."""
    folder = tmp_path_factory.mktemp("levels")
    (folder / "objectives.yaml").write_text(FILE)
    with running(folder) as setup:
        yield Judged(setup, folder / "objectives.yaml", folder / "state")


def test_counters_of_known_routes_are_there_before_their_first_request(judged: Judged) -> None:
    assert eventually(judged.counts)
    counts = judged.counts()
    assert set(counts.values()) == {0}
    for verdict in ("ok", "slow", "failed"):
        assert ("/never-asked-for", verdict, "default", True) in counts
        assert ("/own/{milliseconds}", verdict, "own", True) in counts
    assert ("/room", "ok", "default", False) in counts


def test_there_are_targets_and_no_other_gauge_before_the_first_request(judged: Judged) -> None:
    targets = {
        (has[OBJECTIVE], has["sightline.sla.kind"]): point.as_double
        for point in judged.points("sightline.sla.target")
        for has in [attributes(point.attributes)]
    }
    assert targets["default", "latency"] == 0.99
    assert targets["own", "latency"] == 0.99
    for name in ("latency", "budget_remaining", "burn_rate"):
        assert judged.points(f"sightline.sla.{name}") == []


REQUESTED = [
    ("/takes/0", (), "ok", "default"),
    ("/takes/300", (), "slow", "default"),
    ("/own/300", (), "ok", "own"),
    ("/status/404", (), "ok", "default"),
    ("/status/429", (), "failed", "default"),
    ("/status/503", (), "failed", "default"),
    ("/broken", (), "failed", "default"),
    ("/stream", (), "ok", "default"),
    ("/ok", (), "excluded", "default"),
    ("/status/503", (("x-sightline-probe", "s3cret"),), "excluded", "default"),
    ("/status/503", (("x-sightline-probe", "guess"), ("user-agent", "kube-probe/1")), "failed", "default"),
    ("/nowhere", (), "ok", "default"),
]


@pytest.mark.parametrize(("path", "headers", "verdict", "objective"), REQUESTED)
def test_the_verdict_is_on_span_and_access_record(
    judged: Judged, path: str, headers: tuple[tuple[str, str], ...], verdict: str, objective: str
) -> None:
    sent = f"levels{re.sub('[^a-z0-9]', '-', path)}-{verdict}-{len(headers)}"
    judged.setup.server.get(path, ("x-correlation-id", sent), *headers)
    span = attributes(judged.setup.arrived.span(sent).data.attributes)
    assert (span[OUTCOME], span[OBJECTIVE]) == (verdict, objective)

    def access() -> list[Item]:
        return [item for item in judged.setup.arrived.logs(sent) if item.scope == "uvicorn.access"]

    assert eventually(access)
    (record,) = access()
    assert attributes(record.data.attributes)[OUTCOME] == verdict


def test_an_excluded_url_has_no_span_and_is_counted_as_excluded(judged: Judged) -> None:
    judged.setup.arrived.settle(judged.setup.server)
    key = ("/status/{status}", "excluded", "default", True)
    before = judged.counts().get(key, 0)
    judged.setup.server.get("/status/418", ("x-correlation-id", "teapot"))
    assert eventually(lambda: judged.counts().get(key) == before + 1)
    assert judged.setup.arrived.spans("teapot") == []


def test_a_client_that_leaves_is_excluded(judged: Judged) -> None:
    with socket.create_connection(("127.0.0.1", judged.setup.server.port)) as connection:
        connection.sendall(b"GET /gone HTTP/1.1\r\nhost: a\r\nx-correlation-id: gone\r\n\r\n")
    assert attributes(judged.setup.arrived.span("gone").data.attributes)[OUTCOME] == "excluded"


def test_the_counter_equals_the_durations_and_the_spans(judged: Judged) -> None:
    judged.setup.arrived.settle(judged.setup.server)
    told = Counter(attributes(span.data.attributes)[OUTCOME] for span in judged.server_spans())
    told["excluded"] += 1  # the excluded URL has no span
    assert eventually(lambda: judged.requests() == told.total())
    assert sum(point.count for point in judged.points(DURATION)) == told.total()
    counted = Counter[str]()
    for (_, verdict, _, _), count in judged.counts().items():
        counted[verdict] += count
    assert counted == told
    assert judged.counts()["/stream", "ok", "default", False] == 1


def test_exemplars_carry_the_verdict_and_lead_to_a_span_that_has_it_too(judged: Judged) -> None:
    for path in ("/takes/0", "/takes/300", "/status/503"):
        judged.setup.server.get(path)
    judged.setup.arrived.settle(judged.setup.server)
    verdicts = {
        item.data.span_id: attributes(item.data.attributes)[OUTCOME] for item in judged.server_spans()
    }
    exemplars = {
        exemplar.span_id: attributes(exemplar.filtered_attributes)[OUTCOME]
        for item in list(judged.setup.store.metrics)
        if item.data.name == DURATION
        for point in item.data.histogram.data_points
        for exemplar in point.exemplars
        if exemplar.span_id in verdicts
    }
    assert {verdicts[span_id] for span_id in exemplars} >= {"ok", "slow", "failed"}
    assert exemplars == {span_id: verdicts[span_id] for span_id in exemplars}


def test_thresholds_are_boundaries(judged: Judged) -> None:
    bounds = {tuple(point.explicit_bounds) for point in judged.points(DURATION)}
    (only,) = bounds
    assert {0.24, 10.0, 60.0} <= set(only)


def test_a_forked_process_begins_at_nothing(judged: Judged) -> None:
    judged.setup.server.get("/takes/0")
    answer = json.loads(judged.setup.server.get("/levels").body)
    assert answer["here"] > 0
    assert answer["forked"] == 0


def test_a_changed_file_holds_without_a_restart(judged: Judged) -> None:
    judged.file.write_text("default: 7ms@99%")
    verdicts: list[str] = []

    def verdict() -> str:
        sent = f"reload-{len(verdicts)}"
        judged.setup.server.get("/takes/20", ("x-correlation-id", sent))
        verdicts.append(str(attributes(judged.setup.arrived.span(sent).data.attributes)[OUTCOME]))
        return verdicts[-1]

    assert eventually(lambda: verdict() == "slow")
    assert judged.setup.server.stderr.count("no bucket boundary") == 1
    assert verdicts[0] == "ok"


def test_windows_survive_a_restart_and_counters_begin_anew(judged: Judged) -> None:
    for path in ("/takes/300", "/status/503"):
        judged.setup.server.get(path)
    judged.setup.server.process.send_signal(signal.SIGTERM)
    judged.setup.server.process.wait(15)
    (saved,) = judged.state.glob("*.state")
    assert saved.stat().st_mode & 0o777 == 0o600
    judged.file.write_text(FILE)
    with running(judged.file.parent) as setup:
        after = Judged(setup, judged.file, judged.state)
        assert eventually(lambda: after.points("sightline.sla.burn_rate"))
        rates = {
            (has[OBJECTIVE], has["sightline.sla.kind"], has["window"]): point.as_double
            for point in after.points("sightline.sla.burn_rate")
            for has in [attributes(point.attributes)]
        }
        assert rates["default", "availability", "3d"] > 1
        assert rates["default", "latency", "5m"] > 1
        assert after.requests() == 0


def test_the_example_produces_the_telemetry_that_it_says() -> None:
    check = Path(__file__).parents[2] / "examples" / "objectives" / "check.py"
    done = subprocess.run([sys.executable, check], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
