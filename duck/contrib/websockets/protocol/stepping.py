"""What the codec's dispatcher needs of asyncio, so that the codec itself imports nothing."""

import asyncio
import sys
from asyncio import CancelledError
from asyncio.tasks import _enter_task as enter_task
from asyncio.tasks import _leave_task as leave_task
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextvars import Context
from typing import Any

from ..opcodes import OpCode

__all__ = [
    "OPCODES",
    "CancelledError",
    "deque",
    "enter_task",
    "is_abandoned",
    "iterator",
    "leave_task",
    "retrieve",
    "start_task",
    "start_worker",
]

OPCODES = tuple(OpCode(number) if number in tuple(OpCode) else None for number in range(16))

_EAGER: dict[str, Any] = {"eager_start": True} if sys.version_info >= (3, 12) else {}
_UNCANCEL_WITHDRAWS = sys.version_info >= (3, 13)  # whether `uncancel` keeps a cancellation from being raised


class HandlerTask(asyncio.Task[Any]):
    """A task whose coroutine is a `Worker`, which is told of all that is done to the task.

    Such a task serves only one handler: it must not be the task of another one as well.
    """

    def _note(self) -> None:
        if not self.done():  # then it has no coroutine, and Python 3.12.1 crashes where it is asked for one
            self.get_coro().kept = True  # type: ignore[union-attr]

    def add_done_callback(self, fn: Callable[[Any], object], /, *, context: Context | None = None) -> None:
        self._note()
        super().add_done_callback(fn, context=context)

    def cancel(self, msg: Any = None) -> bool:
        self._note()
        return super().cancel(msg)

    def uncancel(self) -> int:
        left = super().uncancel()
        if not left and _UNCANCEL_WITHDRAWS and not self.done():
            self.get_coro().withdraw_cancel()  # type: ignore[union-attr]
        return left

    def set_name(self, value: object, /) -> None:
        self._note()
        super().set_name(value)


def start_worker(loop: asyncio.AbstractEventLoop, worker: Any, context: Context) -> HandlerTask:
    """The task of a worker; where Python can do that (3.12) it has run to its first wait already."""
    return HandlerTask(worker, loop=loop, context=context, **_EAGER)


def start_task(
    loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, None], context: Context | None = None
) -> "asyncio.Task[None]":
    """A task for another coroutine, begun likewise."""
    return asyncio.Task(coroutine, loop=loop, context=context, **_EAGER)


def retrieve(task: "asyncio.Future[Any]") -> None:
    """Marks a task's exception as retrieved, so that asyncio does not log it when the task is freed."""
    if not task.cancelled():
        task.exception()


def is_abandoned(error: BaseException, loop: asyncio.AbstractEventLoop) -> bool:
    """Whether an error tells a coroutine that its loop has stopped and will never resume it.

    A GeneratorExit that comes while the loop runs is one that the coroutine has raised itself.
    """
    return isinstance(error, GeneratorExit) and asyncio._get_running_loop() is not loop


def iterator(awaitable: Awaitable[None]) -> Iterator[Any]:
    """What `await` would drive."""
    if isinstance(awaitable, Coroutine):
        return awaitable  # type: ignore[return-value]
    try:
        return type(awaitable).__await__(awaitable)
    except AttributeError:
        raise TypeError(f"a hook must be a coroutine function (async def); one returned {awaitable!r}") from None
