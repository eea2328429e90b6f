"""The file of objectives: YAML, checked as a whole, with one error that lists every problem and its line.

default: 300ms@99%, 99.9%
objectives:
  - name: checkout
    match: {route: "/orders/*", methods: [POST], tags: [checkout]}
    objective: 1s@99.5%, 99.95%
exclude: {paths: ["/internal/*"]}
failed_statuses: [429]
"""

import stat
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from sightline_processors.sla.catalogue import Catalogue
from sightline_processors.sla.marked_yaml import (
    Location,
    MarkedDocument,
    Problem,
    read_marked_yaml,
    shown_location,
)
from sightline_processors.sla.objectives import DEFAULT_OBJECTIVE, Objective, ObjectiveError, shown
from sightline_processors.sla.objectives_schema import (
    ORIGIN,
    EntryModel,
    ExcludeModel,
    FileModel,
    MatchModel,
    StrictModel,
)

MAX_FILE_BYTES: Final = 1_000_000
MAX_LISTED: Final = 20
"""Problems that the text of an error lists, at most; it says how many more there are."""

_RULES: Final = {
    "missing": "is missing",
    "string_type": "must be text",
    "tuple_type": "must be a list",
    "model_type": "must be a mapping of keys to values",
    "too_short": "must not be empty",
}


class ObjectivesFileError(ObjectiveError):
    """Is raised for a file of objectives that cannot be used as it is; says all that is wrong.

    Args:
        path: The file.
        problems: What is wrong, in the order of the lines.
        origin: The setting that named the file.
    """

    def __init__(self, path: str, problems: Sequence[Problem], origin: str = ORIGIN) -> None:
        self.problems: Final = tuple(problems)
        listed = [f"line {line}: {message}" for line, message in self.problems[:MAX_LISTED]]
        if len(self.problems) > MAX_LISTED:
            listed.append(f"and {len(self.problems) - MAX_LISTED} more")
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        super().__init__(f"{shown(path)} (from {origin}) has {count}: {' | '.join(listed)}")


def load_catalogue(
    path: str | Path, *, default: Objective = DEFAULT_OBJECTIVE, origin: str = ORIGIN
) -> Catalogue:
    """Reads a file of objectives.

    Args:
        path: A regular file, at most 1 MB of UTF-8.
        default: The objective of what no entry matches, where the file has no `default`.
        origin: The setting that named the file, for errors.

    Raises:
        ObjectivesFileError: The file cannot be read, or breaks a rule; lists all that is wrong.
    """
    return parse_catalogue(read_bytes(path, origin), path, default=default, origin=origin)


def read_bytes(path: str | Path, origin: str = ORIGIN) -> bytes:
    """Returns what the file holds, of which no more is read than its bound.

    Raises:
        ObjectivesFileError: The file cannot be read, is not a regular one, or is larger than 1 MB.
    """
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):  # opening a pipe would wait for its writer
            raise _unreadable(path, "must be a regular file", origin)
        with Path(path).open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, ObjectivesFileError):
            raise
        raise _unreadable(path, f"cannot be read: {type(error).__name__}", origin) from error
    if len(content) > MAX_FILE_BYTES:
        raise _unreadable(path, "must be at most 1 MB", origin)
    return content


def parse_catalogue(
    content: bytes,
    path: str | Path,
    *,
    default: Objective = DEFAULT_OBJECTIVE,
    origin: str = ORIGIN,
) -> Catalogue:
    """Makes a catalogue of what a file holds; as `load_catalogue`, for what is read already."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ObjectivesFileError(str(path), [Problem(line, "must be UTF-8")], origin) from error
    document = read_marked_yaml(text)
    problems = list(document.problems)
    file: FileModel | None = None
    if document.is_complete:
        problems += _duplicates(document)
        try:
            file = FileModel.model_validate(document.value, context={"origin": origin})
        except ValidationError as error:
            problems += _validation_problems(error, document)
    if problems or file is None:
        raise ObjectivesFileError(str(path), sorted(set(problems)), origin)
    return file.catalogue(default)


def _unreadable(path: str | Path, message: str, origin: str) -> ObjectivesFileError:
    return ObjectivesFileError(str(path), [Problem(1, message)], origin)


_MODELS: Final[dict[object, type[StrictModel]]] = {
    "objectives": EntryModel,
    "match": MatchModel,
    "exclude": ExcludeModel,
}


def _duplicates(document: MarkedDocument) -> Iterator[Problem]:
    """Yields the names that a further objective has too."""
    entries = document.value.get("objectives") if isinstance(document.value, dict) else None
    first: dict[str, int] = {}
    for index, entry in enumerate(entries if isinstance(entries, list) else ()):
        name = entry.get("name") if isinstance(entry, dict) else None
        if isinstance(name, str) and name:
            line = document.line_of(("objectives", index, "name"))
            if first.setdefault(name, line) != line:
                message = (
                    f"{shown(name)} is the name of the objective in line {first[name]} too; give it another"
                )
                yield Problem(line, f"objectives[{index}].name {message}")


def _validation_problems(error: ValidationError, document: MarkedDocument) -> Iterator[Problem]:
    for each in error.errors(include_url=False):
        location = each["loc"]
        if not document.is_refused(location):
            yield Problem(document.line_of(location), _message(each, location))


def _message(error: ErrorDetails, location: Location) -> str:
    cause = error.get("ctx", {}).get("error")
    if isinstance(cause, ObjectiveError):  # names the setting itself
        return str(cause)
    where = shown_location(location) if location else "the file"
    if error["type"] == "extra_forbidden":
        return f"{where} is not a known key{_suggestion(location)}"
    if error["input"] is None:
        return f"{where} has no value; write one, or remove the key"
    if error["type"] == "too_long":
        return f"{where} must have at most {error['ctx']['max_length']} items"
    return f"{where} {_RULES.get(error['type'], str(cause or 'is not valid'))}"


def _suggestion(location: Location) -> str:
    """Returns the known keys at a place, or the one that may have been meant."""
    owner = next((step for step in reversed(location[:-1]) if isinstance(step, str)), None)
    known = list(_MODELS.get(owner, FileModel).model_fields)
    close = get_close_matches(str(location[-1]), known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; known are {', '.join(known)}"
