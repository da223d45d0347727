"""The line of data messages that wait for their turn, because another message is under way in fragments."""

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
    """One place in the line.

    Args:
        turn: Done when the message has been handed to the writer; of a stream, when its task has been made.
        opcode: Of the message.
        payload: The same.
        fin: Whether it ends its message.
        parts: Of a stream, instead of the payload.

    Attributes:
        task: Runs the stream.
        error: What has ended it, if the connection has.
        is_text: Whether it is a text message,
        text: and the state of its UTF-8 behind the last part.
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
        """Tells those who wait for the turn that it has come, or that it will not."""
        turn = self.turn
        if turn.done():
            return
        if error is None:
            turn.set_result(None)
        else:
            turn.set_exception(error)
            if isinstance(error, ConnectionClosed):
                turn.exception()  # retrieved: if nobody waits for it, there is nothing to log


class Owner(Protocol):
    """The sender whose messages wait."""

    @property
    def is_occupied(self) -> bool: ...
    def send_first(self, place: Place) -> bool: ...
    def line_changed(self) -> None: ...
    def line_moved(self) -> None: ...


class Line:
    """The messages of one connection that wait to be sent, in the order of the calls.

    Args:
        owner: Sends the first in line.
        loop: The event loop.

    Attributes:
        FAIR_SHARE: Seconds after which those in line let the loop go.
        waiting: Bytes of the messages in line, without the one that is being compressed.
        resuming: Whether a callback is to move the line on.
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
        """Adds a message at the end, which is sent now if it can be."""
        self._places.append(place)
        self.waiting += len(place.payload)
        self._owner.line_changed()
        self.move()

    def leave(self) -> Place:
        """Removes the first."""
        return self._places.popleft()

    def drop(self, error: ConnectionClosed) -> None:
        """Nobody in line will get a turn any more."""
        for place in self._places:
            place.settle(error)
        self._places.clear()
        self.waiting = 0

    def move(self) -> None:
        """Has those in line sent, up to one that has to wait."""
        if self._moving:
            return  # a message that is sent in the midst of that has joined the line
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
            self.leave()  # whoever waited has given up
            return True
        return self._owner.send_first(place)

    def _resume_later(self) -> None:
        if not self.resuming:
            self.resuming = True
            self._loop.call_soon(self._resume)

    def _resume(self) -> None:
        self.resuming = False
        self.move()
