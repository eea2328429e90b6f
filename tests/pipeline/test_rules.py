"""Rules: unit tests by promtool for every rule and situation, metrics that exist, runbooks that help."""

from __future__ import annotations

import re
import shutil
import subprocess
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml

from .stack_fixture import CONFIG, ROOT, RULE_FILES, binary

RULES = CONFIG / "rules"
TEST_FILES = sorted((RULES / "tests").glob("*.yaml"))
SITUATIONS = ("firing", "not firing", "counter reset", "absent series", "zero traffic", "two services")
DASHBOARDS = {
    f"sightline-{name}"
    for name in (
        *("overview", "route", "slo", "websocket", "background"),
        *("dependencies", "saturation", "logs", "pipeline"),
    )
}
BLOCK = re.compile(r"```promql\n(.*?)```", re.DOTALL)
METRIC = re.compile(r"\b(?:sightline|http|otelcol|traces|up|objective|route)(?:[_:]\w+)*(?![\w:]*\()")
SUFFIXES = ("_total", "_seconds", "_seconds_bucket", "_seconds_count", "_ratio", "")


def groups() -> list[dict[str, Any]]:
    return [group for path in RULE_FILES for group in yaml.safe_load(path.read_text())["groups"]]


ALL = [rule for group in groups() for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for rule in ALL if "alert" in rule}
RECORDS = {rule["record"] for rule in ALL if "record" in rule}


def cases() -> list[dict[str, Any]]:
    return [case for path in TEST_FILES for case in yaml.safe_load(path.read_text())["tests"]]


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [binary("promtool"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def metrics_in(expression: str) -> set[str]:
    """Returns names of metrics, without what stands in strings, braces, brackets and groupings."""
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^]]*\]|\b(?:by|on|without) ?\([^)]*\)', " ", expression)
    return set(METRIC.findall(bare))


def runbook(alert: str) -> str:
    page = ROOT / str(ALERTS[alert]["annotations"]["runbook_url"])
    return page.read_text()


@pytest.mark.stack
@pytest.mark.parametrize("path", TEST_FILES, ids=lambda path: path.stem)
def test_promtool_unit_tests_pass(path: Path) -> None:
    result = promtool("test", "rules", path)

    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.stack
def test_promtool_unit_tests_fail_on_another_threshold(tmp_path: Path) -> None:
    shutil.copytree(RULES, tmp_path / "rules")
    rules = tmp_path / "rules" / "telemetry.yaml"
    text = rules.read_text()
    assert text.count("_capacity > 0) > 0.5") == 1
    rules.write_text(text.replace("_capacity > 0) > 0.5", "_capacity > 0) > 0.9"))

    result = promtool("test", "rules", tmp_path / "rules" / "tests" / "telemetry.yaml")

    assert result.returncode != 0
    assert "firing: CollectorQueueFilling" in result.stdout + result.stderr


@pytest.mark.parametrize("situation", SITUATIONS)
def test_every_alert_is_tested_in_the_situation(situation: str) -> None:
    fires = situation in {"firing", "two services"}
    tested = {
        test["alertname"]
        for case in cases()
        for test in case.get("alert_rule_test", ())
        if case["name"].startswith(f"{situation}: ") and len(test["exp_alerts"]) == int(fires)
    }

    assert tested == set(ALERTS)


@pytest.mark.parametrize("situation", ["two services", "counter reset", "zero traffic", "absent series"])
def test_every_recording_rule_is_tested_in_the_situation(situation: str) -> None:
    tested = {
        name
        for case in cases()
        if f": {situation}" in case["name"]
        for test in case.get("promql_expr_test", ())
        if test["exp_samples"] or situation in {"zero traffic", "absent series"}
        for name in metrics_in(test["expr"])
    }

    assert tested == RECORDS


@pytest.mark.parametrize("name", ALERTS)
def test_alert_says_how_bad_what_and_where_to_read_on(name: str) -> None:
    labels, notes = ALERTS[name]["labels"], ALERTS[name]["annotations"]

    assert labels["severity"] in {"page", "ticket", "info"}
    assert labels["topic"]
    assert "{{" in notes["summary"]
    dashboard = re.fullmatch(
        r"http://127\.0\.0\.1:3000/d/([\w-]+)(\?var-service=.*)?", notes["dashboard_url"]
    )
    assert dashboard
    assert dashboard[1] in DASHBOARDS


@pytest.mark.parametrize("name", ALERTS)
def test_runbook_names_the_alert_its_metrics_causes_and_a_way_out(name: str) -> None:
    page = runbook(name)

    assert f"`{name}`" in page
    for heading in ("## Look", "## Likely causes", "## Way out"):
        assert heading in page
    queried = {metric for block in BLOCK.findall(page) for metric in metrics_in(block)}
    assert queried & metrics_in(ALERTS[name]["expr"]), queried


def test_every_runbook_belongs_to_an_alert() -> None:
    pages = {f"docs/runbooks/{page.name}" for page in (ROOT / "docs/runbooks").glob("*.md")}

    assert pages == {alert["annotations"]["runbook_url"] for alert in ALERTS.values()}


@pytest.mark.stack
def test_queries_of_runbooks_parse(tmp_path: Path) -> None:
    blocks = [block for name in ALERTS for block in BLOCK.findall(runbook(name))]
    rules = [{"record": f"runbook_query_{number}", "expr": block} for number, block in enumerate(blocks)]
    path = tmp_path / "queries.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "runbooks", "rules": rules}]}))

    result = promtool("check", "rules", path)

    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.stack
def test_rule_of_the_how_to_page_is_valid(tmp_path: Path) -> None:
    page = (ROOT / "docs/how-to/add-an-alert.md").read_text()
    path = tmp_path / "rule.yaml"
    path.write_text(textwrap.dedent(re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)[0]))

    result = promtool("check", "rules", path)

    assert result.returncode == 0, result.stdout + result.stderr
    assert "1 rules found" in result.stdout


def names_in_code() -> set[str]:
    """Returns every dotted name in our sources and of the conventions' metrics, as Prometheus writes it."""
    from opentelemetry.semconv.metrics import http_metrics

    sources = [*(ROOT / "instrumentation").rglob("*.py"), *(ROOT / "processors").rglob("*.py")]
    found = {
        name for path in sources for name in re.findall(r'"(sightline\.[a-z_.]+)"', path.read_text())
    } | {http_metrics.HTTP_SERVER_REQUEST_DURATION}
    return {name.replace(".", "_") for name in found}


@pytest.mark.stack
def test_every_metric_of_rules_and_runbooks_is_emitted_by_code_or_collector() -> None:
    texts = [rule["expr"] for rule in ALL]
    texts += [block for name in ALERTS for block in BLOCK.findall(runbook(name))]
    named = {metric for text in texts for metric in metrics_in(text)} - RECORDS - {"up"}
    code, collector = names_in_code(), Path(binary("otelcol")).read_bytes()
    jaeger = Path(binary("jaeger")).read_bytes()

    def is_emitted(metric: str) -> bool:
        if metric.startswith("otelcol_processor_filter_"):  # has a dot in it, and a suffix in Jaeger
            name = metric.removesuffix("_total").replace("_", "[._]")
            return re.search(name.encode(), jaeger) is not None
        if metric.startswith("otelcol_"):
            return metric.encode() in collector
        if metric.startswith("traces_span_metrics_"):
            return b"traces.span.metrics" in collector
        return any(metric == name + suffix for name in code for suffix in SUFFIXES)

    assert {metric for metric in named if not is_emitted(metric)} == set()
    assert not is_emitted("sightline_no_such_metric_total")
    assert not is_emitted("otelcol_processor_filter_no_such_total")


def test_requests_are_counted_with_the_interval_of_the_group_that_records_them() -> None:
    intervals = {
        group["interval"]
        for group in groups()
        for rule in group["rules"]
        if rule.get("record") in {"objective:sla_bad:rate5m", "objective:sla_events:rate5m"}
    }
    factors = {
        factor for rule in ALL for factor in re.findall(r"(\d+) \* sum_over_time\(objective", rule["expr"])
    }

    assert (intervals, factors) == ({"30s"}, {"30"})


def test_no_rule_names_a_service() -> None:
    for rule in ALL:
        assert not re.search(r"(?:service_name|service_namespace|http_route)(?:=|!=|=~)", rule["expr"])


@pytest.mark.stack
@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        ({"severity": "page"}, "webhook"),
        ({"severity": "ticket"}, "webhook"),
        ({"severity": "info"}, "nobody"),
    ],
)
def test_pages_and_tickets_go_to_the_webhook_and_information_to_nobody(
    labels: dict[str, str], receiver: str, tmp_path: Path
) -> None:
    configuration = tmp_path / "alertmanager.yaml"
    shipped = (CONFIG / "alertmanager.yaml").read_text()
    configuration.write_text(shipped.replace("receiver: nobody", "receiver: webhook", 1))
    matchers = [f"{key}={value}" for key, value in labels.items()]
    command = [binary("amtool"), "config", "routes", "test", f"--config.file={configuration}"]

    result = subprocess.run([*command, *matchers], capture_output=True, text=True, check=False)

    assert result.stdout.strip() == receiver
