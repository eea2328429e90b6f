"""The distribution that `opentelemetry-instrument` loads first.

It checks the variables and sets defaults where the user set nothing. It must not import the SDK, which reads
some variables at its import.
"""

import os
from collections.abc import Mapping
from importlib.metadata import EntryPoint
from types import MappingProxyType
from typing import Any, Final

from opentelemetry.instrumentation.dependencies import DependencyConflictError
from opentelemetry.instrumentation.distro import BaseDistro

from sightline.environment import sanitize_environment, sdk_disabled
from sightline_processors.report import logger

DEFAULTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_METRICS_EXPORTER": "otlp",
        "OTEL_LOGS_EXPORTER": "otlp",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_BSP_SCHEDULE_DELAY": "1000",
        "OTEL_BLRP_SCHEDULE_DELAY": "1000",
        "OTEL_METRIC_EXPORT_INTERVAL": "15000",
        "OTEL_SEMCONV_STABILITY_OPT_IN": "http,database",
    }
)
"""What the distribution sets where the user sets nothing. Durations are in milliseconds.

The last one has the stock client and database instrumentors emit the stable conventions, as Sightline does.
"""

SUPERSEDED: Final = frozenset({"fastapi", "asgi", "starlette"})
"""Stock instrumentors that Sightline stands in for."""


class SightlineDistro(BaseDistro):  # type: ignore[misc]  # the base class is untyped
    """Sets the defaults and keeps the stock HTTP server instrumentors from loading beside ours."""

    def _configure(self, **kwargs: Any) -> None:  # noqa: ARG002  the stock signature
        if sdk_disabled():
            return
        sanitize_environment()
        for variable, value in DEFAULTS.items():
            os.environ.setdefault(variable, value)

    def load_instrumentor(self, entry_point: EntryPoint, **kwargs: Any) -> None:
        """Loads one stock instrumentor, unless the SDK is disabled or Sightline stands in for it."""
        if sdk_disabled() or entry_point.name in SUPERSEDED:
            return
        if entry_point.name == "logging":
            # Its format switch stays; Sightline exports the records without a handler on the root logger.
            kwargs.setdefault("enable_log_auto_instrumentation", False)
        try:
            super().load_instrumentor(entry_point, **kwargs)
        except (ImportError, DependencyConflictError):
            raise  # the loader knows what these mean
        except Exception as error:  # noqa: BLE001  the others shall load all the same
            logger.warning(
                "the instrumentation %s could not be loaded (%s: %s); the others are; check its variables, "
                "or name it in OTEL_PYTHON_DISABLED_INSTRUMENTATIONS",
                entry_point.name,
                type(error).__qualname__,
                error,
            )
