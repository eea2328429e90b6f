"""The main job, end to end: one request of the quickstart, found in all three back ends by one ID."""

import secrets
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from shop_process import running_shop
from telemetry_sources import CORRELATION_ID, StackSource

pytestmark = pytest.mark.stack

SPAN_METRICS_SECONDS = 18
"""Their interval, the time that an edge of the service graph waits for its other side, and an export."""
ARRIVAL_SECONDS = 30


class Shop:
    """A running quickstart application and the back ends that hold its telemetry."""

    def __init__(self, url, source, service):
        self.url = url
        self.source = source
        self.service = service

    def order(self, correlation_id):
        return httpx.post(
            f"{self.url}/orders",
            json={"item_id": 2, "quantity": 3},
            headers={"x-correlation-id": correlation_id},
            timeout=20,
        )

    def streams(self):
        """Returns the index label sets that Loki holds for the service."""
        selector = f'{{service_name="{self.service}"}}'
        return self.source.loki("/loki/api/v1/series", **{"match[]": selector, "start": self.start()})["data"]

    def series(self):
        """Returns all series that Prometheus holds for the service."""
        selector = f'{{job="{self.service}"}}'
        return self.source.prometheus("/api/v1/series", **{"match[]": selector, "start": self.start()})[
            "data"
        ]

    @staticmethod
    def start():
        return str(int(time.time()) - 3600)


@pytest.fixture(scope="module")
def shop(stack, tmp_path_factory):
    service = f"shop-{secrets.token_hex(3)}"
    settings = {
        "OTEL_SERVICE_NAME": service,
        "OTEL_EXPORTER_OTLP_ENDPOINT": stack["otlp_http"],
        "OTEL_METRIC_EXPORT_INTERVAL": "1000",
    }
    log_path = tmp_path_factory.mktemp("shop") / "shop.log"
    with (
        log_path.open("w") as log,
        running_shop(settings, log) as url,
        StackSource(stack, service, time.time() - 60) as source,
    ):
        yield Shop(url, source, service)


def eventually(look, what):
    """Returns the first true result of a look-up, or fails after `ARRIVAL_SECONDS`."""
    deadline = time.monotonic() + ARRIVAL_SECONDS
    while not (found := look()):
        assert time.monotonic() < deadline, f"{what} did not arrive within {ARRIVAL_SECONDS} s"
        time.sleep(0.3)
    return found


@pytest.fixture(scope="module")
def order(shop):
    """One followed request: its correlation ID and its spans in Jaeger."""
    correlation_id = f"order-{secrets.token_hex(6)}"
    answer = shop.order(correlation_id)
    assert (answer.status_code, answer.headers["x-correlation-id"]) == (201, correlation_id)
    spans = eventually(
        lambda: [s for s in shop.source.spans(correlation_id) if s.name == "POST /orders"], "the span"
    )
    return correlation_id, spans[0]


def test_jaeger_has_the_request_under_its_correlation_id(shop, order):
    correlation_id, span = order
    spans = eventually(lambda: len(found := shop.source.spans(correlation_id)) == 4 and found, "the traces")
    assert sorted((s.name.strip(), s.kind) for s in spans if s.trace_id == span.trace_id) == [
        ("GET", "client"),
        ("GET /items/{item_id}", "server"),
        ("POST /orders", "server"),
    ]
    assert [s.name for s in spans if s.trace_id != span.trace_id] == ["background send_receipt"]


def test_loki_has_its_log_records_and_keeps_the_id_out_of_the_labels(shop, order):
    correlation_id, span = order
    logs = eventually(lambda: len(found := shop.source.logs(correlation_id)) == 2 and found, "the records")
    assert [log.body for log in logs] == ["ordered 3 of item 2", "receipt over 5700 cents sent"]
    assert logs[0].trace_id == span.trace_id
    # The receipt is a background task: it has a trace of its own, linked to the request's.
    assert logs[1].trace_id not in ("", span.trace_id)
    assert {label for stream in shop.streams() for label in stream} == {"service_name"}


def test_prometheus_has_its_trace_as_an_exemplar_of_the_duration(shop, order):
    _, span = order
    point = eventually(
        lambda: (p := shop.source.point("/orders", "POST")) and span.trace_id in p.exemplar_trace_ids and p,
        "the exemplar",
    )
    assert (point.status_code, point.count) == ("201", 1)


def settled_series(shop):
    """Returns the series once another flush of what the collector makes of spans has added none."""
    series = sorted(map(str, shop.series()))
    for _ in range(4):
        time.sleep(SPAN_METRICS_SECONDS)
        earlier, series = series, sorted(map(str, shop.series()))
        if series == earlier:
            return series
    raise AssertionError("series come and come")


def test_five_hundred_ids_add_no_stream_and_no_series(shop, order):
    prefix = secrets.token_hex(4)
    with httpx.Client(base_url=shop.url) as client, ThreadPoolExecutor(4) as pool:

        def look_up(number):
            headers = {"x-correlation-id": f"{prefix}-{number}"}
            return client.get("/items/2", headers=headers).status_code

        assert look_up("before") == 200
        eventually(lambda: shop.source.logs(f"{prefix}-before"), "the first record")
        series = settled_series(shop)  # every series that one request makes is there
        count = shop.source.point("/items/{item_id}", "GET").count
        streams = shop.streams()
        assert list(pool.map(look_up, range(500))) == [200] * 500
    eventually(lambda: shop.source.logs(f"{prefix}-499"), "the last record")
    eventually(lambda: shop.source.point("/items/{item_id}", "GET").count == count + 500, "the count")
    assert shop.streams() == streams
    assert settled_series(shop) == series


def test_the_ids_are_searchable_as_span_attribute_only(shop, order):
    correlation_id, _ = order
    assert CORRELATION_ID.startswith("sightline.")
    values = shop.source.prometheus("/api/v1/label/__name__/values")["data"]
    assert not [name for name in values if correlation_id in name]
    assert all(correlation_id not in str(found) for found in shop.series())
