"""Panels show the right number: promtool evaluates rules and queries on series whose answer is known."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from .dashboard_files import PROMQL, substituted
from .stack_fixture import CONFIG, binary

pytestmark = pytest.mark.stack

SHOP = 'service_name="shop",service_instance_id="1"'
JUDGED = f'sightline_sla_requests_total{{{SHOP},sightline_sla_objective="default",sightline_sla_outcome='
TARGET = f'sightline_sla_target_ratio{{{SHOP},sightline_sla_objective="default",sightline_sla_kind='
ANSWERED = f"http_server_request_duration_seconds_count{{{SHOP},error_type="
CALLED = f"traces_span_metrics_calls_total{{{SHOP},span_kind="
CLOSED = f"sightline_websocket_duration_seconds_count{{{SHOP},sightline_websocket_close_class="
WORKED = f'sightline_background_duration_seconds_count{{{SHOP},code_function_name="send",error_type='
SLOW = f"sightline_slow_operations_total{{{SHOP},sightline_operation="

SERIES = {
    **{f'{JUDGED}"{outcome}"}}': "0+60x40" for outcome in ("ok", "slow", "failed", "excluded")},
    **{f'{TARGET}"{kind}"}}': "0.99x40" for kind in ("availability", "latency")},
    **{f'{ANSWERED}"{error}"}}': "0+60x40" for error in ("", "ValueError", "client_disconnect")},
    **{f'{CLOSED}"{how}"}}': "0+60x40" for how in ("normal", "abnormal", "application", "refused")},
    **{f'{WORKED}"{error}"}}': "0+60x40" for error in ("", "ConnectionError")},
    **{f'{SLOW}"{operation}"}}': "0+60x40" for operation in ("db", "redis", "http", "request")},
    f'{CALLED}"SPAN_KIND_CLIENT",status_code="STATUS_CODE_UNSET"}}': "0+60x40",
    f'{CALLED}"SPAN_KIND_CLIENT",status_code="STATUS_CODE_ERROR"}}': "0+60x40",
    f'{CALLED}"SPAN_KIND_SERVER",status_code="STATUS_CODE_ERROR"}}': "0+60x40",
    'ALERTS{alertname="A",alertstate="firing",severity="page",service_name="shop"}': "1x40",
    'ALERTS{alertname="B",alertstate="firing",severity="page",service_name="other"}': "1x40",
    'ALERTS{alertname="C",alertstate="firing",severity="ticket",job="otelcol"}': "1x40",
    'ALERTS{alertname="D",alertstate="firing",severity="info",service_name="shop"}': "1x40",
    **{
        f'otelcol_receiver_refused_{signal}{{job="otelcol",receiver="otlp",transport="http"}}': "0+60x40"
        for signal in ("spans", "metric_points", "log_records")
    },
}
"""Series by what is added each 15 s, ten minutes long."""

NUMBERS = [
    ("sightline-overview", "Failed", 1 / 3),  # a client that went away is no failure
    ("sightline-overview", "Within objective", 1 / 3),  # excluded does not count
    ("sightline-overview", "Alerts", 2),  # of this service, and of the pipeline
    ("sightline-slo", "Fastest burn, availability", (1 / 3) / 0.01),
    ("sightline-slo", "Fastest burn, latency", (1 / 2) / 0.01),  # failed does not count
    ("sightline-slo", "Least budget, availability", 1 - (1 / 3) / 0.01),
    ("sightline-slo", "Excluded", 1 / 4),
    ("sightline-websocket", "Abnormal", 1 / 4),
    ("sightline-websocket", "Refused", 1 / 4),
    ("sightline-background", "Failed", 1 / 2),
    ("sightline-dependencies", "Failed", 1 / 2),  # of client spans only
    ("sightline-dependencies", "Slow queries", 2 * 60 * 60 / 15),  # two series, per minute
    ("sightline-dependencies", "Slow calls", 60 * 60 / 15),
    ("sightline-saturation", "Processes", 1),
    ("sightline-pipeline", "Refused", 3 * 60 / 15),  # three signals whose labels are alike
    ("sightline-pipeline", "Dropped by services", 0),
]


def query(uid: str, title: str) -> str:
    expr = next(case[2]["expr"] for case in PROMQL if (case[0], case[1]["title"]) == (uid, title))
    return f"round({substituted(expr, {'service': 'shop'})}, 0.0001)"


def write_recording_rules(path: Path) -> None:
    """Writes the rules that record, without those that alert: alerts are among the series above."""
    groups = [
        {**group, "rules": [rule for rule in group["rules"] if "record" in rule]}
        for shipped in (CONFIG / "rules").glob("*.yaml")
        for group in yaml.safe_load(shipped.read_text())["groups"]
    ]
    path.write_text(yaml.safe_dump({"groups": [group for group in groups if group["rules"]]}))


def promtool(path: Path, numbers: list[tuple[str, str, float]]) -> subprocess.CompletedProcess[str]:
    expected = [
        {
            "expr": query(uid, title),
            "eval_time": "10m",
            "exp_samples": [{"labels": "{}", "value": round(value, 4)}],
        }
        for uid, title, value in numbers
    ]
    series = [{"series": name, "values": values} for name, values in SERIES.items()]
    test = {"interval": "15s", "input_series": series, "promql_expr_test": expected}
    write_recording_rules(path.with_name("rules.yaml"))
    path.write_text(
        yaml.safe_dump({"rule_files": ["rules.yaml"], "evaluation_interval": "30s", "tests": [test]})
    )
    command = [binary("promtool"), "test", "rules", str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_numbers_are_right(tmp_path: Path) -> None:
    result = promtool(tmp_path / "numbers.yaml", NUMBERS)

    assert result.returncode == 0, result.stdout + result.stderr


def test_a_wrong_number_is_noticed(tmp_path: Path) -> None:
    result = promtool(tmp_path / "numbers.yaml", [("sightline-overview", "Failed", 2 / 3)])

    assert result.returncode != 0
