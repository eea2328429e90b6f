"""Carries the context of a request into the threads of an executor.

`asyncio.to_thread` and anyio's `run_sync` copy the context themselves; `loop.run_in_executor` and
`ThreadPoolExecutor.submit` do not. Only the OpenTelemetry context is carried, and only out of a request: what
an application keeps in context variables of its own behaves as before.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import wraps
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry.context import Context

from sightline.correlation import correlation_id_of

_installed: list[Callable[..., Any]] = []


def carry_context_into_executors() -> None:
    """Wraps `ThreadPoolExecutor.submit` once per process."""
    if _installed:
        return
    submit: Callable[..., Future[Any]] = ThreadPoolExecutor.submit
    _installed.append(submit)

    @wraps(submit)
    def wrapper(
        self: ThreadPoolExecutor, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Future[Any]:
        context = otel_context.get_current()
        if correlation_id_of(context) is None:
            return submit(self, fn, *args, **kwargs)
        return submit(self, _in_context, context, fn, *args, **kwargs)

    ThreadPoolExecutor.submit = wrapper  # type: ignore[method-assign,assignment]


def release_executors() -> None:
    """Gives `ThreadPoolExecutor.submit` back."""
    if _installed:
        ThreadPoolExecutor.submit = _installed.pop()  # type: ignore[method-assign]


def _in_context(context: Context, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    token = otel_context.attach(context)
    try:
        return fn(*args, **kwargs)
    finally:
        otel_context.detach(token)
