"""Rewrites ended spans on their way out: the seam for redaction and cardinality.

An ended span of the SDK cannot be edited, and whoever else got it must not see it change. A rewriter returns
another span instead, `changed`, and the exporting side sends that one: `OtlpSpanProcessor.span_rewriters`, or
`RewritingSpanExporter` around any exporter of the SDK.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import Link, Status
from opentelemetry.util.types import AnyValue

from sightline_processors.report import report

LEFT_OUT_NAME: Final = "_other"
"""The name of a span whose own name a rewriter could not judge."""

_MESSAGE: Final = "a span rewriter raised; the span is exported without the part that it could not judge"
_UNREADABLE: Final = "a span that cannot be read is not exported"


class SpanRewriter(Protocol):
    """Says what becomes of an ended span when it is exported. Called from any thread, also from several."""

    def rewrite(self, span: ReadableSpan) -> ReadableSpan:
        """Returns the same object where nothing changes, else what `changed` makes of it.

        The given span is not modified. A rewriter that raises is reported and asked again for each part of
        the span on its own; the parts for which it raises are left out.
        """
        ...


class ChangedSpan(ReadableSpan):
    """An ended span in which something was changed; made by `changed`."""

    _dropped: tuple[int, int, int]

    @property
    def dropped_attributes(self) -> int:
        """Attributes that the limit dropped from the original, and those that were left out since."""
        return self._dropped[0]

    @property
    def dropped_events(self) -> int:
        """Events that the limit dropped from the original, and those that were left out since."""
        return self._dropped[1]

    @property
    def dropped_links(self) -> int:
        """Links that the limit dropped from the original, and those that were left out since."""
        return self._dropped[2]


def changed(
    span: ReadableSpan,
    *,
    name: str | None = None,
    attributes: Mapping[str, AnyValue] | None = None,
    events: Sequence[Event] | None = None,
    status: Status | None = None,
    links: Sequence[Link] | None = None,
    left_out: tuple[int, int, int] = (0, 0, 0),
) -> ReadableSpan:
    """Returns a span that differs from an ended one in what is given; the original stays as it is.

    Args:
        span: The original; its identity, times, kind, parent, resource and scope are kept.
        name: The new name; None keeps it, as for all that follow.
        attributes: All attributes of the new span. Not copied, so not to be modified afterwards.
        events: All of its events, oldest first.
        status: Its status.
        links: All of its links.
        left_out: How many attributes, events and links were removed for want of a judgement; they are added
            to the numbers that the original says it has dropped.
    """
    other = ChangedSpan(
        name=span.name if name is None else name,
        context=span.get_span_context(),
        parent=span.parent,
        resource=span.resource,
        attributes=span.attributes if attributes is None else attributes,
        events=span.events if events is None else events,
        links=span.links if links is None else links,
        kind=span.kind,
        # the public property is deprecated, and warns
        instrumentation_info=getattr(span, "_instrumentation_info", None),
        status=span.status if status is None else status,
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )
    other._dropped = (  # noqa: SLF001  of the class above
        span.dropped_attributes + left_out[0],
        span.dropped_events + left_out[1],
        span.dropped_links + left_out[2],
    )
    return other


def rewritten(span: ReadableSpan, rewriters: Iterable[SpanRewriter]) -> ReadableSpan:
    """Returns what a span is exported as, after each rewriter in turn.

    What a rewriter raises is reported at most once a minute (`rewriting`), and what it could not judge is
    left out: never exported raw. Then each part costs a call, at most one for the name, the status and each
    attribute, event and link.

    Raises:
        Exception: Only for an object that is no span: one whose public properties cannot be read.
    """
    for rewriter in rewriters:
        try:
            span = _asked(rewriter, span)
        except Exception as error:  # noqa: BLE001  a rewriter of the application's own, or a defect of ours
            report("rewriting", _MESSAGE, error=error)
            span = _judged_in_parts(rewriter, span)
    return span


def _asked(rewriter: SpanRewriter, span: ReadableSpan) -> ReadableSpan:
    result: object = rewriter.rewrite(span)
    if not isinstance(result, ReadableSpan):
        raise TypeError("rewrite() must return a span")
    return result


def _judged_in_parts(rewriter: SpanRewriter, span: ReadableSpan) -> ReadableSpan:
    """Returns a span of those parts that a rewriter can judge on their own."""
    bare = changed(span, attributes={}, events=(), links=(), status=Status(span.status.status_code))
    named = _attempt(rewriter, bare) or _attempt(rewriter, changed(bare, name=LEFT_OUT_NAME))
    if named is None:  # it raises whatever it is given
        lost = len(span.attributes or ()), len(span.events), len(span.links)
        return changed(bare, name=LEFT_OUT_NAME, left_out=lost)
    bare = changed(bare, name=named.name)

    def judge(**part: Any) -> ReadableSpan | None:
        return _attempt(rewriter, changed(bare, **part))

    attributes = _judged_attributes(judge, span.attributes or {})
    events = [each for event in span.events if (each := judge(events=(event,))) is not None]
    links = [each for link in span.links if (each := judge(links=(link,))) is not None]
    described = judge(status=span.status)
    return changed(
        bare,
        attributes={**(named.attributes or {}), **attributes[0]},
        events=[event for each in events for event in each.events],
        links=[link for each in links for link in each.links],
        status=bare.status if described is None else described.status,
        left_out=(attributes[1], len(span.events) - len(events), len(span.links) - len(links)),
    )


def _judged_attributes(
    judge: Callable[..., ReadableSpan | None], attributes: Mapping[str, AnyValue]
) -> tuple[dict[str, AnyValue], int]:
    """Returns the attributes that could be judged, as they are to be exported, and the number of others."""
    kept: dict[str, AnyValue] = {}
    lost = 0
    for key, value in attributes.items():
        judged = judge(attributes={key: value})
        if judged is None:
            lost += 1
        else:
            kept.update(judged.attributes or {})
    return kept, lost


def _attempt(rewriter: SpanRewriter, part: ReadableSpan) -> ReadableSpan | None:
    try:
        return _asked(rewriter, part)
    except Exception:  # noqa: BLE001  reported already, for the whole span
        return None


class RewritingSpanExporter(SpanExporter):
    """Exports what rewriters make of the spans, through any exporter of the SDK.

    For a pipeline with an exporter of one's own; `OtlpSpanProcessor` has `span_rewriters`. As safe for
    threads as the exporter inside. `export` raises what that one raises, and nothing else.

    Args:
        exporter: Gets the spans.
        rewriters: Applied in this order; without any, the spans are passed on untouched.
    """

    def __init__(self, exporter: SpanExporter, rewriters: Iterable[SpanRewriter]) -> None:
        self.span_rewriters: tuple[SpanRewriter, ...] = tuple(rewriters)
        self._exporter = exporter

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Rewrites the spans and exports them; one that cannot be read is left out and reported."""
        return self._exporter.export(self._rewritten(spans) if self.span_rewriters else spans)

    def _rewritten(self, spans: Sequence[ReadableSpan]) -> list[ReadableSpan]:
        result = []
        for span in spans:
            try:
                result.append(rewritten(span, self.span_rewriters))
            except Exception as error:  # noqa: BLE001  one odd span must not take a batch with it
                report("rewriting", _UNREADABLE, error=error)
        return result

    def shutdown(self) -> None:
        """Shuts the exporter down."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Flushes the exporter."""
        return self._exporter.force_flush(timeout_millis)
