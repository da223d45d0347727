"""Between an asyncio transport and a view: carries bytes to the connection, messages to the hooks, and bytes back.

    transport -> buffer_updated -> Connection -> Dispatcher -> hooks
    hooks -> send -> Connection.outgoing -> flush -> transport

While the messages of one read are handled, what is sent is *corked*: gathered, and written at once at the end of the
read. At any other time it is written at once.

A connection ends by one path: a close frame leaves, then the peer's comes or a deadline passes, then the transport is
closed, and when it is lost `_finish` sees to the handlers and to `on_close`.
"""

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, cast

from .connection import Connection
from .dispatch import Dispatcher, FrameQueue, start_task
from .exceptions import ConnectionClosed
from .heartbeat import Heartbeat
from .logging import log_message, logger
from .opcodes import CloseCode, OpCode
from .sent import SENT
from .transport import receive_buffer

if TYPE_CHECKING:
    from .view import WebSocketView

__all__ = ["WebSocketProtocol"]

_CORK_LIMIT = 65536  # bytes gathered at most before they are written

_FLUSH_TIMEOUT = 1.0  # seconds for a close frame to leave when nobody waits for the peer any more

_HOLD_INBOX = 1
_HOLD_WRITES = 2
_HOLD_START = 4


class WebSocketProtocol(asyncio.BufferedProtocol):
    """One connection of one view.

    Args:
        view: Whose hooks are called.
        connection: The rules; nothing has been received yet.
        handle: Takes (payload, opcode) of each message.
        pull: The view's own receive loop, which pulls frames, instead of having `handle` called.
        by_frame: Whether all that the view sends goes through its own `send_frame`.
    """

    __slots__ = (
        "_alive",
        "_buffer",
        "_call_on_close",
        "_closed",
        "_corked",
        "_deadline",
        "_finishing",
        "_holds",
        "_log_close",
        "_lost",
        "_pull",
        "_streaming",
        "_tasks",
        "_turns",
        "_waiters",
        "_writes_paused",
        "by_frame",
        "connection",
        "dispatcher",
        "frames",
        "handle",
        "heartbeat",
        "loop",
        "thread",
        "transport",
        "view",
    )

    transport: asyncio.Transport

    def __init__(
        self,
        view: "WebSocketView",
        connection: Connection,
        handle: Callable[[bytes, OpCode], Awaitable[None]],
        pull: Callable[[], Awaitable[None]] | None = None,
        by_frame: bool = False,
    ) -> None:
        self.view = view
        self.connection = connection
        self.handle = handle
        self.by_frame = by_frame
        self._pull = pull
        self.thread = threading.get_ident()
        self.loop = loop = asyncio.get_running_loop()
        self._buffer = receive_buffer(loop)
        self.dispatcher = Dispatcher(self, loop, view.MAX_CONCURRENT_MESSAGES)
        self.frames = FrameQueue(self, loop) if pull is not None else None
        self.heartbeat = Heartbeat(self, loop)
        self._alive = False
        self._corked = False
        self._holds = _HOLD_START
        self._writes_paused = False
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._turns: deque[asyncio.Future[None]] = deque()
        self._streaming = False
        self._deadline: asyncio.TimerHandle | None = None
        self._lost = False
        self._closed: asyncio.Future[None] = loop.create_future()
        self._finishing: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []  # loops of the view's own
        self._call_on_close = False
        self._log_close = True

    def start(self, early: bytes, heartbeat: Callable[[], Awaitable[None]] | None) -> None:
        """Begins: `on_open`, then messages.

        Args:
            early: What has been received already.
            heartbeat: The view's own heartbeat loop.
        """
        view = self.view
        self._call_on_close = True
        self._corked = True
        try:
            if heartbeat is None:
                self.heartbeat.start()
            else:
                self._tasks.append(start_task(self.loop, self._loop_of_view(heartbeat)))
            if self._pull is None:
                self.dispatcher.open(view.on_open)
            else:
                self.dispatcher.open(None)
                self._tasks.append(start_task(self.loop, self._loop_of_view(self._pull)))
            if early:
                self._received(self.connection.receive(early), self.dispatcher.deliver_soon)
                self.connection.respond()
        finally:
            self._corked = False
            self.flush()
        self._release(_HOLD_START)
        self._move_on()

    # From the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are not instances of it

    def get_buffer(self, sizehint: int) -> bytearray | memoryview:
        return self.connection.get_buffer(self._buffer)

    def buffer_updated(self, nbytes: int) -> None:
        self._alive = True
        self._corked = True
        try:
            messages = self.connection.buffer_updated(self._buffer, nbytes)
            if messages:
                self._received(messages, self.dispatcher.deliver)
            if self.connection.needs_response:
                self.connection.respond()
        finally:
            self._corked = False
            self.flush()
        if not self.connection.is_open:
            self._move_on()

    def eof_received(self) -> None:
        self.connection.receive_eof()

    def pause_writing(self) -> None:
        self._writes_paused = True
        # A peer that does not read what it is sent gets nothing handled either, so that neither side piles up.
        self._hold(_HOLD_WRITES)

    def resume_writing(self) -> None:
        self._writes_paused = False
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
        self._release(_HOLD_WRITES)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        connection = self.connection
        connection.receive_eof()
        if self._deadline is not None:
            self._deadline.cancel()
        self.heartbeat.stop()
        for waiters in (self._waiters, self._turns):
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_exception(self._closed_error())
        self._waiters.clear()
        if self.frames is not None:
            self.frames.end()
        self._finishing = start_task(self.loop, self._finish())

    # Receiving

    def _received(
        self,
        messages: list[tuple[int, bytes]],
        deliver: Callable[[list[tuple[int, bytes]]], None],
    ) -> None:
        if self.connection.control:
            for opcode, payload in messages:
                if opcode == OpCode.PONG:
                    self.heartbeat.pong(payload)
            if self.frames is None:
                messages = [message for message in messages if message[0] < OpCode.CLOSE]
        if self.frames is not None:
            self.frames.put(messages)
        else:
            deliver(messages)

    def _hold(self, reason: int) -> None:
        if not self._holds and not self._lost and not self.connection.is_over:
            self.transport.pause_reading()
        self._holds |= reason

    def _release(self, reason: int) -> None:
        held, self._holds = self._holds, self._holds & ~reason
        if held and not self._holds and not self._lost:
            self.transport.resume_reading()

    def hold_inbox(self) -> None:
        """No more messages for now."""
        if not self.connection.close_sent:  # else they are dropped, and the peer's close frame is waited for
            self._hold(_HOLD_INBOX)

    def release_inbox(self) -> None:
        """Messages again."""
        if self._holds & _HOLD_INBOX:
            self._release(_HOLD_INBOX)

    def take_sign_of_life(self) -> bool:
        """Whether anything came since the last call; while reading is on hold nobody can tell, and that counts."""
        alive, self._alive = self._alive, False
        return alive or self._holds != 0

    # Sending

    def send(self, opcode: int, payload: bytes, fin: bool = True) -> Awaitable[None]:
        """Sends a message or its first fragment, in turn if a fragmented message is under way; or any other frame.

        Raises:
            ConnectionClosed: The connection is closing or gone.
        """
        if (self._turns or self._is_occupied) and OpCode.CONTINUATION < opcode < OpCode.CLOSE:
            return self._send_in_turn(opcode, payload, fin)
        self._queue(opcode, payload, fin)
        return self._written()

    def _queue(self, opcode: int, payload: bytes, fin: bool) -> None:
        connection = self.connection
        size = self.view.MAX_FRAME_SIZE
        if size is not None and len(payload) > size and opcode < OpCode.CLOSE:
            view = memoryview(payload)
            for start in range(0, len(view) - size, size):
                connection.send(opcode, bytes(view[start : start + size]), False)
                opcode = OpCode.CONTINUATION
            payload = bytes(view[start + size :])
        connection.send(opcode, payload, fin)
        if self._turns:
            self._pass_turn()

    async def send_stream(self, opcode: int, parts: Iterable[bytes] | AsyncIterable[bytes]) -> None:
        """Sends a message whose fragments are made one after the other.

        If making one fails, the message cannot be finished, and the connection ends with 1011.
        """
        await self._take_turn()
        self._streaming = True
        try:
            if isinstance(parts, AsyncIterable):
                async for part in parts:
                    self.connection.send(opcode, part, fin=False)
                    opcode = OpCode.CONTINUATION
                    await self._written()
            else:
                for part in parts:
                    self.connection.send(opcode, part, fin=False)
                    opcode = OpCode.CONTINUATION
                    await self._written()
            self.connection.send(opcode, b"")
        except BaseException:
            self.close(CloseCode.INTERNAL_ERROR, "message not finished")
            raise
        finally:
            self._streaming = False
            self._pass_turn()
        await self._written()

    def ping(self, payload: bytes) -> None:
        """Sends a ping for the heartbeat."""
        if self.connection.is_open:
            self.connection.send(OpCode.PING, payload)
            self.flush()

    def flush(self) -> None:
        """Hands what is to be sent to the transport."""
        connection = self.connection
        if connection.outgoing_size:
            chunks, size = connection.take_outgoing()
            if self._lost:
                return
            if len(chunks) == 1:
                self.transport.write(chunks[0])
            elif size <= _CORK_LIMIT:
                self.transport.write(b"".join(chunks))
            else:
                self.transport.writelines(chunks)

    def _written(self) -> Awaitable[None]:
        """Writes unless corked; to be awaited, which takes a while only above the high-water mark."""
        if not self._corked or self.connection.outgoing_size > _CORK_LIMIT:
            self.flush()
        return self._until_writable() if self._writes_paused else SENT

    async def _until_writable(self) -> None:
        if self._lost:
            raise self._closed_error()
        waiter = self.loop.create_future()
        self._waiters.append(waiter)
        await waiter

    @property
    def _is_occupied(self) -> bool:
        """Whether a data message is under way, into which no other may come."""
        return self._streaming or self.connection.fragmenting

    async def _send_in_turn(self, opcode: int, payload: bytes, fin: bool) -> None:
        await self._take_turn()
        self._queue(opcode, payload, fin)
        await self._written()

    async def _take_turn(self) -> None:
        """Waits until the data messages that were sent before are finished."""
        if not (self._turns or self._is_occupied):
            return
        turn = self.loop.create_future()
        self._turns.append(turn)
        try:
            await turn
        except BaseException:
            self._turns.remove(turn)
            self._pass_turn()
            raise
        self._turns.remove(turn)

    def _pass_turn(self) -> None:
        if self._turns and not self._is_occupied and not self._turns[0].done():
            self._turns[0].set_result(None)

    # Closing

    def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Begins to close; does nothing if that has begun.

        Raises:
            ValueError: The code may not be sent.
        """
        self.connection.close(code, reason)
        if not self._corked:
            self.flush()
            self._move_on()

    def close_with(self, payload: bytes) -> None:
        """`close` with a close frame's payload."""
        code = int.from_bytes(payload[:2]) if payload else int(CloseCode.NO_STATUS_RCVD)
        self.close(code, payload[2:].decode(errors="replace"))

    def hook_failed(self, error: BaseException) -> None:
        """A hook has raised: that is logged, and the peer told no more than that it happened."""
        logger.error("%s: error in a hook of %s", self.view.request.path, self.view, exc_info=error)
        self.close(CloseCode.INTERNAL_ERROR, "internal error")

    def terminate(self) -> None:
        """Closes without waiting for the peer; handlers that run are cancelled."""
        self.close(CloseCode.GOING_AWAY)
        if not self._lost:
            self.transport.close()
            self.loop.call_later(_FLUSH_TIMEOUT, self.transport.abort)
        for task in self._hook_tasks():
            task.cancel()

    async def until_closed(self) -> None:
        """Until the transport is gone and every hook has ended."""
        await asyncio.shield(self._closed)

    async def until_lost(self, call_on_close: bool, log: bool) -> None:
        """Until the transport is gone; `on_close` is not called and nothing logged unless wished."""
        self._call_on_close = self._call_on_close and call_on_close
        self._log_close = self._log_close and log
        while not self._lost:
            waiter = self.loop.create_future()
            self._waiters.append(waiter)
            with contextlib.suppress(ConnectionClosed):
                await waiter

    def _closed_error(self) -> ConnectionClosed:
        connection = self.connection
        return ConnectionClosed(connection.close_code or CloseCode.ABNORMAL_CLOSURE, connection.close_reason)

    def _move_on(self) -> None:
        """Takes a connection that is closing one step further to its end."""
        connection, transport = self.connection, self.transport
        if connection.is_open or self._lost or transport.is_closing():
            return
        if self._deadline is None:
            self._deadline = self.loop.call_later(self.view.CLOSE_TIMEOUT, transport.abort)
            self.heartbeat.stop()
            self._release(_HOLD_INBOX | _HOLD_WRITES)
            if connection.failed is not None and transport.can_write_eof():
                transport.write_eof()
        # After a failure the peer is waited for: closed with bytes of it unread, the connection would be reset, and our
        # close frame lost on its way.
        if connection.is_over and not (connection.failed and transport.can_write_eof()):
            transport.close()

    def _hook_tasks(self) -> set[asyncio.Task[None]]:
        tasks = {*self.dispatcher.workers, *self._tasks}
        return {task for task in tasks if not task.done() and task is not asyncio.current_task()}

    async def _loop_of_view(self, loop: Callable[[], Awaitable[None]]) -> None:
        """Runs a receive or heartbeat loop that the view has overridden; an error in it ends the connection."""
        try:
            await loop()
        except ConnectionClosed:
            pass
        except TimeoutError:
            self.close(CloseCode.GOING_AWAY, "no pong")
        except Exception as error:
            self.hook_failed(error)

    async def _finish(self) -> None:
        """The transport is gone: what had come is handled, then `on_close` runs, then the handlers end."""
        view, dispatcher = self.view, self.dispatcher
        deadline = self.loop.time() + view.CLOSE_TIMEOUT
        try:
            async with asyncio.timeout_at(deadline):
                await dispatcher.until_started()
        except TimeoutError:
            logger.warning("%s: %d messages were not handled in time", view.request.path, len(dispatcher.inbox))
        dispatcher.stop()
        view.connection_ended()
        connection = self.connection
        if self._log_close:
            words = f"{connection.close_code} {connection.failed or connection.close_reason}".rstrip()
            log_message(view.request, f"{view.request.path} [WebSocket] [CLOSE] {words}")
        if self._call_on_close:
            try:
                await view.on_close(connection.close_received)
            except (Exception, asyncio.CancelledError) as error:
                logger.error("%s: error in on_close of %s", view.request.path, view, exc_info=error)
        tasks = self._hook_tasks()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=max(deadline - self.loop.time(), 0))
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
        if not self._closed.done():
            self._closed.set_result(None)
