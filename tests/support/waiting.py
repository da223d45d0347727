"""Time limits for busy machines, and tasks that have run to their first wait."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

__all__ = ["begun", "within"]

_TICK = 0.05


@asynccontextmanager
async def within(seconds: float) -> AsyncIterator[None]:
    """Cancels the block after some seconds, and raises a TimeoutError.

    The seconds are counted in short sleeps of the loop, so a suspended process loses the time of one sleep at most.
    """

    async def count() -> None:
        for _ in range(round(seconds / _TICK)):
            await asyncio.sleep(_TICK)
        deadline.reschedule(0)

    deadline = asyncio.timeout(None)
    async with deadline:
        counting = asyncio.ensure_future(count())
        try:
            yield
        finally:
            counting.cancel()


async def begun(*awaitables: Awaitable[Any]) -> list["asyncio.Future[Any]"]:
    """Returns tasks that have run to their first wait."""
    tasks: list[asyncio.Future[Any]] = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    await asyncio.sleep(0)
    return tasks
