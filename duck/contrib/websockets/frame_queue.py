"""Frames for a view that overrides `read_frame` or `_receive_loop`, and so pulls them itself."""

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from .exceptions import ConnectionClosed
from .frame import Frame

if TYPE_CHECKING:
    from .protocol import WebSocketProtocol

__all__ = ["FrameQueue"]


class FrameQueue:
    """The messages and control frames of one connection, in order."""

    _HIGH = 16  # frames that may wait before reading is put on hold

    def __init__(self, protocol: "WebSocketProtocol", loop: asyncio.AbstractEventLoop) -> None:
        self._protocol = protocol
        self._loop = loop
        self._frames: deque[Frame] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._ended = False

    def put(self, messages: list[tuple[int, bytes]]) -> None:
        """Adds messages and control frames."""
        self._frames.extend(Frame(opcode, payload=payload) for opcode, payload in messages)
        if len(self._frames) >= self._HIGH:
            self._protocol.hold_inbox()
        self._wake()

    def end(self) -> None:
        """No more will come."""
        self._ended = True
        self._wake()

    async def get(self) -> Frame:
        """The next one; ConnectionClosed when there will be none."""
        while not self._frames:
            if self._ended:
                connection = self._protocol.connection
                raise ConnectionClosed(connection.close_code or 1006, connection.close_reason)
            self._waiter = self._loop.create_future()
            await self._waiter
        frame = self._frames.popleft()
        if not self._frames:
            self._protocol.release_inbox()
        return frame

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
