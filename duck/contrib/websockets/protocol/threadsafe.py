"""Calls from other threads: `call_threadsafe` schedules a method in the thread of its connection."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from functools import partial
from typing import Any, Protocol, TypeVar, cast

from ..codec import SENT
from ..exceptions import ConnectionClosed
from ..logging import log_failure
from .pending import Pending
from .stepping import is_cancelled, start_task

__all__ = ["Owner", "call_threadsafe"]

T = TypeVar("T")


class Owner(Protocol):
    """The connection that a call from another thread addresses."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...
    @property
    def lost(self) -> bool: ...
    def closed_error(self) -> ConnectionClosed: ...


def call_threadsafe(
    owner: Owner, method: Callable[..., Awaitable[T]], *args: Any, closes: bool = False
) -> Coroutine[Any, Any, T]:
    """Schedules a method in the thread of the connection.

    Args:
        method: Returns an awaitable, which is awaited in that thread.
        closes: Whether the end of the connection or of its loop counts as success, as for a call that closes it.

    Returns:
        An awaitable of the result, for any thread. If it is dropped, an error of the method is logged.

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
        return cast("Coroutine[Any, Any, T]", SENT)
    return Pending(partial(_wait, result, closes))


def _schedule(owner: Owner, call: "_Call") -> None:
    try:
        owner.loop.call_soon_threadsafe(call)
    except RuntimeError:
        if not owner.loop.is_closed():
            raise
        raise owner.closed_error() from None


async def _wait(result: "_Result", closes: bool) -> Any:
    result.awaited = True
    try:
        return await asyncio.wrap_future(result)
    except ConnectionClosed:
        if not closes:
            raise


class _Result(Future[Any]):
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
                log_failure(error, "a send from another thread has failed")


class _Call:
    """A call that is scheduled in the thread of a connection.

    Only the loop holds a reference. If the loop is closed before or during the call, the object is freed, and its
    result becomes `ConnectionClosed`.
    """

    __slots__ = ("_args", "_method", "_owner", "_result")

    def __init__(
        self,
        owner: Owner,
        method: Callable[..., Awaitable[Any]],
        args: tuple[Any, ...],
        result: _Result,
    ) -> None:
        self._owner = owner
        self._method = method
        self._args = args
        self._result: _Result | None = result

    def __call__(self) -> None:
        loop = self._owner.loop
        task = start_task(loop, self._run())
        if self._result is not None and not task.done():

            def cancel(result: Future[Any]) -> None:
                if result.cancelled() and not loop.is_closed():
                    loop.call_soon_threadsafe(task.cancel)

            self._result.add_done_callback(cancel)

    def __del__(self) -> None:
        self._end(self._owner.closed_error())

    async def _run(self) -> None:
        try:
            value = await self._method(*self._args)
        except (Exception, asyncio.CancelledError) as error:
            # The end of the loop cancels it, unless the result itself was cancelled.
            self._end(self._owner.closed_error() if is_cancelled(error) else error)
        else:
            self._end(None, value)

    def _end(self, error: BaseException | None, value: Any = None) -> None:
        result, self._result = self._result, None  # the traceback of its error refers to this object
        if result is None or result.done() or not result.set_running_or_notify_cancel():
            return
        if error is None:
            result.set_result(value)
        else:
            result.set_exception(error)
