"""Frames for a view that overrides `read_frame` or `_receive_loop`, and so pulls them itself."""

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from ..frame import Frame
from ..opcodes import OpCode
from .flow_control import Hold

if TYPE_CHECKING:
    from .protocol import ConnectionProtocol

__all__ = ["FrameQueue"]


class FrameQueue:
    """The messages and control frames of one connection, in order and as they came.

    Args:
        protocol: The connection.
        most_waiting: Frames and bytes that may wait before reading is put on hold.
    """

    def __init__(self, protocol: "ConnectionProtocol", most_waiting: tuple[int, int]) -> None:
        self._protocol = protocol
        self._most, self._most_bytes = most_waiting
        self._frames: deque[tuple[int, bytes]] = deque()
        self._bytes = 0
        self._handed = 0  # bytes on their way to the dispatcher
        self._waiter: asyncio.Future[None] | None = None
        self._ended = False

    def put(self, frames: list[tuple[int, bytes]]) -> None:
        """Adds messages and control frames."""
        self._frames.extend(frames)
        self._bytes += sum(len(payload) for _, payload in frames)
        if len(self._frames) > self._most or self._bytes > self._most_bytes:
            self._protocol.intake.hold(Hold.FRAMES)
        self.wake()

    def drop_messages(self) -> None:
        """No message is to be handled any more; control frames are still to be read."""
        self._frames = deque(frame for frame in self._frames if frame[0] & 0b1111 >= OpCode.CLOSE)
        self._bytes = sum(len(payload) for _, payload in self._frames)

    def end(self) -> None:
        """No more will come."""
        self._ended = True
        self.wake()

    async def get(self) -> Frame:
        """The next one. It is not given before there is room for a message among those that wait for `on_receive`.

        Raises:
            ConnectionClosed: There will be none.
        """
        protocol = self._protocol
        while True:
            while not self._frames or protocol.dispatcher.full or self._handed > self._most_bytes:
                if self._ended and not self._frames:
                    raise protocol.closed_error()
                self._waiter = protocol.loop.create_future()
                await self._waiter
            frame = self._frames[0]
            try:
                opcode, payload = await protocol.decoding.decoded(frame)
            except (KeyboardInterrupt, GeneratorExit, asyncio.CancelledError):
                raise
            except BaseException as error:  # an extension's, such as SystemExit
                self._take(frame)
                protocol.refuse(error)
                continue
            if self._take(frame):
                return Frame(opcode, payload=payload)

    def hand_on(self, frame: Frame) -> None:
        """Hands a message to `on_receive`: in a callback of its own, for no task may be running then."""
        self._handed += len(frame.payload)
        self._protocol.loop.call_soon(self._deliver, (int(frame.opcode), frame.payload))

    def _deliver(self, message: tuple[int, bytes]) -> None:
        self._handed -= len(message[1])
        self._protocol.dispatcher.deliver([message])
        self.wake()

    def _take(self, frame: tuple[int, bytes]) -> bool:
        """Removes the first frame, if it is still this one."""
        if not self._frames or self._frames[0] is not frame:
            return False
        self._bytes -= len(self._frames.popleft()[1])
        if len(self._frames) <= self._most // 2 and self._bytes <= self._most_bytes // 2:
            self._protocol.intake.release(Hold.FRAMES)
        return True

    def wake(self) -> None:
        """Has the view look again for a frame, and for room."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
