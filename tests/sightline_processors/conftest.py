"""Makes the tests' support modules importable, whoever starts pytest."""

import sys
from pathlib import Path

import pytest

ROOT = str(Path(__file__).resolve().parents[2])
if ROOT not in sys.path:
    sys.path.append(ROOT)

from tests.sightline_processors import export_support  # noqa: E402  the path comes first


@pytest.fixture(autouse=True)
def closed_transports():
    """No connection outlives its test."""
    yield
    while export_support.made:
        export_support.made.pop().close()
