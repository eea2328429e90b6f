"""The SDK of `with_sdk`, and the application whose requests make one span by hand."""

# mypy: disable-error-code="import-not-found"
# Modules beside this one, which is where the server runs.

import with_sdk
from child_span import app

__all__ = ["app", "with_sdk"]
