"""The queue of messages that are received part by part: for `on_stream`, and for a client's `recv_stream`.

    deliver -> the newest message, and messages that wait -> Dispatcher -> on_stream
                                                         `-> next

A message is passed to its reader as soon as it begins, but not before the message in front of it has been read to its
end or discarded. So one message at a time is read, and parts of later messages wait: as records, because a peer may
send many small messages in one read, and an `IncomingMessage` has ten times their size. `deliver` steps a waiting task
at once, as an `Inbox` does.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sized
from typing import Any, Protocol

from ..codec import FIN, MESSAGE_COST, Counters, Dispatcher, Waiter
from ..exceptions import ConnectionClosed, PayloadTooBig
from ..extensions import Inflating
from ..opcodes import OpCode
from ..sansio.connection import Connection
from . import stepping
from .decoding import refuse_late
from .flow_control import Hold
from .incoming_message import IncomingMessage

__all__ = ["OnStream", "Owner", "StreamQueue"]

OnStream = Callable[[IncomingMessage], Awaitable[None]]

Record = list[Any]
"""A message that waits: its opcode, with the bit FIN once it is complete, and its parts."""


class Owner(Protocol):
    """The connection that receives the messages."""

    @property
    def connection(self) -> Connection: ...
    @property
    def counters(self) -> Counters | None: ...
    def hold(self, reason: Hold) -> None: ...
    def release(self, reason: Hold) -> None: ...
    def refuse(self, error: BaseException) -> None: ...
    def new_dispatcher(self, handle: Callable[[bytes, OpCode], Awaitable[None]]) -> Dispatcher: ...
    def drain_waiting(self) -> None:
        """Calls `drain` from a callback of the loop."""

    def none_waits(self) -> None:
        """Notes that no message waits for a handler."""


class StreamQueue:
    """The messages of one connection, in order. The connection uses it as its `Consumer`.

    Args:
        loop: The event loop.
        most_bytes: Bytes of parts that may wait, as received; reading is on hold while there are more. For each part,
            and for each message that waits, `MESSAGE_COST` bytes are added.
        max_whole: Bytes of the largest message that is read as a whole; None for no limit.
        on_stream: The handler; None for messages that tasks get by `next`.
    """

    __slots__ = (
        "_connection",
        "_current",
        "_dispatcher",
        "_ended",
        "_getters",
        "_held",
        "_is_busy",
        "_is_taken",
        "_messages",
        "_most_bytes",
        "_newest",
        "_on_stream",
        "_owner",
        "_stopped",
        "_waiting",
        "loop",
        "max_whole",
    )

    # Required by `Consumer`: no thread decodes a message.
    decoding = False

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        most_bytes: int,
        max_whole: int | None,
        on_stream: OnStream | None = None,
    ) -> None:
        self.loop = loop
        self.max_whole = max_whole
        self._most_bytes = most_bytes
        self._on_stream = on_stream
        self._owner: Owner | None = None
        self._connection: Connection | None = None
        self._dispatcher: Dispatcher | None = None
        self._messages: deque[Record] = deque()  # the waiting messages
        self._current: IncomingMessage | None = None  # the last message that was passed to a reader
        self._newest: IncomingMessage | Record | None = None  # the message that is being received
        self._getters: list[Waiter] = []  # tasks that wait for a message
        self._waiting = 0  # bytes
        self._is_taken = True  # whether the handler of the current message has begun
        self._held = self._is_busy = self._stopped = self._ended = False

    def attach(self, owner: Owner) -> "StreamQueue | Dispatcher":
        """Attaches the queue to a connection; called by the protocol.

        Returns:
            The consumer of its messages: the queue, or, if extensions need whole messages, the dispatcher of `handle`.
        """
        self._owner = owner
        self._connection = owner.connection
        if self._on_stream is None:
            return self
        self._dispatcher = owner.new_dispatcher(self.handle)
        return self if owner.connection.parts else self._dispatcher

    @property
    def has_handler(self) -> bool:
        """Whether `on_stream` gets the messages, in place of tasks."""
        return self._on_stream is not None

    # For handlers, and for tasks

    async def handle(self, payload: bytes, opcode: OpCode) -> None:
        """Calls `on_stream` with the current message; called by the dispatcher.

        On a connection that receives whole messages, the arguments are the message.
        """
        assert self._connection is not None
        assert self._on_stream is not None
        message = self._current if self._connection.parts else self.whole(payload, opcode)
        assert message is not None
        self._is_taken = True
        if message.is_over:  # an empty one
            self.finished()
        try:
            await stepping.checked(self._on_stream(message))
        except PayloadTooBig as error:
            self.refuse(error)
        finally:
            message.discard()

    def whole(self, payload: bytes, opcode: int) -> IncomingMessage:
        """Returns a message that has been received as a whole."""
        message = IncomingMessage(self, opcode)
        self._count(payload)
        message.add(payload, True)
        return message

    async def next(self) -> IncomingMessage:
        """Returns the next message as soon as it begins; the rest of the one before is discarded.

        Raises:
            ConnectionClosed: No message is left, and the connection will deliver no other.
            RuntimeError: Another task is reading the message before.
        """
        if self._current is not None:
            if self._current.is_being_read:
                raise RuntimeError(
                    "another task is reading the message before: read the messages of a connection in one task"
                )
            self._current.discard()
        while not (self._messages and self._is_free):
            if self._ended and not self._messages:
                raise self.closed_error()
            await Waiter(self.loop, self._getters)
        return self._begun(self._messages.popleft())

    @property
    def _is_free(self) -> bool:
        """Whether the next message may begin."""
        return self._current is None or (self._current.is_over and self._is_taken)

    # For the connection, as its consumer

    @property
    def waiting(self) -> Sized:
        """Messages that wait for a handler."""
        if self._dispatcher is None:
            return ()
        return self._messages or self._dispatcher.waiting

    @property
    def workers(self) -> Collection[Any]:
        """Tasks of handlers that wait."""
        return () if self._dispatcher is None else self._dispatcher.workers

    @property
    def has_ended(self) -> bool:
        """Whether no more parts will be received."""
        return self._ended

    def open(self, on_open: Callable[[], Awaitable[None]] | None) -> None:
        """Calls the hook, if there is one, then starts the delivery."""
        if self._dispatcher is not None:
            self._dispatcher.open(on_open)

    def deliver(self, messages: list[tuple[int, bytes]]) -> None:
        """Adds parts to their messages, and steps the task that waits for one.

        Must be called from a callback of the loop while no task is running.
        """
        self._is_busy = True
        try:
            for opcode, payload in messages:
                self._put(opcode, payload)
            if self._current is not None:
                self._current.wake()
            self._go_on()
        finally:
            self._is_busy = False
        if self._waiting and self._owner is not None:
            if self._owner.counters is not None:
                self._owner.counters.note_waiting(len(self._messages), self._waiting)
            if self._waiting > self._most_bytes and not self._held:
                self._held = True
                self._owner.hold(Hold.PARTS)

    def _put(self, opcode: int, payload: bytes) -> None:
        message = self._newest
        if opcode & 0b1111:
            message = None
            if not self._stopped:
                record: Record = [opcode]
                self._messages.append(record)
                self._waiting += MESSAGE_COST
                message = record
        self._newest = None if opcode & FIN else message
        if message is None:
            return
        self._count(payload)
        if isinstance(message, IncomingMessage):
            message.add(payload, opcode & FIN != 0)
            return
        message[0] |= opcode & FIN
        if payload:
            message.append(payload)

    def _count(self, payload: bytes) -> None:
        if payload:
            self._waiting += len(payload) + MESSAGE_COST

    def _begun(self, record: Record) -> IncomingMessage:
        """Makes a waiting message the current one."""
        opcode, *parts = record
        self._current = message = IncomingMessage(self, opcode)
        last = parts.pop() if parts else b""
        for part in parts:
            message.add(part, False)
        message.add(last, opcode & FIN != 0)
        if self._newest is record:
            self._newest = message
        self._has_room(MESSAGE_COST)
        return message

    def _drop(self, record: Record) -> None:
        """Forgets a message that has waited."""
        self._has_room(MESSAGE_COST + sum(len(part) + MESSAGE_COST for part in record[1:]))

    def _go_on(self) -> None:
        """Passes the messages that may begin to their readers."""
        while self._messages and self._is_free:
            if self._dispatcher is not None:
                message = self._begun(self._messages.popleft())
                self._is_taken = False
                self._dispatcher.deliver([(int(message.opcode), b"")])
            elif self._getters:
                self._getters.pop(0).wake()
            else:
                return

    def drain(self) -> None:
        """Passes waiting messages to their readers; must be called as `deliver`."""
        self._is_busy = True
        try:
            if self._dispatcher is not None:
                self._dispatcher.drain()
            self._go_on()
        finally:
            self._is_busy = False
        if not self.waiting and self._owner is not None:
            self._owner.none_waits()

    def stop(self) -> int:
        """Starts no more handlers. The running one gets the rest of its message. Tasks may still get messages.

        Returns:
            The number of dropped messages.
        """
        if self._dispatcher is None:
            return 0
        self._stopped = True
        unstarted = self._dispatcher.stop()
        if unstarted and self._current is not None:
            self._current.discard()
        if self._newest is not self._current:
            self._newest = None
        dropped = len(self._messages)
        while self._messages:
            self._drop(self._messages.popleft())
        if dropped and self._owner is not None:
            self._owner.none_waits()
        return dropped + unstarted

    def end(self) -> None:
        """Notes that no more parts will be received; those that wait may still be read."""
        if self._ended:
            return
        self._ended = True
        if self._newest is not None and self._newest is not self._current:
            self._drop(self._messages.pop())  # incomplete, and not passed to a handler
        self._newest = None
        if self._current is not None:
            self._current.wake_soon()
        self._wake_getters()

    def _wake_getters(self) -> None:
        waiters, self._getters[:] = self._getters[:], ()
        for waiter in waiters:
            waiter.wake_soon()

    def forget(self) -> None:
        """Drops the references to the connection, which has ended."""
        self._owner = self._on_stream = None
        if self._dispatcher is not None:
            self._dispatcher.forget()

    # For messages, as their source

    def more(self, waiters: list[Waiter]) -> Awaitable[None]:
        """Returns an awaitable for the next part of the current message; see `Source`."""
        return Waiter(self.loop, waiters)

    @property
    def needs_all(self) -> bool:
        """Whether even a discarded message has to be decompressed, because later ones may refer to it."""
        deflate = None if self._connection is None else self._connection.deflate
        is_last = self._stopped or (self._ended and not self._messages)
        return deflate is not None and deflate.takes_over and not is_last

    def inflating(self) -> Inflating:
        """Returns the decompressor of the current message."""
        assert self._connection is not None
        return self._connection.inflating()

    def inflated(self, inflating: Inflating) -> None:
        """Notes that the current message has been decompressed."""
        counters = None if self._connection is None else self._connection.reader.counters
        if counters is not None:
            counters.note_inflated(inflating.received, inflating.size)

    def taken(self, payload: bytes) -> None:
        """Notes that a part has left the queue; resumes reading once there is room."""
        self._has_room(len(payload) + MESSAGE_COST)

    def _has_room(self, size: int) -> None:
        """Notes that `size` bytes do not wait any more."""
        self._waiting -= size
        if self._held and self._waiting <= self._most_bytes // 2:
            self._held = False
            if self._owner is not None:
                self._owner.release(Hold.PARTS)

    def finished(self) -> None:
        """Notes that the current message is over. The next one begins in a later callback, when no task is running."""
        if self._is_busy or not self._messages:
            return
        if self._dispatcher is None:
            self._wake_getters()
        elif self._owner is not None:
            self.loop.call_soon(self._owner.drain_waiting)

    def refuse(self, error: BaseException) -> None:
        """Ends the connection, because a message cannot be decoded, or exceeds the limit of its reader."""
        if self._owner is not None:
            self._owner.refuse(error)
        elif self._connection is not None:
            refuse_late(self._connection, error)

    def closed_error(self) -> ConnectionClosed:
        """Returns the error of a reader after the end of the connection."""
        return ConnectionClosed() if self._connection is None else self._connection.closed_error()
