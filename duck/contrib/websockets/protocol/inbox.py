"""Messages for a task that receives one at a time: a client's `recv`, an ASGI `receive`, a view's `read_frame`.

    deliver -> waiting, still encoded -> take -> the task

An encoded message is decoded when it is taken: a small one in the loop's thread, a large one in another thread, which
`ready` waits for. A waiting task is stepped inside `deliver`, not one pass of the loop later, so that its replies leave
together with those of the same read.

    inbox = Inbox(loop, most=16, most_bytes=65536)
    protocol = ConnectionProtocol(endpoint, connection, inbox=inbox)
    ...
    opcode, payload = await inbox.get()
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from ..codec import Counters
from ..exceptions import ConnectionClosed
from ..opcodes import OpCode
from ..sansio.connection import Connection
from .decoding import Decoding
from .flow_control import Hold
from .stepping import Turn, retrieve

__all__ = ["Inbox", "Owner"]

Message = tuple[int, bytes]


class Owner(Protocol):
    """The connection of an inbox."""

    @property
    def connection(self) -> Connection: ...
    @property
    def counters(self) -> Counters | None: ...
    def hold(self, reason: Hold) -> None: ...
    def release(self, reason: Hold) -> None: ...
    def refuse(self, error: BaseException) -> None:
        """Ends the connection, because the next message cannot be decoded."""


class Inbox:
    """The received messages of one connection that have not been taken, in order and still encoded.

    To its connection it is a `Consumer`, in place of a dispatcher.

    Args:
        loop: The event loop.
        most: Messages that may wait; reading is on hold while there are more.
        most_bytes: Bytes of payload that may wait; reading is on hold while there are more.

    Attributes:
        messages: The waiting messages, the next one at the end.
    """

    __slots__ = (
        "_bytes",
        "_connection",
        "_counted",
        "_decoding",
        "_encoded",
        "_ended",
        "_held",
        "_job",
        "_loop",
        "_most",
        "_most_bytes",
        "_owner",
        "_turns",
        "messages",
    )

    # Required of a consumer: no message waits here for a handler, and no handlers run.
    inbox: tuple[()] = ()
    workers: frozenset[Any] = frozenset()
    decoding = False
    full = False

    def __init__(self, loop: asyncio.AbstractEventLoop, most: int, most_bytes: int) -> None:
        self._loop = loop
        self._most = most
        self._most_bytes = most_bytes
        self._owner: Owner | None = None
        self._connection: Connection | None = None
        self._encoded = 0
        self._decoding: Decoding | None = None
        self._job: asyncio.Future[Message] | None = None  # a thread that decodes the next message
        self.messages: list[Message] = []
        # Number and bytes of the oldest messages, which have waited since an earlier delivery. A message that a task
        # takes within its delivery is not counted.
        self._counted = 0
        self._bytes = 0
        self._held = False
        self._turns: list[Turn] = []  # waiting tasks
        self._ended = False

    def attach(self, owner: Owner) -> None:
        """Attaches the inbox to a connection; called by the protocol."""
        self._owner = owner
        self._connection = owner.connection
        self._encoded = owner.connection.encoded

    # For tasks

    async def get(self) -> Message:
        """Opcode and payload of the next message. Cancelling loses no message.

        Raises:
            ConnectionClosed: No message is left, and none will come.
        """
        while (message := self.take()) is None:
            await self.ready()
        return message

    def take(self) -> Message | None:
        """Returns the next message; None if none is there or a thread must decode it."""
        messages = self.messages
        if not messages:
            return None
        taken = messages[-1]
        if taken[0] & self._encoded:
            if self._is_for_a_thread(taken):
                return None
            try:
                taken = self._decoded(taken)
            except BaseException as error:
                self._refuse(error)
                return self.take()  # of the control frames
        if self._counted:
            self._uncount(messages[-1])
        messages.pop()
        return taken

    def _uncount(self, message: Message) -> None:
        """Uncounts the first of the counted messages, which is taken."""
        self._counted -= 1
        self._bytes -= len(message[1])
        if self._held and self._counted <= self._most // 2 and self._bytes <= self._most_bytes // 2:
            self._held = False
            if self._owner is not None:
                self._owner.release(Hold.FRAMES)

    def ready(self) -> Awaitable[None]:
        """Returns an awaitable to use after `take` has returned None; `take` may return a message after it.

        Raises:
            ConnectionClosed: No message is left, and none will come.
        """
        if self.messages:
            return self._decode_first()
        if self._ended:
            raise self._closed_error()
        return self.wait()

    def wait(self) -> Turn:
        """Returns a future that is done once messages are delivered or `wake` is called."""
        return Turn(self._loop, self._turns)

    def wake(self) -> None:
        """Wakes all waiting tasks, in callbacks of their own."""
        turns = [*self._turns]
        self._turns.clear()
        for turn in turns:
            turn.wake_soon()

    def end(self) -> None:
        """Marks the end of the messages; those that wait may still be taken."""
        self._ended = True
        self.wake()

    @property
    def has_ended(self) -> bool:
        """Whether `end` has been called."""
        return self._ended

    def drop_messages(self) -> None:
        """Drops the waiting messages, but not control frames."""
        self.messages = [message for message in self.messages if message[0] & 0b1111 >= OpCode.CLOSE]
        self._counted = self._bytes = 0
        self._count()
        self._job = None

    # For the connection, as its consumer

    def open(self, on_open: Callable[[], Awaitable[None]] | None) -> None:
        """Does nothing: messages may be delivered at any time."""

    def deliver(self, messages: list[Message]) -> None:
        """Takes over a list of messages, and steps the tasks that wait for one.

        Must be called from a callback of the loop while no task is running.
        """
        messages.reverse()
        if self.messages:
            messages.extend(self.messages)
        self.messages = messages
        turns = self._turns
        waiting = len(turns)  # a task that waits again joins behind these
        while waiting and turns and self.messages:
            waiting -= 1
            turns.pop(0).wake()
        if self.messages:
            self._count()

    def _count(self) -> None:
        """Counts the messages left to wait, and holds reading if they are too many."""
        messages = self.messages
        for _, payload in messages[: len(messages) - self._counted]:
            self._bytes += len(payload)
        self._counted = len(messages)
        if self._owner is not None and self._owner.counters is not None:
            self._owner.counters.note_waiting(self._counted, self._bytes)
        if (self._counted > self._most or self._bytes > self._most_bytes) and not self._held:
            self._held = True
            if self._owner is not None:
                self._owner.hold(Hold.FRAMES)

    def stop(self) -> int:
        """Does nothing: received messages may still be taken."""
        return 0

    def forget(self) -> None:
        """Drops the reference to the connection, which has ended."""
        self._owner = None

    # Decoding

    def _is_for_a_thread(self, message: Message) -> bool:
        opcode, payload = message
        return opcode & 0b1111 < OpCode.CLOSE and len(payload) > self._decoder.at_once

    def _decoded(self, message: Message) -> Message:
        assert self._connection is not None
        opcode, payload = message
        return message if opcode & 0b1111 >= OpCode.CLOSE else self._connection.decode(opcode, payload)

    async def _decode_first(self) -> None:
        """Decodes the next message in a thread; the result replaces it."""
        message = self.messages[-1]
        if self._job is None:
            self._job = self._decoder.start(message)
            self._job.add_done_callback(retrieve)
        job = self._job
        await asyncio.wait([job])
        if self._job is not job:
            return  # another task has decoded it, or the message has been dropped
        self._job = None
        try:
            decoded = job.result()
        except BaseException as error:
            self._refuse(error)
        else:
            self.messages[-1] = decoded
            if self._counted:
                self._bytes += len(decoded[1]) - len(message[1])

    def _refuse(self, error: BaseException) -> None:
        """Ends the inbox at the next message, which cannot be decoded; neither it nor later ones are taken."""
        if isinstance(error, (KeyboardInterrupt, GeneratorExit, asyncio.CancelledError)):
            raise error
        self.drop_messages()
        if self._owner is not None:
            self._owner.refuse(error)

    @property
    def _decoder(self) -> Decoding:
        if self._decoding is None:
            assert self._connection is not None
            self._decoding = Decoding(self._loop, self._connection)
        return self._decoding

    def _closed_error(self) -> ConnectionClosed:
        return ConnectionClosed() if self._connection is None else self._connection.closed_error()
