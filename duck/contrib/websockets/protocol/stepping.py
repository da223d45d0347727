"""Tasks and futures whose steps run inside the callback that resolves them.

This module is the `tasks` argument of `codec.Dispatcher`, so the codec itself does not import asyncio.
"""

import asyncio
import inspect
import sys
from _asyncio import Task  # nest_asyncio, common in notebooks, replaces `asyncio.Task` by the one in plain Python
from asyncio import CancelledError
from asyncio.tasks import _enter_task as enter_task
from asyncio.tasks import _leave_task as leave_task
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from contextvars import Context, copy_context
from typing import Any

from ..opcodes import OpCode

__all__ = [
    "OPCODES",
    "CancelledError",
    "cancel_again",
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

_EAGER: dict[str, Any] = {"eager_start": True} if sys.version_info >= (3, 12) else {}


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


def start_worker(loop: asyncio.AbstractEventLoop, worker: Any, context: Context) -> HandlerTask:
    """Starts the task of a worker. On Python 3.12 and later the task has run to its first wait on return."""
    return HandlerTask(worker, loop=loop, context=context, **_EAGER)


if sys.version_info >= (3, 12):

    def start_task(
        loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, None], context: Context | None = None
    ) -> Task[None]:
        """Starts a task for any other coroutine. It has run to its first wait on return, on every version of Python."""
        return Task(coroutine, loop=loop, context=context, eager_start=True)

else:

    def start_task(
        loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, None], context: Context | None = None
    ) -> Task[None]:
        """Starts a task that has run to its first wait on return; returns a completed future if it has ended."""
        begun = _BegunCoroutine(coroutine)
        context = copy_context() if context is None else context
        task = Task(begun, loop=loop, context=context)
        outer = asyncio.current_task(loop)
        if outer is not None:
            leave_task(loop, outer)
        enter_task(loop, task)
        try:
            return context.run(begun.step, loop) or task
        finally:
            leave_task(loop, task)
            if outer is not None:
                enter_task(loop, outer)

    class _BegunCoroutine(Coroutine[Any, Any, None]):
        """A coroutine whose first step runs before its task does."""

        __slots__ = ("_coroutine", "_has_ended", "_waits_for")

        def __init__(self, coroutine: Coroutine[Any, Any, None]) -> None:
            self._coroutine = coroutine
            self._has_ended = False
            self._waits_for: list[Any] = []  # the future yielded by the first step, until the task's first step

        def __getattr__(self, name: str) -> Any:
            return getattr(self._coroutine, name)  # `cr_frame`, `__qualname__` and so on, for debuggers

        def step(self, loop: asyncio.AbstractEventLoop) -> Any:
            """Takes the first step; returns the outcome if it is also the last step."""
            try:
                self._waits_for.append(self._coroutine.send(None))
                return None
            except BaseException as error:
                self._has_ended = True
                outcome: asyncio.Future[None] = loop.create_future()
                if isinstance(error, StopIteration):
                    outcome.set_result(None)
                elif isinstance(error, CancelledError):
                    outcome.cancel()
                elif isinstance(error, (KeyboardInterrupt, SystemExit)):
                    raise
                else:
                    outcome.set_exception(error)
                return outcome

        def __await__(self) -> Generator[Any, Any, None]:
            raise TypeError("drive this object by a task")

        def send(self, value: Any) -> Any:
            if self._has_ended:
                raise StopIteration
            return self._waits_for.pop() if self._waits_for else self._coroutine.send(value)

        def throw(self, *error: Any) -> Any:
            if self._has_ended:
                raise StopIteration
            self._waits_for.clear()
            return self._coroutine.throw(*error)

        def close(self) -> None:
            self._coroutine.close()


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
