"""An application that says what the account of its own telemetry holds."""

import asyncio
import logging
import os
from dataclasses import asdict
from typing import Any

from fastapi import FastAPI
from opentelemetry import trace

from sightline.export_adoption import adopted_engine

app = FastAPI()
log = logging.getLogger("accounted")
log.setLevel(logging.INFO)


@app.get("/ok")
async def ok() -> dict[str, str]:
    """Logs one record."""
    log.info("served")
    return {"status": "ok"}


@app.get("/slow")
async def slow() -> dict[str, str]:
    """Takes a while, and logs one record then."""
    await asyncio.sleep(0.7)
    log.info("served slowly")
    return {"status": "ok"}


@app.get("/fork")
async def fork() -> dict[str, str]:
    """Forks, and has the child end a span of its own."""
    pid = os.fork()
    if pid == 0:
        try:
            with trace.get_tracer("child").start_as_current_span("in the child"):
                pass
            trace.get_tracer_provider().force_flush(3000)  # type: ignore[attr-defined]  # of the SDK
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    return {"status": "ok"}


@app.get("/ledger")
async def ledger() -> dict[str, Any]:
    """Returns the account of each signal."""
    engine = adopted_engine()
    assert engine is not None
    accounts = {signal: engine.ledger(signal) for signal in ("traces", "logs", "metrics")}
    return {
        signal: {**asdict(account), "accepted": account.accepted, "pending": account.pending}
        for signal, account in accounts.items()
    }
