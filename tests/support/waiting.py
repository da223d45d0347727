"""Limits of time that hold on a busy machine, too."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

__all__ = ["within"]

_TICK = 0.05


@asynccontextmanager
async def within(seconds: float) -> AsyncIterator[None]:
    """Cancels the block after some seconds, and raises a TimeoutError.

    The seconds are counted in short sleeps of the loop. A process that gets no processor for a while loses one of them.
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
