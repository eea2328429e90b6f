"""The objective of a route, written on the function that answers it; and how the service level is.

    from sightline import sla

    @app.post("/orders")
    @sla("300ms@99%, 99.9%")
    async def order(): ...

    sla.status().objectives

The module is not called `sla`: once imported, it would hide what `from sightline import sla` is to give.
"""

import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count
from types import MethodType
from typing import Any, Final, TypeVar
from weakref import WeakSet, ref

from sightline.sla_sums import sum_of
from sightline_processors.report import report, warn_once
from sightline_processors.sla import Objective, ObjectiveError, SlaStatus, SlaTracker, parse_objective
from sightline_processors.sla.objectives import DEFAULT_NAME, check_name

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])

OBJECTIVE: Final = "__sightline_objective__"
"""Attribute of an endpoint that holds its `Objective`."""

MAX_DECORATED: Final = 1_000
"""Objectives that decorators make, at most; further endpoints have none of their own."""

MAX_WRAPPERS: Final = 20
"""Wrappers around a function that are looked through, at most."""

_MAX_LINES: Final = 100
"""Lines about wrong decorators, at most; from then on one a minute."""
_LONGEST_NAME: Final = 64
_CURE: Final = '@sla("500ms@99%, 99.9%")'
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9._:/-]+")


class Sla:
    """Is `sightline.sla`: sets objectives as a decorator, and tells the service level; any thread.

    Attributes:
        trackers: Those of this process, one for each MeterProvider.
    """

    def __init__(self) -> None:
        self.trackers: WeakSet[SlaTracker] = WeakSet()

    def __call__(self, text: str, *, name: str | None = None) -> Callable[[Endpoint], Endpoint]:
        """Sets the objective of the routes that an endpoint answers; it goes before every other one.

        The decorator returns the endpoint itself, so it may stand above FastAPI's or below; of two, the outer
        one holds. An endpoint is a function, a class, an instance with `__call__`, or a `functools.partial`
        of one. The objective of a method is that of its function, hence of every instance; that of a class
        is its subclasses' too, unless they have their own.

        Never raises: a wrong text or name is one log line, and the route is judged as without the decorator.

        Args:
            text: As in `SIGHTLINE_SLA`: `500ms@99%, 99.9%`; either half may be missing.
            name: Of the objective, in metrics: 1 to 64 of `A-Za-z0-9._:/-`. Endpoints may share one if
                their objectives are the same. By default the endpoint's `__qualname__`, where that is taken
                with its module before it.
        """
        if not isinstance(text, str):
            return _refuse_other_than_text(text)

        def decorate(endpoint: Endpoint) -> Endpoint:
            try:
                _set_objective(endpoint, text, name)
            except ObjectiveError as error:
                _tell(f"{error}; until then the default holds")
            except Exception as error:  # noqa: BLE001  fail open: the application starts without the objective
                report("sla_decorator", "an @sla has no effect: the default holds", error=error)
            return endpoint

        return decorate

    def status(self) -> SlaStatus:
        """Returns the service level of this process; blocks no request.

        Without a tracker, before the first request, it is empty. With several, the counts of objectives and
        routes of the same name are added up: see `sightline.sla_sums`.
        """
        return sum_of([tracker.status() for tracker in self.trackers])


sla: Final = Sla()


def objective_of(endpoint: object) -> Objective | None:
    """Returns the objective that a decorator has set, or None; never raises.

    Looks through `functools.partial`, whatever `functools.wraps` has wrapped, and methods, at most
    `MAX_WRAPPERS` deep: the outermost objective holds.
    """
    try:
        for each in _inwards(endpoint):
            found = getattr(each, OBJECTIVE, None)
            if isinstance(found, Objective):
                return found
    except Exception as error:  # noqa: BLE001  fail open: an endpoint may do anything when asked for an attribute
        report("sla_decorator", "an endpoint cannot be asked for its objective: it has none", error=error)
    return None


def decorated_objectives() -> tuple[Objective, ...]:
    """Returns the objectives that decorators have made, in that order, each name once."""
    return tuple(each.objective for each in list(_made.values()))


@dataclass(frozen=True, slots=True)
class _Made:
    """Is an objective with where it is from.

    Args:
        objective: The objective.
        origin: Module and name of the endpoint that it was made for.
        owner: Returns that endpoint, or None when it is gone.
    """

    objective: Objective
    origin: str
    owner: Callable[[], object]


_made: dict[str, _Made] = {}
_lines = 0
_lock = threading.RLock()  # a signal handler may interrupt its holder


def _set_objective(endpoint: Any, text: str, name: str | None) -> None:
    target = endpoint.__func__ if isinstance(endpoint, MethodType) else endpoint
    origin = ".".join(_module_and_name(target))
    with _lock:
        objective = _named_after(target, text, origin) if name is None else _named(target, text, name, origin)
        if len(_made) >= MAX_DECORATED and objective.name not in _made:
            report("sla_decorator", f"more than {MAX_DECORATED} different @sla: the default holds for others")
            return
        _keep(objective, target, origin)


def _keep(objective: Objective, target: Any, origin: str) -> None:
    try:
        owner = ref(target)
        setattr(target, OBJECTIVE, objective)
    except (AttributeError, TypeError):
        kind = type(target).__qualname__
        raise ObjectiveError(
            f"sla endpoint must take attributes, got a {kind} (from {origin}); decorate a function instead"
        ) from None
    made = _made.get(objective.name)
    if made is None or made.objective != objective or made.owner() is None:
        _made[objective.name] = _Made(objective, origin, owner)


def _named(target: Any, text: str, name: str, origin: str) -> Objective:
    """Returns the objective of a name that the user chose."""
    if not isinstance(name, str):
        raise ObjectiveError(f"sla objective name must be text (from {origin}); for example checkout")
    objective = parse_objective(text, name=name, origin=origin)
    if name == DEFAULT_NAME:
        raise ObjectiveError(
            f"sla objective name must not be that of the default objective, got {name} (from {origin}); "
            "for example checkout"
        )
    made = _made.get(name)
    if made is not None and made.objective != objective and not _is_replaced(made, target):
        raise ObjectiveError(
            f"sla objective name must have one meaning, got {name} for {objective} (from {origin}) after "
            f"{made.objective} (from {made.origin}); give one of them another name"
        )
    return objective


def _named_after(target: Any, text: str, origin: str) -> Objective:
    """Returns the objective of the first name that can be told from other endpoints'."""
    for name in _names(target):
        objective = parse_objective(text, name=name, origin=origin)
        made = _made.get(name)
        if made is None or _is_replaced(made, target) or (made.objective, made.origin) == (objective, origin):
            return objective
    raise AssertionError  # there is always another name


def _is_replaced(made: _Made, target: Any) -> bool:
    """Tells whether an objective holds for nothing any more once a target has another one."""
    return made.owner() is None or made.objective is objective_of(target)


def _names(target: Any) -> Iterator[str]:
    module, name = _module_and_name(target)
    short, long = _valid(name), _valid(f"{module}.{name}")
    if short != DEFAULT_NAME:
        yield short
    yield long
    for number in count(2):
        yield f"{long[: _LONGEST_NAME - 5]}-{number}"


def _valid(name: str) -> str:
    """Returns what a name of Python is as the name of an objective: its end, if it is too long."""
    name = _NOT_IN_NAMES.sub("-", name.replace("<locals>.", ""))[-_LONGEST_NAME:].lstrip("._:/-")
    name = name or "endpoint"
    check_name(name)
    return name


def _module_and_name(target: Any) -> tuple[str, str]:
    for each in _inwards(target):
        name = getattr(each, "__qualname__", None)
        if isinstance(name, str):
            return str(getattr(each, "__module__", None) or "?"), name.removesuffix(".__call__")
    return type(target).__module__, type(target).__qualname__


def _inwards(endpoint: Any) -> Iterator[Any]:
    """Yields an endpoint and what it wraps, outermost first; of an instance, its `__call__` last."""
    each = endpoint
    for _ in range(MAX_WRAPPERS):
        yield each
        if isinstance(each, partial):
            each = each.func
        elif isinstance(each, MethodType):
            each = each.__func__
        elif hasattr(each, "__wrapped__"):
            each = each.__wrapped__
        else:
            break
    if not isinstance(each, type) and hasattr(type(each), "__call__"):  # noqa: B004  asked for, not called
        yield type(each).__call__


def _refuse_other_than_text(given: Any) -> Any:
    """Answers `@sla` without parentheses, which is given the function, or with something else in them."""
    origin = ".".join(_module_and_name(given)) if callable(given) else "code"
    _tell(
        f"sla objective must be text, got a {type(given).__qualname__} (from {origin}); write {_CURE}; "
        "until then the default holds"
    )
    return given if callable(given) else _unchanged


def _unchanged(endpoint: Endpoint) -> Endpoint:
    return endpoint


def _tell(line: str) -> None:
    """Logs a line once; those that a program makes without end, at a bounded rate."""
    global _lines  # noqa: PLW0603  one count for the process
    with _lock:
        _lines += 1
    if _lines <= _MAX_LINES:
        warn_once("%s", line)
    else:
        report("sla_decorator", line)
