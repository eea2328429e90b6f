"""What decides about telemetry and bounds it, usable in any OpenTelemetry SDK pipeline.

This package never imports `sightline`, FastAPI or Starlette.
"""

from sightline_processors.redaction import redact_query, redact_text

__all__ = ["redact_query", "redact_text"]
