"""Requests of 512 spans as Sightline sends them, with new IDs in each, posted over two connections."""

import http.client
import os
import time
from threading import Thread
from typing import Final

import numpy as np
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

SPANS_PER_POST: Final = 512
CONNECTIONS: Final = 2
_TRACE_ID: Final = b"\x01" * 16
_SPAN_ID: Final = b"\x02" * 8
_OK: Final = 200
_RETRY_SECONDS: Final = 0.02
_REFUSALS_WHEN_FULL: Final = 20

_RESOURCE: Final[dict[str, str | int]] = {
    "telemetry.sdk.language": "python",
    "telemetry.sdk.name": "opentelemetry",
    "telemetry.sdk.version": "1.45.1",
    "service.instance.id": "0273325b-aa5b-46a8-bc0f-a0e5cbf81c1a",
    "service.namespace": "store",
    "deployment.environment.name": "production",
    "service.version": "1.4.2",
    "service.name": "shop",
}
_SERVER: Final[dict[str, str | int]] = {
    "http.request.method": "GET",
    "url.scheme": "http",
    "http.response.status_code": 200,
    "network.protocol.version": "1.1",
    "server.address": "shop",
    "sightline.end_reason": "completed",
    "sightline.sla.outcome": "ok",
    "network.peer.address": "10.0.0.7",
    "client.address": "10.0.0.7",
    "url.path": "/orders/8412",
    "sightline.correlation_id": "c32923cecd92e139",
}
_DATABASE: Final[dict[str, str | int]] = {
    "db.system.name": "postgresql",
    "db.namespace": "orders",
    "db.operation.name": "SELECT",
    "db.query.text": "SELECT id, state, total FROM orders WHERE id = %s",
    "server.address": "db.internal",
    "server.port": 5432,
    "sightline.correlation_id": "c32923cecd92e139",
}
_SMALL: Final = (
    "http.request.method",
    "http.response.status_code",
    "db.system.name",
    "server.address",
    "sightline.correlation_id",
)
"""Attributes of a small span, by which the sink counts it too."""
_ROUTES: Final = ("/orders", "/orders/{id}", "/orders/{id}/items", "/search", "/basket/{id}")
_DATABASE_SPANS: Final = 4
"""One span in so many is a query, the others are requests."""


class Load:
    """Posts; any thread.

    Args:
        small: Whether a span has three attributes, not the eight to twelve that Sightline gives it.

    Attributes:
        bytes_per_post: Length of a request's body.
        bytes_per_span: The same, for one span.
    """

    def __init__(self, *, small: bool = False) -> None:
        body = _request(small=small).SerializeToString()
        self.bytes_per_post = len(body)
        self.bytes_per_span = len(body) / SPANS_PER_POST
        self._body = np.frombuffer(body, dtype=np.uint8)
        self._ids = np.concatenate(
            [_places(body, b"\n\x10", _TRACE_ID), _places(body, b"\x12\x08", _SPAN_ID)]
        )

    def send(self, address: str, posts: int) -> None:
        """Posts so many requests, all of which must be taken; asks again where it is told to wait."""
        shares = [posts // CONNECTIONS + (number < posts % CONNECTIONS) for number in range(CONNECTIONS)]
        threads = [Thread(target=self._send, args=(address, share)) for share in shares]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def fill(self, address: str) -> int:
        """Posts until nothing is taken any more; returns how many requests were."""
        connection = http.client.HTTPConnection(address)
        taken = refused = 0
        while refused < _REFUSALS_WHEN_FULL:
            if self._is_taken(connection):
                taken, refused = taken + 1, 0
            else:
                refused += 1
                time.sleep(0.1)
        return taken

    def _send(self, address: str, posts: int) -> None:
        connection = http.client.HTTPConnection(address)
        for _ in range(posts):
            while not self._is_taken(connection):
                time.sleep(_RETRY_SECONDS)
        connection.close()

    def _is_taken(self, connection: http.client.HTTPConnection) -> bool:
        body = self._body.copy()
        body[self._ids] = np.frombuffer(os.urandom(len(self._ids)), dtype=np.uint8)
        connection.request("POST", "/v1/traces", body.tobytes(), {"content-type": "application/x-protobuf"})
        answer = connection.getresponse()
        answer.read()
        return answer.status == _OK


def _places(body: bytes, tag: bytes, identity: bytes) -> np.typing.NDArray[np.intp]:
    """Returns where the bytes of all IDs of one kind stand."""
    found, at = [], body.find(tag + identity)
    while at >= 0:
        found.append(at + len(tag))
        at = body.find(tag + identity, at + 1)
    return (np.array(found)[:, None] + np.arange(len(identity))).ravel()


def _request(*, small: bool) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    resource_spans = request.resource_spans.add()
    resource_spans.resource.attributes.extend(attributes_of(_RESOURCE))
    scope_spans = resource_spans.scope_spans.add()
    scope_spans.scope.name = "sightline"
    scope_spans.spans.extend(_span(number, small=small) for number in range(SPANS_PER_POST))
    return request


def _span(number: int, *, small: bool) -> Span:
    end = time.time_ns()
    span = Span(trace_id=_TRACE_ID, span_id=_SPAN_ID, end_time_unix_nano=end, flags=256)
    span.start_time_unix_nano = end - (1 + number % 97) * 1_000_000
    if number % _DATABASE_SPANS == 0:
        span.name, span.kind, span.parent_span_id = "SELECT orders", Span.SPAN_KIND_CLIENT, b"\x03" * 8
        span.attributes.extend(attributes_of(_kept(_DATABASE, small=small)))
        return span
    route = _ROUTES[number % len(_ROUTES)]
    span.name, span.kind = f"GET {route}", Span.SPAN_KIND_SERVER
    span.attributes.extend(attributes_of(_kept(_SERVER | {"http.route": route}, small=small)))
    return span


def _kept(values: dict[str, str | int], *, small: bool) -> dict[str, str | int]:
    return {key: value for key, value in values.items() if key in _SMALL or not small}


def attributes_of(values: dict[str, str | int]) -> list[KeyValue]:
    """Returns attributes as OTLP has them."""
    pairs = []
    for key, value in values.items():
        pair = KeyValue(key=key)
        if isinstance(value, int):
            pair.value.int_value = value
        else:
            pair.value.string_value = value
        pairs.append(pair)
    return pairs
