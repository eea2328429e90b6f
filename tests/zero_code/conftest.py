"""Makes this folder's own module importable, and shares one server among the tests of untrusted input."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = str(Path(__file__).resolve().parent)
if HERE not in sys.path:
    sys.path.insert(0, HERE)

from uvicorn_process import Setup, observed  # noqa: E402


@pytest.fixture(scope="session", params=["httptools", "h11"])
def shop(request: pytest.FixtureRequest) -> Iterator[Setup]:
    """Yields a server with no setting of ours, once for each of uvicorn's HTTP parsers."""
    with observed("app:app", "--http", request.param) as setup:
        yield setup
