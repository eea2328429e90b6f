"""The bare application with New Relic's agent, which `newrelic-admin` has loaded."""

# mypy: disable-error-code="import-not-found"
# The library is installed in the environment of this variant, not in that of the tools.

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import newrelic.agent
from bare import app
from fastapi import FastAPI


@asynccontextmanager
async def report_at_the_end(_app: FastAPI) -> AsyncIterator[None]:
    """Sends what the agent has counted: its minute has not passed yet, and a signal runs no exit handler."""
    yield
    newrelic.agent.shutdown_agent(timeout=10)


app.router.lifespan_context = report_at_the_end
