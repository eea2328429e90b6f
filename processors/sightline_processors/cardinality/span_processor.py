"""Bounds the names and attribute values of the spans of any instrumentation."""

import time
from collections.abc import Callable, Collection, Mapping
from fnmatch import fnmatchcase
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.trace import SpanKind
from opentelemetry.util.types import Attributes

from sightline_processors.cardinality.attribute_rules import Rule, RuleMemory, Template, ValueMemory
from sightline_processors.report import report
from sightline_processors.tracing.rewriting import changed

MAX_SCOPES: Final = 64
"""Instrumentation scopes with a memory of their own; further ones share one."""

NAMED_KINDS: Final = (SpanKind.CLIENT, SpanKind.INTERNAL)
"""Kinds of spans whose names come from all over a program; those of servers are made of routes."""

_MAX_RESOLVED: Final = 1024
_MESSAGE: Final = "the cardinality rules could not be applied to a span that starts; they are at its end"


class CardinalitySpanProcessor(SpanProcessor):
    """Bounds span names and attribute values: at the start of a span, and again when it is exported.

    For any `TracerProvider`: `provider.add_span_processor(processor)` bounds what a span has at its start.
    What is set later is bounded where the processor is a rewriter too: in `OtlpSpanProcessor.span_rewriters`
    or around another exporter with `RewritingSpanExporter`. As a rewriter alone it exports the same, for
    less; then other processors see what the instrumentation wrote. Any thread; nothing raises after the
    constructor.

    By default the names of CLIENT and INTERNAL spans become templates (`GET /users/{id}`), and each
    instrumentation scope has 1000 of them within an hour; further ones become `_other`, which one line an
    hour for each scope tells. Attributes change only where a rule says so.

    Memory: 180 bytes for the place of a usual name, up to 500 for one of 256 characters (1.3 kB outside
    Latin-1). So a scope with 1000 names takes 0.2 MB, and all 65 memories at most 33 MB (85 MB).

    Args:
        rules: By attribute key, or by pattern (`app.*`, case-sensitive); a key goes before patterns, and the
            first pattern that matches wins. Keys that match one pattern share its memory. For spans of all
            kinds.
        names: The rule for span names, with one memory for each scope, for the first 64 scopes.
        scopes: Rules for the span names of scopes, by scope name or pattern, in place of `names`. Scopes
            that match one pattern share its memory.
        name_kinds: Kinds of spans whose names are bounded.
        clock: Seconds that never go back.
    """

    def __init__(
        self,
        rules: Mapping[str, Rule] | None = None,
        *,
        names: Rule = Template(),  # noqa: B008  frozen
        scopes: Mapping[str, Rule] | None = None,
        name_kinds: Collection[SpanKind] = NAMED_KINDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name_kinds = tuple(name_kinds)  # compared by identity: the hash of a member is a Python function
        self._names = names
        self._clock = clock
        self._attributes = _Memories("values of span attribute %s", rules or {}, clock)
        self._scopes = _Memories("span names of scope %s", scopes or {}, clock)
        self._own_scopes = ValueMemory(MAX_SCOPES)
        self._by_scope: dict[str, RuleMemory] = {}
        self._other_scopes = RuleMemory(names, "span names of further scopes", clock)

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Bounds the name of a span, and the attributes that it starts with."""
        del parent_context
        try:
            name = span.name
            bounded = self._bounded_name(span, name)
            if bounded is not name:
                span.update_name(bounded)
            for key, value in self._changes(span).items():
                span.set_attribute(key, value)
        except Exception as error:  # noqa: BLE001  a request must not fail for its telemetry
            report("cardinality", _MESSAGE, error=error)

    def rewrite(self, span: ReadableSpan) -> ReadableSpan:
        """Returns an ended span with its name and attributes bounded; the same one where they are.

        Raises nothing for what the SDK makes; see `SpanRewriter` for anything else.
        """
        name = span.name
        bounded = self._bounded_name(span, name)
        changes = self._changes(span)
        if changes:
            return changed(span, name=bounded, attributes={**(span.attributes or {}), **changes})
        return span if bounded is name else changed(span, name=bounded)

    def replaced(self) -> dict[str, int]:
        """Returns how many values became `_other` for want of a place, by what they are values of."""
        memories = [
            *self._attributes.all(), *self._scopes.all(), *self._by_scope.values(), self._other_scopes
        ]  # fmt: skip
        return {each.subject: each.values.refused for each in memories if each.values and each.values.refused}

    def _bounded_name(self, span: ReadableSpan, name: str) -> str:
        if span.kind not in self.name_kinds or not isinstance(name, str):
            return name
        scope = span.instrumentation_scope
        return self._names_of("" if scope is None else scope.name).bounded_text(name)

    def _names_of(self, scope: str) -> RuleMemory:
        """Returns what bounds the span names of a scope."""
        memory = self._by_scope.get(scope) or self._scopes.of(scope)
        if memory is None and self._own_scopes.admits(scope):
            new = RuleMemory(self._names, f"span names of scope {scope}", self._clock)
            memory = self._by_scope.setdefault(scope, new)
        return memory or self._other_scopes

    def _changes(self, span: ReadableSpan) -> dict[str, Any]:
        """Returns the attributes that change, with what they become."""
        rules = self._attributes
        if not rules:  # the attributes of some spans are made when somebody reads them
            return {}
        changes = {}
        attributes: Attributes = span.attributes
        for key, value in (attributes or {}).items():
            memory = rules.of(key)
            if memory is not None:
                bounded = memory.bounded_value(value)
                if bounded is not value:
                    changes[key] = bounded
        return changes


class _Memories:
    """Rules by name or pattern, each with its memory, and which of them is for which name.

    Remembers that for 1024 names; for further ones it asks the patterns each time.
    """

    def __init__(self, subject: str, rules: Mapping[str, Rule], clock: Callable[[], float]) -> None:
        self._exact = {name: RuleMemory(rule, subject % name, clock) for name, rule in rules.items()}
        self._patterns = [(name, memory) for name, memory in self._exact.items() if set(name) & set("*?[")]
        self._resolved: dict[str, RuleMemory | None] = {}

    def __len__(self) -> int:
        return len(self._exact)

    def all(self) -> Collection[RuleMemory]:
        """Returns the memories of all rules."""
        return self._exact.values()

    def of(self, name: str) -> RuleMemory | None:
        """Returns the rule for a name; None where none matches."""
        if name in self._exact:
            return self._exact[name]
        if not self._patterns:
            return None
        try:
            return self._resolved[name]
        except KeyError:
            memory = next((memory for pattern, memory in self._patterns if fnmatchcase(name, pattern)), None)
            if len(self._resolved) < _MAX_RESOLVED:
                self._resolved[name] = memory
            return memory
