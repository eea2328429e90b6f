"""Fixtures of all tests; `telemetry` comes from the package's own pytest plugin."""

import pytest

from sightline import options
from sightline_processors import report


@pytest.fixture(autouse=True)
def fresh_process_state(monkeypatch):
    """Every test reads settings anew and sees reports that an earlier one has used up."""
    options.process_settings.cache_clear()
    monkeypatch.setattr(report, "_kinds", {})
    monkeypatch.setattr(report, "_lines", set())
    yield
    options.process_settings.cache_clear()
