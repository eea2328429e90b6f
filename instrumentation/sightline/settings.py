"""Settings of Sightline, read from `SIGHTLINE_*` once, when instrumentation starts.

A value that breaks its rule never stops the program: it is reported in one line that names the setting,
the rule, the value, its origin and the cure, and the default holds.
"""

import os
import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from sightline_processors.redaction import key_patterns
from sightline_processors.report import logger
from sightline_processors.sla.objectives import parse_objective, written_duration

PREFIX = "SIGHTLINE_"
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_RESERVED_HEADERS = frozenset(
    {
        "authorization", "connection", "content-encoding", "content-length", "content-type", "cookie", "date",
        "host", "keep-alive", "location", "proxy-authenticate", "proxy-authorization", "server", "set-cookie",
        "te", "trailer", "transfer-encoding", "upgrade", "www-authenticate",
    }
)  # fmt: skip
_HOST_PATTERN = re.compile(r"[A-Za-z0-9.*?_-]+")
_SWITCH = {
    "on": True,
    "true": True,
    "1": True,
    "yes": True,
    "off": False,
    "false": False,
    "0": False,
    "no": False,
}
MIN_DURATION_SECONDS = 0.001
MAX_DURATION_SECONDS = 86_400.0
_DURATION = re.compile(r"(?P<number>[0-9]{1,9}(?:\.[0-9]{1,6})?)\s?(?P<unit>ms|s|m|h)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_SHOWN_CHARACTERS = 80
_OTHER_VARIABLES = frozenset({"SIGHTLINE_BACKENDS_CACHE", "SIGHTLINE_TEST_CACHE"})
"""Variables of the development tools, which are not settings."""
OFF = "off"
MIN_LIMIT, MAX_LIMIT, _LIMIT_DIGITS = 2, 1_000_000, 20
_SECRETS = frozenset({"probe_token"})
_EXAMPLES = {
    "probe_token": "KDqzUHc7",
    "redact": "tenant*,iban",
    "sla_exclude": "/healthz,/ready*",
    "sla_file": "/etc/shop/objectives.yaml",
    "state_dir": "/var/lib/shop/state",
    "trusted_proxies": "10.0.0.0/8,::1",
    "correlation_propagate": "*.internal,orders",
    "spool_dir": "/var/lib/shop/spool",
}


def _items(value: object) -> object:
    """Splits `a, b` into `("a", "b")`; other types pass through."""
    if isinstance(value, str):
        return tuple(item.strip() for item in value.split(",") if item.strip())
    return value


def _header_names(names: tuple[str, ...]) -> tuple[str, ...]:
    if not names:
        raise ValueError("must name at least one header")
    for name in names:
        if not _TOKEN.fullmatch(name):
            raise ValueError("must be header names (RFC 9110 tokens) separated by commas")
        if name.lower() in _RESERVED_HEADERS:
            raise ValueError("must not name a header that frames the message or carries a credential")
    return tuple(dict.fromkeys(name.lower() for name in names))


def _switch(value: object) -> object:
    if isinstance(value, str):
        if value.strip().lower() not in _SWITCH:
            raise ValueError("must be on or off")
        return _SWITCH[value.strip().lower()]
    return value


def _networks(value: object) -> object:
    """Reads `10.0.0.0/8, ::1`; a bare address is a network of one."""
    items = _items(value)
    if not isinstance(items, tuple | list):
        return value
    try:
        return tuple(ip_network(str(item)) for item in items)
    except ValueError as error:
        raise ValueError("must be networks in CIDR form separated by commas") from error


def _host_patterns(patterns: tuple[str, ...]) -> tuple[str, ...]:
    if any(not _HOST_PATTERN.fullmatch(pattern) for pattern in patterns):
        raise ValueError("must be host names, with * and ? as wildcards, separated by commas")
    return tuple(pattern.lower() for pattern in patterns)


def _duration(value: object) -> object:
    """Reads `250ms`, `5s`, `10m` or `1h` as seconds."""
    if not isinstance(value, str):
        return value
    match = _DURATION.fullmatch(value.strip().lower())
    if match is None:
        raise ValueError("must be a duration from 1ms to 24h")
    return float(match["number"]) * _SECONDS[match["unit"]]


def _bounded_duration(seconds: float) -> float:
    if not MIN_DURATION_SECONDS <= seconds <= MAX_DURATION_SECONDS:  # not a number fails as well
        raise ValueError("must be a duration from 1ms to 24h")
    return seconds


def _absolute_path(what: str) -> Callable[[str], str]:
    def check(path: str) -> str:
        path = path.strip()
        if path and not Path(path).is_absolute():
            raise ValueError(f"must be the absolute path of a {what}")
        return path

    return check


def _objective(text: str) -> str:
    """Checks `500ms@99%,99.9%`; the message of what is wrong with it is a line of its own."""
    return str(parse_objective(text, origin=f"{PREFIX}SLA"))


def _path_patterns(patterns: tuple[str, ...]) -> tuple[str, ...]:
    if any(not pattern.startswith(("/", "*")) for pattern in patterns):
        raise ValueError("must be paths that begin with /, with * and ? as wildcards, separated by commas")
    return patterns


def _redaction(value: object) -> object:
    """Reads `off`, or further patterns of keys."""
    return (OFF,) if isinstance(value, str) and value.strip().lower() == OFF else _items(value)


def _keys(items: tuple[str, ...]) -> tuple[str, ...]:
    return items if items == (OFF,) else key_patterns(items)


def _secret(value: object) -> object:
    """Takes a number as the text that it was written as: YAML has no other way to tell `12345678`."""
    return str(value).strip() if isinstance(value, str | int) else value


def _limit(value: object) -> int:
    text = str(value).strip()
    if not (text.isascii() and text.isdecimal() and MIN_LIMIT <= int(text[:_LIMIT_DIGITS]) <= MAX_LIMIT):
        raise ValueError(f"must be a number from {MIN_LIMIT} to {MAX_LIMIT}")
    return int(text)


FolderPath = Annotated[str, AfterValidator(_absolute_path("folder"))]
FilePath = Annotated[str, AfterValidator(_absolute_path("file"))]
Duration = Annotated[float, BeforeValidator(_duration), AfterValidator(_bounded_duration)]
Networks = Annotated[tuple[IPv4Network | IPv6Network, ...], BeforeValidator(_networks)]
HostPatterns = Annotated[tuple[str, ...], BeforeValidator(_items), AfterValidator(_host_patterns)]
HeaderNames = Annotated[tuple[str, ...], BeforeValidator(_items), AfterValidator(_header_names)]
Switch = Annotated[bool, BeforeValidator(_switch)]
ObjectiveText = Annotated[str, AfterValidator(_objective)]
PathPatterns = Annotated[tuple[str, ...], BeforeValidator(_items), AfterValidator(_path_patterns)]
KeyPatterns = Annotated[tuple[str, ...], BeforeValidator(_redaction), AfterValidator(_keys)]
Limit = Annotated[int, BeforeValidator(_limit)]
Secret = Annotated[str, BeforeValidator(_secret), Field(repr=False)]


class Settings(BaseModel):
    """Holds the effective settings; immutable.

    Each field is read from the variable `SIGHTLINE_` plus its name in capitals.
    """

    model_config = ConfigDict(frozen=True)

    correlation_headers: HeaderNames = ("x-correlation-id", "x-request-id")
    """Request headers that may carry the correlation ID, in order; the first is the one sent back."""

    correlation_propagate: HostPatterns = ()
    """Hosts (globs) to which outgoing calls carry the correlation ID, as header and as baggage."""

    trusted_proxies: Networks = ()
    """Networks of the proxies whose forwarded headers count."""

    websocket_message_spans: Switch = False
    """Spans of WebSocket messages, at most 100 per connection."""

    shutdown_timeout: Duration = 5.0
    """Longest time to deliver what is buffered when the process ends, in seconds; written `5s`."""

    spool_dir: FolderPath = ""
    """Folder that keeps what could not be sent, for the next start; empty for none."""

    cardinality_limit: Limit = 2000
    """Attribute sets of each instrument beyond those of the application's own routes."""

    limit_all_instruments: Switch = False
    """The limit also guards the instruments of other libraries."""

    sla: ObjectiveText = "500ms@99%,99.9%"
    """Latency objective and availability objective of requests that have none of their own."""

    sla_file: FilePath = ""
    """YAML file with the objectives of routes; empty for none. Changes are taken over while it runs."""

    sla_exclude: PathPatterns = ()
    """Paths (globs) of probes, which no objective judges."""

    probe_token: Secret = ""
    """Secret in the header `X-Sightline-Probe` by which synthetic probes make themselves known."""

    slow_request: Duration = 1.0
    """Requests that take longer are told as `performance_alert`."""

    slow_query: Duration = 0.1
    """The same of database operations."""

    slow_call: Duration = 1.0
    """The same of outgoing calls."""

    redact: KeyPatterns = ()
    """Further names whose values are redacted, * as wildcard; `off` leaves only credentials in headers."""

    state_dir: FolderPath = ""
    """Folder that keeps the windows of the objectives over restarts; empty for none."""

    access_log: Switch = False
    """Export the server's access records (uvicorn, gunicorn, hypercorn, granian) as logs."""


def load_settings(
    environ: Mapping[str, str] | None = None, file_options: Mapping[str, object] | None = None
) -> Settings:
    """Reads the settings; every wrong value costs one warning and falls back to its default.

    Args:
        environ: Variables to read; `os.environ` when omitted.
        file_options: Options of the declarative configuration file; read in place of the variables.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, object]
    if file_options is not None:
        values = {name: value for name, value in file_options.items() if _is_known(name)}
    else:
        values = {
            field: environ[variable]
            for field in Settings.model_fields
            if (variable := PREFIX + field.upper()) in environ and environ[variable].strip()
        }
    if file_options is None:
        _report_unknown(environ)
    origin = "the environment" if file_options is None else "the configuration file"
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        for field in dict.fromkeys(str(problem["loc"][0]) for problem in error.errors()):
            rule = next(problem["msg"] for problem in error.errors() if problem["loc"][0] == field)
            logger.warning("%s", _problem_line(field, str(values.pop(field, "")), rule, origin))
            if environ is os.environ:
                os.environ.pop(PREFIX + field.upper(), None)  # worker processes shall not repeat the line
        return Settings.model_validate(values)


def _report_unknown(environ: Mapping[str, str]) -> None:
    known = {PREFIX + field.upper() for field in Settings.model_fields}
    for variable in sorted(environ):
        if variable.startswith(PREFIX) and variable not in known and variable not in _OTHER_VARIABLES:
            close = get_close_matches(variable, known, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            logger.warning("%s is not a setting of this version and has no effect%s", variable[:80], hint)
            if environ is os.environ:
                os.environ.pop(variable, None)  # worker processes shall not repeat the line


def _is_known(option: str) -> bool:
    if option in Settings.model_fields:
        return True
    logger.warning(
        "instrumentation/development.python.sightline.%s is not an option; known are %s",
        option[:_SHOWN_CHARACTERS],
        ", ".join(Settings.model_fields),
    )
    return False


def _problem_line(field: str, value: str, rule: str, origin: str) -> str:
    info: FieldInfo = Settings.model_fields[field]
    shown = value if len(value) <= _SHOWN_CHARACTERS else value[:_SHOWN_CHARACTERS] + "…"
    shown = "a value that is not shown" if field in _SECRETS else repr(shown)
    rule = rule.removeprefix("Value error, ")
    default = _written(info.default)
    example = _EXAMPLES.get(field, default)
    if rule.startswith("sla "):
        return f"{rule}; using the default {default}"  # the parser's line, which says it all
    return (
        f"{PREFIX}{field.upper()} {rule}, got {shown} (from {origin}); "
        f"using the default {default or 'of none'}; for example {PREFIX}{field.upper()}={example}"
    )


def _written(value: Any) -> str:
    """Returns a default the way a user would write it in a variable."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return written_duration(value)
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value)
