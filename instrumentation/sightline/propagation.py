"""Carries the correlation ID to the services that the operator names, as header and as baggage.

Off unless `SIGHTLINE_CORRELATION_PROPAGATE` lists hosts: an ID that clients may choose does not leave for
third parties by itself.
"""

from collections.abc import Mapping, MutableMapping, Sequence
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import quote, urlsplit

from opentelemetry import baggage, propagate
from opentelemetry.context import Context, get_current
from opentelemetry.propagators.textmap import (
    CarrierT,
    Getter,
    Setter,
    TextMapPropagator,
    default_getter,
    default_setter,
)
from opentelemetry.trace import get_current_span

from sightline.attributes import split_authority
from sightline.correlation import correlation_id_of
from sightline.names import CORRELATION_ID
from sightline.settings import Settings


class CorrelationPropagator(TextMapPropagator):
    """Adds the correlation ID to what another propagator injects; extracts what that one extracts.

    The host of an outgoing call is read from the CLIENT span that the call's instrumentation has started,
    else from the carrier's Host header. Where neither tells it, the ID is not carried.

    Args:
        inner: The propagator that carries trace context and baggage.
        header: Name of the header, lower-case.
        hosts: Globs; a host that matches one of them gets the ID.
    """

    def __init__(self, inner: TextMapPropagator, header: str, hosts: Sequence[str]) -> None:
        self.inner = inner
        self._header = header
        self._hosts = tuple(hosts)

    def extract(
        self,
        carrier: CarrierT,
        context: Context | None = None,
        getter: Getter[CarrierT] = default_getter,
    ) -> Context:
        """Extracts what the inner propagator does."""
        return self.inner.extract(carrier, context, getter)

    def inject(
        self,
        carrier: CarrierT,
        context: Context | None = None,
        setter: Setter[CarrierT] = default_setter,
    ) -> None:
        """Injects what the inner propagator does, and the correlation ID for the configured hosts."""
        correlation_id = correlation_id_of(get_current() if context is None else context)
        if correlation_id is None or not self._is_wanted(carrier, context):
            self.inner.inject(carrier, context, setter)
            return
        with_id = baggage.set_baggage(CORRELATION_ID, correlation_id, context)
        self.inner.inject(carrier, with_id, setter)
        setter.set(carrier, self._header, correlation_id)

    @property
    def fields(self) -> set[str]:
        """The header names that `inject` may set."""
        return self.inner.fields | {self._header}

    def covers(self, host: str | None) -> bool:
        """Tells whether a host is one of those that get the ID."""
        return host is not None and any(fnmatchcase(host.lower(), pattern) for pattern in self._hosts)

    def add(self, headers: MutableMapping[str, str]) -> None:
        """Puts the current ID into headers that do not have it yet."""
        correlation_id = correlation_id_of(get_current())
        if correlation_id is not None and self._header not in headers:
            member = f"{CORRELATION_ID}={quote(correlation_id, safe='')}"
            headers["baggage"] = ",".join(filter(None, [headers.get("baggage"), member]))
            headers[self._header] = correlation_id

    def withdraw(self, headers: MutableMapping[str, str]) -> None:
        """Takes the current ID out of headers that were made for another host."""
        if self._header in headers and headers[self._header] == correlation_id_of(get_current()):
            del headers[self._header]
        members = (member.strip() for member in headers.get("baggage", "").split(","))
        kept = ",".join(member for member in members if not member.startswith(f"{CORRELATION_ID}="))
        if kept:
            headers["baggage"] = kept
        elif "baggage" in headers:
            del headers["baggage"]

    def _is_wanted(self, carrier: Any, context: Context | None) -> bool:
        return self.covers(_host_of_span(context) or _host_of_carrier(carrier))


def _host_of_carrier(carrier: Any) -> str | None:
    if not isinstance(carrier, Mapping):
        return None
    value = carrier.get("host") or carrier.get("Host")
    parsed = split_authority(value) if isinstance(value, str) else None
    return parsed[0] if parsed else None


def _host_of_span(context: Context | None) -> str | None:
    attributes = getattr(get_current_span(context), "attributes", None) or {}
    for name in ("server.address", "url.full", "http.url"):
        value = attributes.get(name)
        if isinstance(value, str):
            return urlsplit(value).hostname if "://" in value else value
    return None


def propagate_correlation(settings: Settings) -> None:
    """Wraps the global propagator where the settings name hosts; further calls replace the wrap."""
    release_propagation()
    if settings.correlation_propagate:
        propagate.set_global_textmap(
            CorrelationPropagator(
                propagate.get_global_textmap(),
                settings.correlation_headers[0],
                settings.correlation_propagate,
            )
        )


def release_propagation() -> None:
    """Gives the global propagator back."""
    current = propagate.get_global_textmap()
    if isinstance(current, CorrelationPropagator):
        propagate.set_global_textmap(current.inner)
