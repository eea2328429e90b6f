"""OpenTelemetry for FastAPI that an operator can leave switched on.

Zero code: `opentelemetry-instrument uvicorn app:app`. In a program:
`SightlineInstrumentor().instrument_app(app)`.

The names are loaded when they are first used: what runs before OpenTelemetry does (`sightline.startup`)
must not import it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sightline import background
    from sightline.correlation import correlation_id
    from sightline.errors import InstrumentationError, SettingsError, SightlineError
    from sightline.instrumentor import SightlineInstrumentor
    from sightline.middleware import SightlineMiddleware
    from sightline.sla_decorator import sla

__all__ = [
    "InstrumentationError",
    "SettingsError",
    "SightlineError",
    "SightlineInstrumentor",
    "SightlineMiddleware",
    "background",
    "correlation_id",
    "sla",
]

_MODULES = {
    "InstrumentationError": "errors",
    "SettingsError": "errors",
    "SightlineError": "errors",
    "SightlineInstrumentor": "instrumentor",
    "SightlineMiddleware": "middleware",
    "correlation_id": "correlation",
    "sla": "sla_decorator",
}


def __getattr__(name: str) -> Any:
    """Loads a public name from its module."""
    if name == "__version__":
        return import_module("importlib.metadata").version("sightline")
    if name == "background":
        return import_module("sightline.background")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    """Lists the public names."""
    return sorted({*globals(), *__all__})
