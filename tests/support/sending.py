"""Sends to a peer that does not read."""

import asyncio
from typing import Any

__all__ = ["buffered", "fill"]


def buffered(view: Any) -> int:
    """Bytes that wait in the transport of a view."""
    size: int = view.request.transport.get_write_buffer_size()
    return size


async def fill(view: Any, size: int = 2**16) -> tuple[int, "asyncio.Future[None]"]:
    """Sends until a send has to wait; returns the number of sends before it, and its task."""
    for count in range(1000):
        sending = asyncio.ensure_future(view.send_binary(bytes(size)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        if not sending.done():
            return count, sending
    raise AssertionError("the transport is never full")
