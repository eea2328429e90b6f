"""Makes the tests' support modules importable, whoever starts pytest."""

import sys
from pathlib import Path

import pytest

ROOT = str(Path(__file__).resolve().parents[2])
if ROOT not in sys.path:
    sys.path.append(ROOT)

from tests.sightline_processors import export_support  # noqa: E402  the path comes first

from sightline_processors.tracing import make_tracers_fast, restore_tracers  # noqa: E402  likewise


@pytest.fixture(autouse=True)
def closed_transports():
    """No connection outlives its test."""
    yield
    while export_support.made:
        export_support.made.pop().close()


@pytest.fixture(params=["stock", "fast"])
def tracers(request):
    """The SDK's tracers as they are, and as Sightline makes them."""
    if request.param == "fast":
        make_tracers_fast()
    yield
    restore_tracers()
