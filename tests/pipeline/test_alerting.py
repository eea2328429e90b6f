"""Alerts for real: from what happens in the shop to Alertmanager's webhook, and so for their end."""

from __future__ import annotations

from pathlib import Path

import pytest
import stack_programs

from .otlp_payloads import Json
from .shop_story import Story
from .stack_fixture import CONFIG, eventually

pytestmark = pytest.mark.stack

LATE_SECONDS = 15.0  # the end of the last alert, and its group's interval
TOLD = {
    "SLOBudgetBurnFast": {"sightline_sla_objective": "payments", "service_name": "shop"},
    "DatabaseDown": {"db_system_name": "postgresql", "service_name": "shop"},
    "ServiceSilent": {"service_name": "twins"},
    "PipelineProgramDown": {"job": "jaeger"},
    "TelemetryDropped": {"service_name": "shop", "reason": "unavailable"},
    "MetricOverflow": {"service_name": "shop", "instrument": "shop.visits"},
    "BackgroundTaskFailures": {"service_name": "shop"},
    "CollectorDropped": {"exporter": "otlp_http/loki"},
}


def alert_of(story: Story, name: str, status: str) -> Json:
    """Returns the first alert with the labels above that the webhook was told of."""

    def matching() -> list[Json]:
        return [
            alert
            for alert in story.lapse.webhook.alerts(name, status)
            if TOLD[name].items() <= alert["labels"].items()
        ]

    found = eventually(matching, LATE_SECONDS)
    assert found, f"{name} {status} was not told of; told: {sorted(story.lapse.webhook.told())}"
    return found[0]


@pytest.mark.parametrize("name", TOLD)
def test_webhook_is_told_of_an_alert_and_of_its_end(story: Story, name: str) -> None:
    firing = alert_of(story, name, "firing")
    resolved = alert_of(story, name, "resolved")

    assert resolved["fingerprint"] == firing["fingerprint"]
    assert firing["labels"]["severity"] in {"page", "ticket"}
    assert "{{" not in firing["annotations"]["summary"]
    assert "<no value>" not in firing["annotations"]["summary"]


def test_summary_of_a_burn_has_the_numbers_to_decide_with(story: Story) -> None:
    summary = alert_of(story, "SLOBudgetBurnFast", "firing")["annotations"]["summary"]

    assert summary.startswith("shop: ")
    assert "availability of objective payments, which allows 5%." in summary
    assert "times the pace at which a 30-day budget lasts 30 days" in summary
    assert "it is gone in " in summary


def test_summary_of_a_drop_says_how_much_of_what_and_why(story: Story) -> None:
    summary = alert_of(story, "TelemetryDropped", "firing")["annotations"]["summary"]

    assert summary.startswith("shop has dropped ")
    assert summary.endswith(" items of traces in the last 10 minutes, reason unavailable.")


def told_meanwhile(
    story: Story, pages: tuple[str, ...], tickets: tuple[str, ...], **about: str
) -> list[Json]:
    """Returns what was told of tickets while one of the pages was firing."""

    def alerts(names: tuple[str, ...], status: str) -> list[Json]:
        return [
            alert
            for name in names
            for alert in story.lapse.webhook.alerts(name, status)
            if about.items() <= alert["labels"].items()
        ]

    times = [(page["startsAt"], page["endsAt"]) for page in alerts(pages, "resolved")]
    assert times
    return [
        ticket
        for ticket in alerts(tickets, "firing")
        if any(start < ticket["at"] < end for start, end in times)
    ]


def test_pages_silence_the_tickets_about_the_same_budget(story: Story) -> None:
    alert_of(story, "SLOBudgetBurnFast", "resolved")
    about = {"sightline_sla_objective": "payments", "sightline_sla_kind": "availability"}

    pages, tickets = (
        ("SLOBudgetBurnFast", "SLOBudgetBurnMedium"),
        ("SLOBudgetBurnSlow", "SLOBudgetBurnGradual"),
    )
    assert told_meanwhile(story, pages, tickets, **about) == []


def test_a_back_end_that_is_down_silences_its_full_queue(story: Story) -> None:
    alert_of(story, "PipelineProgramDown", "resolved")

    tickets = ("CollectorQueueFilling", "ExporterFailing")
    assert told_meanwhile(story, ("PipelineProgramDown",), tickets) == []


def test_without_a_webhook_nobody_is_told_and_no_address_is_kept(tmp_path: Path) -> None:
    layout = stack_programs.Layout(tmp_path, 0)
    layout.data("alertmanager").mkdir(parents=True)
    secret = layout.data("alertmanager") / "webhook-url"

    stack_programs.write_alert_receiver(layout, "http://127.0.0.1:1/secret")
    told = (layout.state / "alertmanager.yaml").read_text()
    assert (secret.read_text(), secret.stat().st_mode & 0o777) == ("http://127.0.0.1:1/secret", 0o600)
    stack_programs.write_alert_receiver(layout, None)

    assert not secret.exists()
    assert told.splitlines() != (CONFIG / "alertmanager.yaml").read_text().splitlines()
    assert (layout.state / "alertmanager.yaml").read_text() == (CONFIG / "alertmanager.yaml").read_text()
    assert "secret" not in told.replace("are secrets", "")
