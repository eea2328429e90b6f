"""A constant load of distinct items, a ledger of those that were acknowledged, and the look for them."""

from __future__ import annotations

import itertools
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import httpx

from .otlp_payloads import Json, attributes, log_request, resource

SIGNALS = ("traces", "metrics", "logs")
ITEMS = 10  # of one post
POSTS_PER_SERVICE = 50  # of one service name: a look-up is small, and a Loki stream below its rate limit


def item_ids(number: int) -> set[str]:
    """Returns the IDs of the items of a post; they are the same in the three signals."""
    return {f"{number}.{lane}" for lane in range(ITEMS)}


def _traces(service: str, number: int, padding: str) -> Json:
    now = time.time_ns()
    trace_id = secrets.token_hex(16)
    spans = [
        {
            "traceId": trace_id,
            "spanId": secrets.token_hex(8),
            "name": "POST /outage",
            "kind": 2,
            "startTimeUnixNano": str(now - 1_000_000),
            "endTimeUnixNano": str(now),
            "attributes": attributes({"item": item, "padding": padding}),
        }
        for item in item_ids(number)
    ]
    scope = {"scope": {"name": "test"}, "spans": spans}
    return {"resourceSpans": [{"resource": resource(service), "scopeSpans": [scope]}]}


def _metrics(service: str, number: int, padding: str) -> Json:
    """Returns a point for each of ten counters, whose value is the number of the post."""
    now = time.time_ns()
    points = [
        {
            "startTimeUnixNano": str(now - 3_600_000_000_000),
            "timeUnixNano": str(now),
            "asInt": str(number),
            "attributes": attributes({"lane": str(lane)}),
        }
        for lane in range(ITEMS)
    ]
    counter = {"aggregationTemporality": 2, "isMonotonic": True, "dataPoints": points}
    metric = {"name": "outage.posts", "description": padding, "sum": counter}
    scope = {"scope": {"name": "test"}, "metrics": [metric]}
    return {"resourceMetrics": [{"resource": resource(service), "scopeMetrics": [scope]}]}


def _logs(service: str, number: int, padding: str) -> Json:
    return log_request(resource(service), [(f"x{padding}", {"item": item}) for item in item_ids(number)])


_BUILDERS: dict[str, Callable[[str, int, str], Json]] = {
    "traces": _traces,
    "metrics": _metrics,
    "logs": _logs,
}


@dataclass
class Ledger:
    """What the collector answered to the posts of one signal.

    Attributes:
        acknowledged: Number of each post answered with 200, and when, on the monotonic clock.
        answers: How many answers there were of each status; 0 stands for none at all.
    """

    acknowledged: dict[int, float] = field(default_factory=dict)
    answers: Counter[int] = field(default_factory=Counter)

    def items(self, before: float) -> dict[int, set[str]]:
        """Returns the IDs acknowledged before a moment, by the number of their service."""
        found: dict[int, set[str]] = {}
        for number, moment in list(self.acknowledged.items()):
            if moment < before:
                found.setdefault(number // POSTS_PER_SERVICE, set()).update(item_ids(number))
        return found


class Load:
    """Posts distinct items of each signal, in a `with` block at a constant rate, and looks for them.

    One thread per signal: a signal that waits does not hold up the others.
    """

    def __init__(self, stack: dict[str, str], posts_per_second: float = 10.0) -> None:
        self.ledgers = {signal: Ledger() for signal in SIGNALS}
        self._stack = stack
        self._interval_seconds = 1 / posts_per_second
        self._name = f"outage-{secrets.token_hex(3)}"
        self._numbers = {signal: itertools.count(1) for signal in SIGNALS}
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(signal,)) for signal in SIGNALS]
        self._found: dict[str, set[str]] = {signal: set() for signal in SIGNALS}
        self._client = httpx.Client(timeout=60)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends the posting; the ledgers do not change any more."""
        self._stopped.set()
        for thread in self._threads:
            if thread.ident:
                thread.join()
        self._client.close()

    def _run(self, signal: str) -> None:
        due = time.monotonic()
        while not self._stopped.wait(max(0.0, due - time.monotonic())):
            self.post(signal)
            due += self._interval_seconds

    def post(self, signal: str, padding_bytes: int = 0) -> int:
        """Posts the next items, with so much text in each; returns the status, 0 for no answer."""
        number = next(self._numbers[signal])
        request = _BUILDERS[signal](
            self._service(number // POSTS_PER_SERVICE), number, secrets.token_hex(padding_bytes // 2)
        )
        ledger = self.ledgers[signal]
        try:
            answer = self._client.post(f"{self._stack['otlp_http']}/v1/{signal}", json=request)
        except httpx.TransportError:
            ledger.answers[0] += 1
            return 0
        ledger.answers[answer.status_code] += 1
        if answer.status_code == httpx.codes.OK and not answer.json().get("partialSuccess"):
            ledger.acknowledged[number] = time.monotonic()
        return answer.status_code

    def missing(self, signal: str, before: float | None = None) -> set[str]:
        """Returns what was acknowledged, before a moment where one is given, and is not to be found.

        What was found once is not looked for again.
        """
        look = {"traces": self._in_jaeger, "metrics": self._in_prometheus, "logs": self._in_loki}[signal]
        found = self._found[signal]
        missing: set[str] = set()
        expected = self.ledgers[signal].items(time.monotonic() if before is None else before)
        for block, items in expected.items():
            if items - found:
                found |= look(self._service(block))
            missing |= items - found
        return missing

    def _service(self, block: int) -> str:
        return f"{self._name}-{block}"

    def _get(self, url: str, **parameters: str) -> Any:
        headers = {"X-Loki-Response-Encoding-Flags": "categorize-labels"}
        answer = httpx.get(url, params=parameters, headers=headers, timeout=60)
        return answer.json().get("data") if answer.is_success else None

    def _in_jaeger(self, service: str) -> set[str]:
        url = f"{self._stack['jaeger']}/api/traces"
        traces = self._get(url, service=service, limit="1000", lookback="1h") or []
        tags = (tag for trace in traces for span in trace["spans"] for tag in span["tags"])
        return {tag["value"] for tag in tags if tag["key"] == "item"}

    def _in_prometheus(self, service: str) -> set[str]:
        query = f'{{__name__=~"outage_posts.*",service_name="{service}"}}[30m]'
        data = self._get(f"{self._stack['prometheus']}/api/v1/query", query=query) or {"result": []}
        return {
            f"{value}.{series['metric']['lane']}"
            for series in data["result"]
            for _, value in series["values"]
        }

    def _in_loki(self, service: str) -> set[str]:
        query = f'{{service_name="{service}"}} | line_format "{{{{.item}}}}"'
        url = f"{self._stack['loki']}/loki/api/v1/query_range"
        data = self._get(url, query=query, limit="5000", since="1h") or {"result": []}
        return {value[1] for stream in data["result"] for value in stream["values"]}
