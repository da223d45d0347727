"""Between an asyncio transport and a view: carries bytes to the connection, messages to the hooks, and bytes back.

    transport -> buffer_updated -> MessageReader -> Dispatcher -> on_receive
    send -> FrameWriter -> flush -> transport

That is the hot path, which the codec has (`HotPath`); here is the rest, and the way that everything takes which is not
a plain message on an open connection: control frames, extensions, breaches of the rules, what is sent in parts.

While the messages of one read are handled, what is sent is *corked*: gathered, and written at once at the end of the
read. At any other time it is written at once.

A connection ends by one path: a close frame leaves, then `Closing` sees to the transport until it is lost, and then
`Hooks` to the handlers and to `on_close`.
"""

import asyncio
import contextlib
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from . import _codec, tasks
from ._codec import SENT
from .closing import Closing
from .commons import receive_buffer
from .connection import Connection, check_close_code
from .endpoint import Endpoint
from .exceptions import ConnectionClosed, ExtensionError, ProtocolError
from .flow import RateLimit, SlowConsumer
from .frame import Frame
from .frame_queue import FrameQueue
from .heartbeat import Heartbeat
from .hooks import Hooks
from .inflating import Inflating
from .logging import logger
from .opcodes import CloseCode, OpCode
from .pending import Pending
from .sending import LARGE, Sender
from .transport import NO_BACKLOG, backlog, plain_socket

__all__ = ["WebSocketProtocol"]

_CORK_LIMIT = 16384  # bytes gathered at most before they are written
_JOIN_LIMIT = 65536  # bytes that are rather copied together than written one by one
_WRITE_LIMIT = 65536  # what transports have by themselves

# Why reading is on hold.
_HOLD_INBOX = 1
_HOLD_WRITES = 2
_HOLD_EARLY = 4
_HOLD_INFLATING = 8

_NOBODY: "dict[asyncio.Future[None], None]" = {}  # of all connections on which nobody waits


class WebSocketProtocol(_codec.HotPath, asyncio.BufferedProtocol):
    """One connection of one endpoint.

    Args:
        endpoint: The view, or an ASGI session.
        connection: The rules; nothing has been received yet.
        handle: Takes (payload, opcode) of each message.
        pull: The view's own receive loop, which pulls frames, instead of having `handle` called.
        send_frame: The view's own method, through which everything is sent that the view sends.
        dispatcher: Takes the messages instead of a `Dispatcher` that calls `handle`.
    """

    __slots__ = (
        "_backlog",
        "_closing",
        "_emptied",
        "_holds",
        "_hooks",
        "_inflating",
        "_log_close",
        "_pull",
        "_rate_limit",
        "_sender",
        "_slow_consumer",
        "_waiters",
        "closed",
        "connection",
        "endpoint",
        "frame_size",
        "frames",
        "heartbeat",
        "loop",
        "terminated",
    )

    def __init__(
        self,
        endpoint: Endpoint,
        connection: Connection,
        handle: Callable[[bytes, OpCode], Awaitable[None]] | None = None,
        pull: Callable[[], Awaitable[None]] | None = None,
        send_frame: Callable[[Frame], Awaitable[None]] | None = None,
        dispatcher: Any = None,
    ) -> None:
        self.endpoint = endpoint
        self.loop = loop = asyncio.get_running_loop()
        self.thread = threading.get_ident()
        self.connection = connection
        self.reader = connection.reader
        self.writer = connection.writer
        self.buffer = receive_buffer(loop)
        if dispatcher is None:
            assert handle is not None
            dispatcher = _codec.Dispatcher(self, loop, handle, endpoint.MAX_CONCURRENT_MESSAGES, tasks)
        self.dispatcher = dispatcher
        self.frames = FrameQueue(self, loop) if pull is not None else None
        self._sender = Sender(self, send_frame) if send_frame is not None else None
        self._rate_limit = RateLimit(endpoint.RATE_LIMIT, loop.time()) if endpoint.RATE_LIMIT else None
        self._slow_consumer = None if endpoint.SLOW_CONSUMER == "wait" else SlowConsumer(self, endpoint.SLOW_CONSUMER)
        self.heartbeat = Heartbeat(self, loop)
        self.sent = SENT
        self.busy = False
        self.fd = -1
        self.alive = self.corked = self.lost = self.writes_paused = False
        deflate = connection.deflate
        self.compress = None if deflate is None else deflate.compress
        self.threshold = 0 if deflate is None else deflate.threshold
        self.limit_frames(sys.maxsize if endpoint.MAX_FRAME_SIZE is None else endpoint.MAX_FRAME_SIZE)
        self.decode = None if deflate is None else connection.decode
        self.max_encoded = Inflating.AT_ONCE
        self._inflating = None if deflate is None else Inflating(self)
        self.direct_in = self.direct_out = False
        self._pull = pull
        self._holds = 0
        self._backlog = NO_BACKLOG
        self._waiters: dict[asyncio.Future[None], None] = _NOBODY
        self._emptied: asyncio.Future[None] | None = None
        self._closing: Closing | None = None
        self.closed: asyncio.Future[None] = loop.create_future()
        self._hooks: Hooks | None = None
        self.terminated = False
        self._log_close = True

    def start(
        self,
        early: bytes,
        on_open: Callable[[], Awaitable[None]] | None = None,
        on_close: Callable[[Frame | None], Awaitable[None]] | None = None,
        heartbeat: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Begins: `on_open`, then messages.

        Args:
            early: What has been received already.
            on_open: The view's hook, unless it does nothing.
            on_close: The same.
            heartbeat: The view's own heartbeat loop.
        """
        if on_close is not None:
            self.hooks.on_close = on_close
        self.update_direct()
        self.corked = True
        try:
            if heartbeat is None:
                self.heartbeat.start()
            else:
                self.hooks.beat(heartbeat)
            if self._pull is None:
                try:
                    self.dispatcher.open(on_open)
                except Exception as error:  # it is no coroutine function
                    self.hook_failed(error)
            else:
                self.dispatcher.open(None)
                self.hooks.pull(self._pull)
        finally:
            self.corked = False
            self.flush()
        if early:
            # In a callback of its own, for messages must not be delivered while a task is running; and nothing that is
            # read may overtake it.
            self._holds |= _HOLD_EARLY
            self.transport.pause_reading()
            self.loop.call_soon(self._receive_early, early)
        elif not self._holds and not self.transport.is_reading():
            self.transport.resume_reading()
        self.move_on()

    def _receive_early(self, early: bytes) -> None:
        self.corked = True
        try:
            self.received(self.reader.receive(early))
        finally:
            self.corked = False
            self.flush()
        self._release(_HOLD_EARLY)
        self.move_on()

    def limit_frames(self, size: int) -> None:
        """Messages of more than `size` bytes leave in fragments."""
        self.frame_size = size
        self.max_size = size if self.compress is None else min(size, LARGE - 1)

    # From the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # uvloop's are not instances of asyncio.Transport
        self.fd = plain_socket(transport)
        self.queued = True
        if self.endpoint.WRITE_LIMIT != _WRITE_LIMIT:
            self.transport.set_write_buffer_limits(self.endpoint.WRITE_LIMIT)

    def eof_received(self) -> None:
        self.connection.receive_eof()
        self.update_direct()
        self.move_on()

    def pause_writing(self) -> None:
        if self._slow_consumer is None:
            self.writes_paused = True
        else:
            self._slow_consumer.lags = True
            self.update_direct()
        # A peer that does not read what it is sent gets nothing handled either, so that neither side piles up.
        self._hold(_HOLD_WRITES)

    def resume_writing(self) -> None:
        self.writes_paused = False
        if self._slow_consumer is not None:
            self._slow_consumer.lags = False
            self.update_direct()
        self.alive = True
        self._release(_HOLD_WRITES)
        if not self.corked:
            self.flush()  # what was gathered meanwhile
        # Not at once: handlers that send all the time would fill the buffer again, and so put reading on hold, before
        # the loop has looked at what there is to read.
        self.loop.call_soon(self._wake_waiters)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.connection.receive_eof()
        self.direct_out = False
        self.heartbeat.stop()
        if self._closing is not None:
            self._closing.stop()
            self._closing = None
        if self._hooks is not None:
            self._hooks.stop_beating()
        if self._waiters:
            self._wake_waiters()
        if self._sender is not None:
            self._sender.lost(self.closed_error())
        inflating = self._inflating is not None and self._inflating.is_busy
        if self.frames is not None and not inflating:
            self.frames.end()
        if self._hooks is None and not (inflating or self.dispatcher.workers or self.dispatcher.inbox):
            self.dispatcher.stop()
            self.report_end()
            self.report_closed()
        else:
            tasks.start_task(self.loop, self.hooks.finish())

    # Receiving

    def received(self, messages: list[tuple[int, bytes]]) -> None:
        """Takes what the reader gave, by the longer way: the connection's rules first."""
        connection = self.connection
        if self._rate_limit is not None:
            count = len(messages)
            if messages and messages[-1][0] == OpCode.CLOSE:
                count -= 1  # nothing follows a close frame
            allowed = self._rate_limit.take(count, self.loop.time())
            if allowed < count:
                messages = messages[:allowed]
                connection.breach(ProtocolError("too many messages", CloseCode.POLICY_VIOLATION))
        if self._inflating is not None and self._inflating.put(messages):
            return
        self.handle(messages, self.reader.control)
        if connection.needs_response:
            self.respond()

    def refuse(self, error: Exception) -> None:
        """The next message could not be decoded."""
        if isinstance(error, (ExtensionError, ProtocolError)):
            self.connection.refuse(error)
        else:
            self.connection.fail_to_decode(error)
        self.respond()

    def respond(self) -> None:
        """Answers what was received last, behind the replies to what came before."""
        connection = self.connection
        if connection.fault is not None:
            fault, connection.fault = connection.fault, None
            logger.error("%r: a message could not be decoded", self.endpoint._label, exc_info=fault)
        if self._sender is not None and self._sender.must_finish and connection.is_writable:
            connection.prepare_response()
            self.update_direct()
            self._sender.close_behind(self._respond)
        else:
            self._respond()

    def _respond(self) -> None:
        self.connection.respond()
        if not self.corked:
            self.flush()
            self.move_on()

    def handle(self, messages: list[tuple[int, bytes]], control: bool) -> None:
        """Applies the connection's rules to messages and control frames, and hands them on."""
        messages = self.connection.received(messages, control)
        if control:
            for opcode, payload in messages:
                if opcode == OpCode.PONG:
                    self.heartbeat.pong(payload)
        if self.frames is not None:
            self.frames.put(messages)
        else:
            self.dispatcher.deliver([message for message in messages if message[0] < OpCode.CLOSE])

    def _hold(self, reason: int) -> None:
        # Once a close frame has left, messages are dropped, and the peer's close frame is waited for.
        if not self._holds and not self.lost and self.connection.is_open:
            self.transport.pause_reading()
        self._holds |= reason

    def _release(self, reason: int) -> None:
        held, self._holds = self._holds, self._holds & ~reason
        if held and not self._holds and not self.lost:
            self.transport.resume_reading()

    def hold_inbox(self) -> None:
        """No more messages for now."""
        self._hold(_HOLD_INBOX)

    def release_inbox(self) -> None:
        """Messages again."""
        if self._emptied is not None and not self._emptied.done():
            self._emptied.set_result(None)
        if self._holds & _HOLD_INBOX:
            self._release(_HOLD_INBOX)

    def hold_inflating(self) -> None:
        """Nothing more to read while a message is being decompressed."""
        self._hold(_HOLD_INFLATING)
        self.update_direct()

    def release_inflating(self) -> None:
        """Reading again."""
        self._release(_HOLD_INFLATING)
        self.update_direct()

    def take_sign_of_life(self) -> bool:
        """Whether anything came since the last call.

        While reading is on hold nobody can tell, and that counts. But where it is because the peer does not read, or a
        ping waits behind much else, the peer has to take some of what waits for it.
        """
        alive, self.alive = self.alive, False
        if alive or (self._holds and not self._holds & _HOLD_WRITES):
            return True
        before, self._backlog = self._backlog, backlog(self.transport)
        return (self._holds != 0 or sum(before) >= _WRITE_LIMIT) and self._backlog.has_shrunk(before)

    # Sending

    def update_direct(self) -> None:
        """Sees whether plain messages may go straight to the dispatcher, and straight to the writer."""
        connection = self.connection
        self.direct_in = (
            self._pull is None
            and self._rate_limit is None
            and (not connection.extensions or connection.deflate is not None)
            and not self._holds & _HOLD_INFLATING
            and not connection.closing
        )
        self.direct_out = (
            connection.is_plain
            and (self._sender is None or self._sender.is_direct)
            and (self._slow_consumer is None or not self._slow_consumer.lags)
            and not (self.busy or self.broken)
        )

    @property
    def sender(self) -> Sender:
        """The longer way out; most connections never need it, so it is made when they do."""
        if self._sender is None:
            self._sender = Sender(self)
        return self._sender

    def send_otherwise(self, data: Any, opcode: int) -> Coroutine[Any, Any, None]:
        """Sends what is no plain message on an open connection."""
        slow = self._slow_consumer
        if slow is not None and opcode < OpCode.CLOSE and not self.is_elsewhere and slow.drops():
            return SENT
        return self.sender.send(data, opcode)

    def send_frame(self, frame: Frame) -> Coroutine[Any, Any, None]:
        """Sends a frame as it is, other than a close frame; a whole message may be dropped."""
        slow = self._slow_consumer
        is_message = frame.fin and OpCode.CONTINUATION < frame.opcode < OpCode.CLOSE
        if slow is not None and is_message and slow.drops():
            return SENT
        return self.sender.send_frame(frame.opcode, frame.payload, frame.fin)

    @property
    def dropped(self) -> int:
        """Messages that were not sent, as the peer reads too slowly."""
        return 0 if self._slow_consumer is None else self._slow_consumer.dropped

    @property
    def is_elsewhere(self) -> bool:
        """Whether who calls is in another thread, or has interrupted the sending of a message, as a signal handler."""
        return self.thread != threading.get_ident() or self.busy

    def written(self) -> Coroutine[Any, Any, None]:
        """Writes unless corked; to be awaited, which takes a while only above the high-water mark."""
        if not (self.corked or self.writes_paused) or self.writer.size > _CORK_LIMIT:
            self.flush()
        if self.writes_paused:
            return self.until_writable()
        return self.pace() if self.buffer.credit < 0 else SENT

    def drained(self) -> Coroutine[Any, Any, None]:
        """`written` for what is never dropped: to be awaited, which takes a while where `SLOW_CONSUMER` drops too."""
        if not self.corked or self.writer.size > _CORK_LIMIT:
            self.flush()
        return self.until_writable() if self._is_full else self.pace()

    @property
    def _is_full(self) -> bool:
        """Whether the transport's buffer is above its high-water mark."""
        return self.writes_paused or (self._slow_consumer is not None and self._slow_consumer.lags)

    def rest(self) -> Coroutine[Any, Any, None]:
        """To be awaited where the loop may have been held for too long: lets it go, if it has."""
        buffer = self.buffer
        if buffer.held:
            return Pending(self._rest)
        buffer.held = True
        self.loop.call_soon(_let_go, buffer)
        return SENT

    async def _rest(self) -> None:
        await asyncio.sleep(0)
        if self.writes_paused:
            await self._until_writable()

    def write_chunks(self, chunks: Sequence[bytes | memoryview]) -> None:
        """Writes several bytes objects; large ones are not copied."""
        if sum(map(len, chunks)) <= _JOIN_LIMIT:
            chunks = (b"".join(chunks),)
        for chunk in chunks:
            # Not by writelines(), which forgets the high-water mark in Python 3.12.0-8 and 3.13.0-1 (CVE-2024-12254).
            self.transport.write(chunk)

    def until_writable(self) -> Coroutine[Any, Any, None]:
        """To be awaited until the transport's buffer is below its low-water mark."""
        return Pending(self._until_writable)

    async def _until_writable(self) -> None:
        while self._is_full:
            await self._wait()
            if self.lost:
                raise self.closed_error()

    async def _wait(self) -> None:
        """Until writing is resumed or the transport lost."""
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

    # Closing

    def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Begins to close; does nothing if that has begun.

        Raises:
            ValueError: The code may not be sent.
        """
        if code != CloseCode.NO_STATUS_RCVD:
            check_close_code(code)
        connection = self.connection
        if not connection.is_open:
            return
        if self._sender is not None and self._sender.must_finish:
            connection.prepare_close(code, reason)
            self.update_direct()
            self._sender.close_behind(partial(self._close, code, reason))
        else:
            self._close(code, reason)

    def _close(self, code: int, reason: str = "") -> None:
        self.connection.close(code, reason)
        if not self.corked:
            self.flush()
            self.move_on()

    def close_with(self, payload: bytes) -> None:
        """`close` with a close frame's payload; errors of `close`."""
        code = int(CloseCode.NO_STATUS_RCVD)
        if payload:
            code = int.from_bytes(payload[:2])
            check_close_code(code)
        self.close(code, payload[2:].decode(errors="replace"))

    def move_on(self) -> None:
        """Takes a connection that is closing one step further to its end."""
        connection, transport = self.connection, self.transport
        if connection.is_writable or self.lost:
            return
        if self._closing is None:
            exchanged = connection.is_over and (connection.failed is None or connection.ended)
            if exchanged and self.fd >= 0 and not transport.is_closing() and not transport.get_write_buffer_size():
                transport.close()  # and nothing is left that could take its time
                return
        self._begun_closing().move_on()

    def _begun_closing(self) -> Closing:
        if self._closing is None:
            self._closing = Closing(self, self.endpoint.CLOSE_TIMEOUT)
            self.heartbeat.stop()
            self._release(_HOLD_INBOX | _HOLD_WRITES)
            self.endpoint._connection_closing()
        return self._closing

    def shut_down(self, code: int, timeout: float) -> None:
        """Closes for a server that stops, which waits for a peer as long as that makes progress.

        Args:
            timeout: Seconds without progress after which the connection is cut.
        """
        self.close(code)
        if not self.lost:
            self._begun_closing().hurry(timeout)

    async def drain(self, patience: float) -> None:
        """Waits for the handlers at work, but no longer than `patience`; no other starts from now on."""
        self.dispatcher.stop()
        self.release_inbox()
        if self.dispatcher.workers:
            await asyncio.wait([*self.dispatcher.workers], timeout=patience)

    def terminate(self) -> None:
        """Closes without waiting for the peer; handlers that run are cancelled."""
        self.terminated = True
        self.dispatcher.stop()
        self.release_inbox()
        self._close(CloseCode.GOING_AWAY)
        if not self.lost:
            self.transport.close()
            self._begun_closing().abort_in(Hooks.FLUSH_TIMEOUT)
        if not self.closed.done():
            self.hooks.cancel()

    async def until_closed(self) -> None:
        """Until the transport is gone and every hook has ended."""
        await asyncio.shield(self.closed)

    async def until_lost(self, call_on_close: bool, log: bool) -> None:
        """Until the transport is gone; `on_close` is not called and nothing logged unless wished."""
        if not call_on_close and self._hooks is not None:
            self._hooks.on_close = None
        self._log_close = self._log_close and log
        while not self.lost:
            await self._wait()

    # Hooks

    @property
    def hooks(self) -> Hooks:
        """What runs beside the handlers of messages; most connections never need it, so it is made when they do."""
        if self._hooks is None:
            self._hooks = Hooks(self)
        return self._hooks

    def hook_failed(self, error: BaseException) -> bool:
        """A hook has raised: that is logged, and the peer told no more than that it happened.

        Returns:
            Whether it was its task that was cancelled, so that the error is to be raised on.
        """
        if isinstance(error, (KeyboardInterrupt, GeneratorExit)):
            return True
        if isinstance(error, asyncio.CancelledError):
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                return True
        if isinstance(error, ConnectionClosed) and not self.connection.is_open:
            return False  # it tried to send when the peer had gone; that is no fault of its own
        logger.error("%r: error in a hook of %s", self.endpoint._label, type(self.endpoint).__name__, exc_info=error)
        self.dispatcher.stop()
        self.release_inbox()
        self.close(CloseCode.INTERNAL_ERROR, "internal error")
        return False

    async def until_inflated(self, deadline: float) -> None:
        """Until what was being decompressed at the end has been handed on."""
        if self._inflating is not None:
            await self._inflating.until_done(deadline)
            if self.frames is not None:
                self.frames.end()

    async def until_emptied(self, deadline: float) -> None:
        """Until nothing is left in the inbox; no more messages are handled from then on."""
        dispatcher = self.dispatcher
        if dispatcher.inbox:
            self._emptied = self.loop.create_future()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(deadline):
                    await self._emptied
            if dispatcher.inbox:
                left = len(dispatcher.inbox)
                logger.warning("%r: %d messages were not handled in time", self.endpoint._label, left)
        dispatcher.stop()

    def report_end(self) -> None:
        """Every message has been handed to its handler."""
        self.endpoint._connection_lost(self._log_close)

    def report_closed(self) -> None:
        """Every hook has ended."""
        if not self.closed.done():
            self.closed.set_result(None)
        if self.frames is None and (self._sender is None or self._sender.is_direct):
            # Only what the view tells of the end is of use now. Without cycles the rest is freed at once, not by the
            # collector.
            self.heartbeat.forget()
            self.dispatcher.forget()
            self._hooks = self._inflating = self._sender = None
            del self.endpoint

    def closed_error(self) -> ConnectionClosed:
        """What tells a sender that the connection has ended."""
        return self.connection.closed_error()


def _let_go(buffer: "_codec.ReceiveBuffer") -> None:
    buffer.held = False
