"""An agent and two gateways: whole traces, exact span metrics, what is kept, and what an outage leaves."""

from __future__ import annotations

import secrets
import signal
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tests.sightline_processors.certificates import make_certificates

from .otlp_payloads import Json, attributes, histogram_request, log_request, resource
from .stack_fixture import CONFIG, eventually
from .tiers import Tiers, build_tiers, request_of, span

pytestmark = pytest.mark.stack

PERCENTAGE = 20
SPANS_PER_SECOND = 100  # of each gateway

ERROR = {"status": {"code": 2}}
ACCEPTED = "otelcol_receiver_accepted_spans"
ARRIVAL_SECONDS = 15.0


@pytest.fixture(scope="module")
def tiers(tmp_path_factory: pytest.TempPathFactory, stack: dict[str, str]) -> Iterator[Tiers]:
    """One agent and two running gateways; metrics and logs go to the shared stack, traces to files."""
    budget = {
        "PIPELINE_SAMPLING_PERCENTAGE": str(PERCENTAGE),
        "PIPELINE_SAMPLING_SPANS_PER_SECOND": str(SPANS_PER_SECOND),
    }
    running = build_tiers(tmp_path_factory.mktemp("tiers"), stack, **budget)
    collectors = [running.sink, *running.gateways, running.agent]
    try:
        for collector in collectors:
            collector.start()
        yield running
    finally:
        for collector in reversed(collectors):
            collector.end(signal.SIGKILL)


def new_traces(count: int) -> list[str]:
    return [secrets.token_hex(16) for _ in range(count)]


def new_span(trace_id: str, **more: Any) -> Json:
    return span(trace_id, secrets.token_hex(8), **more)


def query(stack: dict[str, str], expression: str) -> dict[str, float]:
    """Returns values by the label `collector_instance_id`, which is empty for a sum."""
    answer = httpx.get(f"{stack['prometheus']}/api/v1/query", params={"query": expression})
    found = answer.json()["data"]["result"]
    return {series["metric"].get("collector_instance_id", ""): float(series["value"][1]) for series in found}


def test_spans_of_one_trace_posted_apart_end_at_one_gateway(tiers: Tiers) -> None:
    traces = new_traces(60)
    roots = {trace: new_span(trace, **ERROR) for trace in traces}
    for service, parent in (("back", "0" * 15 + "1"), ("middle", "0" * 15 + "2")):
        tiers.post("traces", request_of(service, [new_span(t, parentSpanId=parent) for t in traces]))
    tiers.post("traces", request_of("front", list(roots.values())))

    eventually(lambda: len(set(traces) & set(tiers.all_trace_ids())) == 60, ARRIVAL_SECONDS)

    counts = [Counter(each for each in tiers.trace_ids(number) if each in roots) for number in (1, 2)]
    assert not counts[0].keys() & counts[1].keys()
    assert min(map(len, counts)) > 0
    assert counts[0] + counts[1] == Counter(dict.fromkeys(traces, 3))


def test_a_gateway_redacts_what_it_keeps(tiers: Tiers) -> None:
    trace = new_traces(1)[0]
    secret = attributes({"password": "hunter2", "note": "token=hunter2"})
    tiers.post("traces", request_of("redacted", [new_span(trace, attributes=secret, **ERROR)]))

    def kept() -> list[Json]:
        return [each for number in (1, 2) for each in tiers.arrived(number) if each["traceId"] == trace]

    (found,) = eventually(kept, ARRIVAL_SECONDS)
    assert {each["key"] for each in found["attributes"]} >= {"password", "note"}
    assert "hunter2" not in str(found)


def test_errors_violations_and_slow_traces_are_kept_and_the_rest_within_the_budget(tiers: Tiers) -> None:
    names = ("error", "failed", "slow verdict", "long", "rest")
    traces = {name: new_traces(3000 if name == "rest" else 100) for name in names}
    begin = str(time.time_ns() - 2_000_000_000)
    fields: dict[str, Json] = {
        "error": ERROR,
        "failed": {"attributes": attributes({"sightline.sla.outcome": "failed"})},
        "slow verdict": {"attributes": attributes({"sightline.sla.outcome": "slow"})},
        "long": {"startTimeUnixNano": begin},
        "rest": {},
    }
    started = time.monotonic()
    for name in names:
        tiers.post("traces", request_of("budget", [new_span(each, **fields[name]) for each in traces[name]]))
    decided = {each for name in names[:-1] for each in traces[name]}

    assert eventually(lambda: decided <= set(tiers.all_trace_ids()), ARRIVAL_SECONDS)
    seconds = time.monotonic() - started + 1
    time.sleep(1.5)  # the rest is decided by then, too
    rest = len(set(traces["rest"]) & set(tiers.all_trace_ids()))
    assert 0 < rest <= 2 * SPANS_PER_SECOND * seconds
    assert rest < 3000 * PERCENTAGE / 100 * 0.9  # the share alone would keep more


def test_few_traces_are_kept_in_their_share(tiers: Tiers) -> None:
    time.sleep(1)  # a second of its own for the rate
    traces = new_traces(500)
    marker = new_span(new_traces(1)[0], **ERROR)
    tiers.post("traces", request_of("share", [*map(new_span, traces), marker]))

    assert eventually(lambda: marker["traceId"] in tiers.all_trace_ids(), ARRIVAL_SECONDS)
    time.sleep(1.5)
    kept = len(set(traces) & set(tiers.all_trace_ids()))
    assert 55 < kept < 145  # 100 expected; five standard deviations


def test_span_metrics_of_two_gateways_add_up_to_every_span(tiers: Tiers, stack: dict[str, str]) -> None:
    service = f"counted-{secrets.token_hex(4)}"
    for _ in range(6):
        tiers.post("traces", request_of(service, [new_span(each) for each in new_traces(250)]))
    calls = f'traces_span_metrics_calls_total{{service_name="{service}"}}'
    durations = f'traces_span_metrics_duration_milliseconds_count{{service_name="{service}"}}'

    assert eventually(lambda: query(stack, f"sum({calls})") == {"": 1500}, ARRIVAL_SECONDS)
    time.sleep(2)  # two more reports of each gateway change nothing

    by_gateway = query(stack, f"sum by (collector_instance_id) ({calls})")
    assert by_gateway.keys() == {"gateway-1", "gateway-2"}
    assert min(by_gateway.values()) > 300
    assert sum(by_gateway.values()) == 1500
    assert query(stack, f"sum({durations})") == {"": 1500}


def test_service_graph_of_two_gateways_adds_up(tiers: Tiers, stack: dict[str, str]) -> None:
    name = secrets.token_hex(4)
    pairs = [(trace, secrets.token_hex(8)) for trace in new_traces(80)]
    callers = [span(trace, span_id, kind=3) for trace, span_id in pairs]
    called = [new_span(trace, parentSpanId=span_id) for trace, span_id in pairs]
    tiers.post("traces", request_of(f"caller-{name}", callers))
    tiers.post("traces", request_of(f"called-{name}", called))
    edges = f'traces_service_graph_request_total{{client="caller-{name}",server="called-{name}"}}'

    assert eventually(lambda: query(stack, f"sum({edges})") == {"": 80}, ARRIVAL_SECONDS)
    assert len(query(stack, f"sum by (collector_instance_id) ({edges})")) == 2


def test_metrics_and_logs_pass_through_a_gateway(tiers: Tiers, stack: dict[str, str]) -> None:
    service = f"passing-{secrets.token_hex(4)}"
    trace_id = new_traces(1)[0]
    tiers.post(
        "metrics",
        histogram_request(resource(service), "http.server.request.duration", trace_id, secrets.token_hex(8)),
    )
    tiers.post("logs", log_request(resource(service), [("order placed", {})], trace_id))
    count = f'http_server_request_duration_seconds_count{{service_name="{service}"}}'

    def lines() -> list[Json]:
        question = {"query": f'{{service_name="{service}"}}'}
        answer = httpx.get(f"{stack['loki']}/loki/api/v1/query_range", params=question)
        found: list[Json] = answer.json()["data"]["result"]
        return found

    assert eventually(lambda: query(stack, count) == {"": 1}, ARRIVAL_SECONDS)
    assert eventually(lines, ARRIVAL_SECONDS)


def test_what_the_agent_acknowledged_arrives_after_a_gateway_and_the_agent_were_killed(tiers: Tiers) -> None:
    first, second = tiers.gateways
    traces = new_traces(400)
    second.end(signal.SIGKILL)
    before = first.own_metric(ACCEPTED)
    for start in range(0, 400, 100):
        spans = [new_span(each, **ERROR) for each in traces[start : start + 100]]
        tiers.post("traces", request_of("outage", spans))

    def of_first() -> Counter[str]:
        return Counter(each for each in tiers.trace_ids(1) if each in traces)

    # The other gateway misses nothing and gets nothing twice, however often the dead one is tried again.
    assert eventually(lambda: len(of_first()) > 120, ARRIVAL_SECONDS)
    time.sleep(2)
    assert set(of_first().values()) == {1}
    assert first.own_metric(ACCEPTED) - before == len(of_first())

    tiers.agent.end(signal.SIGKILL)
    tiers.agent.start()
    second.start()

    assert eventually(lambda: set(traces) <= set(tiers.all_trace_ids()), ARRIVAL_SECONDS)
    assert not set(tiers.trace_ids(1)) & set(tiers.trace_ids(2))


def test_a_gateway_that_is_stopped_decides_what_still_waits(tiers: Tiers) -> None:
    traces = new_traces(200)
    before = sum(each.own_metric(ACCEPTED) for each in tiers.gateways)
    tiers.post("traces", request_of("stopped", [new_span(each, **ERROR) for each in traces]))
    assert eventually(
        lambda: sum(each.own_metric(ACCEPTED) for each in tiers.gateways) == before + 200, ARRIVAL_SECONDS
    )
    assert not set(traces) & set(tiers.all_trace_ids())  # undecided

    for gateway in tiers.gateways:
        gateway.end(signal.SIGTERM)
        gateway.start()

    assert eventually(lambda: set(traces) <= set(tiers.all_trace_ids()), ARRIVAL_SECONDS)


def test_a_secured_gateway_takes_only_what_has_its_token(tiers: Tiers, stack: dict[str, str]) -> None:
    folder = tiers.sink.folder.parent / "secured"
    folder.mkdir()
    certificates = make_certificates(folder)
    secured = build_tiers(folder, stack)
    gateway, agent = secured.gateways[0], secured.agent
    gateway.files.append(CONFIG / "overlays/secured-gateway.yaml")
    agent.files = [CONFIG / "agent.yaml", CONFIG / "overlays/secured-agent.yaml"]
    token_of_agent, token_of_gateway = folder / "token-agent", folder / "token-gateway"
    token_of_agent.write_text("wrong\n")
    token_of_gateway.write_text("right\n")
    gateway.variables |= {
        "PIPELINE_JAEGER_OTLP": tiers.gateways[0].variables["PIPELINE_JAEGER_OTLP"],
        "PIPELINE_GATEWAY_CERT_FILE": str(certificates.server[0]),
        "PIPELINE_GATEWAY_KEY_FILE": str(certificates.server[1]),
        "PIPELINE_GATEWAY_TOKEN_FILE": str(token_of_gateway),
    }
    agent.variables |= {
        "PIPELINE_GATEWAY_CA_FILE": str(certificates.authority),
        "PIPELINE_GATEWAY_TOKEN_FILE": str(token_of_agent),
    }
    try:
        gateway.start()
        agent.start()
        refused, taken = new_traces(2)
        secured.post("traces", request_of("secured", [new_span(refused, **ERROR)]))
        failed = "otelcol_exporter_send_failed_spans"
        assert eventually(lambda: agent.own_metric(failed) == 1, ARRIVAL_SECONDS)
        assert "Unauthenticated" in (agent.folder / "log").read_text()
        assert gateway.own_metric(ACCEPTED) == 0

        token_of_agent.write_text("right\n")  # read again without a restart
        time.sleep(1)
        secured.post("traces", request_of("secured", [new_span(taken, **ERROR)]))

        assert eventually(lambda: taken in tiers.trace_ids(1), ARRIVAL_SECONDS)
        assert refused not in tiers.trace_ids(1)
    finally:
        agent.end(signal.SIGKILL)
        gateway.end(signal.SIGKILL)
