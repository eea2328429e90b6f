"""The bare application with Sentry's SDK, every request traced, configured by `SENTRY_DSN`."""

# mypy: disable-error-code="import-not-found"
# The library is installed in the environment of this variant, not in that of the tools.

import sentry_sdk

sentry_sdk.init(
    traces_sample_rate=1.0,
    transport_queue_size=100_000,  # its 100 would drop most requests: the load is faster than any service
)

from bare import app  # noqa: E402  imported once the SDK has patched FastAPI

__all__ = ["app"]
