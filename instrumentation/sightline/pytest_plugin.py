"""The pytest fixture `telemetry`; loaded by pytest through its entry point, see `sightline.testing`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from sightline.testing import CapturedTelemetry


@pytest.fixture
def telemetry() -> "Iterator[CapturedTelemetry]":
    """Captures telemetry in memory for one test."""
    from sightline.testing import capture  # noqa: PLC0415  imported only by tests that use the fixture

    with capture() as captured:
        yield captured
