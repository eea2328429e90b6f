"""What the declarative configuration file (`OTEL_CONFIG_FILE`) says about Sightline.

Our options stand under `instrumentation/development.python.sightline`, with the names of the settings in
lower case, and `excluded_urls`; the options that all HTTP instrumentations share stand under
`instrumentation/development.general`. The file wins over variables: one warning names those that it
silences.

Source: OpenTelemetry configuration schema v1.1.0.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sightline_processors.report import logger

CONFIG_FILE_VARIABLE: Final = "OTEL_CONFIG_FILE"

_SILENCED_PREFIXES: Final = ("SIGHTLINE_", "OTEL_INSTRUMENTATION_HTTP_", "OTEL_PYTHON_")


@dataclass(frozen=True)
class FileConfiguration:
    """Holds the options that the file gives; None where it is silent.

    Attributes:
        options: Settings of Sightline by their lower-case names.
        excluded_urls: Regular expressions separated by commas.
        known_methods: Methods that keep their name.
        request_captured_headers: Header names.
        response_captured_headers: Header names.
        sensitive_query_parameters: Query keys whose values are redacted; replaces the built-in lists.
        is_enabled: Whether Sightline instruments at all.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    excluded_urls: str | None = None
    known_methods: frozenset[str] | None = None
    request_captured_headers: tuple[str, ...] | None = None
    response_captured_headers: tuple[str, ...] | None = None
    sensitive_query_parameters: frozenset[str] | None = None
    is_enabled: bool = True


_loaded: list[FileConfiguration] = []


def file_configuration() -> FileConfiguration | None:
    """Returns what the file says, or None where no file was given."""
    return _loaded[0] if _loaded else None


def load_configuration_file(path: str) -> None:
    """Reads our part of the file, once, before the SDK reads its own.

    Raises:
        ImportError: When the reader is not installed.
        Exception: What the SDK's reader raises on a file that is not valid.
    """
    from opentelemetry.configuration import load_config_file  # noqa: PLC0415  an extra of the SDK

    instrumentation = load_config_file(path).instrumentation_development
    _loaded[:] = [_configuration(instrumentation)]
    silenced = sorted(name for name in os.environ if name.startswith(_SILENCED_PREFIXES) and os.environ[name])
    silenced = [name for name in silenced if name not in _LOADER_VARIABLES]
    if silenced:
        logger.warning(
            "%s is set and silences %s; move them to instrumentation/development in the file, or unset them",
            CONFIG_FILE_VARIABLE,
            ", ".join(silenced),
        )


_LOADER_VARIABLES: Final = frozenset(
    {"OTEL_PYTHON_DISTRO", "OTEL_PYTHON_CONFIGURATOR", "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"}
)
"""Variables that the loader reads before there is a file."""


def _configuration(instrumentation: Any) -> FileConfiguration:
    if instrumentation is None:
        return FileConfiguration()
    options = dict((instrumentation.python or {}).get("sightline") or {})
    server = _path(instrumentation.general, "http", "server")
    keys = _path(instrumentation.general, "sanitization", "url", "sensitive_query_parameters")
    return FileConfiguration(
        is_enabled=str(options.pop("enabled", True)).strip().lower() not in ("false", "off", "no", "0"),
        excluded_urls=_joined(options.pop("excluded_urls", None)),
        options=options,
        known_methods=_set(_path(server, "known_methods")),
        request_captured_headers=_tuple(_path(server, "request_captured_headers")),
        response_captured_headers=_tuple(_path(server, "response_captured_headers")),
        sensitive_query_parameters=_set(keys),
    )


def _joined(value: Any) -> str | None:
    """Returns a list, or text with commas, as text with commas."""
    if value is None or isinstance(value, str):
        return value
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _path(node: Any, *names: str) -> Any:
    """Follows attributes; None as soon as one is missing."""
    for name in names:
        node = getattr(node, name, None)
    return node


def _set(values: Any) -> frozenset[str] | None:
    return None if values is None else frozenset(map(str, values))


def _tuple(values: Any) -> tuple[str, ...] | None:
    return None if values is None else tuple(map(str, values))
