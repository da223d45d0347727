"""`start_eagerly`: a task that takes its first step at once, as from Python 3.12 on, also on Python 3.11."""

import asyncio
import sys
from collections.abc import Coroutine, Generator
from contextvars import Context, copy_context
from typing import Any

__all__ = ["start_eagerly"]

if sys.version_info >= (3, 12):

    def start_eagerly(
        loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, None], context: Context | None = None
    ) -> "asyncio.Future[None]":
        """Returns a task that has run to its first wait."""
        return asyncio.Task(coroutine, loop=loop, context=context, eager_start=True)

else:
    from asyncio.tasks import _enter_task, _leave_task

    def start_eagerly(
        loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, None], context: Context | None = None
    ) -> "asyncio.Future[None]":
        """Returns a task that has run to its first wait; a completed future if the coroutine has ended."""
        eager = _EagerCoroutine(coroutine)
        context = copy_context() if context is None else context
        task = asyncio.Task(eager, loop=loop, context=context)
        outer = asyncio.current_task(loop)
        if outer is not None:
            _leave_task(loop, outer)
        _enter_task(loop, task)
        try:
            return context.run(eager.step, loop) or task
        finally:
            _leave_task(loop, task)
            if outer is not None:
                _enter_task(loop, outer)

    class _EagerCoroutine(Coroutine[Any, Any, None]):
        """A coroutine whose first step runs before its task does."""

        __slots__ = ("_coroutine", "_has_ended", "_waits_for")

        def __init__(self, coroutine: Coroutine[Any, Any, None]) -> None:
            self._coroutine = coroutine
            self._has_ended = False
            self._waits_for: list[Any] = []  # the future yielded by the first step, until the task's first step

        def step(self, loop: asyncio.AbstractEventLoop) -> "asyncio.Future[None] | None":
            """Takes the first step; returns the outcome if it is also the last step."""
            try:
                self._waits_for.append(self._coroutine.send(None))
                return None
            except BaseException as error:
                self._has_ended = True
                outcome: asyncio.Future[None] = loop.create_future()
                if isinstance(error, StopIteration):
                    outcome.set_result(None)
                elif isinstance(error, asyncio.CancelledError):
                    outcome.cancel()
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
