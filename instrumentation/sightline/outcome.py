"""What all requests with one outcome share: the span's name, attribute sets, and their bytes."""

from dataclasses import dataclass
from typing import Final, NamedTuple

from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.semconv.attributes.http_attributes import (
    HTTP_REQUEST_METHOD,
    HTTP_RESPONSE_STATUS_CODE,
    HTTP_ROUTE,
)
from opentelemetry.semconv.attributes.network_attributes import NETWORK_PROTOCOL_VERSION
from opentelemetry.semconv.attributes.url_attributes import URL_SCHEME

from sightline.attributes import OTHER_METHOD
from sightline.old_conventions import renamed
from sightline.span_bytes import attributes_bytes
from sightline.types import Attributes
from sightline_processors.otlp import wire

KIND_SERVER: Final = wire.SPAN_KIND + b"\x02"
"""Source: `Span.SpanKind`, opentelemetry/proto/trace/v1/trace.proto."""


class OutcomeKey(NamedTuple):
    """Names everything that a request's static attributes follow from."""

    method: str
    scheme: str
    protocol_version: str | None
    route: str | None
    status_code: int | None
    error_type: str | None


@dataclass(slots=True, eq=False)
class Outcome:
    """Holds the span name and the attributes that all requests with one outcome share.

    Attributes:
        span_name: `{method} {route}` or `{method}`.
        route: The route template, where a route handled the request.
        route_attributes: `http.route`, likewise.
        is_error: Whether the span's status is an error.
        span_attributes: What is known at the end of the span only.
        metric_attributes: The attribute set of the histograms.
        name_bytes: Name and kind of the span, as OTLP fields.
        attribute_bytes: The metric attributes, which are the span's too, as OTLP fields.
        is_passing: Whether it is made for one request, because too many are remembered already.
    """

    span_name: str
    route: str | None
    route_attributes: Attributes
    is_error: bool
    span_attributes: Attributes
    metric_attributes: Attributes
    name_bytes: bytes
    attribute_bytes: bytes
    is_passing: bool = False


def route_attributes(route: str | None) -> Attributes:
    """Returns `http.route`, where a route handled the request."""
    return {} if route is None else {HTTP_ROUTE: route}


def span_name(method: str, route: str | None) -> str:
    """Returns `{method} {route}` or `{method}`, with `HTTP` for an unknown method."""
    verb = "HTTP" if method == OTHER_METHOD else method
    return verb if route is None else f"{verb} {route}"


def name_bytes(name: str) -> bytes:
    """Returns name and kind of a SERVER span as OTLP fields."""
    return wire.field(wire.SPAN_NAME, name.encode("utf-8", "replace")) + KIND_SERVER


def outcome_of(key: OutcomeKey, *, duplicated: bool) -> Outcome:
    """Makes the outcome of a key; with the old conventions beside the stable ones where asked for."""
    ended = route_attributes(key.route)
    if key.status_code is not None:
        ended[HTTP_RESPONSE_STATUS_CODE] = key.status_code
    if key.error_type is not None:
        ended[ERROR_TYPE] = key.error_type
    metric: Attributes = {HTTP_REQUEST_METHOD: key.method, URL_SCHEME: key.scheme, **ended}
    if key.protocol_version is not None:
        metric[NETWORK_PROTOCOL_VERSION] = key.protocol_version
    name = span_name(key.method, key.route)
    return Outcome(
        span_name=name,
        route=key.route,
        route_attributes=route_attributes(key.route),
        is_error=key.error_type is not None,
        span_attributes={**ended, **renamed(ended)} if duplicated else ended,
        metric_attributes=metric,
        name_bytes=name_bytes(name),
        attribute_bytes=attributes_bytes(metric),
    )
