"""Settings of Sightline, read from `SIGHTLINE_*` once, when instrumentation starts.

A value that breaks its rule never stops the program: it is reported in one line that names the setting,
the rule, the value, its origin and the cure, and the default holds.
"""

import os
import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from sightline.report import logger

PREFIX = "SIGHTLINE_"
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
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
_SHOWN_CHARACTERS = 80


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
    return tuple(dict.fromkeys(name.lower() for name in names))


def _switch(value: object) -> object:
    if isinstance(value, str):
        if value.strip().lower() not in _SWITCH:
            raise ValueError("must be on or off")
        return _SWITCH[value.strip().lower()]
    return value


HeaderNames = Annotated[tuple[str, ...], BeforeValidator(_items), AfterValidator(_header_names)]
Switch = Annotated[bool, BeforeValidator(_switch)]


class Settings(BaseModel):
    """Holds the effective settings; immutable.

    Each field is read from the variable `SIGHTLINE_` plus its name in capitals.
    """

    model_config = ConfigDict(frozen=True)

    correlation_headers: HeaderNames = ("x-correlation-id", "x-request-id")
    """Request headers that may carry the correlation ID, in order; the first is the one sent back."""

    access_log: Switch = False
    """Export the server's access records (uvicorn, gunicorn, hypercorn, granian) as logs."""


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Reads the settings; every wrong value costs one warning and falls back to its default.

    Args:
        environ: Variables to read; `os.environ` when omitted.
    """
    environ = os.environ if environ is None else environ
    values = {
        field: environ[variable]
        for field in Settings.model_fields
        if (variable := PREFIX + field.upper()) in environ and environ[variable].strip()
    }
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        for problem in error.errors():
            field = str(problem["loc"][0])
            logger.warning("%s", _problem_line(field, values.pop(field, ""), problem["msg"]))
        return Settings.model_validate(values)


def _problem_line(field: str, value: str, rule: str) -> str:
    info: FieldInfo = Settings.model_fields[field]
    shown = value if len(value) <= _SHOWN_CHARACTERS else value[:_SHOWN_CHARACTERS] + "…"
    rule = rule.removeprefix("Value error, ")
    default = _written(info.default)
    return (
        f"{PREFIX}{field.upper()} {rule}, got {shown!r} (from the environment); "
        f"using the default {default}; for example {PREFIX}{field.upper()}={default}"
    )


def _written(value: Any) -> str:
    """Returns a default the way a user would write it in a variable."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ",".join(value)
    return str(value)
