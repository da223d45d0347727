"""`ClientConnection`: a client with `recv` and `async for` in place of message hooks."""

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any, Self, TypeVar

from ..exceptions import ConnectionClosed, PayloadTooBig
from ..opcodes import CloseCode, OpCode
from ..protocol.inbox import Inbox
from ..protocol.incoming_message import IncomingMessage
from ..protocol.protocol import ConnectionProtocol
from ..protocol.stream_queue import StreamQueue
from ..sansio.connection import Connection
from .client import WebSocketClient
from .options import Options
from .timeouts import checked_timeout, within

__all__ = ["ClientConnection"]

T = TypeVar("T")

_NORMAL = frozenset({CloseCode.NORMAL_CLOSURE, CloseCode.GOING_AWAY, CloseCode.NO_STATUS_RCVD})


class ClientConnection(WebSocketClient):
    """A connection with `recv` in place of message hooks; created by `connect`.

    At most MAX_WAITING_MESSAGES and MAX_WAITING_BYTES wait for `recv`. Beyond that, reading is paused, and the server
    has to wait.
    """

    # Values that most connections never change.
    _protocol_type = ConnectionProtocol
    _in_parts = False  # the option `stream`
    _streams: StreamQueue | None = None  # in place of the inbox, with `stream`
    _message: IncomingMessage | None = None  # the message that a cancelled `recv` has begun to read

    # An attribute of the object once the connection is open: Python would search the class at each read.
    _inbox: Inbox | None = None

    def __init__(self, url: str, options: Options) -> None:
        super(WebSocketClient, self).__init__()  # without the keywords of a class with hooks
        self._configure(url, options)

    def _new_protocol(self, connection: Connection, overridden: frozenset[str]) -> ConnectionProtocol:
        if self._in_parts:
            connection.receive_parts(self.MAX_STREAM_SIZE)
            if connection.parts:
                self._streams = streams = self._new_stream_queue()
                return self._protocol_type(self, connection, None, None, None, streams)
        loop = asyncio.get_running_loop()
        self._inbox = inbox = Inbox(loop, self.MAX_WAITING_MESSAGES, self.MAX_WAITING_BYTES)
        return self._protocol_type(self, connection, None, None, None, inbox)

    def recv(self, timeout: float | None = None) -> Coroutine[Any, Any, str | bytes]:
        """Returns an awaitable of the next message: a str for text, bytes for binary.

        The message is removed from the queue when the result is awaited. Neither a cancellation nor a timeout loses a
        message.

        Args:
            timeout: Seconds to wait; None for no limit. With 0 or less it returns only a message that waits already.

        Raises:
            ConnectionClosed: The connection is closing or closed, and no message is left; has `code` and `reason`.
            RuntimeError: The connection is not open yet.
            TimeoutError: No message was received in time.
            TypeError, ValueError: The timeout is not a number.
        """
        if timeout is not None:
            timeout = checked_timeout("timeout", timeout)
        if self._inbox is None:
            return self._recv_whole(timeout)
        return self._inbox.next(timeout)

    async def recv_json(self, timeout: float | None = None) -> Any:
        """Returns the next message decoded from JSON; see `recv`.

        Raises:
            ValueError: The message is not JSON. It has been removed from the queue, and the connection stays open.
        """
        import json  # slow to import for a client of bytes

        return json.loads(await self.recv(timeout))

    async def recv_stream(self, timeout: float | None = None) -> IncomingMessage:
        """Returns the next message as soon as it begins, to be read part by part while it is received.

            async with connect(url, stream=True, max_stream_size=None) as ws:
                async for part in await ws.recv_stream():
                    file.write(part)

        With `stream=True` a message may be larger than the memory, and `max_stream_size` limits it instead of
        `max_size`. Without it, or with extensions of an application, a message has one part, the whole of it. Both
        `recv` and `recv_stream` discard the unread rest of the message before.

        Args:
            timeout: Seconds to wait for the beginning; None for no limit.

        Raises:
            ConnectionClosed: The connection is closing or closed, and no message is left.
            RuntimeError: The connection is not open yet, or another task is reading the message before.
            TimeoutError: No message began in time.
            TypeError, ValueError: The timeout is not a number.
        """
        timeout = checked_timeout("timeout", timeout)
        if self._streams is None:
            data = await self.recv(timeout)
            source = StreamQueue(asyncio.get_running_loop(), 0, self.MAX_FRAME_SIZE)
            if isinstance(data, str):
                return source.whole(data.encode(), OpCode.TEXT)
            return source.whole(data, OpCode.BINARY)
        message, self._message = self._message, None
        if message is None:
            message = await self._within(timeout, self._streams.next())
        return message

    async def _recv_whole(self, timeout: float | None) -> str | bytes:
        """`recv` with `stream`. The next call continues the message that a cancelled call has begun to read."""
        streams = self._streams
        if streams is None:
            raise RuntimeError("the connection is not open yet: await open(), or use connect()")
        try:
            return await self._within(timeout, self._read_next(streams))
        except PayloadTooBig as error:
            streams.refuse(error)
            raise streams.closed_error() from error

    async def _read_next(self, streams: StreamQueue) -> str | bytes:
        message = self._message or await streams.next()
        self._message = message
        try:
            data = await message.read()
        except PayloadTooBig:
            self._message = None
            raise
        self._message = None
        return data

    async def _within(self, timeout: float | None, waiting: Awaitable[T]) -> T:
        return await within(timeout, waiting, lambda: f"no message from {self.url} within {timeout} seconds")

    def __aiter__(self) -> Self:
        """Iterates over the messages until the end of the connection.

        Raises:
            ConnectionClosed: The close code is neither 1000 nor 1001, nor missing; or the server was silent for too
                long (see `ping_interval`), which closes the connection with 1001.
        """
        return self

    def __anext__(self) -> Coroutine[Any, Any, str | bytes]:
        if self._inbox is None or type(self).recv is not ClientConnection.recv:
            return self._next()
        return self._inbox.next(None, self._ends_iteration)

    async def _next(self) -> str | bytes:
        """`__anext__` by the `recv` of a subclass."""
        try:
            return await self.recv()
        except ConnectionClosed as closed:
            if self._ends_iteration(closed):
                raise StopAsyncIteration from None
            raise

    def _ends_iteration(self, closed: ConnectionClosed) -> bool:
        """Whether the end of the connection ends an iteration without an error."""
        return closed.code in _NORMAL and not self._open_protocol().heartbeat.has_given_up
