"""Fixtures of all tests; `telemetry` comes from the package's own pytest plugin."""

import signal

import pytest

from sightline import options, service_levels, sla_decorator
from sightline_processors import report

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As in a shell's background job: programs that tests start and interrupt would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _forget_settings():
    options.process_settings.cache_clear()
    options.process_redactor.cache_clear()
    service_levels.forget_objectives()


@pytest.fixture(autouse=True)
def fresh_process_state(monkeypatch):
    """Every test reads settings anew and sees reports that an earlier one has used up."""
    _forget_settings()
    monkeypatch.setattr(sla_decorator, "_made", {})  # by modules of tests, when they are imported
    monkeypatch.setattr(report, "_kinds", {})
    monkeypatch.setattr(report, "_lines", set())
    yield
    _forget_settings()
