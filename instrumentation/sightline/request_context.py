"""The context that a request runs in: the caller's, with its span, its correlation ID and its options."""

from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace.propagation import _SPAN_KEY as SPAN_KEY

from sightline.correlation import CONTEXT_KEY as CORRELATION_KEY
from sightline.options import OPTIONS_KEY, CaptureOptions


def request_context(current: Context, span: Any, identity: str, options: CaptureOptions) -> Context:
    """Returns the context of a request.

    Args:
        current: The caller's.
        span: Of the request.
        identity: The correlation ID.
        options: Of the application.
    """
    ours = {SPAN_KEY: span, CORRELATION_KEY: identity, OPTIONS_KEY: options}
    return Context({**current, **ours} if current else ours)
