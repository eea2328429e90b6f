"""The SERVER span of a request: its facts as the server gave them, its OTLP bytes made once, at the end.

To samplers, processors, hooks, propagators and exporters it is a span of the SDK. Its attributes are made
when one of them asks; in the set-up that the distribution makes nobody does, and the bytes for the collector
are joined from those that the requests of a connection share and the few that are the request's own.
"""

import os
import threading
from itertools import groupby
from operator import attrgetter, itemgetter
from struct import Struct
from typing import Any, Final

from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.semconv.attributes.http_attributes import HTTP_RESPONSE_STATUS_CODE
from opentelemetry.trace import Link, SpanKind, Status, StatusCode
from opentelemetry.util.types import AnyValue

from sightline import names
from sightline.attributes import raw_path, request_attributes
from sightline.endings import Ending
from sightline.old_conventions import old_span_attributes
from sightline.request_facts import RequestFacts
from sightline.span_bytes import TABLE, attributes_bytes, correlation_id, url_path, url_query
from sightline.types import Attributes, Scope
from sightline_processors.otlp import wire
from sightline_processors.otlp.primitives import VARINTS
from sightline_processors.otlp.spans import FLAGS_LOCAL, FLAGS_REMOTE, STATUS_UNSET, status_field
from sightline_processors.report import report
from sightline_processors.slo_sampling import EncodedSloSamplingProcessor, RootFacts
from sightline_processors.slo_sampling.buffer import OpenTrace
from sightline_processors.slo_sampling.encoded import EncodedRoot
from sightline_processors.slo_sampling.processor import VIOLATIONS
from sightline_processors.tracing.delivery import EncodedSpanProcessor, on_ended, on_ending, processors_for
from sightline_processors.tracing.slotted_span import PLAIN_TYPES, UNSET, SlottedSpan

MAX_OWN_ATTRIBUTES: Final = 64
"""Attributes that others may add before the span counts against the SDK's limit of 128 in the SDK's way."""

_OURS: Final = (
    "http.",
    "url.",
    "network.",
    "client.",
    "server.",
    "user_agent.",
    "error.",
    "sightline.",
    "net.",
)
"""Prefixes of the attributes that the span has of itself: to set one of them is to replace it."""

_new_tuple = tuple.__new__
_DESTINATION: Final = attrgetter("_direct", "_tracer")
_TIMES: Final = Struct("<cQcQ")
_TRACE_ID: Final = wire.SPAN_TRACE_ID + wire.varint(16)
_SPAN_ID: Final = wire.SPAN_ID + wire.varint(8)
_PARENT_ID: Final = wire.SPAN_PARENT_ID + wire.varint(8)
_USUAL_TAIL: Final = STATUS_UNSET + FLAGS_LOCAL
_QUESTION_MARK: Final = ord("?")  # to look for a number takes a tenth of the time that a text takes
_PATHS: Final = url_path.prefixes
_IDS: Final = correlation_id.prefixes
_HEADS: Final = [wire.SCOPE_ITEM + length for length in VARINTS]
_KNOWN_LENGTHS: Final = len(_HEADS)


class ServerSpan(SlottedSpan):
    """The span of one request; any thread may use it.

    Attributes that others set are kept apart (`_own`) while they are plain and none of ours; otherwise the
    whole set is made, with the SDK's checks and limits, and the span is encoded like any other.

    Attributes:
        correlation_bytes: The correlation ID, 1 to 128 ASCII characters; empty until it is known.
    """

    __slots__ = (
        "_built",
        "_direct",
        "_ending",
        "_facts",
        "_own",
        "_target",
        "correlation_bytes",
    )

    # Not read on the way of a request. What is, stands in slots: a default of the class is slower to find.
    _renamed: str | None = None
    # What decides at the end whether the span is exported, and for which trace.
    _undecided: tuple[EncodedSloSamplingProcessor, OpenTrace] | None = None
    _kind = SpanKind.SERVER
    # One for all of them: it is held for a few instructions.
    _lock = threading.RLock()

    _facts: RequestFacts
    _direct: EncodedSpanProcessor | None
    _target: tuple[str, bytes | None, bytes]
    correlation_bytes: bytes
    _built: Any
    _ending: Ending | None
    _own: Attributes | None

    @property
    def _name(self) -> str:
        if self._renamed is not None:
            return self._renamed
        return self._facts.shared.early_name if self._ending is None else self._ending.outcome.span_name

    @_name.setter
    def _name(self, name: str) -> None:
        self._renamed = name

    @property
    def _attributes(self) -> Any:
        return self._built if self._built is not None else self._build()

    @_attributes.setter
    def _attributes(self, attributes: Any) -> None:
        self._built = attributes

    def _build(self) -> Attributes:
        """Makes the attributes: those of the start, those that others set, those of the end."""
        facts = self._facts
        path, raw, query = self._target
        scope = {**facts.scope, "path": path, "raw_path": raw, "query_string": query}
        attributes = start_attributes(facts, scope)
        if self.correlation_bytes:
            attributes[names.CORRELATION_ID] = self.correlation_bytes.decode()
        attributes.update(self._own or {})
        if self._ending is not None:
            attributes.update(self._ending.outcome.span_attributes)
            attributes.update(self._ending.attributes)
        self._built = attributes
        return attributes

    def _set(self, key: str, value: AnyValue) -> None:
        own = self._own
        if own is None:
            own = self._own = {}
        if (
            self._built is None
            and type(value) in PLAIN_TYPES
            and type(key) is str
            and key
            and not key.startswith(_OURS)
            and len(own) < MAX_OWN_ATTRIBUTES
        ):
            own[key] = value
            return
        super()._set(key, value)

    # Few spans get a name, a status, an event or a link from others: such a one is encoded as any other.

    def update_name(self, name: str) -> None:
        """Sets the name, for good."""
        self._attributes  # noqa: B018  makes them
        super().update_name(name)

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """Sets the status; `Ok` stays."""
        self._attributes  # noqa: B018
        super().set_status(status, description)

    def _add_event(self, event: Any) -> None:
        self._attributes  # noqa: B018
        super()._add_event(event)

    def _add_link(self, link: Link) -> None:
        self._attributes  # noqa: B018
        super()._add_link(link)

    def finish(self, ending: Ending, more: Attributes, description: str | None, end_time: int) -> bool:
        """Ends the span with what its exchange knows; a span that a user has ended stays as it is.

        Args:
            ending: Gives name, attributes and status.
            more: Further attributes of the end.
            description: Of the status, where it is an error.
            end_time: In Unix nanoseconds.

        Returns:
            Whether it is still to be handed over, with `hand_over`.
        """
        if self._built is not None or self._end_time is not None:
            self._finish_as_any(ending, more, description, end_time)
            return False
        if more:
            self._own = {**(self._own or {}), **more}
        self._end_time = end_time
        self._ending = ending
        if ending.outcome.is_error:
            self._status = Status(StatusCode.ERROR, description or None)
        if self._undecided is not None:
            return self._is_kept(*self._undecided)
        if self._direct is None:
            self._deliver(processors_for(self._tracer.span_processor, SpanKind.SERVER))
            return False
        return True

    def _is_kept(self, deciding: EncodedSloSamplingProcessor, trace: OpenTrace) -> bool:
        """Decides about the trace, at the end of this span; tells whether the span is to be handed over."""
        ending: Ending = self._ending  # type: ignore[assignment]  # there is one at the end
        outcome = ending.outcome
        name = outcome.span_name
        facts = _new_tuple(  # without the call of `RootFacts.__new__`
            RootFacts,
            (
                name,
                (self._end_time - self._start_time) / 1e9,  # type: ignore[operator]  # likewise
                ending.verdict in VIOLATIONS,
                outcome.is_error,
                (name, outcome.span_attributes.get(HTTP_RESPONSE_STATUS_CODE)),
            ),
        )
        if not deciding.sampler.decide(trace, facts, self._parent, awaits_root=True):
            return False
        self._direct = deciding
        return True

    def hand_over(self) -> None:
        """Gives the bytes to the only processor; after a `finish` that says so, once."""
        direct, tracer = self._direct, self._tracer
        try:
            if self._undecided is not None:
                self._put_root(*self._undecided)
            elif direct is not None:
                direct.put_encoded(tracer.resource, tracer._instrumentation_scope, self._encode())  # noqa: SLF001
        except Exception as error:  # noqa: BLE001  fail open: the other spans are handed over
            report("encoding", "could not encode the span of a request", error=error)

    def _put_root(self, deciding: EncodedSloSamplingProcessor, trace: OpenTrace) -> None:
        """Gives the bytes to the processor that says in them why they are exported."""
        tracer, context = self._tracer, self._context
        try:
            item = self._encode()
        except Exception:
            deciding.sampler.let_leave(trace)  # without it
            raise
        root = EncodedRoot(tracer.resource, tracer._instrumentation_scope, item, context[4])  # noqa: SLF001
        deciding.put_root(context, root, is_error=self._status is not UNSET, trace=trace)

    @staticmethod
    def hand_over_all(spans: "list[ServerSpan]") -> None:
        """Does the same for many spans, which costs less for each."""
        for (direct, tracer), group in groupby(spans, _DESTINATION):
            members = list(group)
            if type(direct) is EncodedSloSamplingProcessor:
                for span in members:
                    span.hand_over()
                continue
            try:
                items = [span._encode() for span in members]  # noqa: SLF001
            except Exception:  # noqa: BLE001  one of them; the others are handed over
                for span in members:
                    span.hand_over()
            else:
                direct.put_all(tracer.resource, tracer._instrumentation_scope, items)  # noqa: SLF001

    def _finish_as_any(
        self, ending: Ending, more: Attributes, description: str | None, end_time: int
    ) -> None:
        """Ends the span the way any instrumentation does."""
        if self._end_time is not None:
            return
        self.set_attributes({**more, **ending.outcome.span_attributes, **ending.attributes})
        if self._name == self._facts.shared.early_name:
            self.update_name(ending.outcome.span_name)
        if ending.outcome.is_error:
            self.set_status(Status(StatusCode.ERROR, description or None))
        self.end(end_time)

    def _deliver(self, processors: tuple[SpanProcessor, ...]) -> None:
        """Hands the span to several processors, or to another one than ours."""
        if self._record_end_metrics is not None:
            self._record_end_metrics()
        on_ending(processors, self)
        for each in processors:
            if not isinstance(each, EncodedSpanProcessor):
                on_ended(each, self)
            elif self.is_sampled:
                each.put_encoded(self.resource, self._instrumentation_scope, self._encode())

    def _encode(self) -> bytes:
        """Returns the span as an element of `ScopeSpans.spans`.

        One tuple and one join: the two values that differ between requests stand behind a prefix that depends
        on their length alone, and what the requests of a connection share is there already.
        """
        ending: Ending = self._ending  # type: ignore[assignment]  # there is one at the end
        trace_id, span_id, _, _, state, _ = self._context
        text, path, query = self._target
        identity = self.correlation_bytes
        if not path or len(path) >= TABLE or not path.isascii() or _QUESTION_MARK in path:
            before = url_path.encode_text(raw_path({"path": text, "raw_path": path}))
            path = b""
        else:
            before = _PATHS[len(path)]
        body = b"".join(
            (
                _TRACE_ID,
                trace_id.to_bytes(16, "big"),
                _SPAN_ID,
                span_id.to_bytes(8, "big"),
                _TIMES.pack(wire.SPAN_START_TIME, self._start_time, wire.SPAN_END_TIME, self._end_time),
                ending.span_bytes,
                self._facts.client_bytes,
                before,
                path,
                _IDS[len(identity)],
                identity,
                self._further_bytes(state, query)
                if self._own or query or self._parent is not None or ending.outcome.is_error
                else _USUAL_TAIL,
            )
        )
        size = len(body)
        return (_HEADS[size] if size < _KNOWN_LENGTHS else wire.SCOPE_ITEM + wire.varint(size)) + body

    def _further_bytes(self, state: Any, query: bytes) -> bytes:
        """Returns what not every span has: query, attributes that others set, parent, state, status."""
        parts = []
        options = self._facts.shared.recorder.options
        if query:
            redacted = options.redact_query(query.decode("latin-1"))
            parts.append(url_query.encode(redacted.encode("latin-1", "replace")))
        if self._own:
            parts.append(attributes_bytes(options.redactor.attributes(self._own)))
        parent = self._parent
        if parent is None:
            parts.append(FLAGS_LOCAL)
        else:
            parts.append(_PARENT_ID + parent.span_id.to_bytes(8, "big"))
            parts.append(FLAGS_REMOTE if parent.is_remote else FLAGS_LOCAL)
        if state:
            text = ",".join([f"{key}={value}" for key, value in state.items()])
            parts.append(wire.field(wire.SPAN_TRACE_STATE, text.encode()))
        parts.append(STATUS_UNSET if self._status is UNSET else status_field(self._status))
        return b"".join(parts)


def target_of(scope: Scope) -> tuple[str, bytes | None, bytes]:
    """Returns path, path as it was sent, and query of a request."""
    return scope.get("path", ""), scope.get("raw_path"), scope.get("query_string", b"")


requested = itemgetter("path", "raw_path", "query_string")
"""Does what `target_of` does, faster; raises KeyError where the server leaves out what it may."""


def _renew_lock() -> None:
    ServerSpan._lock = threading.RLock()  # noqa: SLF001  another thread may have held it at the fork


os.register_at_fork(after_in_child=_renew_lock)


def start_attributes(facts: RequestFacts, scope: Scope) -> Attributes:
    """Returns what is known when a request starts.

    Args:
        facts: What follows from the connection.
        scope: An ASGI scope with the request's own path and query.
    """
    recorder = facts.shared.recorder
    attributes = request_attributes(
        scope, facts.headers, facts.shared.method, facts.hop, recorder.options.redact_query
    )
    if recorder.old_metrics is not None:
        attributes.update(old_span_attributes(scope, facts.headers, attributes))
    return attributes
