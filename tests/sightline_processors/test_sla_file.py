"""The file of objectives: what it means, what is wrong with it, and following its changes."""

import os
import threading
import time
from contextlib import contextmanager
from itertools import cycle

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sightline_processors.report import reported
from sightline_processors.sla import marked_yaml
from sightline_processors.sla.marked_yaml import read_marked_yaml
from sightline_processors.sla.objectives import Objective, parse_objective
from sightline_processors.sla.objectives_file import (
    MAX_FILE_BYTES,
    MAX_LISTED,
    ObjectivesFileError,
    load_catalogue,
    parse_catalogue,
)
from sightline_processors.sla.reload import ObjectivesFile

EXAMPLE = """\
default: 300ms@99%, 99.9%
objectives:
  - name: checkout
    match: {route: "/orders/*", methods: [POST], tags: [checkout]}   # as in design and documentation
    objective: 1s@99.5%, 99.95%
  - name: files
    match:
      route: ["/files/{path:path}", "/static/*"]
      methods: get
    objective: 5s@90%
exclude: {paths: ["/internal/*", /health]}
failed_statuses: [429]
"""
INTERVAL_SECONDS = 0.02


@pytest.fixture(params=[yaml.SafeLoader, getattr(yaml, "CSafeLoader", yaml.SafeLoader)])
def loader(request, monkeypatch):
    """Reads with the parser in Python and with libyaml, which words its errors in its own way."""
    monkeypatch.setattr(marked_yaml, "_LOADER", request.param)


def problems_of(text):
    with pytest.raises(ObjectivesFileError) as raised:
        parse_catalogue(text if isinstance(text, bytes) else text.encode(), "sla.yaml")
    return raised.value.problems


def test_a_file_says_which_objective_judges_what_is_excluded_and_what_fails():
    catalogue = parse_catalogue(EXAMPLE.encode(), "sla.yaml")
    checkout = Objective("checkout", 1.0, 0.995, 0.9995)
    assert catalogue.objectives == (
        Objective("default", 0.3, 0.99, 0.999),
        checkout,
        Objective("files", 5.0, 0.9, None),
    )
    assert catalogue.objective_for("/orders/{id}", "POST", ["checkout"]) == checkout
    assert catalogue.objective_for("/orders/{id}", "POST").name == "default"
    assert catalogue.objective_for("/files/{path}", "GET").name == "files"
    assert catalogue.objective_for("/static/css", "GET").name == "files"
    assert catalogue.is_excluded_path("/internal/x")
    assert catalogue.fails(429)
    assert not catalogue.fails(404)


def test_without_a_default_in_the_file_the_one_of_the_settings_judges():
    default = parse_objective("1s@90%")
    assert parse_catalogue(b"objectives: []", "sla.yaml", default=default).objectives == (default,)


def test_4xx_names_all_client_errors():
    catalogue = parse_catalogue(b"failed_statuses: 4xx", "sla.yaml")
    assert [status for status in range(300, 501) if catalogue.fails(status)] == list(range(400, 501))


def test_every_problem_is_listed_with_its_line(loader):
    problems = problems_of("""\
defaults: 300ms@99%, 99.9%
objectives:
  - name: checkout
    match: {route: "orders/*", method: [POST], tags: []}
    objective: -1s@99.5%, 99.95%
  - name: checkout
    match: {}
    objective: 1s

  - nam: other
    match:
      methods:
        - GET
        - "G E T"
      route:
        - "/a[b"
        - *all
    objective: 100%
    objective: 99%
  - name: default
    match: 5
    objective:
  - name: a b
    match: {tags: [x]}
    objective: [1s@99%]
exclude: {path: ["/internal/*"]}
failed_statuses:
  - 429
  - 500
  - !!int 499
""")
    assert [(line, message.partition(",")[0]) for line, message in problems] == [
        (1, "defaults is not a known key; did you mean default?"),
        (4, "objectives[0].match.method is not a known key; did you mean methods?"),
        (4, "objectives[0].match.route[0] must begin with / or *"),
        (4, "objectives[0].match.tags must not be empty"),
        (5, "sla latency must be > 0"),
        (6, "objectives[1].name checkout is the name of the objective in line 3 too; give it another"),
        (7, "objectives[1].match must have at least one of route"),
        (8, "sla latency must come with its target"),
        (10, "objectives[2].nam is not a known key; did you mean name?"),
        (10, "objectives[2].name is missing"),
        (14, "objectives[2].match.methods[1] must be HTTP methods"),
        (16, "objectives[2].match.route[0] must close each [ with ]"),
        (17, "must not use aliases (*name); write the value out"),
        (18, "sla availability must be > 0 % and < 100 % (100 % leaves no error budget)"),
        (19, "objectives[2].objective is there already"),
        (20, "objectives[3].name must not be default"),
        (21, "objectives[3].match must be a mapping of keys to values"),
        (22, "objectives[3].objective has no value; write one"),
        (23, "sla objective name must be 1 to 64 of A-Z"),
        (25, "objectives[4].objective must be text such as 500ms@99%"),
        (26, "exclude.path is not a known key; did you mean paths?"),
        (26, "exclude.paths is missing"),
        (29, "failed_statuses[1] must be 400 to 499"),
        (30, "must not use tags (!name); in quotes"),
    ]


def test_the_error_is_one_line_with_file_origin_and_the_first_problems():
    entries = "".join(
        f"  - name: o{number}\n    match: {{route: /}}\n    objective: x\n" for number in range(30)
    )
    with pytest.raises(ObjectivesFileError) as raised:
        parse_catalogue(f"objectives:\n{entries}".encode(), "/etc/sla.yaml")
    message = str(raised.value)
    assert message.startswith("/etc/sla.yaml (from SIGHTLINE_SLA_FILE) has 30 problems: line 4: sla ")
    assert message.endswith(f" | and {30 - MAX_LISTED} more")
    assert message.isprintable()


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 1, "the file has no value"),
        ("# only\n# comments\n", 1, "the file has no value"),
        ("- default: 99%\n", 1, "the file must be a mapping"),
        ("default: 99%\nobjectives: [\n\n", 2, "is not YAML"),
        ("default: 99%\n\nexclude: a: b\n", 3, "is not YAML"),
        ("default: 99%\n\tobjectives: []\n", 2, "is not YAML"),
        ("default: 99%\nexclude: \x07\n", 2, "is not YAML: holds a control character"),
        (b"default: 99%\nexclude: \xff\n", 2, "must be UTF-8"),
        ("default: 99%\n---\ndefault: 9%\n", 2, "must be one document"),
        ("default: 99%\n? [a]\n: b\n", 2, "keys must be text"),
        ("default: 99%\nobjectives: " + "[" * 100_000, 2, "must not be nested more than 16 deep"),
        ("default: 99%\nobjectives: 1\n", 2, "objectives must be a list"),
        ("default: !!python/object/apply:os.getcwd []\n", 1, "must not use tags"),
    ],
)  # fmt: skip
def test_what_is_no_file_of_objectives_is_refused_in_its_line(loader, text, line, message):
    problems = problems_of(text)
    assert (problems[0].line, len(problems)) == (line, 1)
    assert problems[0].message.startswith(message)


def test_a_small_file_cannot_stand_for_a_huge_one():
    levels = "".join(f"l{level}: &l{level} [{', '.join([f'*l{level - 1}'] * 9)}]\n" for level in range(1, 30))
    started = time.process_time()
    problems = problems_of("l0: &l0 [x]\n" + levels)
    assert any("must not use aliases" in problem.message for problem in problems)
    assert time.process_time() - started < 1


def test_too_many_objectives_are_refused():
    entry = "- {name: o%d, match: {route: /}, objective: 99%%}\n"
    assert problems_of("objectives:\n" + "".join(entry % number for number in range(1_001)))[0].message == (
        "objectives must have at most 1000 items"
    )
    catalogue = parse_catalogue(
        ("objectives:\n" + "".join(entry % number for number in range(1_000))).encode(), "sla.yaml"
    )
    assert len(catalogue.objectives) == 1_001


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "endless", "large", "name"])
def test_what_cannot_be_read_is_refused_at_once(tmp_path, kind):
    path = tmp_path / "sla.yaml"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "endless":
        path.symlink_to("/dev/zero")
    elif kind == "large":
        path.write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    elif kind == "name":
        path = f"{path}\0"
    with pytest.raises(ObjectivesFileError) as raised:
        load_catalogue(path)
    assert len(raised.value.problems) == 1


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path):
    (tmp_path / "sla.yaml").write_bytes(b"\xef\xbb\xbf" + EXAMPLE.encode())
    assert load_catalogue(tmp_path / "sla.yaml").default.latency_seconds == 0.3


@given(st.text(max_size=100) | st.text("ab:-[]{},\"'#&*!|>%@` \n", max_size=60) | st.binary(max_size=100))
def test_any_content_is_a_catalogue_or_refused(content):
    content = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
    try:
        catalogue = parse_catalogue(content, "sla.yaml")
    except ObjectivesFileError as error:
        last = content.count(b"\n") + 1
        lines = [problem.line for problem in error.problems]
    else:
        last, lines = 1, [len(catalogue.objectives)]
    assert lines
    assert all(1 <= line <= last for line in lines)


leaves = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Zl", "Zp"]), max_size=10)
trees = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(leaves, inner, max_size=3),
    max_leaves=10,
)


@given(trees)
def test_texts_lists_and_mappings_are_read_as_they_were_written(tree):
    document = read_marked_yaml(yaml.safe_dump(tree, allow_unicode=True, default_style='"'))
    assert (document.value, document.problems) == (tree, [])


@given(st.lists(st.tuples(st.sampled_from(["a: 1", "- x", "", "# c"]), st.booleans()), max_size=15))
def test_each_key_has_its_line(entries):
    lines = [f"k{number}: {{{'x: 1' if nested else ''}}}" for number, (_, nested) in enumerate(entries)]
    text = "".join(
        f"{'# c' if filler else ''}\n{line}\n" for line, (filler, _) in zip(lines, entries, strict=True)
    )
    document = read_marked_yaml(text)
    for number, (_, nested) in enumerate(entries):
        assert document.line_of((f"k{number}",)) == 2 * number + 2
        assert document.line_of((f"k{number}", "x", "missing")) == 2 * number + 2
        assert ((f"k{number}", "x") in document.lines) == nested


# Following the file


@contextmanager
def following(path, **options):
    """Follows a file; gives the follower and the catalogues that it passed on."""
    changes = []
    file = ObjectivesFile(path, changes.append, interval_seconds=INTERVAL_SECONDS, **options)
    file.start()
    try:
        yield file, changes
    finally:
        file.stop()


def wait_until(holds, seconds=20.0):
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.005)


def replace(path, text):
    """Writes a file as deployments do: whole, by renaming."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


def written(seconds):
    entry = f"{{name: a, match: {{route: /}}, objective: {seconds}s@9%}}"
    return f"default: {seconds}s@99%\nobjectives: [{entry}]\n"


def test_the_first_good_file_holds_when_start_returns(tmp_path):
    path = tmp_path / "sla.yaml"
    path.write_text(written(1))
    with following(path) as (file, changes):
        assert changes == [file.catalogue]
        assert file.catalogue.thresholds() == (1.0,)
        assert file.problem is None


def test_a_change_takes_effect_and_the_same_content_again_does_not(tmp_path):
    path = tmp_path / "sla.yaml"
    path.write_text(written(1))
    with following(path) as (file, changes):
        replace(path, written(1))
        replace(path, written(2))
        wait_until(lambda: file.catalogue.thresholds() == (2.0,))
        replace(path, written(2))
        time.sleep(INTERVAL_SECONDS * 5)
        assert [each.thresholds() for each in changes] == [(1.0,), (2.0,)]


def test_a_bad_file_keeps_the_old_objectives_and_is_one_report(tmp_path):
    path = tmp_path / "sla.yaml"
    path.write_text(written(1))
    with following(path) as (file, changes):
        replace(path, "default: 1s\n")
        wait_until(lambda: file.problem is not None)
        time.sleep(INTERVAL_SECONDS * 5)
        assert file.problem.startswith(f"{path}"[:40])
        assert "line 1: sla latency must come with its target" in file.problem
        assert (file.catalogue.thresholds(), len(changes), reported("sla_file")) == ((1.0,), 1, 1)
        replace(path, written(1))
        wait_until(lambda: file.problem is None)
        assert len(changes) == 1
        replace(path, written(3))
        wait_until(lambda: len(changes) == 2)


def test_without_a_good_file_the_default_judges_and_a_file_that_comes_later_is_read(tmp_path):
    default = parse_objective("7s@99%")
    path = tmp_path / "sla.yaml"
    with following(path, default=default) as (file, changes):
        assert (file.catalogue.objectives, changes, reported("sla_file")) == ((default,), [], 1)
        replace(path, written(1))
        wait_until(lambda: len(changes) == 1)
        path.unlink()
        wait_until(lambda: file.problem is not None)
        assert file.catalogue is changes[0]
        assert reported("sla_file") == 2


def test_a_file_that_is_being_written_is_not_read_half(tmp_path):
    path = tmp_path / "sla.yaml"
    path.write_text(written(1))
    changes = []
    file = ObjectivesFile(path, changes.append, interval_seconds=3_600)
    file.start()
    try:
        with path.open("w") as half:
            for piece in written(2).splitlines(keepends=True):  # the first line alone would be a good file
                half.write(piece)
                half.flush()
                file._look()
        assert len(changes) == 1
        file._look()
        assert [len(each.objectives) for each in changes] == [2, 2]
        assert (file.catalogue.thresholds(), reported("sla_file")) == ((2.0,), 0)
    finally:
        file.stop()


def test_readers_see_the_old_objectives_or_the_new_ones_and_nothing_between(tmp_path):
    path = tmp_path / "sla.yaml"
    path.write_text(written(1))
    seen, done = set(), threading.Event()
    with following(path) as (file, changes):

        def read():
            while not done.is_set():
                catalogue = file.catalogue
                default = catalogue.objective_for("/other", "GET").latency_seconds
                first = catalogue.objective_for("/", "GET").latency_seconds
                seen.add((default, first, catalogue.thresholds()))
                time.sleep(0)

        readers = [threading.Thread(target=read) for _ in range(4)]
        for each in readers:
            each.start()
        for count, seconds in zip(range(2, 7), cycle([2, 3]), strict=False):
            replace(path, written(seconds))
            wait_until(lambda count=count: len(changes) == count)
        done.set()
        for each in readers:
            each.join()
    assert seen == {(float(seconds), float(seconds), (float(seconds),)) for seconds in (1, 2, 3)}


def test_a_listener_that_raises_or_stops_the_following_breaks_nothing(tmp_path):
    path = tmp_path / "sla.yaml"
    path.write_text(written(1))
    with following(path) as (file, _):

        def stop(catalogue):
            file.stop()
            raise OSError

        file._on_change = stop
        thread = file._thread
        replace(path, written(2))
        wait_until(lambda: not thread.is_alive())
        assert file.catalogue.thresholds() == (2.0,)
        assert reported("sla_file") == 1


def test_starting_twice_follows_once_and_stopping_ends_it(tmp_path):
    path = tmp_path / "sla.yaml"
    path.write_text(written(1))
    with following(path) as (file, changes):
        thread = file._thread
        file.start()
        assert file._thread is thread
        file.stop()
        assert not thread.is_alive()
        replace(path, written(2))
        time.sleep(INTERVAL_SECONDS * 5)
        assert len(changes) == 1
        file.start()
        assert len(changes) == 2
    file.stop()


def test_a_forked_process_follows_the_file_on(tmp_path):
    path = tmp_path / "sla.yaml"
    path.write_text(written(1))
    with following(path) as (file, _):
        child = os.fork()
        if child == 0:
            try:
                replace(path, written(2))
                wait_until(lambda: file.catalogue.thresholds() == (2.0,))
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
