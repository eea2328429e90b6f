"""Checks the two variables that OpenTelemetry's API reads at its import, before anything imports it.

`opentelemetry.propagate` raises at its import when `OTEL_PROPAGATORS` names something that is not
installed. The command `opentelemetry-instrument` imports it before it loads any plugin, and FastAPI 0.142
and later import it too: the program would not start. The file `sightline-startup.pth` beside this package
therefore imports this module when, and only when, one of the variables is set. It imports nothing of
OpenTelemetry.
"""

from sightline.environment import sanitize_environment

sanitize_environment(prefix="OTEL_PROPAGATORS")
sanitize_environment(prefix="OTEL_PYTHON_CONTEXT")
