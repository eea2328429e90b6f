"""Spans of the SDK at a part of their cost: same types, same behaviour for whoever asks."""

from sightline_processors.tracing.current_context import make_context_fast, restore_context
from sightline_processors.tracing.tracers import make_tracers_fast, restore_tracers

__all__ = ["make_context_fast", "make_tracers_fast", "restore_context", "restore_tracers"]
