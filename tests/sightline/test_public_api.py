"""The public surface is one screen, and stays what it is by decision."""

import sightline
import sightline_processors


def test_the_exported_names_are_sorted_and_exist():
    for package in (sightline, sightline_processors):
        assert package.__all__ == sorted(package.__all__)
        assert all(hasattr(package, name) for name in package.__all__)


def test_the_exported_names_change_only_on_purpose():
    assert sightline.__all__ == [
        "InstrumentationError",
        "SettingsError",
        "SightlineError",
        "SightlineInstrumentor",
        "SightlineMiddleware",
        "background",
        "correlation_id",
        "sla",
    ]
