"""Between an asyncio transport and a view: carries bytes to the connection, messages to the hooks, and bytes back.

    transport -> buffer_updated -> MessageReader -> Dispatcher -> on_receive
    send -> FrameWriter -> flush -> transport

That is the hot path, which the codec has (`HotPath`). Here is the longer way, for control frames, extensions of a
user's own, breaches of the rules, and messages that are sent in parts.

While the messages of one read are handled, what is sent is *corked*: gathered, and written at once at the end of the
read. At any other time it is written at once.

A connection ends by one path: a close frame leaves, then `Closing` sees to the transport until it is lost, and then
`Hooks` to the handlers and to `on_close`.
"""

import asyncio
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextvars import Context, copy_context
from functools import partial
from typing import Any, cast

from .. import codec
from ..codec import SENT
from ..exceptions import ConnectionClosed, ProtocolError
from ..frame import Frame
from ..logging import logger
from ..opcodes import CloseCode, OpCode
from ..sansio.connection import Connection, check_close_code
from . import stepping
from .closing import Closing
from .decoding import Decoding
from .ending import Hooks
from .endpoint import Endpoint, Settings
from .flow_control import Hold, Intake
from .frame_queue import FrameQueue
from .heartbeat import Heartbeat
from .inbox import Inbox
from .loop import receive_buffer
from .pending import Pending
from .prepared import Prepared
from .rate_limit import RateLimit
from .sender import LARGE, Sender
from .slow_consumer import Answer, SlowConsumer
from .transports import NO_BACKLOG, backlog, plain_socket

__all__ = ["ConnectionProtocol"]

_JOIN_LIMIT = 65536  # bytes that are rather copied together than written one by one
_WRITE_LIMIT = 65536  # what transports have by themselves

_SHARED_LIMIT = 1048576  # bytes of a message that is compressed at once for many; larger ones take the ordinary way
_SWAMPED = 64  # times WRITE_LIMIT that may wait for a peer to which messages are sent without waiting

_NOBODY: "dict[asyncio.Future[None], None]" = {}  # of all connections on which nobody waits


class ConnectionProtocol(codec.HotPath, asyncio.BufferedProtocol):
    """One connection of one endpoint.

    Args:
        endpoint: The view, or an ASGI session.
        connection: The rules; nothing has been received yet.
        handle: Takes (payload, opcode) of each message.
        pull: The view's own receive loop, which pulls frames, instead of having `handle` called.
        send_frame: The view's own method, through which everything is sent that the view sends.
        inbox: Takes the messages, for who asks for them, instead of having `handle` called.

    Attributes:
        context: Of the connection: `on_open` and `on_close` run in it, and each handler in a copy.
    """

    __slots__ = (
        "_backlog",
        "_closing",
        "_decoding",
        "_hooks",
        "_intake",
        "_log_close",
        "_pull",
        "_rate_limit",
        "_sender",
        "_slow_consumer",
        "_waiters",
        "_when_lost",
        "closed",
        "connection",
        "context",
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
        inbox: Inbox | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.loop = loop = asyncio.get_running_loop()
        self.thread = threading.get_ident()
        self.connection = connection
        self.reader = connection.reader
        self.writer = connection.writer
        self.buffer = receive_buffer(loop)
        self.context: Context = copy_context()
        self._decoding: Decoding | None = None
        self.frames: FrameQueue | None = None
        if inbox is not None:
            self.dispatcher = inbox
            inbox.attach(self)
        else:
            assert handle is not None
            limit, waiting = endpoint.MAX_CONCURRENT_MESSAGES, endpoint.MAX_WAITING_MESSAGES
            most = waiting, endpoint.MAX_WAITING_BYTES
            self.dispatcher = dispatcher = codec.Dispatcher(self, loop, self.context, handle, limit, most, stepping)
            if pull is not None:
                self.frames = FrameQueue(self, *most)
            elif connection.extensions:
                dispatcher.encoded = connection.encoded
                dispatcher.decode = connection.decode
                dispatcher.decoded_at_once = self.decoding.at_once
        self._sender = Sender(self, send_frame) if send_frame is not None else None
        self._rate_limit = RateLimit(endpoint.RATE_LIMIT, loop.time()) if endpoint.RATE_LIMIT else None
        self._slow_consumer = _slow_consumer_of(endpoint)
        self.heartbeat = Heartbeat(self, loop)
        self.sent = SENT
        self.busy = False
        self.fd = -1
        self.alive = self.corked = self.lost = self.writes_paused = False
        deflate = connection.deflate
        self.compress = None if deflate is None else deflate.compress
        self.threshold = 0 if deflate is None else deflate.threshold
        self.limit_frames(sys.maxsize if endpoint.MAX_FRAME_SIZE is None else endpoint.MAX_FRAME_SIZE)
        self.direct_in = self.direct_out = False
        self._pull = pull
        self._intake: Intake | None = None
        self._backlog = NO_BACKLOG
        self._waiters: dict[asyncio.Future[None], None] = _NOBODY
        self._closing: Closing | None = None
        self.closed: asyncio.Future[None] = loop.create_future()
        self._hooks: Hooks | None = None
        self._when_lost: tuple[Callable[[Any], object], ...] = ()
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
        self.cork()
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
            self.uncork()
        if early:
            # In a callback of its own, for messages must not be delivered while a task is running; and nothing that is
            # read may overtake it.
            self.intake.hold(Hold.EARLY)
            self.loop.call_soon(self._receive_early, early)
        elif self._intake is None or not self._intake.holds:
            self.resume_reading()
        self.move_on()

    def _receive_early(self, early: bytes) -> None:
        self.cork()
        try:
            self.received(self.reader.receive(early))
        finally:
            self.uncork()
        self.intake.release(Hold.EARLY)
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
        self.intake.hold(Hold.WRITES)

    def resume_writing(self) -> None:
        self.writes_paused = False
        if self._slow_consumer is not None:
            self._slow_consumer.lags = False
            self.update_direct()
        self.alive = True
        self.intake.release(Hold.WRITES)
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
        if self._intake is not None:
            self._intake.stop()
        if self._hooks is not None:
            self._hooks.stop_beating()
        if self._waiters:
            self._wake_waiters()
        if self._sender is not None:
            self._sender.lost(self.closed_error())
        if self.frames is not None:
            self.frames.inbox.end()
        dispatcher = self.dispatcher
        if self._hooks is None and not (dispatcher.workers or dispatcher.inbox or dispatcher.decoding):
            dispatcher.stop()
            self.report_end()
            self.report_closed()
        else:
            stepping.start_task(self.loop, self.hooks.finish())

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
        control = self.reader.control
        messages = connection.received(messages, control)
        if control:
            for opcode, payload in messages:
                if opcode == OpCode.PONG:
                    self.heartbeat.pong(payload)
        if self.frames is not None:
            self.frames.inbox.deliver(messages)
        else:
            self.dispatcher.deliver([message for message in messages if message[0] & 0b1111 < OpCode.CLOSE])
        self._respond_if_due()

    def refuse(self, error: BaseException) -> None:
        """The next message could not be decoded."""
        if self.closed.done():
            return
        self.connection.refuse(error)
        self.respond()

    def _respond_if_due(self) -> None:
        """Answers a close frame or a breach, unless a thread decodes a message that came before it."""
        if self.connection.needs_response and not self.dispatcher.decoding:
            self.respond()

    def respond(self) -> None:
        """Answers what was received last, behind the replies to what came before."""
        connection = self.connection
        if connection.fault is not None:
            fault, connection.fault = connection.fault, None
            logger.error("%r: a message could not be decoded", self.endpoint._label, exc_info=fault)
        if connection.is_breached:
            self._stop_handling()  # RFC 6455, section 7.1.7
        if self._sender is not None and self._sender.must_finish and connection.is_writable:
            connection.prepare_response()
            self.update_direct()
            self._sender.close_behind(self._respond)
        else:
            self._respond()

    def _respond(self) -> None:
        self.connection.respond()
        self._written_at_once()

    @property
    def decoding(self) -> Decoding:
        """Decodes messages for whom the codec does not; made when it is needed."""
        if self._decoding is None:
            self._decoding = Decoding(self.loop, self.connection)
        return self._decoding

    def decode_later(self, message: tuple[int, bytes]) -> None:
        """Has a thread decode a large message, with which the dispatcher resumes."""
        self.decoding.start(message).add_done_callback(self._decoded)

    def _decoded(self, job: "asyncio.Future[tuple[int, bytes]]") -> None:
        error = cast("Exception | None", job.exception())
        if self.closed.done():
            return
        self.cork()
        try:
            if error is not None:
                self.refuse(error)
            self.dispatcher.resume(job.result() if error is None else None)
            self._respond_if_due()
        finally:
            self.uncork()
        self.move_on()

    # Messages that wait

    @property
    def intake(self) -> Intake:
        """Holds reading; made when it is needed."""
        if self._intake is None:
            self._intake = Intake(self)
        return self._intake

    @property
    def is_open(self) -> bool:
        """Whether no close frame has left, and the stream has not ended."""
        return self.connection.is_open

    def resume_reading(self) -> None:
        """Takes bytes; not in the context of whoever is running, which would be that of everything that is received."""
        if not self.lost and not self.transport.is_reading():
            self.context.copy().run(self.transport.resume_reading)

    def drain_inbox(self) -> None:
        """Has messages handled that had to wait."""
        self.cork()
        try:
            self.dispatcher.drain()
            self._respond_if_due()
        finally:
            self.uncork()
        self.move_on()

    def hold(self, reason: Hold) -> None:
        """Takes no more bytes, as `Intake.hold`."""
        self.intake.hold(reason)

    def release(self, reason: Hold) -> None:
        """Takes bytes again, as `Intake.release`."""
        if self._intake is not None:
            self._intake.release(reason)

    def hold_inbox(self) -> None:
        """No more messages for now."""
        self.hold(Hold.INBOX)

    def release_inbox(self) -> None:
        """Messages again."""
        self.release(Hold.INBOX)
        if self.frames is not None:
            self.frames.inbox.wake()

    def inbox_emptied(self) -> None:
        """No message waits for a handler."""
        if self._hooks is not None:
            self._hooks.inbox_emptied()

    def take_sign_of_life(self) -> bool:
        """Whether anything has come from the peer since the last call.

        Where it does not read, or a ping waits behind much else, it has to take some of what waits for it.
        """
        alive, self.alive = self.alive, False
        holds = self._intake.holds if self._intake is not None else Hold(0)
        if holds:
            alive = self.intake.has_come() or alive
        if alive or (holds and not holds & Hold.WRITES):
            return alive
        before, self._backlog = self._backlog, backlog(self.transport)
        return (holds != 0 or sum(before) >= _WRITE_LIMIT) and self._backlog.has_shrunk(before)

    @property
    def is_deaf(self) -> bool:
        """Whether a pong could not have come: reading is on hold, and no room is left for it."""
        return self._intake is not None and self._intake.is_deaf

    # Sending

    def update_direct(self) -> None:
        """Sees whether plain messages may go straight to the dispatcher, and straight to the writer."""
        connection = self.connection
        self.direct_in = (
            self._pull is None
            and self._rate_limit is None
            and (not connection.extensions or connection.deflate is not None)
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

    @property
    def is_sending(self) -> bool:
        """Whether something that was sent has not been handed to the transport."""
        return self.writer.size > 0 or (self._sender is not None and not self._sender.is_direct)

    def send_otherwise(self, data: Any, opcode: int) -> Coroutine[Any, Any, None]:
        """Sends what is no plain message on an open connection."""
        if self._slow_consumer is not None and opcode < OpCode.CLOSE and not self.is_elsewhere and self._drops():
            return SENT
        return self.sender.send(data, opcode)

    def send_frame(self, frame: Frame) -> Coroutine[Any, Any, None]:
        """Sends a frame as it is, other than a close frame; a whole message may be dropped."""
        is_message = frame.fin and OpCode.CONTINUATION < frame.opcode < OpCode.CLOSE
        if is_message and self._drops():
            return SENT
        return self.sender.send_frame(frame.opcode, frame.payload, frame.fin)

    def send_prepared(self, message: Prepared) -> bool:
        """Sends a message to this connection among others, where `codec.fan_out` has no shorter way; never waits.

        Nobody waits for a peer that reads slowly, whatever SLOW_CONSUMER says, so what waits for it is bounded.

        Returns:
            Whether the message leaves, as far as is known: another thread may yet find the connection closed.
        """
        connection = self.connection
        if not connection.is_open or self.broken:
            return False
        if self.is_elsewhere:
            return self._call_soon(self.send_prepared, message)
        if self._is_swamped(len(message.payload)):
            logger.warning("%r: closed, as broadcasts wait for a peer that reads too slowly", self.endpoint._label)
            self.close(CloseCode.POLICY_VIOLATION, "too slow to read")
            return False
        is_direct = self.direct_out and type(self.writer) is codec.FrameWriter and not connection.fragmenting
        if is_direct and message.size <= min(self.frame_size, _SHARED_LIMIT):
            self.write_prepared(message)
            return True
        dropped = self.dropped
        try:
            _ = self.send(message.payload, message.opcode)  # which has sent it; nobody waits for room
        except ConnectionClosed:
            return False
        return self.dropped == dropped

    def _is_swamped(self, size: int) -> bool:
        """Whether so much waits for the peer that nothing more may."""
        waiting = self.writer.size + self.transport.get_write_buffer_size()
        if self._sender is not None:
            waiting += self._sender.waiting + self._sender.begun * size
        return self._slow_consumer is None and waiting > _SWAMPED * max(self.endpoint.WRITE_LIMIT, _WRITE_LIMIT)

    def _call_soon(self, callback: Callable[..., object], *args: Any) -> bool:
        """Calls back in the thread of the loop; false if that is closed."""
        try:
            self.loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            if not self.loop.is_closed():
                raise
            return False
        return True

    def _drops(self) -> bool:
        """Whether the next message is not to be sent, as the peer reads too slowly.

        Raises:
            ConnectionClosed: That ends the connection.
        """
        slow = self._slow_consumer
        if slow is None or not self.connection.is_open:
            return False
        answer = slow.answer(self.sender.waiting)
        if answer is Answer.CLOSE:
            logger.warning("%r: closed, as the peer reads too slowly", self.endpoint._label)
            self.close(CloseCode.POLICY_VIOLATION, "too slow to read")
            raise ConnectionClosed(CloseCode.POLICY_VIOLATION, "too slow to read")
        if answer is Answer.DROP and slow.has_begun:
            logger.warning("%r: the peer reads too slowly: messages are dropped", self.endpoint._label)
        return answer is Answer.DROP

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
        if not (self.corked or self.writes_paused) or self.writer.size > codec.CORK_LIMIT:
            self.flush()
        if self.writes_paused:
            return self.until_writable()
        return self.pace() if self.buffer.credit < 0 else SENT

    def drained(self) -> Coroutine[Any, Any, None]:
        """`written` for what is never dropped: to be awaited, which takes a while where `SLOW_CONSUMER` drops too."""
        if not self.corked or self.writer.size > codec.CORK_LIMIT:
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
        if self.frames is not None:
            self.frames.inbox.drop_messages()
        self._stop_handling()
        if self._sender is not None and self._sender.must_finish:
            connection.prepare_close(code, reason)
            self.update_direct()
            self._sender.close_behind(partial(self._close, code, reason))
        else:
            self._close(code, reason)

    def _close(self, code: int, reason: str = "") -> None:
        self.connection.close(code, reason)
        if self.connection.needs_response:
            self.connection.respond()
        self._written_at_once()

    def _written_at_once(self) -> None:
        if not self.corked:
            self.flush()
            self.move_on()

    def _stop_handling(self) -> None:
        """The connection closes, and not at the peer's wish: no handler starts any more."""
        left = self.dispatcher.stop()
        if left:
            logger.info("%r: closed with %d messages waiting, which are not handled", self.endpoint._label, left)

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
            exchanged = connection.ended or (connection.is_over and connection.failed is None and not connection.client)
            if exchanged and self.fd >= 0 and not transport.is_closing() and not transport.get_write_buffer_size():
                transport.close()  # and nothing is left that could take its time
                return
        self._begun_closing().move_on()

    def _begun_closing(self) -> Closing:
        if self._closing is None:
            self._closing = Closing(self, self.endpoint.CLOSE_TIMEOUT)
            self.heartbeat.stop()
            if self._intake is not None:
                self._intake.release(Hold.INBOX | Hold.FRAMES | Hold.WRITES)
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
        if self.dispatcher.workers:
            await asyncio.wait([*self.dispatcher.workers], timeout=patience)

    def terminate(self) -> None:
        """Closes without waiting for the peer; handlers that run are cancelled."""
        self.terminated = True
        self.dispatcher.stop()
        self._close(CloseCode.GOING_AWAY)
        if not self.lost:
            self.transport.close()
            self._begun_closing().abort_in(Hooks.FLUSH_TIMEOUT)
        if not self.closed.done():
            self.hooks.cancel()

    @property
    def running(self) -> set["asyncio.Task[None]"]:
        """The tasks of hooks that have not ended."""
        return {*self.dispatcher.workers} if self._hooks is None else self._hooks.running()

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

    def hook_failed(self, error: BaseException) -> None:
        """A hook has raised: that is logged, and the peer told no more than that it happened.

        Not if the hook's task was cancelled, which is for whoever cancelled it; nor if the hook tried to send when the
        connection had ended, which is no fault of its own.
        """
        if isinstance(error, asyncio.CancelledError):
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                return
        if not self.connection.is_open and _is_connection_closed(error):
            return
        logger.error("%r: error in a hook of %s", self.endpoint._label, type(self.endpoint).__name__, exc_info=error)
        self.dispatcher.stop()
        self.close(CloseCode.INTERNAL_ERROR, "internal error")

    def when_lost(self, callback: Callable[[Any], object]) -> None:
        """Calls back with the endpoint when the connection is lost; once, however often it is asked for.

        Raises:
            ConnectionClosed: The connection is closing or gone.
        """
        if not self.connection.is_open:
            raise self.closed_error()
        if callback not in self._when_lost:
            self._when_lost += (callback,)

    def report_end(self) -> None:
        """Every message has been handed to its handler."""
        callbacks, self._when_lost = self._when_lost, ()
        for callback in callbacks:
            callback(self.endpoint)
        self.endpoint._connection_lost(self._log_close)

    def report_closed(self, hung: bool = False) -> None:
        """Every hook has ended; or some are `hung`, which nobody waits for any more."""
        if not self.closed.done():
            self.closed.set_result(None)
        if not hung and self.frames is None and (self._sender is None or self._sender.is_direct):
            # Only what the view tells of the end is of use now. Without cycles the rest is freed at once, not by the
            # collector.
            self.heartbeat.forget()
            self.dispatcher.forget()
            self._hooks = self._intake = self._sender = None
            del self.endpoint

    def closed_error(self) -> ConnectionClosed:
        """What tells a sender that the connection has ended."""
        return self.connection.closed_error()


def _slow_consumer_of(settings: Settings) -> SlowConsumer | None:
    policy = settings.SLOW_CONSUMER
    return None if policy == "wait" else SlowConsumer(policy, settings.WRITE_LIMIT)


def _let_go(buffer: "codec.ReceiveBuffer") -> None:
    buffer.held = False


def _is_connection_closed(error: BaseException) -> bool:
    """Whether an exception, or each one of a group, tells that the connection has ended."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(ConnectionClosed)[1] is None
    return isinstance(error, ConnectionClosed)
