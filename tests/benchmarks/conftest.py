"""Makes the benchmarks importable, however pytest was started."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))


@pytest.fixture(scope="session")
def base_receiver():
    """Another running receiver."""
    from benchmarks.servers import Receiver

    with Receiver() as running:
        yield running


@pytest.fixture(scope="session")
def receiver():
    """A running receiver; a test that counts resets it first."""
    from benchmarks.servers import Receiver

    with Receiver() as running:
        yield running
