"""The current OpenTelemetry context, without the three calls that the API makes for each look.

Of the standard runtime context, the variable itself; of any other one, the API's functions. Who asks the API
gets it the same way, once `make_context_fast` was called: frameworks and libraries look several times in
each request.
"""

# ruff: noqa: SLF001  the API keeps the variable to itself

from collections.abc import Callable
from contextvars import Token
from types import FunctionType
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry.context import Context
from opentelemetry.context.contextvars_context import ContextVarsRuntimeContext

_runtime: Any = otel_context._RUNTIME_CONTEXT
_is_standard = type(_runtime) is ContextVarsRuntimeContext
_variable: Any = _runtime._current_context if _is_standard else None

get_current: Callable[[], Context] = _variable.get if _is_standard else otel_context.get_current
attach: Callable[[Context], Token[Context]] = _variable.set if _is_standard else otel_context.attach
"""Makes a context the current one; returns what `detach` takes."""


reset: Callable[[Token[Context]], None] = _variable.reset if _is_standard else otel_context.detach
"""Makes the context before `attach` the current one again.

Raises:
    ValueError: In another task than the one that called `attach`, which may be so at the end of a generator.
"""

_api: Any = otel_context
_original: Any = otel_context.get_current


def make_context_fast() -> None:
    """Has `opentelemetry.context` look with `get_current`, in `get_value` and `set_value` as well.

    Where another runtime context is in use, or somebody has put a function of their own in its place, nothing
    changes.
    """
    is_of_api = type(_original) is FunctionType and _original.__globals__ is vars(otel_context)
    if _is_standard and is_of_api and _api.get_current is _original:
        _api.get_current = get_current


def restore_context() -> None:
    """Gives `opentelemetry.context` its own function back, where ours is still in its place."""
    if _is_standard and _api.get_current is get_current:
        _api.get_current = _original
