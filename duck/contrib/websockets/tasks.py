"""What the codec's dispatcher needs of asyncio, so that the codec itself imports nothing."""

import asyncio
import sys
from asyncio import CancelledError
from asyncio.tasks import _enter_task as enter_task
from asyncio.tasks import _leave_task as leave_task
from collections import deque
from collections.abc import Awaitable, Coroutine, Iterator
from contextvars import Context, copy_context
from typing import Any

from .opcodes import OpCode

__all__ = [
    "OPCODES",
    "CancelledError",
    "copy_context",
    "deque",
    "enter_task",
    "iterator",
    "leave_task",
    "start_task",
]

OPCODES = tuple(OpCode(number) if number in tuple(OpCode) else None for number in range(16))

if sys.version_info >= (3, 12):

    def start_task(
        loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, None], context: Context | None = None
    ) -> "asyncio.Task[None]":
        """A task that has run to its first wait already, where Python can do that."""
        return asyncio.Task(coroutine, loop=loop, context=context, eager_start=True)

else:

    def start_task(
        loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, None], context: Context | None = None
    ) -> "asyncio.Task[None]":
        """A task that has run to its first wait already, where Python can do that."""
        return loop.create_task(coroutine, context=context)


def iterator(awaitable: Awaitable[None]) -> Iterator[Any]:
    """What `await` would drive."""
    if isinstance(awaitable, Coroutine):
        return awaitable  # type: ignore[return-value]
    try:
        return type(awaitable).__await__(awaitable)
    except AttributeError:
        raise TypeError(f"a hook must be a coroutine function (async def); one returned {awaitable!r}") from None
