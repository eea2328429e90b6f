"""Questions to Prometheus, Loki and Jaeger about a story, asked as of the times at which it happened."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from .otlp_payloads import Json
from .shop_story import Story

SIGNAL = re.compile(r"spans|metric_points|log_records")
AFTER_SECONDS = 5.0  # what ended last may come in a little later


class BackEnds:
    """Asks the three back ends; an answer other than 200 fails the test with what the back end says."""

    def __init__(self, story: Story, client: httpx.Client) -> None:
        self.story = story
        self._client = client

    def _get(self, program: str, path: str, **parameters: str) -> Any:
        answer = self._client.get(self.story.lapse.endpoints[program] + path, params=parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    def samples(self, expr: str, at: float | None = None) -> list[Json]:
        """Returns what PromQL finds at a time, by default when everything had gone wrong."""
        when = self.story.worst if at is None else at
        found: list[Json] = self._get("prometheus", "/api/v1/query", query=expr, time=f"{when:.3f}")["result"]
        return found

    def without_series(self, selectors: Iterable[str]) -> list[str]:
        """Returns the selectors that have found nothing in the last five minutes.

        What is counted for each signal apart is one: a failure was seen in at least one of the three.
        """
        found: dict[str, bool] = {}
        for selector in selectors:
            kind = SIGNAL.sub("SIGNAL", selector)
            found[kind] = found.get(kind, False) or bool(self.samples(f"last_over_time({selector}[5m])"))
        return [kind for kind, is_found in found.items() if not is_found]

    def history(self, expr: str) -> list[Json]:
        """Returns what PromQL finds in each second of the story."""
        span = {"start": f"{self.story.began:.3f}", "end": f"{self.story.ended:.3f}", "step": "1"}
        found: list[Json] = self._get("prometheus", "/api/v1/query_range", query=expr, **span)["result"]
        return found

    def rules(self) -> list[Json]:
        """Returns all rules as Prometheus has them, with health and last error."""
        groups = self._get("prometheus", "/api/v1/rules")["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def label_values(self, label: str, selector: str) -> list[str]:
        """Returns the values of a label of some series."""
        found: list[str] = self._get(
            "prometheus", f"/api/v1/label/{label}/values", **{"match[]": selector, **self._span()}
        )
        return found

    def exemplars(self, expr: str, since: float, until: float) -> list[Json]:
        """Returns the exemplars of the series that a query selects."""
        span = {"start": f"{since:.3f}", "end": f"{until:.3f}"}
        found = self._get("prometheus", "/api/v1/query_exemplars", query=expr, **span)
        return [exemplar for series in found for exemplar in series["exemplars"]]

    def streams(self, expr: str) -> list[Json]:
        """Returns what LogQL finds in the whole story."""
        found: list[Json] = self._get("loki", "/loki/api/v1/query_range", query=expr, **self._span())[
            "result"
        ]
        return found

    def spans(self, trace_id: str) -> list[Json]:
        """Returns the spans of a trace; empty where Jaeger has none."""
        answer = self._client.get(f"{self.story.lapse.endpoints['jaeger']}/api/traces/{trace_id}")
        return answer.json()["data"][0]["spans"] if answer.status_code == 200 else []

    def traces(self, service: str, tags: str) -> list[Json]:
        """Returns the traces that a search finds; tags are in logfmt, as Grafana sends them."""
        pairs = json.dumps(dict(re.findall(r'([\w.]+)="([^"]*)"', tags)))
        found: list[Json] = self._get("jaeger", "/api/traces", service=service, tags=pairs, limit="20")
        return found

    def calls(self) -> set[tuple[str, str]]:
        """Returns who calls whom, as Jaeger derives it."""
        span = {"endTs": str(int((self.story.ended + 60) * 1000)), "lookback": "3600000"}
        return {(each["parent"], each["child"]) for each in self._get("jaeger", "/api/dependencies", **span)}

    def _span(self) -> dict[str, str]:
        return {
            "start": str(int(self.story.began - AFTER_SECONDS)),
            "end": str(int(self.story.ended + AFTER_SECONDS)),
        }


@contextmanager
def asking(story: Story) -> Iterator[BackEnds]:
    """Gives the back ends of a story, by connections that stay open."""
    with httpx.Client(timeout=30) as client:
        yield BackEnds(story, client)
