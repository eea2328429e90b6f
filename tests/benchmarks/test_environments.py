"""The environments of the benchmark are locked, and differ only in what is measured."""

import re
import tomllib

import pytest
from benchmarks.cases import CASES, FOLDER
from benchmarks.environments import ENVIRONMENTS, REQUIREMENTS

SAME = ("fastapi", "starlette", "uvicorn", "uvloop", "httptools", "pydantic", "anyio", "opentelemetry-api")
NAMES = pytest.mark.parametrize("name", list(ENVIRONMENTS))


def development():
    text = (REQUIREMENTS / "dev.txt").read_text()
    return dict(re.findall(r"^([a-z0-9._-]+)==([^ ]+)", text, re.MULTILINE))


@NAMES
def test_server_and_framework_are_the_same_everywhere(name):
    pins = ENVIRONMENTS[name].pins
    assert {each: pins[each] for each in SAME} == {each: development()[each] for each in SAME}


@NAMES
def test_lock_holds_what_is_asked_for_with_hashes_and_names_no_index(name):
    environment = ENVIRONMENTS[name]
    asked = re.findall(r"^([a-z0-9-]+)", environment.requirements_file.read_text(), re.MULTILINE)
    assert set(asked) <= environment.pins.keys()
    text = environment.lock_file.read_text()
    assert text.count("\\\n    --hash=sha256:") >= len(environment.pins)
    assert "://" not in text
    assert "index" not in text


def test_every_case_has_an_environment_and_an_application():
    for case in CASES:
        assert case.environment in ENVIRONMENTS
        assert (FOLDER / "applications" / f"{case.application}.py").exists()
        assert not case.package or case.package in ENVIRONMENTS[case.environment].pins


def test_the_environment_of_sightline_holds_what_the_package_depends_on():
    project = tomllib.loads((REQUIREMENTS.parent / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[^a-z0-9-]", dependency.lower())[0] for dependency in project["dependencies"]}
    assert names <= ENVIRONMENTS["sightline"].pins.keys()
