"""Awaitables that `send` returns, and calls from other threads into the thread of the connection.

When `send` returns, the message has been sent or queued. The result may be awaited, at any time and repeatedly, be
passed to `create_task`, or be dropped: a dropped result causes no "never awaited" warning.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine, Generator
from concurrent.futures import Future
from contextvars import Context, copy_context
from functools import partial
from typing import Any, Protocol

from ..codec import SENT
from ..exceptions import ConnectionClosed
from ..logging import logger

__all__ = ["Owner", "Pending", "begin", "hop"]


class Owner(Protocol):
    """The connection that a call from another thread addresses."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...
    @property
    def lost(self) -> bool: ...
    def closed_error(self) -> ConnectionClosed: ...


class Pending(Coroutine[Any, Any, None]):
    """An awaitable that creates its coroutine when it is first awaited.

    Args:
        wait: The factory of the coroutine.
    """

    __slots__ = ("_coroutine", "_wait")

    def __init__(self, wait: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._wait = wait
        self._coroutine: Coroutine[Any, Any, None] | None = None  # when a task drives this object itself

    def __await__(self) -> Generator[Any, Any, None]:
        return self._wait().__await__()

    def send(self, value: Any) -> Any:
        return self._driven().send(value)

    def throw(self, *error: Any) -> Any:
        return self._driven().throw(*error)

    def close(self) -> None:
        if self._coroutine is not None:
            self._coroutine.close()

    def _driven(self) -> Coroutine[Any, Any, None]:
        if self._coroutine is None:
            self._coroutine = self._wait()
        return self._coroutine


if sys.version_info >= (3, 12):

    def begin(
        loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, None], context: Context | None = None
    ) -> "asyncio.Future[None]":
        """Returns a task that has run to its first wait."""
        return asyncio.Task(coroutine, loop=loop, context=context, eager_start=True)

else:
    from asyncio.tasks import _enter_task, _leave_task

    def begin(
        loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, None], context: Context | None = None
    ) -> "asyncio.Future[None]":
        """Returns a task that has run to its first wait; a completed future if the coroutine has ended."""
        begun = _Begun(coroutine)
        context = copy_context() if context is None else context
        task = asyncio.Task(begun, loop=loop, context=context)
        outer = asyncio.current_task(loop)
        if outer is not None:
            _leave_task(loop, outer)
        _enter_task(loop, task)
        try:
            return context.run(begun.step, loop) or task
        finally:
            _leave_task(loop, task)
            if outer is not None:
                _enter_task(loop, outer)

    class _Begun(Coroutine[Any, Any, None]):
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


def hop(
    owner: Owner, method: Callable[..., Awaitable[None]], *args: Any, closes: bool = False
) -> Coroutine[Any, Any, None]:
    """Schedules a method in the thread of the connection.

    Args:
        method: Returns an awaitable, which is awaited in that thread.
        closes: Whether the end of the connection or of its loop counts as success, as for a call that closes it.

    Returns:
        An awaitable for any thread. If it is dropped, an error of the method is logged.

    Raises:
        ConnectionClosed: The loop has ended.
    """
    result = _Result()
    try:
        if owner.lost and not owner.loop.is_running():
            raise owner.closed_error()
        _schedule(owner, _Call(owner, method, args, result))
    except ConnectionClosed:
        if not closes:
            raise
        return SENT
    return Pending(partial(_wait, result, closes))


def _schedule(owner: Owner, call: "_Call") -> None:
    try:
        owner.loop.call_soon_threadsafe(call)
    except RuntimeError:
        if not owner.loop.is_closed():
            raise
        raise owner.closed_error() from None


async def _wait(result: "_Result", closes: bool) -> None:
    result.awaited = True
    try:
        await asyncio.wrap_future(result)
    except ConnectionClosed:
        if not closes:
            raise


class _Result(Future[None]):
    """The outcome of a call.

    Attributes:
        awaited: Whether a caller has waited for it. Otherwise an error is logged when it is freed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.awaited = False

    def __del__(self) -> None:
        if self.done() and not (self.awaited or self.cancelled()):
            error = self.exception()
            if error is not None and not isinstance(error, ConnectionClosed):
                logger.error("a send from another thread has failed", exc_info=error)


class _Call:
    """A call that is scheduled in the thread of a connection.

    Only the loop holds a reference. If the loop is closed before or during the call, the object is freed, and its
    result becomes `ConnectionClosed`.
    """

    __slots__ = ("_args", "_method", "_owner", "_result")

    def __init__(
        self,
        owner: Owner,
        method: Callable[..., Awaitable[None]],
        args: tuple[Any, ...],
        result: _Result,
    ) -> None:
        self._owner = owner
        self._method = method
        self._args = args
        self._result = result

    def __call__(self) -> None:
        loop = self._owner.loop
        task = begin(loop, self._run())
        if not task.done():

            def cancel(result: Future[None]) -> None:
                if result.cancelled() and not loop.is_closed():
                    loop.call_soon_threadsafe(task.cancel)

            self._result.add_done_callback(cancel)

    def __del__(self) -> None:
        self._end(self._owner.closed_error())

    async def _run(self) -> None:
        try:
            await self._method(*self._args)
        except asyncio.CancelledError:
            self._end(self._owner.closed_error())  # unless the result itself was cancelled
        except Exception as error:
            self._end(error)
        else:
            self._end(None)

    def _end(self, error: Exception | None) -> None:
        result = self._result
        if result.done() or not result.set_running_or_notify_cancel():
            return
        if error is None:
            result.set_result(None)
        else:
            result.set_exception(error)
