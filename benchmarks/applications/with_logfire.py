"""The bare application with logfire, which exports over OTLP as `OTEL_EXPORTER_OTLP_*` say."""

# mypy: disable-error-code="import-not-found"
# The library is installed in the environment of this variant, not in that of the tools.

import logfire
from bare import app

logfire.configure(send_to_logfire=False, console=False)
logfire.instrument_fastapi(app)
