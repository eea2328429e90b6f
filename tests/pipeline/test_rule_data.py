"""Rules on what the shop did: each is evaluated, finds its series, fires for its reason, and resolves."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from .back_ends import BackEnds, asking
from .shop_story import CAUSED, Story
from .stack_fixture import RULE_FILES
from .time_lapse import quickened

pytestmark = pytest.mark.stack

RULES = [
    rule
    for path in RULE_FILES
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RECORDS = sorted({rule["record"] for rule in RULES if "record" in rule})

ELSEWHERE = {'otelcol_processor_filter_spans_filtered_total{filter="filter/unstorable"}'}
"""Seen in Jaeger by `test_collector_attacks.py`, which sends what Badger cannot store."""

SELECTOR = re.compile(
    r"\bup\{[^}]*\}|\b[a-z][\w:]*(?:\{[^}]*\})?(?=\[)|\b[a-z]\w*[:_][\w:]*\b(?:\{[^}]*\})?(?![\w(\[])"
)


@pytest.fixture(scope="module")
def back_ends(story: Story) -> Iterator[BackEnds]:
    with asking(story) as found:
        yield found


def names(rules: list[dict[str, Any]], key: str) -> list[str]:
    return sorted(rule[key] for rule in rules if key in rule)


def test_prometheus_has_evaluated_every_rule_without_an_error(story: Story, back_ends: BackEnds) -> None:
    loaded = back_ends.rules()
    ill = {rule["name"]: rule.get("lastError") for rule in loaded if rule["health"] != "ok"}

    assert ill == {}
    assert names(loaded, "name") == sorted(names(RULES, "alert") + names(RULES, "record"))


@pytest.mark.parametrize("record", RECORDS)
def test_every_recording_rule_has_data(story: Story, back_ends: BackEnds, record: str) -> None:
    assert back_ends.samples(record)
    for rule in RULES:
        if rule.get("record") == record:
            assert back_ends.samples(rule["expr"]), rule["expr"]  # as it is shipped, with its own windows


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_expression_is_understood_and_looks_at_series_that_exist(
    story: Story, back_ends: BackEnds, alert: str
) -> None:
    expr = ALERTS[alert]["expr"]
    back_ends.samples(expr)
    bare = re.sub(r"\b(?:by|on|without) ?\([^)]*\)", " ", expr)
    selectors = set(SELECTOR.findall(bare)) - ELSEWHERE

    assert selectors
    assert back_ends.without_series(selectors) == []


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_fired_for_its_reason_and_resolved(story: Story, back_ends: BackEnds, alert: str) -> None:
    labels = ",".join(f'{name}="{value}"' for name, value in CAUSED[alert].items())
    firing = f'ALERTS{{alertname="{alert}",alertstate="firing",{labels}}}'

    assert back_ends.history(firing), "never fired"
    assert back_ends.samples(firing, story.ended) == [], "still fires"


def test_the_alerts_of_the_story_are_all_there_are() -> None:
    assert set(CAUSED) == set(ALERTS)


def test_a_quick_rule_is_the_shipped_one_with_shorter_times() -> None:
    assert quickened("30 * sum_over_time(x:rate5m[1h] offset 10m) >= 10\n  for: 2m\n  interval: 30s") == (
        "1 * sum_over_time(x:rate5m[120000ms] offset 20000ms) >= 10\n  for: 4000ms\n  interval: 1000ms"
    )
    assert quickened("300 * route:http_server_errors:rate5m >= 10") == (
        "10 * route:http_server_errors:rate5m >= 10"
    )
