"""`sightline.telemetry.errors`: what went wrong beside the requests, by its kind.

The kinds are those that the code reports (`sightline_processors.report`), a closed set. Exceptions of
exporters that are not ours stay inside the SDK, which logs them: they are counted where it does.
"""

import logging
from collections.abc import Iterable
from typing import Final

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from sightline import names
from sightline_processors.report import count, totals

_EXPORTING: Final = "Exception while exporting"
_LOGGERS: Final = (
    "opentelemetry.sdk._shared_internal",
    "opentelemetry.sdk.trace.export",
    "opentelemetry.sdk._logs._internal.export",
    "opentelemetry.sdk.metrics._internal.export",
)
"""Where the SDK logs the exceptions of exporters. Source: opentelemetry-sdk 1.45."""


_CLIENTS: Final = "correlation"
"""The report of what clients got wrong; it has a counter of its own."""


class _ExporterErrors(logging.Filter):
    """Counts the SDK's records of exporters that raised, and lets all records pass."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and str(record.msg).startswith(_EXPORTING):
            count("exporter")
        return True


_counting = _ExporterErrors()


def count_exporter_errors() -> None:
    """Starts counting; before the SDK's own filters, which leave out records that repeat."""
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        if _counting not in logger.filters:
            logger.filters.insert(0, _counting)


def release_exporter_errors() -> None:
    """Stops counting."""
    for name in _LOGGERS:
        logging.getLogger(name).removeFilter(_counting)


def observe_errors(meter: Meter) -> None:
    """Makes the counter, whose values are read when a reader collects."""
    meter.create_observable_counter(
        names.TELEMETRY_ERRORS,
        [_observations],
        unit="{error}",
        description="Failures of telemetry that requests did not notice.",
    )


def _observations(_options: CallbackOptions) -> Iterable[Observation]:
    return [Observation(total, {"kind": kind}) for kind, total in totals().items() if kind != _CLIENTS]
