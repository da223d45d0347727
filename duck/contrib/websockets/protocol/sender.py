"""The slow path of sending: streams, queued messages, the view's own frames, calls from other threads.

Data messages never interleave. While a fragmented message is incomplete, later ones are queued, and leave in the order
of the calls. Control frames may be sent in between (RFC 6455, section 5.4).

A large message to be compressed is queued too, and remains first in the queue while a thread compresses it. A stream is
queued until it begins. It runs in its own task, whether or not its result is awaited.

A close frame leaves after all earlier data that depends only on this connection. An incomplete stream, or an incomplete
message that the view sends in its own frames, is cut off.

A view's own `send_frame` may wait. So it gets the frames of a data message after those of the earlier ones; only
messages that it sends itself, or a task that it has started, do not wait for it.
"""

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine
from contextvars import ContextVar
from functools import partial
from typing import Any, Protocol

from ..codec import MESSAGE_COST, Burst
from ..exceptions import ConnectionClosed
from ..frame import Frame
from ..opcodes import CloseCode, OpCode
from ..sansio.connection import Connection
from ..sansio.payloads import check_text, parts_of, payload_of
from .interfaces import Settings
from .loop import in_thread
from .pending import Pending
from .send_queue import Parts, QueuedMessage, SendQueue
from .stepping import start_task
from .threadsafe import Owner as ThreadOwner
from .threadsafe import call_threadsafe

__all__ = ["LARGE", "Sender"]

LARGE = 262144
"""Size in bytes above which compressing a message would delay other connections too long."""

_sending: "ContextVar[Sender | None]" = ContextVar("_sending", default=None)
"""The sender whose view's own `send_frame` has called the current code."""


class Owner(ThreadOwner, Protocol):
    """The connection to send to."""

    busy: bool
    direct_out: bool

    @property
    def endpoint(self) -> Settings: ...
    @property
    def connection(self) -> Connection: ...
    @property
    def burst(self) -> Burst: ...
    @property
    def close_timeout(self) -> float: ...
    @property
    def frame_size(self) -> int: ...
    @property
    def corked(self) -> bool: ...
    @property
    def is_elsewhere(self) -> bool: ...
    def send(self, data: Any, opcode: int) -> Coroutine[Any, Any, None]: ...
    def written(self) -> Coroutine[Any, Any, None]: ...
    def drained(self) -> Coroutine[Any, Any, None]: ...
    def flush(self) -> None: ...
    def update_direct(self) -> None: ...
    def close(self, code: int, reason: str) -> None: ...
    def close_with(self, payload: bytes) -> None: ...
    def cut(self) -> None: ...
    def hook_failed(self, error: BaseException) -> None: ...


class Sender:
    """The sending side of one connection, for all messages that `HotPath.send` does not send itself.

    Args:
        owner: The connection.
        send_frame: The view's own method, which sends everything that the view sends.
    """

    __slots__ = (
        "_by_frame",
        "_closings",
        "_deadline",
        "_job",
        "_owner",
        "_queue",
        "_send_frame",
        "_stream",
        "_tasks",
        "_turn",
    )

    def __init__(self, owner: Owner, send_frame: Callable[[Frame], Awaitable[None]] | None = None) -> None:
        self._owner = owner
        self._send_frame = send_frame
        self._by_frame = send_frame is not None
        self._turn = asyncio.Lock() if send_frame is not None else None  # its waiters take turns in the order of calls
        self._stream: asyncio.Task[Any] | None = None  # runs the stream that has begun
        self._queue = SendQueue(self, owner.loop)
        self._job: asyncio.Future[list[bytes]] | None = None  # compresses the first message of the queue
        self._tasks: dict[asyncio.Future[None], QueuedMessage] = {}  # the only strong references to them
        self._closings: list[Callable[[], None]] = []  # callbacks that close the connection
        self._deadline: asyncio.TimerHandle | None = None  # of the latest time to call them

    @property
    def waiting(self) -> int:
        """Bytes of the queued messages, except the one being compressed."""
        return self._queue.waiting

    @property
    def is_direct(self) -> bool:
        """Whether a plain message may go straight to the writer."""
        return not (self._by_frame or self._stream or self._queue)

    @property
    def is_idle(self) -> bool:
        """Whether no message is queued or being sent."""
        return not (self._tasks or self._stream or self._queue)

    @property
    def begun(self) -> int:
        """The number of messages that tasks are sending: streams, and those through the view's own `send_frame`."""
        return len(self._tasks)

    @property
    def must_finish(self) -> bool:
        """Whether a queued message will leave soon, because it waits for neither a stream nor a fragment."""
        return self._job is not None or self._queue.resuming

    def send(self, data: Any, opcode: int) -> Coroutine[Any, Any, None]:
        """Sends data of any type; see `WebSocketView.send`."""
        owner = self._owner
        payload = payload_of(data)
        if owner.is_elsewhere:
            sent = data if payload is None or isinstance(data, str) else payload
            return call_threadsafe(owner, owner.send, sent, opcode)
        if not owner.connection.is_open and opcode != OpCode.CLOSE:
            raise owner.closed_error()
        if payload is None:
            return self._send_stream(data, opcode)
        if opcode == OpCode.TEXT and not isinstance(data, str):
            check_text(payload)
        if self._by_frame:
            return self._send_by_frame(payload, opcode)
        if opcode == OpCode.CLOSE:
            owner.close_with(payload)
            return owner.written()
        return self._send_frame_or_wait(opcode, payload, True)

    def send_frame(self, opcode: int, payload: bytes, fin: bool) -> Coroutine[Any, Any, None]:
        """Sends a message or its first fragment in the order of the queue, and any other frame at once."""
        if not self._owner.connection.is_open:
            raise self._owner.closed_error()
        if opcode == OpCode.TEXT and fin:
            check_text(payload)
        return self._send_frame_or_wait(opcode, payload, fin)

    def close_behind(self, close: Callable[[], None]) -> None:
        """Calls `close`, which closes the connection, once nothing must be finished, or after CLOSE_TIMEOUT.

        No message may be sent from now on.
        """
        owner = self._owner
        self._closings.append(close)
        if self._deadline is None:
            self._deadline = owner.loop.call_later(owner.close_timeout, self._close)
        self._queue.advance()

    def lost(self) -> None:
        """Ends the queued messages and the streams under way with `ConnectionClosed`."""
        self._drop_queue()
        self._closings.clear()
        if self._deadline is not None:
            self._deadline.cancel()
        for task, message in self._tasks.items():
            if message.parts is not None:
                task.cancel()

    def forget(self) -> None:
        """Releases the queue of a connection that has ended, which would otherwise form a cycle with this object."""
        if not self._queue.resuming:
            del self._queue

    def _send_frame_or_wait(self, opcode: int, payload: bytes, fin: bool) -> Coroutine[Any, Any, None]:
        owner = self._owner
        if OpCode.CONTINUATION < opcode < OpCode.CLOSE and (self._must_wait or self._is_large(opcode, payload, fin)):
            message = QueuedMessage(owner.loop.create_future(), opcode, payload, fin)
            self._queue.append(message)
            return Pending(partial(self._until_sent, message))
        self._write(opcode, payload, fin)
        if self._queue:
            self._queue.advance()
        return owner.written() if fin and opcode < OpCode.CLOSE else owner.drained()

    def _write(self, opcode: int, payload: bytes, fin: bool) -> None:
        owner = self._owner
        owner.burst.credit -= len(payload) + MESSAGE_COST
        # Diverts a send that interrupts this one, from a signal handler or a finalizer.
        owner.busy = True
        owner.direct_out = False
        try:
            if opcode < OpCode.CLOSE:
                *fragments, payload = self._fragments(payload)
                for fragment in fragments:
                    owner.connection.send(opcode, fragment, False)
                    opcode = OpCode.CONTINUATION
            owner.connection.send(opcode, payload, fin)
        finally:
            owner.busy = False
            owner.update_direct()

    def _fragments(self, payload: bytes) -> list[bytes]:
        size = self._owner.frame_size
        if len(payload) <= size:
            return [payload]
        view = memoryview(payload)
        return [bytes(view[start : start + size]) for start in range(0, len(view), size)]

    async def _until_sent(self, message: QueuedMessage) -> None:
        self._check_wait(message)
        try:
            await message.future
        finally:
            del message  # its error would form a cycle with this frame and the handler's
        await self._owner.written()

    def _check_wait(self, message: QueuedMessage) -> None:
        """Refuses a wait that would never end.

        Raises:
            RuntimeError: The parts of a message wait for a message that leaves behind them.
        """
        if self._stream is not None and self._stream is asyncio.current_task() and not message.future.done():
            raise RuntimeError("a message that parts of another one send leaves behind it: do not await the send there")

    # Closing

    def _close_if_due(self) -> None:
        if self._closings and not self.must_finish:
            self._close()

    def _close(self) -> None:
        """Closes the connection, and drops the rest."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        closings, self._closings = self._closings, []
        for close in closings:
            close()
        self._drop_queue()

    def _drop_queue(self) -> None:
        if self._job is not None:
            self._job.cancel()
            self._job = None
        self._queue.drop(self._owner.closed_error)

    # Large messages

    def _is_large(self, opcode: int, payload: bytes, fin: bool) -> bool:
        """Whether a thread is to compress the payload."""
        owner = self._owner
        deflate = owner.connection.deflate
        return (
            deflate is not None
            and fin
            and len(payload) >= LARGE
            and deflate.compresses(opcode, len(payload))
            and owner.connection.is_writable
        )

    def _compress(self, payload: bytes) -> None:
        """Compresses the first message of the queue in a thread."""
        owner = self._owner
        deflate = owner.connection.deflate
        assert deflate is not None
        deflate.release()  # because the pool of compressors belongs to this thread
        self._job = in_thread(owner.loop, self._compressed, payload)
        self._job.add_done_callback(self._done)

    def _compressed(self, payload: bytes) -> list[bytes]:
        return self._owner.connection.compress(self._fragments(payload))

    def _done(self, job: "asyncio.Future[list[bytes]]") -> None:
        """Sends the compressed message, then those behind it."""
        error = None if job.cancelled() else job.exception()
        if job is not self._job:
            return
        message = self._queue.pop()
        self._job = None
        if error is None:
            try:
                self._send_compressed(message, job.result())
            except ConnectionClosed as closed:
                error = closed
            except BaseException as raised:
                error = raised
                self._owner.cut()  # the next message would refer to one that the peer has not received
        message.settle(error)
        self._queue.advance()

    def _send_compressed(self, message: QueuedMessage, fragments: list[bytes]) -> None:
        connection = self._owner.connection
        connection.send_compressed(message.opcode, fragments)
        if connection.writer.counters is not None:
            connection.writer.counters.note_deflated(sum(map(len, fragments)), len(message.payload))

    # Streams and the view's own `send_frame`, in tasks

    def _send_stream(self, parts: Parts, opcode: int) -> Coroutine[Any, Any, None]:
        """Sends parts as one message; each part leaves as a fragment when it is produced.

        If producing a part fails after the message has begun, the connection ends with 1011.
        """
        if opcode not in (OpCode.TEXT, OpCode.BINARY):
            raise ValueError("only a text or binary message can be sent in parts")
        message = QueuedMessage(self._owner.loop.create_future(), opcode, parts=parts)
        if self._by_frame:  # `send_frame` queues each of its frames
            self._start(message, partial(self._in_turn, partial(self._send_parts, message)))
        else:
            self._queue.append(message)
        return Pending(partial(self._until_ended, message))

    def _send_by_frame(self, payload: bytes, opcode: int) -> Coroutine[Any, Any, None]:
        message = QueuedMessage(self._owner.loop.create_future(), opcode)
        send = partial(self._send_frames, payload, opcode)
        self._start(message, send if opcode >= OpCode.CLOSE else partial(self._in_turn, send))
        return Pending(partial(self._until_ended, message))

    def _start(self, message: QueuedMessage, make: Callable[[], Coroutine[Any, Any, None]]) -> None:
        message.task = task = start_task(self._owner.loop, self._run(message, make), message.context)
        message.settle()
        if task.done():
            self._ended(message, task)
        else:
            self._tasks[task] = message
            task.add_done_callback(self._tasks.pop)
            task.add_done_callback(partial(self._ended, message))

    def _ended(self, message: QueuedMessage, task: "asyncio.Task[None]") -> None:
        """Treats the error of a message as that of a hook, unless its result is awaited.

        asyncio would log it after a garbage collection: the error refers to frames that refer to the task.
        """
        if task.cancelled() and task.cancelling():
            return
        try:
            task.result()
        except BaseException as error:  # also a CancelledError of something else that the parts have awaited
            loop = self._owner.loop
            loop.call_soon(loop.call_soon, self._failed, message, error)  # a task that is to await it may begin first

    def _failed(self, message: QueuedMessage, error: BaseException) -> None:
        if not message.is_awaited:
            self._owner.hook_failed(error)

    async def _in_turn(self, make: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Sends a data message through the view's `send_frame`, after the earlier ones."""
        if _sending.get() is self or self._turn is None:
            await make()
            return
        _sending.set(self)
        async with self._turn:
            await make()

    async def _run(self, message: QueuedMessage, make: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await make()
        except ConnectionClosed:
            if self._owner.connection.is_open:  # it is that of another connection
                raise
            message.is_cut = True  # an error where the result is awaited, and not logged otherwise
        except SystemExit as error:  # raised by a task, it would end the loop
            raise RuntimeError("the parts of a message, or send_frame, have raised SystemExit") from error
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self._owner.lost or task is None or task.cancelling() > 1:
                raise
            message.is_cut = True

    async def _until_ended(self, message: QueuedMessage) -> None:
        message.is_awaited = True
        if message.task is None:
            self._check_wait(message)
            await message.future
            assert message.task is not None
        await message.task
        if message.is_cut:
            raise self._owner.closed_error()

    async def _send_frames(self, payload: bytes, opcode: int, fin: bool = True) -> None:
        """Sends a message as frames through the view's `send_frame`."""
        assert self._send_frame is not None
        size = self._owner.frame_size if opcode < OpCode.CLOSE else len(payload) or 1
        for start in range(0, len(payload) or 1, size):
            piece = payload[start : start + size]
            await self._send_frame(Frame(opcode, fin and start + size >= len(payload), piece))
            opcode = OpCode.CONTINUATION

    async def _send_parts(self, message: QueuedMessage) -> None:
        owner, parts = self._owner, message.parts
        if not self._by_frame:
            self._stream = asyncio.current_task()
            owner.update_direct()
        try:
            if isinstance(parts, AsyncIterable):
                async for part in parts:
                    await self._send_part(message, _part(part))
            else:
                assert parts is not None
                for part in parts_of(parts):
                    await self._send_part(message, _part(part))
            await self._send_part(message, b"", True)
        except BaseException as error:
            if message.opcode == OpCode.CONTINUATION:
                if isinstance(error, ConnectionClosed):  # of another connection if this one is open
                    owner.hook_failed(error)
                owner.close(CloseCode.INTERNAL_ERROR, "message not finished")
            raise
        finally:
            del parts
            message.parts = None  # ends a generator at once: an error and its traceback form a cycle with the message
            self._stream = None
            self._queue.advance()

    async def _send_part(self, message: QueuedMessage, payload: bytes, fin: bool = False) -> None:
        owner, opcode = self._owner, message.opcode
        if not owner.connection.is_writable:
            raise owner.closed_error()
        if message.is_text:
            message.text = check_text(payload, message.text, fin)
        message.opcode = OpCode.CONTINUATION
        if self._by_frame:
            await self._send_frames(payload, opcode, fin)
        else:
            self._write(opcode, payload, fin)
        await owner.drained()

    # For the queue

    @property
    def is_occupied(self) -> bool:
        """Whether another message is incomplete or being compressed, so that no message may begin."""
        return self._stream is not None or self._job is not None or self._owner.connection.fragmenting

    @property
    def _must_wait(self) -> bool:
        """Whether a message has to be queued behind others. On a closed connection none has to."""
        return (bool(self._queue) or self.is_occupied) and self._owner.connection.is_writable

    def send_first(self, message: QueuedMessage) -> bool:
        """Sends the first message of the queue, or starts to; returns whether it has left the queue."""
        if message.parts is not None:
            self._queue.pop()
            self._start(message, partial(self._send_parts, message))
        elif self._is_large(message.opcode, message.payload, message.fin):
            self._compress(message.payload)
            return False
        else:
            try:
                self._write(message.opcode, message.payload, message.fin)
            except Exception as error:
                message.settle(error)
            else:
                message.settle()
            self._queue.pop()
        return True

    def queue_changed(self) -> None:
        """Called when messages have joined or left the queue."""
        self._owner.update_direct()

    def queue_advanced(self) -> None:
        """Called when all messages that could leave the queue have left."""
        self._owner.update_direct()
        if not self._owner.corked:
            self._owner.flush()
        self._close_if_due()


def _part(part: Any) -> bytes:
    payload = payload_of(part)
    if payload is None:
        raise TypeError(f"a part of a message is str or bytes-like, not {type(part).__name__}")
    return payload
