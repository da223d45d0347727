"""Frames for a view that pulls them itself: its class overrides `read_frame` or `_receive_loop`."""

import asyncio
from typing import Protocol

from ..codec import Dispatcher
from ..frame import Frame, message_of
from .inbox import Inbox
from .inbox import Owner as InboxOwner

__all__ = ["FrameQueue"]


class Owner(InboxOwner, Protocol):
    """The connection whose frames are pulled."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...
    @property
    def consumer(self) -> Dispatcher: ...


class FrameQueue:
    """The messages and control frames of one connection, in order.

    The receive loop of the view gets them, and passes the messages on to the dispatcher.

    Args:
        owner: The connection.
        most: Messages and control frames that may wait. As many more may wait for `on_receive`.
        most_bytes: Bytes that may wait. As many more may wait for `on_receive`.

    Attributes:
        inbox: The inbox into which the connection delivers them.
    """

    __slots__ = ("_handed", "_most_bytes", "_owner", "inbox")

    def __init__(self, owner: Owner, most: int, most_bytes: int) -> None:
        self._owner = owner
        self.inbox = Inbox(owner.loop, most, most_bytes)
        self.inbox.attach(owner)
        self._most_bytes = most_bytes
        self._handed = 0  # bytes passed on that have not reached the dispatcher

    async def get(self) -> Frame:
        """Returns the next frame, once there is room among the messages that wait for `on_receive`.

        Raises:
            ConnectionClosed: No frame is left, and the connection will deliver no other.
        """
        inbox = self.inbox
        while True:
            if inbox.messages and not self._has_room:
                await inbox.wait()
            elif (message := inbox.take()) is not None:
                return Frame(message[0], payload=message[1])
            else:
                await inbox.ready()

    @property
    def _has_room(self) -> bool:
        return not self._owner.consumer.full and self._handed <= self._most_bytes

    def hand_on(self, frame: Frame) -> None:
        """Passes a message to `on_receive`, in a later callback because no task may be running during a delivery."""
        message = message_of(frame)
        self._handed += len(message[1])
        self._owner.loop.call_soon(self._deliver, message)

    def _deliver(self, message: tuple[int, bytes]) -> None:
        self._handed -= len(message[1])
        self._owner.consumer.deliver([message])
        self.inbox.wake()
