"""What a file of objectives may hold: its keys, and the rule of each value."""

import re
from typing import Annotated, Final, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationInfo,
    model_validator,
)

from sightline_processors.sla.catalogue import FIRST_SERVER_ERROR, Catalogue, MatchedObjective
from sightline_processors.sla.objectives import DEFAULT_NAME, Objective, check_name, parse_objective, shown

ORIGIN: Final = "SIGHTLINE_SLA_FILE"
MAX_OBJECTIVES: Final = 1_000

_MAX_GLOB_CHARACTERS: Final = 256
_METHOD: Final = re.compile(r"[A-Za-z_-]{1,32}")
_STATUS: Final = re.compile(r"4[0-9][0-9]")
_CLIENT_ERRORS: Final = range(400, FIRST_SERVER_ERROR)


def _one_or_more(value: object) -> object:
    """Takes one text as a list of one."""
    return (value,) if isinstance(value, str) else value


def _glob(pattern: str) -> str:
    if not pattern.startswith(("/", "*", "?", "[")):
        raise ValueError(f'must begin with / or *, got {shown(pattern)}; for example "/orders/*"')
    if len(pattern) > _MAX_GLOB_CHARACTERS or not pattern.isprintable():
        raise ValueError(f"must be at most {_MAX_GLOB_CHARACTERS} printable characters, got {shown(pattern)}")
    if _has_open_bracket(pattern):
        raise ValueError(
            f"must close each [ with ], got {shown(pattern)}; for the character itself write [[]"
        )
    return pattern


def _has_open_bracket(pattern: str) -> bool:
    start = pattern.find("[")
    while start >= 0:
        first = start + 2 if pattern[start + 1 : start + 2] == "!" else start + 1
        end = pattern.find("]", first + 1)  # the first character of a set may be ] itself
        if end < 0:
            return True
        start = pattern.find("[", end)
    return False


def _method(name: str) -> str:
    if not _METHOD.fullmatch(name):
        raise ValueError(f"must be HTTP methods, got {shown(name)}; for example POST")
    return name.upper()


def _tag(tag: str) -> str:
    if not tag.strip() or len(tag) > _MAX_GLOB_CHARACTERS:
        raise ValueError(f"must be 1 to {_MAX_GLOB_CHARACTERS} characters, got {shown(tag)}")
    return tag


def _status(written: object) -> frozenset[int]:
    text = str(written)
    if text.lower() == "4xx":
        return frozenset(_CLIENT_ERRORS)
    if _STATUS.fullmatch(text):
        return frozenset({int(text)})
    raise ValueError(f"must be 400 to 499, or 4xx, got {shown(text)}; 5xx are failures in any case")


def _objective(written: object, info: ValidationInfo) -> Objective:
    if not isinstance(written, str):
        raise ValueError("must be text such as 500ms@99%, 99.9%")  # noqa: TRY004  what pydantic collects
    name = info.data.get("name", DEFAULT_NAME)  # of a name that is wrong there is an error already
    return parse_objective(written, name=name, origin=_origin(info))


def _name(name: str, info: ValidationInfo) -> str:
    if name == DEFAULT_NAME:
        raise ValueError("must not be default, which is the name of the objective of all the rest")
    check_name(name, _origin(info))
    return name


def _origin(info: ValidationInfo) -> str:
    return str((info.context or {}).get("origin", ORIGIN))


_BOUND: Final = Field(min_length=1, max_length=100)
_Globs = Annotated[tuple[Annotated[str, AfterValidator(_glob)], ...], BeforeValidator(_one_or_more), _BOUND]
_Methods = Annotated[
    tuple[Annotated[str, AfterValidator(_method)], ...], BeforeValidator(_one_or_more), _BOUND
]
_Tags = Annotated[tuple[Annotated[str, AfterValidator(_tag)], ...], BeforeValidator(_one_or_more), _BOUND]
_Status = Annotated[frozenset[int], PlainValidator(_status)]
_Statuses = Annotated[tuple[_Status, ...], BeforeValidator(_one_or_more), _BOUND]


class StrictModel(BaseModel):
    """Refuses keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class MatchModel(StrictModel):
    """Says what an objective is for: all keys that are given must match."""

    route: _Globs = ()
    methods: _Methods = ()
    tags: _Tags = ()

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError(
                "must have at least one of route, methods and tags; for all the rest there is default"
            )
        return self


class EntryModel(StrictModel):
    """Is one objective."""

    name: Annotated[str, AfterValidator(_name)]
    match: MatchModel
    objective: Annotated[Objective, PlainValidator(_objective)]


class ExcludeModel(StrictModel):
    """Says which requests are left out."""

    paths: _Globs


class FileModel(StrictModel):
    """Is the whole file; validated with the context `origin`, the setting that named it."""

    default: Annotated[Objective | None, PlainValidator(_objective)] = None
    objectives: Annotated[tuple[EntryModel, ...], Field(max_length=MAX_OBJECTIVES)] = ()
    exclude: ExcludeModel | None = None
    failed_statuses: _Statuses = ()

    def catalogue(self, default: Objective) -> Catalogue:
        """Returns the objectives; `default` is the default one where the file has none."""
        return Catalogue(
            [
                MatchedObjective(
                    each.objective,
                    each.match.route,
                    frozenset(each.match.methods),
                    frozenset(each.match.tags),
                )
                for each in self.objectives
            ],
            self.default or default,
            excluded_paths=self.exclude.paths if self.exclude else (),
            failed_statuses=frozenset().union(*self.failed_statuses),
        )
