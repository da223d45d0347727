"""Tasks and futures whose steps run inside the callback that resolves them.

This module is the `tasks` argument of `codec.Dispatcher`, so the codec itself does not import asyncio.
"""

import asyncio
import inspect
import sys
from _asyncio import Future, Task  # nest_asyncio, common in notebooks, replaces those of asyncio by plain Python
from asyncio import CancelledError
from asyncio.tasks import _enter_task as enter_task
from asyncio.tasks import _leave_task as leave_task
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextvars import Context, copy_context
from typing import Any, TypeVar

from ..opcodes import OpCode

__all__ = [
    "OPCODES",
    "CancelledError",
    "call_outside_task",
    "cancel_again",
    "checked",
    "current_tasks",
    "enter_task",
    "is_abandoned",
    "is_cancelled",
    "iterator",
    "leave_task",
    "name_of",
    "retrieve",
    "start_task",
    "start_worker",
]

OPCODES = tuple(OpCode(number) if number in tuple(OpCode) else None for number in range(16))

T = TypeVar("T", bound=Task[Any])


def _find_current_tasks() -> dict[Any, Any] | None:
    """Returns asyncio's dict of the current task of each loop; None if asyncio has no such dict (3.14)."""
    found = getattr(asyncio.tasks, "_current_tasks", None)
    loop: Any = object()
    task: Any = object()
    try:
        enter_task(loop, task)
    except RuntimeError:
        return None
    try:
        return found if type(found) is dict and found.get(loop) is task else None
    finally:
        leave_task(loop, task)


current_tasks = _find_current_tasks()


class HandlerTask(Task[Any]):
    """A task whose coroutine is a `Worker`. Each call that others could notice later marks the worker as observed.

    The task of an observed worker serves only its current handler. That includes calls that return a property of the
    task, because two handlers with one name or one context could be mistaken for each other.
    """

    def _mark_observed(self) -> None:
        if not self.done():  # a done task has no coroutine, and Python 3.12.1 crashes in get_coro()
            self._worker().observed = True

    def _worker(self) -> Any:
        return super().get_coro()

    @property
    def _fut_waiter(self) -> Any:
        """The future that the handler waits for, as read by `repr` and anyio; not the worker of a parked task."""
        waiter = super()._fut_waiter  # type: ignore[misc]
        return None if waiter is None or waiter is self._worker() else waiter

    def __setattr__(self, name: str, value: object) -> None:
        self._mark_observed()
        super().__setattr__(name, value)

    def add_done_callback(self, fn: Callable[[Any], object], /, *, context: Context | None = None) -> None:
        self._mark_observed()
        super().add_done_callback(fn, context=copy_context() if context is None else context)

    def cancel(self, msg: Any = None) -> bool:
        self._mark_observed()
        return super().cancel(msg)

    def set_name(self, value: object, /) -> None:
        self._mark_observed()
        super().set_name(value)

    def get_name(self) -> str:
        self._mark_observed()
        return super().get_name()

    def get_coro(self) -> Any:
        self._mark_observed()
        return super().get_coro()

    if sys.version_info >= (3, 12):

        def get_context(self) -> Context:
            self._mark_observed()
            return super().get_context()


if sys.version_info >= (3, 12):

    def start_worker(loop: asyncio.AbstractEventLoop, worker: Any, context: Context) -> HandlerTask:
        """Starts the task of a worker. It has run to its first wait on return, on every version of Python."""
        return HandlerTask(worker, loop=loop, context=context, eager_start=True)

    def start_task(
        loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, None], context: Context | None = None
    ) -> Task[None]:
        """Starts a task for any other coroutine, in the same way."""
        return Task(coroutine, loop=loop, context=context, eager_start=True)

else:

    def start_worker(loop: asyncio.AbstractEventLoop, worker: Any, context: Context) -> HandlerTask:
        """Starts the task of a worker. It has run to its first wait on return, on every version of Python."""
        return _begun(HandlerTask, worker, loop, context)

    def start_task(
        loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, None], context: Context | None = None
    ) -> Task[None]:
        """Starts a task for any other coroutine, in the same way."""
        return _begun(Task, coroutine, loop, context)

    class _FirstStep:
        """The loop of a new task, which schedules its first step there, until that step runs."""

        def get_debug(self) -> bool:
            return False

        def call_soon(self, step: Callable[[], object], *, context: Context) -> None:
            self.step = step
            self.context = context

    def _begun(kind: type[T], coroutine: Any, loop: asyncio.AbstractEventLoop, context: Context | None) -> T:
        first: Any = _FirstStep()
        task = kind(coroutine, loop=first, context=context)
        Future.__init__(task, loop=loop)  # the rest of the task does not know its loop
        call_outside_task(loop, first.context.run, first.step)
        return task


def call_outside_task(loop: asyncio.AbstractEventLoop, callback: Callable[..., object], *args: object) -> None:
    """Calls a callback as the loop would: while no task is running."""
    outer = asyncio.current_task(loop)
    if outer is not None:
        leave_task(loop, outer)
    try:
        callback(*args)
    finally:
        if outer is not None:
            enter_task(loop, outer)


def cancel_again(loop: asyncio.AbstractEventLoop, error: BaseException) -> None:
    """Restores a cancellation that the current task has just passed to its coroutine, with the error's message."""
    task = asyncio.current_task(loop)
    assert task is not None
    task.cancel(*error.args)
    task.uncancel()


def retrieve(task: "asyncio.Future[Any]") -> None:
    """Marks a task's exception as retrieved, so that asyncio does not log it when the task is freed."""
    if not task.cancelled():
        task.exception()


def is_abandoned(error: BaseException, loop: asyncio.AbstractEventLoop) -> bool:
    """Whether an error tells a coroutine that its loop has stopped and will never resume it.

    A GeneratorExit while the loop runs was raised by the coroutine itself.
    """
    return isinstance(error, GeneratorExit) and asyncio._get_running_loop() is not loop


def is_cancelled(error: BaseException) -> bool:
    """Whether an error is the cancellation of the running task itself, not of an awaitable that it has waited for."""
    if not isinstance(error, CancelledError):
        return False
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def name_of(hook: object) -> str:
    """Returns the name of a hook for a task or the log; not its `repr`, which includes that of the user's view."""
    name: str = getattr(hook, "__qualname__", None) or type(hook).__qualname__
    return name


def checked(awaitable: Awaitable[object]) -> Awaitable[object]:
    """Returns the result of a hook; raises TypeError if it cannot be awaited."""
    if not inspect.isawaitable(awaitable):
        raise TypeError(f"a hook must be a coroutine function (async def); one returned {awaitable!r}")
    return awaitable


def iterator(awaitable: Awaitable[None]) -> Iterator[Any]:
    """Returns an iterator with `send` and `throw` that awaits the result of a hook."""
    if isinstance(awaitable, Coroutine):
        return awaitable  # type: ignore[return-value]
    return _awaiting(checked(awaitable))  # type: ignore[return-value]


async def _awaiting(awaitable: Awaitable[object]) -> object:
    return await awaitable
