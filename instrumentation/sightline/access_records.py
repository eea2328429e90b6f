"""The servers' own access records: which loggers write them, and the verdict that they carry."""

import logging
from collections.abc import Callable
from typing import Final

from opentelemetry.context import Context

ACCESS_LOGGERS: Final = frozenset(
    {"uvicorn.access", "gunicorn.access", "hypercorn.access", "granian.access", "_granian.access"}
)

_VERDICT: Final = "_sightline_verdict"


def has_access_log() -> bool:
    """Tells whether some server of this process writes its access records with `logging`, and they show."""
    known = logging.root.manager.loggerDict
    found = [known[name] for name in ACCESS_LOGGERS if name in known]
    return any(
        isinstance(each, logging.Logger) and each.isEnabledFor(logging.INFO) and each.hasHandlers()
        for each in found
    )


def tell_access_log(context: Context, verdict: Callable[..., str], *arguments: object) -> None:
    """Leaves on the context of a request how to find out its verdict so far."""
    context.__dict__[_VERDICT] = (verdict, arguments)


def verdict_so_far(context: Context) -> str | None:
    """Returns the verdict on the request of a context as it is now; None where nothing was left."""
    found = getattr(context, _VERDICT, None)
    if found is None:
        return None
    verdict, arguments = found
    return str(verdict(*arguments))
