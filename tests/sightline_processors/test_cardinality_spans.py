"""Span names and attribute values: their shapes, the rules, the memory behind them, and the processor."""

import math
import os
import threading
import time
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from sightline_processors.cardinality.attribute_rules import (
    Allow,
    Cap,
    Replace,
    Rule,
    RuleMemory,
    Template,
    ValueMemory,
)
from sightline_processors.cardinality.span_processor import MAX_SCOPES, CardinalitySpanProcessor
from sightline_processors.cardinality.value_shapes import is_identifier, template
from sightline_processors.report import reported
from sightline_processors.tracing.rewriting import RewritingSpanExporter

UUID = "550e8400-e29b-41d4-a716-446655440000"
HASH = "0123456789abcdef"
NANOID = "V1StGXR8_Z5jdHi6B-myT"
WEB_TOKEN = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.abc"


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


# Shapes


@pytest.mark.parametrize(
    "segment",
    [
        "0", "42", "-7", "1,234", "2026-11-21", "2026-11-21T10:00:00Z", "2026-11-21T10:00:00.5+02:00",
        UUID, UUID.upper(), f"urn:uuid:{UUID}", f"{{{UUID}}}", HASH, HASH.upper(), f"0x{HASH}", "f" * 64,
        "a@b.org", "a%40b.org", "first.last+tag@mail.example.org",
        NANOID, WEB_TOKEN, "01ARZ3NDEKTSV4RRFFQ69G5FAV",
    ],
)  # fmt: skip
def test_an_identifier_is_found(segment):
    assert is_identifier(segment)
    assert template(f"GET /things/{segment}/parts") == "GET /things/{id}/parts"


@pytest.mark.parametrize(
    "segment",
    [
        "", "users", "v1", "1.0", "2.4.1", "{id}", "{user_id}", "{user@domain.org}", ":id", "<int:id>", "*",
        HASH[:15], "deadbeef", "cafe", "a@b", "@b.org", "a@", "utf8", "sha256", "oauth2", "step-1-of-2",
        "py3-http2-utf8-support", "list_by_customer_and_date", "ProcessOrderV2HandlerForBatches", "..",
    ],
)  # fmt: skip
def test_a_word_is_no_identifier(segment):
    assert not is_identifier(segment)
    assert template(f"GET /things/{segment}/parts") == f"GET /things/{segment}/parts"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/users/42", "/users/{id}"),
        ("42/users", "{id}/users"),
        ("/42/42/42/", "/{id}/{id}/{id}/"),
        (f"https://10.0.0.1:8080/a/{HASH}?page=7/8#9/9", "https://10.0.0.1:8080/a/{id}?page=7/8#9/9"),
        ("http://42/7", "http://42/{id}"),
        ("GET /a/1 then /b/2", "GET /a/{id} then /b/{id}"),
        (f"process {UUID}", f"process {UUID}"),
        ("HGET user:42", "HGET user:42"),
        ("42?next=/a/42", "42?next=/a/42"),
        ("SELECT 1", "SELECT 1"),
        ("", ""),
    ],
)
def test_only_segments_of_paths_change(text, expected):
    assert template(text) == expected


pieces = st.sampled_from(
    [
        "/", "/", "/", " ", "?", "#", "://", "http://", "42", UUID, HASH, NANOID, "a@b.org", "users", "{id}",
        ":", "x" * 250, "a1" * 30, "7" * 2000, "a" * 4090, "é", "!", ".", "-", "%40", "\n",
    ]
)  # fmt: skip
texts = st.lists(pieces, max_size=40).map("".join) | st.text(max_size=300)


@settings(max_examples=200, deadline=None)
@given(texts)
def test_a_template_is_its_own_template_and_bounded(text):
    once = template(text)
    assert template(once) == once
    assert len(once) <= 256
    if "/" not in text and len(text) <= 256:
        assert once is text


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(["users", "42", UUID, NANOID, "v1", "é", "{name}"]), max_size=6))
def test_a_template_keeps_the_segments_that_are_no_identifiers_in_place(segments):
    expected = ["{id}" if is_identifier(segment) else segment for segment in segments]
    assert template("/" + "/".join(segments)) == ("/" + "/".join(expected))[:256]


@pytest.mark.parametrize(
    "adversary",
    [
        lambda n: "1" * n + "!",
        lambda n: "a@" + "." * n,
        lambda n: "@" * n + ".",
        lambda n: "0x" + "a" * n + "g",
        lambda n: "a1" * (n // 2) + "!",
        lambda n: "2026-11-21T" + "1:" * (n // 2) + "+",
        lambda n: "%40" * (n // 3),
    ],
)
def test_shapes_are_told_in_linear_time(adversary):
    def seconds(text):
        times = []
        for _ in range(5):
            began = time.thread_time()
            is_identifier(text)
            times.append(time.thread_time() - began)
        return min(times)

    small, large = seconds(adversary(4_000)), seconds(adversary(128_000))
    assert large < 32 * 8 * max(small, 1e-5)  # a quadratic one takes 1024 times as long


# Memory


class NaiveMemory:
    """The model: a list of values, the least recently used first."""

    def __init__(self, limit, idle_seconds):
        self.limit, self.idle_seconds = limit, idle_seconds
        self.used = []

    def admits(self, value, now):
        place = next((each for each in self.used if each[0] == value), None)
        if place is None and len(self.used) == self.limit:
            if now - self.used[0][1] < self.idle_seconds:
                return False
            place = self.used[0]
        self.used = [each for each in self.used if each is not place] + [(value, now)]
        return True


steps = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 4)), max_size=80)


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 4), st.sampled_from([0, 3, 10, math.inf]), steps)
def test_the_memory_is_least_recently_used_first_out_once_idle(limit, idle_seconds, uses):
    clock = Clock()
    memory, model = ValueMemory(limit, idle_seconds, clock), NaiveMemory(limit, idle_seconds)
    passed = []
    for value, pause in uses:
        clock.now += pause
        admitted = memory.admits(value)
        assert admitted == model.admits(value, clock.now)
        assert len(memory) == len(model.used) <= limit
        if admitted:
            passed.append((value, clock.now))
    assert memory.refused == len(uses) - len(passed)
    for _, began in passed:
        within = {value for value, at in passed if began <= at < began + idle_seconds}
        assert len(within) <= max(limit, 1 if idle_seconds else 0)


def test_a_value_in_use_keeps_its_place_however_many_knock():
    clock = Clock()
    memory = ValueMemory(2, 10, clock)
    for number in range(1000):
        clock.now += 1
        assert memory.admits("steady")
        memory.admits(f"new {number}")
    assert memory.refused == 1000 - 100  # one place, free every ten seconds


def test_long_values_are_told_apart_and_not_kept():
    memory = ValueMemory(2)
    first, second, third = ("x" * 100_000 + each for each in "123")
    assert [memory.admits(each) for each in (first, second, third, first)] == [True, True, False, True]
    assert sum(len(key) for key in memory._used_at) == 32
    assert memory.touches(second)
    assert not memory.touches(third)


def test_threads_share_the_places_and_no_value_is_lost_from_the_count():
    memory = ValueMemory(50)
    passed: list[set[str]] = []
    refused = []

    def use(seed):
        values = [f"value {(seed * 7 + number) % 200}" for number in range(2000)]
        answers = [(value, memory.admits(value)) for value in values]
        passed.append({value for value, admitted in answers if admitted})
        refused.append(sum(not admitted for _, admitted in answers))

    threads = [threading.Thread(target=use, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set().union(*passed)) == len(memory) == 50
    assert memory.refused == sum(refused)


def test_a_fork_while_another_thread_holds_the_memory_leaves_the_child_free():
    memory = ValueMemory(2)
    held, done = threading.Event(), threading.Event()

    def hold():
        with memory._lock:
            held.set()
            done.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(20)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads, which is the point
        child = os.fork()
    if not child:
        threading.Timer(5, os._exit, [1]).start()
        os._exit(0 if memory.admits("a") else 2)
    done.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# Rules


@pytest.mark.parametrize(
    ("rule", "values", "expected"),
    [
        (Allow(), ["/a/1", 5, b"x", {"k": 1}, None], ["/a/1", 5, b"x", {"k": 1}, None]),
        (Replace(), ["a", 5, True, None, ["a"], "_other"], ["_other"] * 6),
        (Cap(2), ["a", "b", "a", "c", "_other", "b"], ["a", "b", "a", "_other", "_other", "b"]),
        (Cap(2), ["_other", "a", "b", "c"], ["_other", "a", "b", "_other"]),
        (Cap(2), [1, 2.5, 3, True, None, 1], [1, 2.5, "_other", True, None, 1]),
        (Cap(2), [["a", "b"], ("a", "c"), [["a"]]], [["a", "b"], ("a", "_other"), ("_other",)]),
        (Cap(9), [b"x", {"k": 1}], ["_other", "_other"]),
        (Template(2), ["/a/1", "/a/2", "/b/1", "/c/1"], ["/a/{id}", "/a/{id}", "/b/{id}", "_other"]),
        (Template(None), [f"/{each}/x" for each in "abcdefg"], [f"/{each}/x" for each in "abcdefg"]),
        (Template(), [["/a/1", "x"], 7, b"x"], [("/a/{id}", "x"), 7, "_other"]),
    ],
)
def test_a_rule_makes_of_values(rule, values, expected):
    memory = RuleMemory(rule, "values")
    results = [memory.bounded_value(value) for value in values]
    assert results == expected
    assert [type(each) for each in results] == [type(each) for each in expected]


rules = st.sampled_from([Allow(), Replace(), Cap(3), Template(3), Template(None)])


@settings(max_examples=80, deadline=None)
@given(rules, st.lists(texts | st.integers() | st.lists(texts, max_size=3), max_size=12))
def test_a_bounded_value_stays_as_it_is_and_the_number_of_them_is_bounded(rule, values):
    memory = RuleMemory(rule, "values", Clock())
    results = set()
    for value in values:
        once = memory.bounded_value(value)
        assert memory.bounded_value(once) is once
        results.update(once if isinstance(once, list | tuple) else [once])
    if getattr(rule, "limit", None) is not None:
        assert len(results - {"_other"}) <= 3


@pytest.mark.parametrize("rule", [Cap, Template])
def test_a_rule_out_of_range_is_refused_with_its_cure(rule):
    with pytest.raises(ValueError, match=r"must be >= 1, got 0; to let none pass, use Replace\(\)"):
        rule(0)
    for wrong in (-1, math.nan):
        with pytest.raises(ValueError, match=r"must be >= 0, got .*; for an hour write 3600"):
            rule(1, wrong)


# Processor


class Pipeline:
    """A provider whose spans are bounded at their start, when they are exported, or both."""

    def __init__(self, processor, *, starts=True, ends=True, first=None):
        self.memory = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        if starts:
            self.provider.add_span_processor(processor)
        if first is not None:
            self.provider.add_span_processor(first)
        exporter = RewritingSpanExporter(self.memory, [processor] if ends else [])
        self.provider.add_span_processor(SimpleSpanProcessor(exporter))

    def span(self, name="name", kind=SpanKind.CLIENT, attributes=None, scope="scope", **later):
        """Returns one span as it is exported; `name` and `attributes` of `later` are set before its end."""
        span = self.provider.get_tracer(scope).start_span(name, kind=kind, attributes=attributes)
        if "new_name" in later:
            span.update_name(later["new_name"])
        span.set_attributes(later.get("new_attributes", {}))
        span.end()
        exported = self.memory.get_finished_spans()[-1]
        self.memory.clear()
        return exported

    def name(self, name, **more):
        return self.span(name, **more).name

    def attributes(self, attributes, **more):
        return dict(self.span(attributes=attributes, **more).attributes or {})


both_tracers = pytest.mark.usefixtures("tracers")
ways = pytest.mark.parametrize(("starts", "ends"), [(True, False), (False, True), (True, True)])


@both_tracers
@ways
def test_names_of_client_and_internal_spans_become_templates_and_no_others(starts, ends):
    pipeline = Pipeline(CardinalitySpanProcessor(), starts=starts, ends=ends)
    name = f"GET /users/{UUID}"
    for kind in SpanKind:
        is_named = kind in (SpanKind.CLIENT, SpanKind.INTERNAL)
        assert pipeline.name(name, kind=kind) == ("GET /users/{id}" if is_named else name)


@ways
def test_attributes_stay_where_no_rule_speaks_of_them(starts, ends):
    attributes = {"url.full": f"https://host/users/{UUID}", "list": ("a", "b"), "number": 7}
    pipeline = Pipeline(CardinalitySpanProcessor(), starts=starts, ends=ends)
    assert pipeline.attributes(attributes) == attributes


@ways
def test_a_scope_has_a_number_of_names_and_others_have_theirs(starts, ends):
    pipeline = Pipeline(CardinalitySpanProcessor(names=Cap(3)), starts=starts, ends=ends)
    names = [pipeline.name(f"name {number}", scope="loud") for number in range(10)]
    assert names == ["name 0", "name 1", "name 2", *["_other"] * 7]
    assert pipeline.name("name 1", scope="loud") == "name 1"
    assert pipeline.name("name 9", scope="quiet") == "name 9"


def test_by_default_a_scope_has_a_thousand_names_within_an_hour():
    clock = Clock()
    processor = CardinalitySpanProcessor(clock=clock)
    pipeline = Pipeline(processor, starts=False)
    names = {pipeline.name(f"/{number}th/x") for number in range(1500)}
    assert len(names) == 1001
    assert processor.replaced() == {"span names of scope scope": 500}
    clock.now += 3599
    assert pipeline.name("/later/x") == "_other"
    clock.now += 1
    assert pipeline.name("/later/x") == "/later/x"


def test_scopes_beyond_the_first_share_one_memory():
    pipeline = Pipeline(CardinalitySpanProcessor(names=Cap(1)), starts=False)
    for number in range(MAX_SCOPES):
        assert pipeline.name("a", scope=f"scope {number}") == "a"
    assert pipeline.name("b", scope="one more") == "b"
    assert pipeline.name("c", scope="and another") == "_other"
    assert pipeline.name("b", scope="and another") == "b"
    assert pipeline.name("a", scope="scope 0") == "a"


@both_tracers
def test_a_name_that_is_set_later_is_bounded_when_it_is_exported():
    pipeline = Pipeline(CardinalitySpanProcessor())
    assert pipeline.name("GET", new_name="GET /users/42") == "GET /users/{id}"


def test_a_name_that_passed_at_the_start_passes_at_the_end_though_places_are_taken():
    pipeline = Pipeline(CardinalitySpanProcessor(names=Template(1)))
    assert pipeline.name("/users/1") == "/users/{id}"
    assert pipeline.name("/users/2") == "/users/{id}"
    assert pipeline.name("/orders/1") == "_other"


def test_a_scope_may_have_a_rule_of_its_own():
    processor = CardinalitySpanProcessor(
        scopes={"celery": Replace(), "app.*": Cap(1), "raw": Allow()}, names=Cap(1)
    )
    pipeline = Pipeline(processor)
    assert pipeline.name("run 1", scope="celery") == "_other"
    assert [pipeline.name(each, scope="raw") for each in ("/1/a", "/2/a")] == ["/1/a", "/2/a"]
    assert pipeline.name("a", scope="app.first") == "a"
    assert pipeline.name("b", scope="app.second") == "_other"


@both_tracers
@ways
def test_attributes_follow_the_rule_for_their_key(starts, ends):
    rules: dict[str, Rule] = {
        "app.tenant": Cap(2),
        "app.public.*": Allow(),
        "app.*": Replace(),
        "url.path": Template(),
        "app.p*": Cap(1),
    }
    pipeline = Pipeline(CardinalitySpanProcessor(rules), starts=starts, ends=ends)
    attributes = {
        "url.path": "/users/42",
        "app.public.x": "/1/",
        "app.secret": 5,
        "app.pin": 1,
        "key": "app.",
    }
    for kind in SpanKind:
        assert pipeline.attributes(attributes, kind=kind) == {
            **attributes, "url.path": "/users/{id}", "app.secret": "_other", "app.pin": "_other"
        }  # fmt: skip
    tenants = [pipeline.attributes({"app.tenant": each})["app.tenant"] for each in "abcb"]
    assert tenants == ["a", "b", "_other", "b"]


@both_tracers
def test_attributes_that_are_set_later_are_bounded_when_they_are_exported():
    pipeline = Pipeline(CardinalitySpanProcessor({"url.path": Template()}))
    span = pipeline.span(new_attributes={"url.path": "/users/42"})
    assert span.attributes == {"url.path": "/users/{id}"}


def test_more_keys_than_are_remembered_still_follow_their_rule():
    processor = CardinalitySpanProcessor({"app.*": Replace()})
    pipeline = Pipeline(processor, starts=False)
    for number in range(1100):
        assert pipeline.attributes({f"app.{number}": "x"}) == {f"app.{number}": "_other"}
    assert len(processor._attributes._resolved) == 1024


@both_tracers
def test_other_processors_see_what_starts_bounded():
    seen = []

    class Seeing(SpanProcessor):
        def on_start(self, span, parent_context=None):
            seen.append((span.name, dict(span.attributes)))

    pipeline = Pipeline(CardinalitySpanProcessor({"url.path": Template()}), first=Seeing())
    pipeline.span("GET /users/42", attributes={"url.path": "/users/42"})
    assert seen == [("GET /users/{id}", {"url.path": "/users/{id}"})]


@both_tracers
def test_a_span_that_needs_no_change_is_exported_as_the_same_object():
    processor = CardinalitySpanProcessor({"url.path": Template()})
    plain = Pipeline(processor, starts=False, ends=False)
    bounded = plain.span("GET /users/{id}", attributes={"url.path": "/users/{id}", "list": ("a",)})
    assert processor.rewrite(bounded) is bounded
    raw = plain.span("GET /users/42", attributes={"url.path": "/users/42"})
    assert processor.rewrite(raw) is not raw
    assert (raw.name, raw.attributes) == ("GET /users/42", {"url.path": "/users/42"})


def test_an_overflow_is_told_in_one_line_an_hour_without_the_value(caplog):
    clock = Clock()
    processor = CardinalitySpanProcessor(
        {"app.tenant": Cap(1, math.inf)}, names=Cap(1, math.inf), clock=clock
    )
    pipeline = Pipeline(processor, starts=False)
    for hour in range(2):
        for number in range(5):
            pipeline.span(f"private {number}", attributes={"app.tenant": f"private {number}"})
        lines = [record.getMessage() for record in caplog.records if record.name == "sightline"]
        assert len(lines) == 2 * (hour + 1)
        clock.now += 3600
    assert {line.partition(":")[0] for line in lines} == {
        "span names of scope scope", "values of span attribute app.tenant"
    }  # fmt: skip
    assert all("CardinalitySpanProcessor" in line for line in lines)
    assert "private" not in caplog.text
    assert processor.replaced() == {"span names of scope scope": 8, "values of span attribute app.tenant": 8}


def test_what_is_no_span_breaks_nothing_and_is_reported():
    processor = CardinalitySpanProcessor()
    processor.on_start(object())  # type: ignore[arg-type]  # what it must survive
    assert reported("cardinality") == 1


def test_a_span_without_a_scope_is_bounded_too():
    pipeline = Pipeline(CardinalitySpanProcessor(), starts=False)
    span = pipeline.span("GET /users/42")
    span._instrumentation_scope = None
    assert CardinalitySpanProcessor().rewrite(span).name == "GET /users/{id}"


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(texts, st.sampled_from("ab"), texts | st.lists(texts, max_size=3)), max_size=8))
def test_a_rewritten_span_needs_no_rewriting_and_results_are_few(spans):
    processor = CardinalitySpanProcessor({"key": Cap(2)}, names=Template(2), clock=Clock())
    plain = Pipeline(processor, starts=False, ends=False)
    results: dict[str, set] = {"a": set(), "b": set()}
    for name, scope, value in spans:
        once = processor.rewrite(plain.span(name, scope=scope, attributes={"key": value}))
        assert processor.rewrite(once) is once
        results[scope].add(once.name)
    assert all(len(names - {"_other"}) <= 2 for names in results.values())
