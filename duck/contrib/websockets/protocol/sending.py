"""The sending half of a connection: the slow path of sent messages, and backpressure on senders.

    send -> HotPath.send -> FrameWriter -> flush -> transport
              `-> send_otherwise -> Sender ---^

Plain messages go straight to the writer. `send_otherwise`, the slow path, has the `Sender` handle streams, queued
messages, and calls from other threads. The awaitable of a send waits while the transport is above its high-water mark,
or for one pass of the loop if senders have held it for too long.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextvars import Context, copy_context
from typing import Any

from .. import codec
from ..codec import SENT
from ..exceptions import ConnectionClosed
from ..frame import Frame
from ..logging import logger
from ..opcodes import CloseCode, OpCode
from ..sansio.connection import Connection
from ..sansio.payloads import checked_opcode
from .broadcast import Prepared
from .interfaces import Endpoint
from .loop import Shared, receive_buffer
from .pending import Pending
from .phases import Phase
from .sender import LARGE, Sender
from .slow_consumer import Answer, SlowConsumer
from .transports import HIGH_WATER, discards

__all__ = ["Sending"]

_JOIN_LIMIT = 65536  # bytes; smaller writes are joined by a copy

_SHARED_LIMIT = 1048576  # bytes; a larger message to many connections is compressed for each of them
_SWAMPED = 64  # multiple of WRITE_LIMIT that may wait for a peer, because `broadcast` never waits

_CONNECTING = Phase.CONNECTING  # a look-up in the class of an enum takes several times as long
_NOBODY: "dict[asyncio.Future[None], None]" = {}  # shared by all connections without waiters


class Sending(codec.HotPath):
    """The sending half of one connection.

    Args:
        endpoint: The view, or another endpoint.
        connection: The rules.
        send_frame: The view's own method, which sends everything that the view sends.
        loop: The running loop.
        shared: Its shared objects.

    Attributes:
        context: The context of the connection: `on_open` and `on_close` run in it, and each handler in a copy.
    """

    __slots__ = (
        "_sender",
        "_slow_consumer",
        "_waiters",
        "connection",
        "context",
        "endpoint",
        "frame_size",
        "loop",
        "phase",
    )

    def __init__(
        self,
        endpoint: Endpoint,
        connection: Connection,
        send_frame: Callable[[Frame], Awaitable[None]] | None,
        loop: asyncio.AbstractEventLoop,
        shared: Shared,
    ) -> None:
        reader, writer, deflate = connection.reader, connection.writer, connection.deflate
        buffer = shared.buffer or receive_buffer(loop)
        super().__init__(reader, writer, buffer, shared.burst, endpoint._counters, deflate)
        self.endpoint = endpoint
        self.connection = connection
        self.loop = loop
        self.context: Context = copy_context()
        self.phase = _CONNECTING
        self._sender = Sender(self, send_frame) if send_frame is not None else None
        policy = endpoint.SLOW_CONSUMER
        self._slow_consumer = None if policy == "wait" else SlowConsumer(policy, endpoint.WRITE_LIMIT)
        self._waiters: dict[asyncio.Future[None], None] = _NOBODY
        limit = endpoint.MAX_FRAME_SIZE
        self.limit_frames(sys.maxsize if limit is None else limit)

    def limit_frames(self, size: int) -> None:
        """Messages of more than `size` bytes leave in fragments."""
        self.frame_size = size
        self.max_size = size if self.deflate is None else min(size, LARGE - 1)

    @property
    def sender(self) -> Sender:
        """The slow path of sending; created on demand, because most connections never need it."""
        if self._sender is None:
            self._sender = Sender(self)
        return self._sender

    @property
    def is_sending(self) -> bool:
        """Whether sent data has not been written to the transport."""
        return self.writer.size > 0 or (self._sender is not None and not self._sender.is_direct)

    def send_otherwise(self, data: Any, opcode: int) -> Coroutine[Any, Any, None]:
        """Sends anything but a plain message on an open connection."""
        opcode = checked_opcode(opcode)
        if self._slow_consumer is not None and opcode < OpCode.CLOSE and not self.is_elsewhere and self._drops():
            return SENT
        return self.sender.send(data, opcode)

    def send_frame(self, opcode: int, payload: bytes, fin: bool) -> Coroutine[Any, Any, None]:
        """Sends any frame but a close frame. A whole message may be dropped."""
        is_message = fin and OpCode.CONTINUATION < opcode < OpCode.CLOSE
        if is_message and self._drops():
            return SENT
        return self.sender.send_frame(opcode, payload, fin)

    def send_prepared(self, message: Prepared) -> bool:
        """Sends a prepared message that cannot take the fast path of `codec.fan_out`; never waits.

        The caller does not wait for a slow peer, under any SLOW_CONSUMER. Therefore the bytes that wait for it are
        bounded: beyond the bound the connection is closed with 1008.

        Returns:
            Whether the message was accepted.
        """
        connection = self.connection
        if not connection.is_open or self.broken:
            return False
        if self._is_swamped(len(message.payload)):
            logger.warning("%r: closed, because too many broadcast bytes wait for the peer", self.endpoint._label)
            self.close(CloseCode.POLICY_VIOLATION, "too slow to read")
            return False
        is_direct = self.direct_out and type(self.writer) is codec.FrameWriter and not connection.fragmenting
        if is_direct and message.size <= min(self.frame_size, _SHARED_LIMIT):
            self.write_prepared(message)
            return True
        dropped = self.dropped
        try:
            # In a context of this connection: an overridden `send_frame` and extensions must not see the publisher's
            # variables. The message is sent; the wait for room is dropped.
            _ = self.context.copy().run(self.send, message.payload, message.opcode)
        except ConnectionClosed:
            return False
        return self.dropped == dropped

    def _is_swamped(self, size: int) -> bool:
        """Whether too many bytes wait for the peer to add `size` more."""
        waiting = self.writer.size + self.transport.get_write_buffer_size()
        if self._sender is not None:
            waiting += self._sender.waiting + self._sender.begun * size
        if self.counters is not None:
            self.counters.note_write_buffer(waiting)
        return self._slow_consumer is None and waiting > _SWAMPED * max(self.endpoint.WRITE_LIMIT, HIGH_WATER)

    def _drops(self) -> bool:
        """Whether to drop the next message, because the peer reads too slowly.

        Raises:
            ConnectionClosed: The slow peer ends the connection.
        """
        slow = self._slow_consumer
        if slow is None or not self.connection.is_open:
            return False
        answer = slow.answer(self.sender.waiting)
        if answer is Answer.CLOSE:
            logger.warning("%r: closed, because the peer reads too slowly", self.endpoint._label)
            self.close(CloseCode.POLICY_VIOLATION, "too slow to read")
            raise ConnectionClosed(CloseCode.POLICY_VIOLATION, "too slow to read")
        if answer is Answer.DROP and slow.has_begun:
            logger.warning("%r: messages are dropped, because the peer reads too slowly", self.endpoint._label)
        if answer is Answer.DROP and self.counters is not None:
            self.counters.note(("dropped", "slow_consumer"))
        return answer is Answer.DROP

    @property
    def dropped(self) -> int:
        """The number of messages dropped because the peer reads too slowly."""
        return 0 if self._slow_consumer is None else self._slow_consumer.dropped

    def written(self) -> Coroutine[Any, Any, None]:
        """Writes unless corked. The result waits only above the high-water mark."""
        if not (self.corked or self.writes_paused) or self.writer.size > codec.CORK_LIMIT:
            self.flush()
        if self.writes_paused:
            return self.until_writable()
        return self.pace() if self.burst.credit < 0 else SENT

    def drained(self) -> Coroutine[Any, Any, None]:
        """`written` for data that is never dropped. The result waits even if `SLOW_CONSUMER` drops messages."""
        if not self.corked or self.writer.size > codec.CORK_LIMIT:
            self.flush()
        return self.until_writable() if self._is_full else self.pace()

    @property
    def _is_full(self) -> bool:
        """Whether the transport's buffer is above its high-water mark."""
        return self.writes_paused or (self._slow_consumer is not None and self._slow_consumer.lags)

    def rest(self) -> Coroutine[Any, Any, None]:
        """Returns an awaitable that yields to the loop if the sender has held it for too long."""
        burst = self.burst
        if burst.held:
            return Pending(self._rest)
        burst.held = True
        self.loop.call_soon(_let_go, burst)
        return SENT

    async def _rest(self) -> None:
        await asyncio.sleep(0)
        if self.writes_paused:
            await self._until_writable()

    def write_chunks(self, chunks: Sequence[bytes | memoryview]) -> None:
        """Writes several bytes objects; large ones are not copied."""
        if len(chunks) > 1 and sum(map(len, chunks)) <= _JOIN_LIMIT:
            chunks = (b"".join(chunks),)
        for chunk in chunks:
            if discards(self.transport):
                return
            # Not by writelines(), which ignores the high-water mark in Python 3.12.0-8 and 3.13.0-1 (CVE-2024-12254).
            self.transport.write(chunk)

    def until_writable(self) -> Coroutine[Any, Any, None]:
        """Returns an awaitable that waits until the transport's buffer is below its low-water mark."""
        self.note_write_buffer()
        return Pending(self._until_writable)

    def note_write_buffer(self) -> None:
        """Counts the bytes that wait for the peer."""
        if self.counters is not None:
            self.counters.note_write_buffer(self.writer.size + self.transport.get_write_buffer_size())

    async def _until_writable(self) -> None:
        while self._is_full:
            await self._wait()
            if self.lost:
                raise self.closed_error()

    async def _wait(self) -> None:
        """Waits until writing is resumed or the transport is lost."""
        if not self.lost:
            waiter = self.loop.create_future()
            if self._waiters is _NOBODY:
                self._waiters = {}
            waiters = self._waiters
            waiters[waiter] = None
            try:
                await waiter
            finally:
                waiters.pop(waiter, None)

    def _wake_waiters(self) -> None:
        waiters, self._waiters = self._waiters, _NOBODY
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def ping(self, payload: bytes) -> None:
        """Sends a ping for the heartbeat."""
        if self.connection.is_open:
            self.connection.send(OpCode.PING, payload)
            self.flush()

    def closed_error(self) -> ConnectionClosed:
        """The error for a sender after the end of the connection."""
        return self.connection.closed_error()

    # Implemented by `ConnectionProtocol`

    @property
    def close_timeout(self) -> float:
        raise NotImplementedError

    def update_direct(self) -> None:
        raise NotImplementedError

    def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        raise NotImplementedError

    def hook_failed(self, error: BaseException) -> None:
        raise NotImplementedError

    def close_with(self, payload: bytes) -> None:
        raise NotImplementedError


def _let_go(burst: codec.Burst) -> None:
    burst.held = False
