"""The configurator that `opentelemetry-instrument` loads: the SDK's own, behind a check of its variables."""

import os
from typing import Any

# The SDK gives its configurator to distributions to subclass; the module name is private nonetheless.
from opentelemetry.sdk._configuration import _OTelSDKConfigurator

from sightline.configuration_file import CONFIG_FILE_VARIABLE, load_configuration_file
from sightline.deciding import decide_and_bound
from sightline.environment import sanitize_environment, sdk_disabled
from sightline.export_adoption import adopt_exporters, deferring_sessions
from sightline_processors.report import logger


class SightlineConfigurator(_OTelSDKConfigurator):
    """Configures the SDK from `OTEL_*`; what cannot be configured is one line and never an exception."""

    def _configure(self, **kwargs: Any) -> None:
        if sdk_disabled():
            return
        sanitize_environment()
        try:
            with deferring_sessions() as arguments:
                if path := os.environ.get(CONFIG_FILE_VARIABLE):
                    load_configuration_file(path)
                    kwargs = {}  # the file says it all; the SDK warns of anything beside it
                else:
                    kwargs.setdefault("exporter_args_map", arguments)
                super()._configure(**kwargs)  # type: ignore[no-untyped-call]
                adopt_exporters()
            decide_and_bound()
        except Exception as error:  # noqa: BLE001  fail open: the program starts without an SDK
            logger.warning(
                "OpenTelemetry could not be configured (%s: %s); the program runs without exporting "
                "telemetry; check the OTEL_* variables",
                type(error).__qualname__,
                error,
            )
