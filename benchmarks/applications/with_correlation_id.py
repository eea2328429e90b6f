"""The bare application with asgi-correlation-id."""

# mypy: disable-error-code="import-not-found"
# The library is installed in the environment of this variant, not in that of the tools.

from asgi_correlation_id import CorrelationIdMiddleware
from bare import app

app.add_middleware(CorrelationIdMiddleware)
