"""OpenTelemetry for FastAPI that an operator can leave switched on.

Zero code: `opentelemetry-instrument uvicorn app:app`. In a program:
`SightlineInstrumentor().instrument_app(app)`.
"""

from importlib.metadata import version

from sightline.correlation import correlation_id
from sightline.errors import InstrumentationError, SettingsError, SightlineError
from sightline.instrumentor import SightlineInstrumentor
from sightline.middleware import SightlineMiddleware

__version__ = version("sightline")

__all__ = [
    "InstrumentationError",
    "SettingsError",
    "SightlineError",
    "SightlineInstrumentor",
    "SightlineMiddleware",
    "correlation_id",
]
