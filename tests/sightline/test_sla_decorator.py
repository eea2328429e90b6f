"""An objective on the function that answers a route, and the service level of the process."""

import functools
import gc
import importlib.util
import threading
from typing import Any
from unittest.mock import MagicMock

import pytest
from fastapi import APIRouter, FastAPI
from hypothesis import given
from hypothesis import strategies as st
from starlette.endpoints import HTTPEndpoint

from sightline import sla_decorator
from sightline.known_routes import known_routes
from sightline.sla_decorator import decorated_objectives, objective_of, sla
from sightline.sla_sums import sum_of
from sightline_processors.sla import Objective, SlaStatus, SlaTracker, parse_objective
from sightline_processors.sla.objectives import check_name

TEXT = "300ms@99%, 99.9%"
OTHER = "1s@95%"


@pytest.fixture(autouse=True)
def fresh_decorators(monkeypatch):
    monkeypatch.setattr(sla_decorator, "_made", {})
    monkeypatch.setattr(sla_decorator, "_lines", 0)


def objectives_of(app):
    return {route.template: objective_of(route.endpoint) for route in known_routes(app)}


def lines(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "sightline"]


# What it sets


def test_the_order_of_the_decorators_does_not_matter():
    app = FastAPI(openapi_url=None)

    @app.get("/below")
    @sla(TEXT, name="below")
    async def below():
        return {}

    @sla(TEXT, name="above")
    @app.get("/above")
    def above():
        return {}

    assert objectives_of(app) == {
        "/below": Objective("below", 0.3, 0.99, 0.999),
        "/above": Objective("above", 0.3, 0.99, 0.999),
    }


def test_an_objective_holds_wherever_the_router_is_included():
    router, app = APIRouter(), FastAPI(openapi_url=None)

    @router.get("/x")
    @sla(OTHER, name="x")
    async def endpoint():
        return {}

    app.include_router(router, prefix="/a")
    app.include_router(router, prefix="/b")
    assert objectives_of(app) == dict.fromkeys(("/a/x", "/b/x"), parse_objective(OTHER, name="x"))


def test_the_function_itself_is_returned_and_nothing_else_is_changed():
    def endpoint(number: int) -> int:
        """Answers."""
        return number

    before = dict(vars(endpoint))
    assert sla(TEXT)(endpoint) is endpoint
    assert vars(endpoint).keys() - before.keys() == {"__sightline_objective__"}
    assert endpoint(3) == 3


def test_the_outer_one_of_two_holds_and_is_the_only_one():
    @sla(OTHER)
    @sla(TEXT)
    async def endpoint():
        return {}

    name = "test_the_outer_one_of_two_holds_and_is_the_only_one.endpoint"
    assert objective_of(endpoint) == parse_objective(OTHER, name=name)
    assert decorated_objectives() == (objective_of(endpoint),)


def plain():
    def endpoint():
        return {}

    return endpoint


def decorated(name="inner"):
    @sla(TEXT, name=name)
    async def endpoint():
        return {}

    return endpoint


def test_objectives_are_found_through_what_is_wrapped_around_a_function():
    @functools.wraps(decorated())
    async def wrapper(**options):
        return {}

    delattr(wrapper, sla_decorator.OBJECTIVE)  # which wraps has copied
    assert objective_of(wrapper) == objective_of(functools.partial(functools.partial(wrapper, a=1), b=2))
    assert objective_of(wrapper).name == "inner"


def test_the_outermost_objective_holds_through_wrappers():
    inner = decorated()

    @sla(OTHER, name="outer")
    @functools.wraps(inner)
    async def wrapper():
        return {}

    assert objective_of(wrapper).name == "outer"
    assert objective_of(inner).name == "inner"


class Resource:
    """Has methods as endpoints, and is one."""

    @sla(TEXT)
    async def read(self):
        return {}

    @sla(TEXT)
    async def __call__(self):
        return {}

    async def write(self):
        return {}


def test_methods_and_instances_are_endpoints():
    resource = Resource()
    assert objective_of(resource.read).name == "Resource.read"
    assert objective_of(resource).name == "Resource"
    assert objective_of(resource.write) is None
    sla(OTHER, name="writing")(resource.write)
    assert objective_of(Resource().write).name == "writing"
    delattr(Resource.write, sla_decorator.OBJECTIVE)


def test_classes_are_endpoints():
    @sla(OTHER)
    class Page(HTTPEndpoint):
        pass

    class OwnPage(Page):
        pass

    assert objective_of(Page) == parse_objective(OTHER, name="test_classes_are_endpoints.Page")
    assert objective_of(OwnPage) is objective_of(Page)


@pytest.mark.parametrize("endpoint", [None, 7, len, object, print, functools.partial(print), MagicMock()])
def test_what_was_not_decorated_has_no_objective(endpoint):
    assert objective_of(endpoint) is None


def test_a_function_that_wraps_itself_is_no_trouble():
    endpoint: Any = plain()
    endpoint.__wrapped__ = endpoint
    assert objective_of(endpoint) is None
    assert objective_of(sla(TEXT, name="itself")(endpoint)).name == "itself"


class Hostile:
    """Raises when asked for anything that it does not have."""

    def __getattr__(self, name):
        raise RuntimeError(name)

    def __call__(self):
        return {}


def test_nothing_is_raised_whatever_the_endpoint_does(caplog):
    hostile = Hostile()
    assert objective_of(hostile) is None
    assert sla(TEXT)(hostile) is hostile
    assert len(lines(caplog)) == 1


# Names


def test_endpoints_of_the_same_name_can_be_told_apart():
    def make(text):
        @sla(text)
        async def handler():
            return {}

        return handler

    handlers = [make(text) for text in (TEXT, TEXT, OTHER, "2s@90%")]
    names = [objective_of(each).name for each in handlers]
    own = "test_endpoints_of_the_same_name_can_be_told_apart.make.handler"
    assert names[:2] == [own, own]
    assert len(set(names)) == 3
    assert [each.name for each in decorated_objectives()] == list(dict.fromkeys(names))


def in_module(name, module, text=TEXT):
    def endpoint():
        return {}

    endpoint.__qualname__, endpoint.__module__ = name, module
    return sla(text)(endpoint)


def test_a_name_that_is_taken_gets_its_module_before_it():
    kept = [in_module("read", module) for module in ("shop.orders", "shop.users")]
    assert [objective_of(each).name for each in kept] == ["read", "shop.users.read"]
    assert objective_of(in_module("default", "shop.pages")).name == "shop.pages.default"


@given(st.text(max_size=200), st.text(max_size=200))
def test_every_name_of_python_becomes_a_valid_one(qualname, module):
    for _, name in zip(range(3), sla_decorator._names(named(qualname, module)), strict=False):
        check_name(name)


def named(qualname, module):
    def endpoint():
        pass

    endpoint.__qualname__, endpoint.__module__ = qualname, module
    return endpoint


def test_a_name_may_be_shared_by_equal_objectives_alone(caplog):
    first, second = decorated("shared"), decorated("shared")
    assert objective_of(first) == objective_of(second)
    third = sla(OTHER, name="shared")(plain())
    assert objective_of(third) is None
    (line,) = lines(caplog)
    assert "got shared for 1s@95% (from test_sla_decorator." in line.replace("tests.sightline.", "")
    assert line.endswith("; until then the default holds")


def test_the_name_of_an_endpoint_that_is_gone_is_free():
    endpoint = decorated("again")
    del endpoint
    gc.collect()
    endpoint = sla(OTHER, name="again")(plain())
    assert objective_of(endpoint) == parse_objective(OTHER, name="again")
    assert decorated_objectives() == (objective_of(endpoint),)


def test_a_shared_name_is_taken_as_long_as_one_endpoint_has_it(caplog):
    first = decorated("shared")
    del first
    gc.collect()
    kept = decorated("shared")
    assert objective_of(sla(OTHER, name="shared")(plain())) is None
    assert (objective_of(kept).name, len(lines(caplog))) == ("shared", 1)


# What is wrong


@pytest.mark.parametrize(
    ("text", "name", "part"),
    [
        ("-1s@99%", None, "sla latency must be > 0, got -1s (from {origin}); for 500 ms write 500ms@99%"),
        ("100%", None, "sla availability must be > 0 % and < 100 % (100 % leaves no error budget), got 100%"),
        ("quick", None, "got quick (from {origin})"),
        ("", None, "sla"),
        (TEXT, "not a name", "sla objective name must be 1 to 64 of"),
        (TEXT, "default", "sla objective name must not be that of the default objective"),
        (TEXT, 7, "sla objective name must be text (from {origin})"),
        (None, None, "sla objective must be text, got a NoneType (from code); write @sla("),
    ],
)
def test_a_wrong_decorator_is_one_line_and_the_default_holds(caplog, text, name, part):
    def endpoint():
        return {}

    assert sla(text, name=name)(endpoint) is endpoint
    origin = f"{__name__}.{endpoint.__qualname__}"
    (line,) = lines(caplog)
    assert part.format(origin=origin) in line
    assert line.endswith("; until then the default holds")
    assert objective_of(endpoint) is None
    assert decorated_objectives() == ()


def test_a_decorator_without_parentheses_leaves_the_function_and_says_so(caplog):
    endpoint: Any = plain()
    given_to: Any = sla
    assert given_to(endpoint) is endpoint
    (line,) = lines(caplog)
    assert f"got a function (from {__name__}.{endpoint.__qualname__}); write @sla(" in line


def test_what_takes_no_attributes_is_left_alone(caplog):
    assert sla(TEXT)(len) is len
    (line,) = lines(caplog)
    assert "must take attributes, got a builtin_function_or_method (from builtins.len)" in line
    assert decorated_objectives() == ()


def test_objectives_and_lines_are_bounded(caplog, monkeypatch):
    monkeypatch.setattr(sla_decorator, "MAX_DECORATED", 3)
    kept = [decorated(f"n{number}") for number in range(5)]
    assert [objective_of(each) is not None for each in kept] == [True, True, True, False, False]
    assert len(decorated_objectives()) == 3
    for number in range(300):
        sla(f"{number}parsecs")(decorated)
    assert len(lines(caplog)) == 1 + sla_decorator._MAX_LINES


def test_decorating_in_many_threads_loses_nothing():
    kept = {}

    def decorate(thread):
        for number in range(50):
            kept[thread, number] = sla(TEXT, name=f"t{thread}-{number}")(plain())

    threads = [threading.Thread(target=decorate, args=(number,)) for number in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert {each.name for each in decorated_objectives()} == {
        f"t{t}-{n}" for t in range(4) for n in range(50)
    }


# The service level


def test_no_module_is_named_as_the_decorator():
    """Once imported, it would hide what `from sightline import sla` is to give."""
    assert importlib.util.find_spec("sightline.sla") is None


def test_without_a_tracker_the_status_is_empty():
    status = sla_decorator.Sla().status()
    assert (status.objectives, status.routes) == ((), ())
    assert (status.durations_left_out, status.durations_refused) == (0, 0)
    assert status.taken_at > 1.7e9
    assert SlaStatus(**{**status.to_dict(), "objectives": (), "routes": ()}) == status


BOTH = parse_objective("300ms@99%, 99.9%", name="both")
LATENCY = parse_objective("1s@90%", name="latency")
REQUESTS = [  # objective, method, route, is eligible, verdict, seconds
    (BOTH, "GET", "/a", True, "ok", [0.1] * 40),
    (BOTH, "GET", "/a", True, "slow", [0.5] * 3),
    (BOTH, "GET", "/a", True, "failed", [0.2] * 2),
    (BOTH, "GET", "/s", False, "ok", [9.0] * 5),
    (BOTH, "POST", None, True, "excluded", [0.1]),
    (LATENCY, "GET", "/b", True, "ok", [0.3] * 7),
    (LATENCY, "GET", "/b", True, "slow", [2.0]),
    (LATENCY, "GET", "/b", True, "ok", [-1.0]),
]


def tracker_of(requests):
    tracker = SlaTracker(clock=lambda: 100.0, wall=lambda: 1_800_000_000.0)
    tracker.set_objectives([BOTH, LATENCY])
    for objective, method, route, eligible, verdict, seconds in requests:
        tracker.cell(objective, method, route, latency_eligible=eligible).add(verdict, seconds)
    return tracker


def test_with_one_tracker_the_status_is_that_of_the_tracker():
    own, tracker = sla_decorator.Sla(), tracker_of(REQUESTS)
    own.trackers.add(tracker)
    assert own.status() == tracker.status()


@given(st.lists(st.booleans(), min_size=len(REQUESTS), max_size=len(REQUESTS)))
def test_the_counts_of_several_trackers_add_up_to_those_of_one(split):
    parts = [
        tracker_of([each for each, half in zip(REQUESTS, split, strict=True) if half == wanted])
        for wanted in (True, False)
    ]
    own, whole = sla_decorator.Sla(), tracker_of(REQUESTS).status()
    for each in parts:
        own.trackers.add(each)
    status = own.status()
    assert {each.name: each for each in status.objectives} == {each.name: each for each in whole.objectives}
    assert (status.durations_refused, status.taken_at) == (whole.durations_refused, whole.taken_at)
    for found, expected in zip(status.routes, whole.routes, strict=True):
        assert (found.method, found.route, found.requests) == (
            expected.method, expected.route, expected.requests,
        )  # fmt: skip
        assert found.measured == expected.measured
        for quantile in ("p50_seconds", "p95_seconds", "p99_seconds"):
            mine, true = getattr(found, quantile), getattr(expected, quantile)
            assert (mine is None and true is None) or mine >= true * 0.98


def test_a_tracker_that_is_gone_is_counted_no_more():
    own, tracker = sla_decorator.Sla(), tracker_of(REQUESTS)
    own.trackers.add(tracker)
    del tracker
    gc.collect()
    assert own.status().routes == ()
    assert sum_of([]).routes == ()
