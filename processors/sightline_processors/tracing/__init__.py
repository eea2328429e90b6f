"""Spans of the SDK at a part of their cost: same types, same behaviour for whoever asks."""

from sightline_processors.tracing.tracers import make_tracers_fast, restore_tracers

__all__ = ["make_tracers_fast", "restore_tracers"]
