"""The distribution and configurator that `opentelemetry-instrument` loads.

The distribution sets defaults for variables that the user left unset; the configurator is the SDK's own,
after a check of the variables that it would fail on.
"""

import os
from collections.abc import Mapping
from importlib.metadata import EntryPoint
from types import MappingProxyType
from typing import Any, Final

from opentelemetry.instrumentation.distro import BaseDistro

# The SDK gives its configurator to distributions to subclass; the module name is private nonetheless.
from opentelemetry.sdk._configuration import _OTelSDKConfigurator

from sightline.environment import sanitize_environment, sdk_disabled
from sightline.report import logger

DEFAULTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_METRICS_EXPORTER": "otlp",
        "OTEL_LOGS_EXPORTER": "otlp",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_BSP_SCHEDULE_DELAY": "1000",
        "OTEL_BLRP_SCHEDULE_DELAY": "1000",
        "OTEL_METRIC_EXPORT_INTERVAL": "15000",
    }
)
"""What the distribution sets where the user sets nothing. Durations are in milliseconds."""

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
        super().load_instrumentor(entry_point, **kwargs)


class SightlineConfigurator(_OTelSDKConfigurator):
    """Configures the SDK from `OTEL_*`; what cannot be configured is one line and never an exception."""

    def _configure(self, **kwargs: Any) -> None:
        if sdk_disabled():
            return
        sanitize_environment()
        try:
            super()._configure(**kwargs)  # type: ignore[no-untyped-call]
        except Exception as error:  # noqa: BLE001  fail open: the program starts without an SDK
            logger.warning(
                "OpenTelemetry could not be configured (%s: %s); the program runs without exporting "
                "telemetry; check the OTEL_* variables",
                type(error).__qualname__,
                error,
            )
