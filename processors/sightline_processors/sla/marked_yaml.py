"""YAML as plain values, with the line of each: for errors that say where.

Every scalar is text, so that `on`, `1e3` and `0777` are what was written; only an empty value, `~` and `null`
are None. Aliases and tags are refused: a small file with aliases may stand for a huge one, and a tag may name
code.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeAlias

import yaml

from sightline_processors.sla.objectives import shown

MAX_DEPTH: Final = 16

Location: TypeAlias = tuple[str | int, ...]
"""The keys and indices on the way to a value; empty for the whole document."""

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times faster where PyYAML has libyaml
_NOTHING: Final = frozenset({"", "~", "null", "Null", "NULL"})


class Problem(NamedTuple):
    """Is one thing that is wrong in a file."""

    line: int
    """Counted from 1."""
    message: str


@dataclass
class MarkedDocument:
    """Is what was read, as far as it could be."""

    value: Any = None
    """Mappings, lists, texts and None."""
    lines: dict[Location, int] = field(default_factory=dict)
    """The line of each key and list item, counted from 1."""
    problems: list[Problem] = field(default_factory=list)
    refused: set[Location] = field(default_factory=set)
    """Where aliases and tags stand: their values mean nothing."""
    is_complete: bool = False
    """The end was reached; otherwise the last problem says what was in the way."""

    def line_of(self, location: Location) -> int:
        """Returns the line of a value, or of what holds it where it is missing."""
        while location and location not in self.lines:
            location = location[:-1]
        return self.lines.get(location, 1)

    def is_refused(self, location: Location) -> bool:
        """Tells whether a value, or what holds it, is an alias or has a tag."""
        return any(location[:length] in self.refused for length in range(len(location) + 1))


def read_marked_yaml(text: str) -> MarkedDocument:
    """Reads one document; never raises.

    The time and memory that it takes are in proportion to the length of the text.

    Args:
        text: Bounded by the caller.
    """
    reader = _Reader()
    try:
        for event in _events(text):
            reader.take(event)
        reader.document.is_complete = True
    except _Stop as stop:
        reader.document.problems.append(stop.problem)
    except yaml.YAMLError as error:
        reader.document.problems.append(_syntax_problem(error, text))
    return reader.document


class _Stop(Exception):  # noqa: N818  ends the reading; the problem is in it
    def __init__(self, line: int, message: str) -> None:
        self.problem = Problem(line, message)


@dataclass
class _Frame:
    """Is a mapping or list that has not ended yet."""

    value: dict[str, Any] | list[Any]
    location: Location
    line: int
    key: str | None = None
    """The key whose value comes next."""


class _Reader:
    """Makes values of the events of a parser, without recursion."""

    def __init__(self) -> None:
        self.document = MarkedDocument()
        self._frames: list[_Frame] = []
        self._documents = 0

    def take(self, event: Any) -> None:
        line = event.start_mark.line + 1
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                raise _Stop(line, "must be one document; remove what follows ---")
        elif isinstance(event, yaml.ScalarEvent):
            self._refuse_tag(event, line)
            is_plain = event.implicit[0] and not event.style
            self._add(None if is_plain and event.value in _NOTHING else event.value, line)
        elif isinstance(event, yaml.AliasEvent):
            self._refuse(
                line, "must not use aliases (*name); write the value out, in quotes if it begins with *"
            )
            self._add("*", line)
        elif isinstance(event, yaml.CollectionStartEvent):
            self._begin(event, line)
        elif isinstance(event, yaml.CollectionEndEvent):
            frame = self._frames.pop()
            self._add(frame.value, frame.line)

    def _begin(self, event: yaml.CollectionStartEvent, line: int) -> None:
        if len(self._frames) >= MAX_DEPTH:
            raise _Stop(line, f"must not be nested more than {MAX_DEPTH} deep")
        self._refuse_tag(event, line)
        is_mapping = isinstance(event, yaml.MappingStartEvent)
        location = self._next_location()
        self.document.lines.setdefault(location, line)
        self._frames.append(_Frame({} if is_mapping else [], location, line))

    def _add(self, value: Any, line: int) -> None:
        """Puts a value where it belongs: in the list, or in the mapping as a key or beneath one."""
        if not self._frames:
            self.document.value = value
            return
        frame = self._frames[-1]
        if isinstance(frame.value, list):
            self.document.lines.setdefault((*frame.location, len(frame.value)), line)
            frame.value.append(value)
        elif frame.key is None:
            frame.key = self._key(frame, value, line)
        else:
            frame.value.setdefault(frame.key, value)
            frame.key = None

    def _key(self, frame: _Frame, value: Any, line: int) -> str:
        if not isinstance(value, str):
            self.document.refused.add((*frame.location, "?"))
            self.document.problems.append(Problem(line, "keys must be text; quote what holds { } [ ] or ,"))
            return "?"
        first = self.document.lines.setdefault((*frame.location, value), line)
        if value in frame.value:
            message = (
                f"{shown_location((*frame.location, value))} is there already, in line {first}; keep one"
            )
            self.document.problems.append(Problem(line, message))
        return value

    def _next_location(self) -> Location:
        if not self._frames:
            return ()
        frame = self._frames[-1]
        last = len(frame.value) if isinstance(frame.value, list) else frame.key
        return (*frame.location, "?" if last is None else last)

    def _refuse_tag(self, event: yaml.ScalarEvent | yaml.CollectionStartEvent, line: int) -> None:
        if event.tag is not None:
            self._refuse(line, "must not use tags (!name); in quotes, a value may begin with !")

    def _refuse(self, line: int, message: str) -> None:
        self.document.problems.append(Problem(line, message))
        self.document.refused.add(self._next_location())


def shown_location(location: Location) -> str:
    """Returns where a value is, as in `objectives[0].match.route`; bounded and printable."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in location)
    return shown("".join(steps).removeprefix("."))


def _events(text: str) -> Iterator[Any]:
    events: Iterator[Any] = yaml.parse(text, Loader=_LOADER)
    return events


def _syntax_problem(error: yaml.YAMLError, text: str) -> Problem:
    last = text.rstrip().count("\n") + 1  # the parser may stop behind the end
    mark = getattr(error, "problem_mark", None)
    if mark is not None:
        what = shown(str(getattr(error, "problem", None) or "broken"))
        return Problem(
            min(mark.line + 1, last), f"is not YAML: {what}; quote values that hold {{ }} [ ] , : or #"
        )
    position = getattr(error, "position", 0)  # of a character that no YAML may hold
    return Problem(text.count("\n", 0, position) + 1, "is not YAML: holds a control character; remove it")
