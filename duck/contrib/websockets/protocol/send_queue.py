"""The queue of data messages that wait until a fragmented message is complete; its owner is the `Sender`."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterable, Callable, Iterable
from contextvars import Context, copy_context
from typing import Protocol

from ..exceptions import ConnectionClosed
from ..opcodes import OpCode
from ..sansio.payloads import Data

__all__ = ["Parts", "QueuedMessage", "SendQueue"]

Parts = Iterable[Data] | AsyncIterable[Data]


class QueuedMessage:
    """A queued message.

    Args:
        future: Completes when the message has been passed to the writer; for a stream, when its task has been created.
        opcode: The opcode of the message.
        payload: The payload of the message.
        fin: Whether the payload ends its message.
        parts: The parts of a stream, instead of the payload.

    Attributes:
        context: The context in which a stream was sent: its parts are produced there, whatever frees its turn.
        task: The task that runs the stream.
        is_cut: Whether the connection has ended before the end of the message.
        is_awaited: Whether the result of the stream has been awaited.
        is_text: Whether the message is text.
        text: The UTF-8 state after the last part of a text message.
    """

    __slots__ = (
        "context",
        "fin",
        "future",
        "is_awaited",
        "is_cut",
        "is_text",
        "opcode",
        "parts",
        "payload",
        "task",
        "text",
    )

    def __init__(
        self,
        future: "asyncio.Future[None]",
        opcode: int,
        payload: bytes = b"",
        fin: bool = True,
        parts: Parts | None = None,
    ) -> None:
        self.future = future
        self.opcode = opcode
        self.payload = payload
        self.fin = fin
        self.parts = parts
        self.context: Context | None = None if parts is None else copy_context()
        self.task: asyncio.Future[None] | None = None
        self.is_cut = False
        self.is_awaited = False
        self.is_text = opcode == OpCode.TEXT
        self.text = 0

    def settle(self, error: BaseException | None = None) -> None:
        """Resolves the future, or fails it with an error."""
        future = self.future
        if future.done():
            return
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
            if isinstance(error, ConnectionClosed):
                future.exception()  # marks it as retrieved, so that asyncio does not log it if the sender does not wait


class Owner(Protocol):
    """The sender whose messages wait."""

    @property
    def is_occupied(self) -> bool: ...
    def send_first(self, message: QueuedMessage) -> bool: ...
    def queue_changed(self) -> None: ...
    def queue_advanced(self) -> None: ...


class SendQueue:
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

    __slots__ = ("_advancing", "_loop", "_messages", "_owner", "resuming", "waiting")

    def __init__(self, owner: Owner, loop: asyncio.AbstractEventLoop) -> None:
        self._owner = owner
        self._loop = loop
        self._messages: deque[QueuedMessage] = deque()
        self._advancing = False  # whether `advance` is in progress
        self.resuming = False
        self.waiting = 0

    def __len__(self) -> int:
        return len(self._messages)

    def append(self, message: QueuedMessage) -> None:
        """Appends a message, and sends it at once if possible."""
        self._messages.append(message)
        self.waiting += len(message.payload)
        self._owner.queue_changed()
        self.advance()

    def pop(self) -> QueuedMessage:
        """Removes and returns the first message."""
        return self._messages.popleft()

    def drop(self, new_error: Callable[[], ConnectionClosed]) -> None:
        """Ends all queued messages, each with an error of its own, as its traceback is."""
        for message in self._messages:
            message.settle(new_error())
        self._messages.clear()
        self.waiting = 0

    def advance(self) -> None:
        """Sends the queued messages, up to the first that has to wait."""
        if self._advancing:
            return  # another call is in progress, and also sends the messages appended meanwhile
        self._advancing = True
        end = time.perf_counter() + self.FAIR_SHARE
        try:
            while self._messages and not self._owner.is_occupied and self._send_first():
                if time.perf_counter() > end:
                    self._resume_later()
                    break
        finally:
            self._advancing = False
        self._owner.queue_advanced()

    def _send_first(self) -> bool:
        message = self._messages[0]
        self.waiting -= len(message.payload)
        if message.future.done():
            self.pop()  # its sender has been cancelled
            return True
        return self._owner.send_first(message)

    def _resume_later(self) -> None:
        if not self.resuming:
            self.resuming = True
            self._loop.call_soon(self._resume)

    def _resume(self) -> None:
        self.resuming = False
        self.advance()
