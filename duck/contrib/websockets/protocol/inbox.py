"""Messages for a task that receives one at a time: a client's `recv`, an ASGI `receive`, a view's `read_frame`.

    deliver -> waiting, still encoded -> take -> the task

The codec's `Inbox` has the queues of messages and of waiting tasks. This subclass decodes a message when a task takes
it: a small one in the loop's thread, a large one in another thread, for which `ready` waits. It also holds reading, and
ends waits at their deadlines.

    inbox = Inbox(loop, most=16, most_bytes=65536)
    protocol = ConnectionProtocol(endpoint, connection, queue=inbox)
    ...
    opcode, payload = await inbox.get()
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from .. import codec
from ..codec import Counters
from ..exceptions import ConnectionClosed
from ..opcodes import OpCode
from ..sansio.connection import Connection
from .decoding import Decoding, refuse_late
from .flow_control import Hold
from .interfaces import Endpoint
from .loop import done_future
from .stepping import retrieve

__all__ = ["Inbox", "Owner"]

Message = tuple[int, bytes]

_EARLY = 0.001  # seconds by which a timer of uvloop, which counts milliseconds, may fire early


class Owner(Protocol):
    """The connection of an inbox."""

    @property
    def endpoint(self) -> Endpoint: ...
    @property
    def connection(self) -> Connection: ...
    @property
    def counters(self) -> Counters | None: ...
    def hold(self, reason: Hold) -> None: ...
    def release(self, reason: Hold) -> None: ...
    def refuse(self, error: BaseException) -> None:
        """Ends the connection, because the next message cannot be decoded."""


class Inbox(codec.Inbox):
    """The received messages of one connection that no task has taken, in order and still encoded.

    Its connection uses it as the `Consumer`, in place of a dispatcher.

    Args:
        loop: The event loop.
        most: Messages that may wait; reading is on hold while there are more.
        most_bytes: Bytes of payload that may wait; reading is on hold while there are more.
    """

    __slots__ = ("_connection", "_decoding", "_expiry", "_job", "_owner", "_timer")

    # Required by `Consumer`. There are no handlers: no message waits for one, and none runs.
    waiting: tuple[()] = ()
    workers: frozenset[Any] = frozenset()
    decoding = False
    has_handler = False

    def __init__(self, loop: asyncio.AbstractEventLoop, most: int, most_bytes: int) -> None:
        super().__init__(loop, most, most_bytes, done_future(loop), ConnectionClosed)
        self._owner: Owner | None = None
        self._connection: Connection | None = None
        self._decoding: Decoding | None = None
        self._job: asyncio.Future[Message] | None = None  # a thread that decodes the next message
        self._timer: asyncio.Handle | None = None  # of the first deadline; uvloop's may lack `when`, hence `_expiry`
        self._expiry = 0.0  # the time of the timer

    def attach(self, owner: Owner) -> "Inbox":
        """Attaches the inbox to a connection, and returns its consumer: the inbox; called by the protocol."""
        self._owner = owner
        self._connection = owner.connection
        self.encoded = owner.connection.encoded
        return self

    # For tasks

    async def get(self) -> Message:
        """Returns opcode and payload of the next message. A cancellation loses no message.

        Raises:
            ConnectionClosed: No message is left, and the connection will deliver no other.
        """
        while (message := self.take()) is None:
            await self.ready()
        return message

    async def get_slowly(self, timeout: float | None, deadline: float) -> Message:
        if timeout is not None and not deadline:
            deadline = self.loop.time() + timeout
        try:
            async with asyncio.timeout_at(None if timeout is None else deadline):
                return await self.get()
        except TimeoutError:
            raise TimeoutError(self._late(timeout)) from None

    def take_encoded(self, message: Message) -> Message | None:
        if self._is_for_a_thread(message):
            return None
        try:
            taken = self._decoded(message)
        except BaseException as error:
            self._refuse(error)
            return self.take()  # of the control frames
        self.pop()
        return taken

    def ready(self) -> Awaitable[None]:
        """Returns an awaitable to use after `take` has returned None; `take` may return a message after it.

        Raises:
            ConnectionClosed: No message is left, and the connection will deliver no other.
        """
        if self.messages:
            return self._decode_first()
        if self.has_ended:
            raise self._closed_error()
        return self.wait()

    def wait(self) -> "codec.Waiter":
        """Returns an awaitable that completes when messages are delivered or `wake` is called."""
        return codec.Waiter(self.loop, self.waiters)

    def wake(self) -> None:
        """Wakes all waiting tasks, in callbacks of their own."""
        waiters = [*self.waiters]
        self.waiters.clear()
        for waiter in waiters:
            waiter.wake_soon()

    def end(self) -> None:
        """Marks the end of the messages; those that wait may still be taken."""
        self.has_ended = True
        if self.waiters:
            self.wake()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def drop_messages(self) -> None:
        """Drops the waiting messages, but not control frames."""
        self.messages = [message for message in self.messages if message[0] & 0b1111 >= OpCode.CLOSE]
        self.counted = self.waiting_bytes = 0
        self.count()
        self._job = None

    # Deadlines

    def expire_in(self, seconds: float) -> float:
        # One timer serves consecutive waits. It is set again only for an earlier deadline, or after it has fired.
        when: float = self.loop.time() + seconds
        if self._timer is None or when < self._expiry:
            self._expire_at(when)
        return when

    def _expire_at(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_at(when, self._expire)
        self._expiry = when

    def _expire(self) -> None:
        self._timer = None
        now = self.loop.time() + _EARLY
        waiting = [waiter for waiter in self.waiters if isinstance(waiter, codec.NextMessage) and waiter.deadline]
        for waiter in waiting:
            if waiter.deadline <= now:
                waiter.fail(TimeoutError(self._late(waiter.timeout)))
        left = [waiter.deadline for waiter in waiting if waiter.deadline > now]
        if left:
            self._expire_at(min(left))

    def _late(self, seconds: float | None) -> str:
        peer = "" if self._owner is None else f" from {self._owner.endpoint._label}"
        return f"no message{peer} within {seconds} seconds"

    # For the connection, as its consumer

    def open(self, on_open: Callable[[], Awaitable[None]] | None) -> None:
        """Does nothing, because messages may be delivered at any time."""

    def count(self) -> None:
        super().count()
        if self._owner is not None and self._owner.counters is not None:
            self._owner.counters.note_waiting(self.counted, self.waiting_bytes)

    def hold_reading(self) -> None:
        if self._owner is not None:
            self._owner.hold(Hold.FRAMES)

    def release_reading(self) -> None:
        if self._owner is not None:
            self._owner.release(Hold.FRAMES)

    def stop(self) -> int:
        """Does nothing, because tasks may still take the received messages."""
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
        if not job.done():  # even then `wait` would suspend, so that a task that polls would never get the message
            await asyncio.wait([job])
        if self._job is not job:
            return  # another task has handled the result, or the message has been dropped
        self._job = None
        try:
            decoded = job.result()
        except BaseException as error:
            self._refuse(error)
        else:
            self.messages[-1] = decoded
            if self.counted:
                self.waiting_bytes += len(decoded[1]) - len(message[1])

    def _refuse(self, error: BaseException) -> None:
        """Drops the messages from the next one on, which cannot be decoded, and ends the connection."""
        if isinstance(error, (KeyboardInterrupt, GeneratorExit, asyncio.CancelledError)):
            raise error
        self.drop_messages()
        if self._owner is not None:
            self._owner.refuse(error)
        elif self._connection is not None:
            refuse_late(self._connection, error)

    @property
    def _decoder(self) -> Decoding:
        if self._decoding is None:
            assert self._connection is not None
            self._decoding = Decoding(self.loop, self._connection)
        return self._decoding

    def _closed_error(self) -> ConnectionClosed:
        return ConnectionClosed() if self._connection is None else self._connection.closed_error()
