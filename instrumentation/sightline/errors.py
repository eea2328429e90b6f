"""Errors that Sightline raises while a program starts; nothing raises into a running application.

SightlineError
├── SettingsError (also ValueError)     a setting has a value that its rule refuses
└── InstrumentationError                an application cannot be instrumented
"""


class SightlineError(Exception):
    """Is the base of every error of this package."""


class SettingsError(SightlineError, ValueError):
    """Is raised when an option passed in code breaks its rule; environment variables only warn."""


class InstrumentationError(SightlineError):
    """Is raised when `instrument_app` gets an object that is not a FastAPI application."""
