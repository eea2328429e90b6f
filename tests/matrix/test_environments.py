import re

import pytest
from tests.matrix.environments import ENVIRONMENTS, STOCK, Environment, disagreements

pytestmark = [pytest.mark.matrix, pytest.mark.parametrize("environment", ENVIRONMENTS, ids=lambda e: e.name)]


def pins(environment: Environment) -> set[str]:
    return set(re.findall(r"^[a-z0-9._-]+==[^ ]+", environment.lock_file.read_text(), re.MULTILINE))


def test_lock_holds_the_version_of_its_name(environment):
    assert {pin for pin in pins(environment) if pin.startswith("fastapi==")} == {
        f"fastapi=={environment.fastapi}"
    }


def test_lock_holds_the_stock_instrumentors_only_where_it_says_so(environment):
    assert pins(environment) & set(STOCK) == (set(STOCK) if environment.stock else set())


def test_lock_holds_no_exporter_for_grpc(environment):
    assert not [pin for pin in pins(environment) if "grpc" in pin]


def test_lock_names_no_index(environment):
    text = environment.lock_file.read_text()
    assert "://" not in text
    assert "index" not in text


def test_every_requirement_is_met_with_the_wheel_installed(environment, installed):
    assert disagreements(installed) == ""
