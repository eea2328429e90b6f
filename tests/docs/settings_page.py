"""Writes the table of settings of `docs/reference/settings.md` from the model that reads them.

After a change of `sightline.settings`: `.venv/bin/python tests/docs/settings_page.py`.
"""

import ast
import inspect
from pathlib import Path
from typing import Any, Final

from sightline import settings
from sightline.settings import PREFIX, Settings
from sightline_processors.redaction.keys import MAX_PATTERNS
from sightline_processors.sla.objectives import MAX_LATENCY_SECONDS
from sightline_processors.sla.objectives_file import MAX_FILE_BYTES

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "reference" / "settings.md"
BEGIN: Final = "<!-- written from here by tests/docs/settings_page.py -->"
END: Final = "<!-- to here -->"

_HOUR: Final = 3600
_DURATION: Final = (
    f"duration, {settings.MIN_DURATION_SECONDS * 1000:.0f}ms to {settings.MAX_DURATION_SECONDS / _HOUR:.0f}h"
)
_OBJECTIVE: Final = (
    f"objective: latency above 0, {MAX_LATENCY_SECONDS / _HOUR:.0f}h at most; "
    "ratios above 0 % and below 100 %"
)
_KINDS: Final[list[tuple[Any, str]]] = [
    (
        settings.HeaderNames,
        "list of header names; at least one, none that frames the message or is a credential",
    ),
    (settings.HostPatterns, "list of host names, `*` and `?` as wildcards"),
    (settings.Networks, "list of networks in CIDR form, or of addresses"),
    (settings.Switch, "`on` or `off`"),
    (settings.Duration, _DURATION),
    (settings.FolderPath, "absolute path of a folder"),
    (settings.FilePath, f"absolute path of a file; {MAX_FILE_BYTES // 1_000_000} MB at most"),
    (settings.Limit, f"number, {settings.MIN_LIMIT} to {settings.MAX_LIMIT}"),
    (settings.ObjectiveText, _OBJECTIVE),
    (settings.PathPatterns, "list of paths, `*` and `?` as wildcards"),
    (settings.KeyPatterns, f"list of names, `*` and `?` as wildcards, {MAX_PATTERNS} at most; or `off`"),
    (settings.Secret, "text"),
]
"""What may be written for each type of a setting."""

_EXAMPLES: Final = {
    "correlation_headers": "x-trace-token,x-request-id",
    "websocket_message_spans": "on",
    "shutdown_timeout": "2500ms",
    "cardinality_limit": "5000",
    "limit_all_instruments": "on",
    "sla": "300ms@99.5%, 99.95%",
    "slow_request": "2s",
    "slow_query": "250ms",
    "slow_call": "1.5s",
    "access_log": "on",
}
"""Good values that are not the default, where the model's own error messages show none."""


def examples() -> dict[str, str]:
    """Returns a good value of each setting, by its field."""
    return {**settings._EXAMPLES, **_EXAMPLES}


def written_page() -> str:
    """Returns the page with the table as the model has it now."""
    head, rest = PAGE.read_text().split(BEGIN, 1)
    return f"{head}{BEGIN}\n{_table()}\n{END}{rest.split(END, 1)[1]}"


def _table() -> str:
    meanings = _docstrings()
    rows = [("Variable", "Default", "Value", "Example", "Meaning")]
    for name, field in Settings.model_fields.items():
        default = settings._written(field.default)
        rows.append(
            (
                f"`{PREFIX}{name.upper()}`",
                f"`{default}`" if default else "none",
                _kind_of(name),
                f"`{examples()[name]}`",
                meanings[name],
            )
        )
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---|---|---|---|---|", *lines[1:]])


def _kind_of(name: str) -> str:
    annotation = Settings.__annotations__[name]
    return next(text for kind, text in _KINDS if kind == annotation)


def _docstrings() -> dict[str, str]:
    """Returns the text below each field, as one line and without the last full stop."""
    (model,) = ast.parse(inspect.getsource(Settings)).body
    assert isinstance(model, ast.ClassDef)
    found = {}
    for field, text in zip(model.body, model.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
            assert isinstance(field.target, ast.Name)
            found[field.target.id] = " ".join(ast.literal_eval(text.value).split()).removesuffix(".")
    return found


if __name__ == "__main__":
    PAGE.write_text(written_page())
