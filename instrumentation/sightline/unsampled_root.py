"""The span of a request that brings no trace, and that nobody samples: only its IDs can be asked for."""

from typing import Final

from opentelemetry.trace import NonRecordingSpan, SpanContext

from sightline_processors.tracing.ids import random_bits
from sightline_processors.tracing.tracers import FLAGS, NO_STATE

_RANDOM: Final = FLAGS[2]
_new_context = tuple.__new__


class UnsampledRoot(NonRecordingSpan):
    """A root span that is not exported; any thread. Made with `object.__new__`, and an identity.

    Attributes:
        identity: The trace ID, 32 hexadecimal digits.
    """

    __slots__ = ("identity",)

    identity: bytes

    @property
    def _context(self) -> SpanContext:  # type: ignore[override]  # an attribute of the base class
        """What the base class gives out; made when somebody asks first, which for most nobody does."""
        known: SpanContext | None = self.__dict__.get("context")
        if known is not None:
            return known
        ids = (int(self.identity, 16), random_bits(64), False, _RANDOM, NO_STATE, True)
        # Several threads may ask first: all of them get the same.
        made: SpanContext = self.__dict__.setdefault("context", _new_context(SpanContext, ids))
        return made
