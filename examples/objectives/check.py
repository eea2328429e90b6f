"""Sends the deliveries a known traffic, and compares the telemetry with what it must be.

Prints what the counter `sightline.sla.requests` says; ends with 1 where that is not `EXPECTED`.
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import httpx

HERE: Final = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "quickstart"))  # the receiver, and what starts a server

from otlp_receiver import OtlpReceiver, Store, attributes  # noqa: E402
from shop_process import running_shop  # noqa: E402

ARRIVAL_SECONDS: Final = 15.0
Counts = dict[tuple[str, str, str], int]
"""By route, objective and verdict; a stream's verdict has a star, because latency leaves it out."""

TRAFFIC: Final = [
    *[("GET", "/deliveries/1")] * 5,
    ("GET", "/deliveries/13"),
    ("GET", "/deliveries/0"),
    ("GET", "/deliveries/1/events"),
    ("POST", "/deliveries?parcels=2"),
    ("POST", "/deliveries?parcels=20"),
    ("GET", "/report"),
    ("GET", "/broken"),
    ("GET", "/nowhere"),
    ("GET", "/healthz"),
]
EXPECTED: Final[Counts] = {
    ("/deliveries/{number}", "lookups", "ok"): 6,  # a 404 is the client's
    ("/deliveries/{number}", "lookups", "slow"): 1,
    ("/deliveries/{number}/events", "lookups", "ok*"): 1,
    ("/deliveries", "bookings", "ok"): 1,
    ("/deliveries", "bookings", "failed"): 1,
    ("/report", "report", "ok"): 1,
    ("/broken", "default", "failed"): 1,
    ("", "default", "ok"): 1,  # no route handled it
    ("/healthz", "default", "excluded"): 1,
}
SPANS: Final = {"ok": 10, "slow": 1, "failed": 2, "excluded": 1}
"""The verdicts on spans: the ok ones of streams included."""


def main() -> int:
    """Runs the check; returns the exit code."""
    with OtlpReceiver() as receiver, tempfile.TemporaryFile("w+") as log:
        settings = {
            "PYTHONPATH": str(HERE),
            "SIGHTLINE_SLA_FILE": str(HERE / "objectives.yaml"),
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
            "OTEL_METRIC_EXPORT_INTERVAL": "500",
        }
        with running_shop(settings, log, "deliveries:app") as url:
            for method, path in TRAFFIC:
                httpx.request(method, url + path, headers={"connection": "close"})
            counts, spans = _wait_for(receiver.store)
    for (route, objective, verdict), count in sorted(counts.items()):
        print(f"{route or '(no route)':<30} {objective:<10} {verdict:<9} {count}")
    is_right = counts == EXPECTED and spans == SPANS
    print("as expected" if is_right else f"error: expected {EXPECTED}, and on spans {SPANS}, not {spans}")
    return 0 if is_right else 1


def _wait_for(store: Store) -> tuple[Counts, dict[str, int]]:
    deadline = time.monotonic() + ARRIVAL_SECONDS
    while time.monotonic() < deadline:
        found = _counts(store), _spans(store)
        if found == (EXPECTED, SPANS):
            break
        time.sleep(0.1)
    return found


def _counts(store: Store) -> Counts:
    """Returns what the counter says, without its zeros and the request that waited for the server."""
    counters = [item.data.sum for item in list(store.metrics) if item.data.name == "sightline.sla.requests"]
    counts: Counts = {}
    for point in counters[-1].data_points if counters else ():
        has = attributes(point.attributes)
        star = "*" if has.get("sightline.sla.latency_eligible") is False else ""
        route = has.get("http.route", "")
        if point.as_int and route != "/openapi.json":
            counts[route, has["sightline.sla.objective"], has["sightline.sla.outcome"] + star] = point.as_int
    return counts


def _spans(store: Store) -> dict[str, int]:
    verdicts = [
        has["sightline.sla.outcome"]
        for item in list(store.spans)
        for has in [attributes(item.data.attributes)]
        if has.get("url.path") != "/openapi.json" and "sightline.sla.outcome" in has
    ]
    return {verdict: verdicts.count(verdict) for verdict in SPANS}


if __name__ == "__main__":
    sys.exit(main())
