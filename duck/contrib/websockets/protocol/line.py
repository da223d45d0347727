"""The queue of data messages that wait until a fragmented message is complete; its owner is the `Sender`."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterable, Iterable
from typing import Protocol

from ..exceptions import ConnectionClosed
from ..opcodes import OpCode
from .prepared import Data

__all__ = ["Line", "Parts", "Place"]

Parts = Iterable[Data] | AsyncIterable[Data]


class Place:
    """A queued message.

    Args:
        turn: Done when the message has been handed to the writer; for a stream, when its task has been created.
        opcode: The opcode of the message.
        payload: The payload of the message.
        fin: Whether the payload ends its message.
        parts: The parts of a stream, instead of the payload.

    Attributes:
        task: The task that runs the stream.
        error: The error for the sender, if the connection has ended.
        is_text: Whether the message is text.
        text: The UTF-8 state after the last part of a text message.
    """

    __slots__ = ("error", "fin", "is_text", "opcode", "parts", "payload", "task", "text", "turn")

    def __init__(
        self,
        turn: "asyncio.Future[None]",
        opcode: int,
        payload: bytes = b"",
        fin: bool = True,
        parts: Parts | None = None,
    ) -> None:
        self.turn = turn
        self.opcode = opcode
        self.payload = payload
        self.fin = fin
        self.parts = parts
        self.task: asyncio.Future[None] | None = None
        self.error: ConnectionClosed | None = None
        self.is_text = opcode == OpCode.TEXT
        self.text = 0

    def settle(self, error: BaseException | None = None) -> None:
        """Resolves the turn, or fails it with an error."""
        turn = self.turn
        if turn.done():
            return
        if error is None:
            turn.set_result(None)
        else:
            turn.set_exception(error)
            if isinstance(error, ConnectionClosed):
                turn.exception()  # marks it as retrieved, so that asyncio does not log it if the sender does not wait


class Owner(Protocol):
    """The sender whose messages wait."""

    @property
    def is_occupied(self) -> bool: ...
    def send_first(self, place: Place) -> bool: ...
    def line_changed(self) -> None: ...
    def line_moved(self) -> None: ...


class Line:
    """The queued messages of one connection, in the order of the calls.

    Args:
        owner: Sends the first message of the queue.
        loop: The event loop.

    Attributes:
        FAIR_SHARE: Seconds of continuous sending after which the queue yields to the loop.
        waiting: Bytes of the queued messages, except the one being compressed.
        resuming: Whether a callback that continues the sending is scheduled.
    """

    FAIR_SHARE = 0.01

    __slots__ = ("_loop", "_moving", "_owner", "_places", "resuming", "waiting")

    def __init__(self, owner: Owner, loop: asyncio.AbstractEventLoop) -> None:
        self._owner = owner
        self._loop = loop
        self._places: deque[Place] = deque()
        self._moving = False  # whether `move` is at work
        self.resuming = False
        self.waiting = 0

    def __len__(self) -> int:
        return len(self._places)

    def join(self, place: Place) -> None:
        """Appends a message, and sends it at once if possible."""
        self._places.append(place)
        self.waiting += len(place.payload)
        self._owner.line_changed()
        self.move()

    def leave(self) -> Place:
        """Removes the first message."""
        return self._places.popleft()

    def drop(self, error: ConnectionClosed) -> None:
        """Ends all queued messages with an error."""
        for place in self._places:
            place.settle(error)
        self._places.clear()
        self.waiting = 0

    def move(self) -> None:
        """Sends the queued messages, up to the first that has to wait."""
        if self._moving:
            return  # a call of `move` is in progress, and also sends the messages appended meanwhile
        self._moving = True
        end = time.perf_counter() + self.FAIR_SHARE
        try:
            while self._places and not self._owner.is_occupied and self._move_first():
                if time.perf_counter() > end:
                    self._resume_later()
                    break
        finally:
            self._moving = False
        self._owner.line_moved()

    def _move_first(self) -> bool:
        place = self._places[0]
        self.waiting -= len(place.payload)
        if place.turn.done():
            self.leave()  # its sender has been cancelled
            return True
        return self._owner.send_first(place)

    def _resume_later(self) -> None:
        if not self.resuming:
            self.resuming = True
            self._loop.call_soon(self._resume)

    def _resume(self) -> None:
        self.resuming = False
        self.move()
