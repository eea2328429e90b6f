"""The bare application with prometheus-fastapi-instrumentator."""

# mypy: disable-error-code="import-not-found"
# The library is installed in the environment of this variant, not in that of the tools.

from bare import app
from prometheus_fastapi_instrumentator import Instrumentator

Instrumentator().instrument(app).expose(app)
