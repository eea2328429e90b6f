"""Fire-and-forget work that is not lost: a tracking ID, retries, a span per attempt, a dead letter.

    tracking_id = background.spawn(charge, order, retries=3, on_dead_letter=keep_for_later)
    return {"tracking_id": tracking_id}

The work runs on the event loop of the caller, after it; a sync function runs in a worker thread. Each
attempt is a span in a trace of its own, linked to the request that asked for it, with the correlation ID.
Tasks live in the process: what must survive a restart belongs in a queue, and the dead-letter hook is the
place to put it.
"""

import asyncio
import inspect
import math
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from uuid import uuid4

from anyio import from_thread
from opentelemetry import context as otel_context
from opentelemetry.context import Context

from sightline import names
from sightline.background_tasks import TaskRecorder, task_recorder
from sightline.correlation import correlation_id_of
from sightline.errors import SettingsError
from sightline_processors.report import logger, report

MAX_PENDING: Final = 10_000
"""Tasks that may be pending in a process; a further one goes to its dead-letter hook at once."""

MAX_DELAY_SECONDS: Final = 300.0
"""Longest pause between two attempts."""

_random = random.Random()  # noqa: S311  jitter is not a secret
_pending: "set[asyncio.Task[None]]" = set()


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Describes work that will not be tried again.

    Attributes:
        tracking_id: What `spawn` returned, 32 hex digits.
        correlation_id: The request's; None outside a request.
        function: The callable that was to run.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        attempts: How often it was tried; 0 when there was no room for it.
        error: The exception of the last attempt; None when there was none.
    """

    tracking_id: str
    correlation_id: str | None
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    attempts: int
    error: BaseException | None


DeadLetterHook = Callable[[DeadLetter], Awaitable[None] | None]


def spawn(
    function: Callable[..., Any],
    *args: Any,
    retries: int = 0,
    delay_seconds: float = 1.0,
    on_dead_letter: DeadLetterHook | None = None,
    **kwargs: Any,
) -> str:
    """Runs a function in the background and returns its tracking ID.

    May be called on an event loop and in the worker thread of a sync handler. A failed attempt is repeated
    after `delay_seconds`, doubled each time up to `MAX_DELAY_SECONDS`, with jitter; when the last attempt has
    failed, or the application shuts down before, the dead-letter hook gets the work.

    Args:
        function: Async, or sync (runs in a worker thread).
        *args: Positional arguments of the function.
        retries: Attempts after the first, 0 or more.
        delay_seconds: Pause before the first retry, above 0.
        on_dead_letter: Called once for work that is given up; without one, a log line says so.
        **kwargs: Keyword arguments of the function.

    Returns:
        The tracking ID, 32 hex digits; it is on the span of each attempt as `sightline.tracking_id`.

    Raises:
        SettingsError: When `retries` or `delay_seconds` is out of its range.
        RuntimeError: When there is no event loop to run the work.
    """
    if retries < 0:
        raise SettingsError(f"retries must be 0 or more, got {retries}; for one attempt leave it out")
    if not 0 < delay_seconds < math.inf:  # not a number fails as well
        raise SettingsError(f"delay_seconds must be above 0, got {delay_seconds}; the default is 1.0")
    if not _is_on_event_loop():
        # A worker thread of a sync handler: its event loop runs the work.
        return from_thread.run_sync(
            partial(
                spawn,
                function,
                *args,
                retries=retries,
                delay_seconds=delay_seconds,
                on_dead_letter=on_dead_letter,
                **kwargs,
            )
        )
    origin = otel_context.get_current()
    letter = DeadLetter(uuid4().hex, correlation_id_of(origin), function, args, kwargs, 0, None)
    work = _Work(letter, origin, retries, delay_seconds, on_dead_letter)
    if len(_pending) >= MAX_PENDING:
        report("background", f"more than {MAX_PENDING} background tasks are pending; work is given up")
        _keep(asyncio.get_running_loop().create_task(work.give_up(letter)))
    else:
        _keep(asyncio.get_running_loop().create_task(work.run()))
    return letter.tracking_id


def pending() -> int:
    """Returns how many spawned tasks have not ended in this process."""
    return len(_pending)


async def give_up_pending(timeout_seconds: float) -> None:
    """Cancels what is pending, which hands it to the dead-letter hooks; the end of an application.

    Args:
        timeout_seconds: Longest wait for the hooks.
    """
    tasks = list(_pending)
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=timeout_seconds)


def _is_on_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _keep(task: "asyncio.Task[None]") -> None:
    """Holds a reference until a task has ended: the event loop itself keeps a weak one only."""
    _pending.add(task)
    task.add_done_callback(_pending.discard)


@dataclass(frozen=True, slots=True)
class _Work:
    letter: DeadLetter
    origin: Context
    retries: int
    delay_seconds: float
    on_dead_letter: DeadLetterHook | None

    async def run(self) -> None:
        """Tries until an attempt succeeds or the last one has failed."""
        recorder = task_recorder(self.origin)
        error: BaseException | None = None
        attempt = 0
        try:
            for attempt in range(1, self.retries + 2):
                error = await self._attempt(recorder, attempt)
                if error is None:
                    return
                if attempt <= self.retries:
                    await asyncio.sleep(self._pause(attempt))
        except Exception as failure:  # noqa: BLE001  whatever went wrong, the work is not lost silently
            error = failure
        except asyncio.CancelledError as cancelled:
            await self.give_up(self._letter(attempt, cancelled))
            raise
        await self.give_up(self._letter(attempt, error))

    async def _attempt(self, recorder: TaskRecorder, attempt: int) -> Exception | None:
        try:
            await recorder.run(
                self.letter.function,
                self._call,
                self.origin,
                {names.TRACKING_ID: self.letter.tracking_id, names.ATTEMPT: attempt},
            )
        except Exception as error:  # noqa: BLE001  the next attempt or the dead letter answers for it
            return error
        return None

    async def _call(self) -> Any:
        letter = self.letter
        if inspect.iscoroutinefunction(letter.function):
            return await letter.function(*letter.args, **letter.kwargs)
        result = await asyncio.to_thread(letter.function, *letter.args, **letter.kwargs)
        return await result if inspect.isawaitable(result) else result

    def _pause(self, attempt: int) -> float:
        pause = min(self.delay_seconds * 2.0 ** (attempt - 1), MAX_DELAY_SECONDS)
        return pause * _random.uniform(0.5, 1.0)

    def _letter(self, attempts: int, error: BaseException | None) -> DeadLetter:
        letter = self.letter
        return DeadLetter(
            letter.tracking_id,
            letter.correlation_id,
            letter.function,
            letter.args,
            letter.kwargs,
            attempts,
            error,
        )

    async def give_up(self, letter: DeadLetter) -> None:
        """Hands the work to the dead-letter hook, in the context of the request."""
        token = otel_context.attach(self.origin)
        try:
            if self.on_dead_letter is None:
                name = getattr(letter.function, "__qualname__", type(letter.function).__qualname__)
                logger.error(
                    "background work %s is given up after %d attempts (tracking ID %s)",
                    name,
                    letter.attempts,
                    letter.tracking_id,
                )
                return
            result = self.on_dead_letter(letter)
            if inspect.isawaitable(result):
                await result
        except Exception as error:  # noqa: BLE001  a user's hook must not end the event loop's task loudly
            report("dead-letter", "a dead-letter hook raised; its work is lost", error=error)
        finally:
            otel_context.detach(token)
