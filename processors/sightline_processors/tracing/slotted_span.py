"""A span of the SDK that keeps its few facts in slots.

It is a `opentelemetry.sdk.trace.Span` to every processor, hook, propagator and exporter. What the SDK makes
for each span and most spans never need (containers for events, links and dropped counts, checks of values
that are plain already, a second span for processors that take the bytes) is made when someone asks for it.
"""

# ruff: noqa: SLF001  one class and the function that makes it

import threading
from collections.abc import Mapping, Sequence
from time import time_ns
from types import MappingProxyType
from typing import Any, Final

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanLimits, SpanProcessor, Tracer, _Span
from opentelemetry.sdk.trace import logger as sdk_logger
from opentelemetry.sdk.util.instrumentation import InstrumentationInfo, InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode
from opentelemetry.util.types import AnyValue, Attributes

from sightline_processors.tracing.delivery import on_end

PLAIN_TYPES: Final = frozenset({str, int, float, bool})
"""Types of values that the SDK would keep as they are. Source: `opentelemetry.attributes`, SDK 1.45."""

UNSET: Final = Status(StatusCode.UNSET)


class _OfTracer:
    """What the SDK gives to each span, taken from the tracer as it is now; a span may be given its own."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, span: Any, _: Any = None) -> Any:
        return getattr(span._tracer, self.name)


class SlottedSpan(_Span):
    """One span; any thread may use it, as the SDK's.

    Never made by its constructor. The attributes are a plain dict as long as their values are plain, no limit
    is near and nobody reads them, and the SDK's own `BoundedAttributes` from then on.
    """

    __slots__ = (
        "_attributes",
        "_context",
        "_end_time",
        "_kind",
        "_lock",
        "_name",
        "_parent",
        "_start_time",
        "_tracer",
    )

    # Defaults of what few spans set. They are no slots: a span that sets one gets a dict for it.
    _status: Status = UNSET
    _made_events: Any = None
    _made_links: Any = None
    _record_exception = True
    _set_status_on_exception = True
    _record_end_metrics: Any = None
    _trace_config: None = None

    _limits: Any = _OfTracer("_span_limits")
    _resource: Any = _OfTracer("resource")
    _sampler: Any = _OfTracer("sampler")
    _span_processor: Any = _OfTracer("span_processor")
    _instrumentation_scope: Any = _OfTracer("_instrumentation_scope")
    _instrumentation_info: Any = _OfTracer("instrumentation_info")

    _attributes: Any
    _context: SpanContext
    _end_time: int | None
    _kind: SpanKind
    _lock: Any
    _name: str
    _parent: SpanContext | None
    _start_time: int
    _tracer: Tracer

    def get_span_context(self) -> SpanContext:
        """Returns the span's context."""
        return self._context

    @property
    def has_parts(self) -> bool:
        """Whether the span has events or links."""
        return self._made_events is not None or self._made_links is not None

    @property
    def is_sampled(self) -> bool:
        """Whether the span is exported."""
        return bool(self._context.trace_flags & 1)

    @property
    def attributes(self) -> Attributes:
        """A view of the attributes; before the end it may be read while other threads set some."""
        attributes = self._attributes
        if type(attributes) is dict and self.is_recording():
            with self._lock:
                if self.is_recording():
                    attributes = self._bounded()
        return MappingProxyType(attributes or {})

    def _bounded(self) -> BoundedAttributes:
        """Returns the attributes with the SDK's checks and limits; replaces the plain dict by them."""
        attributes = self._attributes
        if not isinstance(attributes, BoundedAttributes):
            attributes = self._attributes = bounded(self._limits, attributes)
        return attributes

    def set_attribute(self, key: str, value: AnyValue) -> None:
        """Sets one attribute; ignored, with a line in the log, after the end."""
        with self._lock:
            if self._end_time is not None:
                sdk_logger.warning("Setting attribute on ended span.")
                return
            self._set(key, value)

    def set_attributes(self, attributes: Mapping[str, AnyValue]) -> None:
        """Sets attributes; ignored, with a line in the log, after the end."""
        with self._lock:
            if self._end_time is not None:
                sdk_logger.warning("Setting attribute on ended span.")
            elif are_plain(attributes):
                for key, value in attributes.items():
                    self._set(key, value)
            else:
                self._bounded()._set_items(attributes)

    def _set(self, key: str, value: AnyValue) -> None:
        """Sets one attribute with the lock held."""
        attributes = self._attributes
        if type(attributes) is dict and type(value) in PLAIN_TYPES and type(key) is str and key:
            limits = self._tracer._span_limits
            if limits.max_span_attribute_length is None and (
                limits.max_span_attributes is None or len(attributes) < limits.max_span_attributes
            ):
                if key in attributes:
                    del attributes[key]  # like the SDK: what is set last stands last
                attributes[key] = value
                return
        self._bounded()[key] = value

    # Containers of events and links, the SDK's own, from the first one on.

    @property
    def _events(self) -> Any:
        made = self._made_events
        if made is None:
            made = self._made_events = self._new_events()  # type: ignore[no-untyped-call]
        return made

    @_events.setter
    def _events(self, events: Any) -> None:
        self._made_events = events

    @property
    def _links(self) -> Any:
        made = self._made_links
        if made is None:
            made = self._made_links = self._new_links(())
        return made

    @_links.setter
    def _links(self, links: Any) -> None:
        self._made_links = links

    @property
    def events(self) -> Sequence[Event]:
        """The events, oldest first."""
        return tuple(self._made_events or ())

    @property
    def links(self) -> Sequence[Link]:
        """The links, oldest first."""
        return tuple(self._made_links or ())

    @property
    def dropped_events(self) -> int:
        """Events that the limit has dropped."""
        return 0 if self._made_events is None else super().dropped_events

    @property
    def dropped_links(self) -> int:
        """Links that the limit has dropped."""
        return 0 if self._made_links is None else super().dropped_links

    def _readable_span(self) -> ReadableSpan:
        """Returns the span as processors get it at the end, for reading only."""
        events, links = self._made_events, self._made_links
        span = _new(ReadableSpan)
        span.__dict__ = {
            "_name": self._name,
            "_context": self._context,
            "_kind": self._kind,
            "_instrumentation_info": self._instrumentation_info,
            "_instrumentation_scope": self._instrumentation_scope,
            "_parent": self._parent,
            "_start_time": self._start_time,
            "_end_time": self._end_time,
            "_attributes": self._attributes,
            "_events": () if events is None else events,
            "_links": () if links is None else links,
            "_resource": self._resource,
            "_status": self._status,
        }
        return span

    def end(self, end_time: int | None = None) -> None:
        """Ends the span and hands it to the processors; a processor that raises is counted, not felt."""
        with self._lock:
            if self._end_time is not None:
                sdk_logger.warning("Calling end() on an ended span.")
                return
            self._end_time = time_ns() if end_time is None else end_time
            attributes = self._attributes
            if type(attributes) is not dict and isinstance(attributes, BoundedAttributes):
                attributes._immutable = True
        if self._record_end_metrics is not None:
            self._record_end_metrics()
        on_end(self._span_processor, self)


def bounded(limits: SpanLimits, attributes: Attributes) -> BoundedAttributes:
    """Returns attributes with the SDK's checks and limits, for as long as the span lasts."""
    count, length = limits.max_span_attributes, limits.max_span_attribute_length
    return BoundedAttributes(count, attributes, immutable=False, max_value_len=length)


def are_plain(attributes: object) -> bool:
    """Tells whether attributes are a dict whose keys and values the SDK would keep as they are."""
    if type(attributes) is not dict:
        return False
    for key, value in attributes.items():
        if type(value) not in PLAIN_TYPES or type(key) is not str or not key:
            return False
    return True


class TracerSpan(SlottedSpan):
    """A span that `start_span` of a tracer made; holds what the tracer had when the span started."""

    __slots__ = ("_instrumentation_info", "_instrumentation_scope", "_resource", "_span_processor")

    _instrumentation_info: InstrumentationInfo
    _instrumentation_scope: InstrumentationScope
    _resource: Resource
    _span_processor: SpanProcessor


_new = object.__new__  # the SDK's own __new__ costs a call, and only refuses the SDK's own class


def new_span(
    tracer: Tracer,
    name: str,
    context: SpanContext,
    parent: SpanContext | None,
    kind: SpanKind,
    attributes: Attributes,
    start_time: int,
) -> TracerSpan:
    """Returns a span that has started; the processors are not told.

    Raises:
        TypeError: When the attributes are no mapping, as in the SDK.
    """
    span = _new(TracerSpan)
    span._tracer = tracer
    span._instrumentation_info = tracer.instrumentation_info
    span._instrumentation_scope = tracer._instrumentation_scope
    span._resource = tracer.resource
    span._span_processor = tracer.span_processor
    span._name = name
    span._context = context
    span._parent = parent
    span._kind = kind
    span._start_time = start_time
    span._end_time = None
    span._lock = threading.RLock()  # the SDK's logging, under the lock, may lead back to the span
    span._attributes = {} if attributes is None else start_attributes(tracer._span_limits, attributes)
    return span


def start_attributes(limits: SpanLimits, attributes: Any) -> Any:
    """Returns a copy of a new span's attributes: plain, or with the SDK's checks and limits."""
    if type(attributes) is not dict and type(attributes) is not MappingProxyType:
        return bounded(limits, MappingProxyType(attributes))
    given = dict(attributes)
    if (
        are_plain(given)
        and limits.max_span_attribute_length is None
        and (limits.max_span_attributes is None or len(given) <= limits.max_span_attributes)
    ):
        return given
    return bounded(limits, given)
