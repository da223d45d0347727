"""A message that is read part by part while it arrives: `IncomingMessage`, the argument of `on_stream`.

    parts of the codec, still compressed -> decompressed, decoded -> the reader
                                        `-> discarded, once the message is not read any more

A `StreamQueue` creates the messages and adds their parts. Compressed parts wait compressed. They are decompressed when
they are read, in steps of bounded size. A part of a text ends at a character boundary.
"""

import asyncio
import codecs
from collections import deque
from collections.abc import Awaitable
from typing import Protocol, Self

from ..codec import RSV1, Waiter
from ..exceptions import ConnectionClosed, PayloadTooBig, ProtocolError
from ..extensions import Inflating
from ..opcodes import CloseCode, OpCode

__all__ = ["IncomingMessage", "Source"]

_STEP = 65536  # bytes of the largest decompressed part
_SHARE = 262144  # decompressed bytes after which the reader yields to the loop

_OPCODES = {1: OpCode.TEXT, 2: OpCode.BINARY}

_new_decoder = codecs.getincrementaldecoder("utf-8")


class Source(Protocol):
    """The queue that a message belongs to. Its connection may have ended."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...
    @property
    def has_ended(self) -> bool: ...
    @property
    def max_whole(self) -> int | None:
        """Bytes of the largest message that is read as a whole."""
        raise NotImplementedError

    @property
    def needs_all(self) -> bool:
        """Whether even a discarded message has to be decompressed, because later ones may refer to it."""
        raise NotImplementedError

    def inflating(self) -> Inflating: ...
    def inflated(self, inflating: Inflating) -> None:
        """Notes that the message has been decompressed."""

    def taken(self, payload: bytes) -> None:
        """Notes that a part has left the queue."""

    def finished(self) -> None:
        """Notes that no part of the message is left."""

    def refuse(self, error: BaseException) -> None:
        """Ends the connection, because the message cannot be decoded."""

    def closed_error(self) -> ConnectionClosed: ...

    def more(self, waiters: list[Waiter]) -> Awaitable[None]:
        """Returns an awaitable for the next part, which completes when the part or the end wakes `waiters`."""
        raise NotImplementedError


class IncomingMessage:
    """A message that can be read before all of it has been received.

        async for part in message:
            file.write(part)

    The parts are bytes, or str for a text message, and never empty. Their sizes have no meaning: a part contains the
    data of one read of the transport. While too many bytes of parts wait, reading is paused, and the peer has to wait.

    A message is read once, and by one task at a time. The rest is discarded when `on_stream` returns, or when the next
    message is requested; reading it then raises a RuntimeError. If the connection ends within the message, reading
    raises `ConnectionClosed`.

    Attributes:
        opcode: TEXT or BINARY.
    """

    __slots__ = (
        "_decoder",
        "_error",
        "_inflating",
        "_is_complete",
        "_is_compressed",
        "_is_over",
        "_parts",
        "_read",
        "_source",
        "_spent",
        "_waiters",
        "opcode",
    )

    def __init__(self, source: Source, opcode: int) -> None:
        self.opcode = _OPCODES[opcode & 0b1111]
        self._source = source
        self._is_compressed = opcode & RSV1 != 0
        self._inflating: Inflating | None = None
        self._decoder: codecs.IncrementalDecoder | None = None
        self._parts: deque[bytes] = deque()
        self._is_complete = False  # whether the last part has been received
        self._is_over = False  # whether it has been read or discarded
        self._error: Exception | None = None  # raised by any further reading
        self._spent = 0  # decompressed bytes since the last yield to the loop
        self._read: list[str | bytes] = []  # the parts that an unfinished `read` has gathered
        self._waiters: list[Waiter] = []

    def __repr__(self) -> str:
        return f"<IncomingMessage {self.opcode.name}>"

    # For its reader

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str | bytes:
        if self._read and self._error is None:
            return self._gathered()
        if self._spent >= _SHARE:
            self._spent = 0
            await asyncio.sleep(0)
        while (part := self._take()) is None:
            if self._is_over:
                raise StopAsyncIteration
            if self._source.has_ended:
                raise self._source.closed_error()
            if self.is_being_read:
                raise RuntimeError("another task is reading the message: read a message in one task")
            await self._source.more(self._waiters)
        return part

    async def read(self, limit: int | None = None) -> str | bytes:
        """Returns the rest of the message: a str for a text, else bytes.

        Neither a cancellation nor an error loses a part: another call, or an iteration, returns those read so far.

        Args:
            limit: Bytes to return at most, of a text in UTF-8; None for MAX_FRAME_SIZE.

        Raises:
            ConnectionClosed: The connection has ended within the message.
            PayloadTooBig: The rest is larger than `limit`. Raised by `on_stream`, it closes the connection with 1009.
            RuntimeError: The rest has been discarded, or another task is reading the message.
            TypeError, ValueError: The limit is not an int of 0 or more.
        """
        if limit is None:
            limit = self._source.max_whole
        elif isinstance(limit, bool) or not isinstance(limit, int):
            raise TypeError(f"limit is a number of bytes, or None for MAX_FRAME_SIZE, not {limit!r}")
        elif limit < 0:
            raise ValueError(f"limit is 0 bytes or more, not {limit!r}")
        gathered, self._read = self._read, []
        size = sum(map(_size, gathered))
        try:
            async for part in self:
                gathered.append(part)
                size += _size(part)
                if limit is not None and size > limit:
                    raise PayloadTooBig("message too big")
        finally:
            self._read = gathered
        return self._gathered()

    def _gathered(self) -> str | bytes:
        gathered, self._read = self._read, []
        if len(gathered) == 1:
            return gathered[0]
        return "".join(gathered) if self.opcode == OpCode.TEXT else b"".join(gathered)  # type: ignore[arg-type]

    def _take(self) -> str | bytes | None:
        """Returns the next part; None if it has not been received, or if none is left."""
        if self._error is not None:
            raise self._error
        try:
            while (data := self._take_bytes()) is not None:
                part = self._decoded(data) if self.opcode == OpCode.TEXT else data
                if part:
                    return part
            if self._decoder is not None and self._is_over:
                self._decoder.decode(b"", True)
        except Exception as error:
            self._refuse(error)
            raise self._source.closed_error() from error
        return None

    def _take_bytes(self) -> bytes | None:
        if self._is_compressed:
            return self._inflate()
        if not self._parts:
            return None
        data = self._next()
        if self._is_complete and not self._parts:
            self._end()
        return data

    def _next(self) -> bytes:
        data = self._parts.popleft()
        self._source.taken(data)
        return data

    def _inflate(self) -> bytes | None:
        """Returns the next decompressed bytes; None if they have not been received, or if none are left."""
        if self._is_over:
            return None
        inflating = self._inflating
        if inflating is None:
            inflating = self._inflating = self._source.inflating()
        while not (data := inflating.take(_STEP)):
            if inflating.is_over:
                self._source.inflated(inflating)
                self._end()
                return None
            if self._parts:
                inflating.feed(self._next())
            elif self._is_complete:
                inflating.finish()
            else:
                return None
        self._spent += len(data)
        return data

    def _decoded(self, data: bytes) -> str:
        if self._decoder is None:
            if self._is_over:  # most messages come in one part
                return data.decode()
            self._decoder = _new_decoder()
        return self._decoder.decode(data)

    def _end(self) -> None:
        self._is_over = True
        self._source.finished()

    def _refuse(self, error: Exception) -> None:
        """Ends the connection, because the message cannot be decoded."""
        if isinstance(error, UnicodeDecodeError):
            error = ProtocolError("text is not UTF-8", CloseCode.INVALID_DATA)
        self._source.refuse(error)
        self._error = self._source.closed_error()
        self.drop()

    # For its source

    @property
    def is_over(self) -> bool:
        """Whether no part is left, so that the next message may begin."""
        return self._is_over

    @property
    def is_being_read(self) -> bool:
        """Whether a task waits for a part."""
        return not all(waiter.is_over for waiter in self._waiters)

    def add(self, payload: bytes, fin: bool) -> None:
        """Adds a received part."""
        if payload:
            self._parts.append(payload)
        self._is_complete = fin
        if fin and not (payload or self._parts or self._is_compressed):
            self._end()

    def wake(self) -> None:
        """Steps the task that waits for a part, or discards the parts; no task may be running."""
        if self._error is not None:
            self._discard_parts()
            return
        waiters = self._waiters
        while waiters:
            waiter = waiters.pop(0)
            if not waiter.is_over:  # else its task was cancelled in this pass of the loop
                waiter.wake()
                return

    def wake_soon(self) -> None:
        """Wakes the waiting tasks in later callbacks."""
        waiters, self._waiters[:] = self._waiters[:], ()
        for waiter in waiters:
            waiter.wake_soon()

    def discard(self) -> None:
        """Discards the rest of the message: the parts that wait, and those still to be received."""
        if not self._is_over and self._error is None:
            self._error = RuntimeError("the rest of the message has been discarded: read it before on_stream returns")
            self.wake_soon()
            self._discard_parts()

    def _discard_parts(self) -> None:
        """Discards the waiting parts. They are decompressed step by step if later messages may refer to them."""
        if not self._is_compressed or not self._source.needs_all:
            self.drop()
            if self._is_complete and not self._is_over:
                self._end()
            return
        self._spent = 0
        try:
            while self._spent < _SHARE:
                if self._inflate() is None:
                    return
        except Exception as error:
            self._refuse(error)
        else:
            self._source.loop.call_soon(self._discard_parts)

    def drop(self) -> None:
        """Discards the waiting parts without decompressing them; no later message may refer to them."""
        while self._parts:
            self._next()


def _size(part: str | bytes) -> int:
    """The size of a part in bytes; of a text in UTF-8."""
    return len(part.encode()) if isinstance(part, str) and not part.isascii() else len(part)
