import re
from pathlib import Path

from tests.matrix.environments import disagreements
from tests.servers.environment import ENVIRONMENT, ROOT


def pins(lock_file: Path) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9._-]+)==([^ ]+)", lock_file.read_text(), re.MULTILINE))


def test_lock_holds_every_server() -> None:
    assert {"uvicorn", "gunicorn", "uvicorn-worker", "hypercorn", "granian"} <= pins(
        ENVIRONMENT.lock_file
    ).keys()


def test_lock_agrees_with_the_development_environment() -> None:
    locked, development = pins(ENVIRONMENT.lock_file), pins(ROOT / "requirements" / "dev.txt")
    common = locked.keys() & development.keys()
    assert {name: locked[name] for name in common} == {name: development[name] for name in common}


def test_lock_names_no_index() -> None:
    text = ENVIRONMENT.lock_file.read_text()
    assert "://" not in text
    assert "index" not in text


def test_every_requirement_is_met_with_the_wheel_installed(programs: Path) -> None:
    assert disagreements(programs) == ""
