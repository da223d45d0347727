"""Sending what does not go straight to the writer: streams, messages that await their turn, frames, other threads.

Data messages never interleave. While one is under way in fragments, those sent meanwhile wait in line, and go in the
order in which they were sent; control frames may go between (RFC 6455, section 5.4).

A large message that is to be compressed stands in line as well: at its head, while a thread compresses it.
"""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine, Iterable
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any

from .commons import threads
from .frame import Frame
from .opcodes import CloseCode, OpCode

if TYPE_CHECKING:
    from .protocol import WebSocketProtocol

__all__ = ["LARGE", "Data", "Sender", "hop"]

Data = str | bytes | bytearray | memoryview

LARGE = 262144
"""Bytes from which a message takes longer to compress than others should wait."""


class _Place:
    """One place in the line.

    Args:
        turn: Done when the message has been handed to the writer; of a stream, when it may begin.
        opcode: Of the message; None for a stream.
        payload: The same.
        fin: Whether it ends its message.

    Attributes:
        awaited: Of a stream, whether somebody waits for it; else its turn goes to the next.
    """

    __slots__ = ("awaited", "fin", "opcode", "payload", "turn")

    def __init__(self, turn: "asyncio.Future[None]", opcode: int | None, payload: bytes, fin: bool) -> None:
        self.turn = turn
        self.opcode = opcode
        self.payload = payload
        self.fin = fin
        self.awaited = False


class Sender:
    """The sending side of one connection, where `HotPath.send` has no shorter way.

    Args:
        send_frame: The view's own method, through which everything is sent that the view sends.

    Attributes:
        waiting: Bytes of the messages in line, without the one that is being compressed.
    """

    __slots__ = ("_by_frame", "_job", "_line", "_protocol", "_send_frame", "_streaming", "waiting")

    def __init__(
        self, protocol: "WebSocketProtocol", send_frame: Callable[[Frame], Awaitable[None]] | None = None
    ) -> None:
        self._protocol = protocol
        self._send_frame = send_frame
        self._by_frame = send_frame is not None
        self._streaming = False
        self._line: deque[_Place] = deque()
        self._job: Future[list[bytes]] | None = None  # compresses the first in line
        self.waiting = 0

    @property
    def is_direct(self) -> bool:
        """Whether a plain message may go straight to the writer."""
        return not (self._by_frame or self._streaming or self._line)

    def send(self, data: Any, opcode: int) -> Coroutine[Any, Any, None]:
        """Sends anything; `WebSocketView.send` says more."""
        protocol = self._protocol
        if protocol.thread != threading.get_ident():
            return hop(protocol, protocol.send, data, opcode)
        payload = payload_of(data)
        if payload is None:
            waits = self._must_wait and not self._by_frame
            return self._send_stream(data, opcode, self._join_line() if waits else None)
        if self._by_frame:
            return self._send_by_frame(payload, opcode)
        if opcode == OpCode.CLOSE:
            protocol.close_with(payload)
            return protocol.written()
        return self.send_frame(opcode, payload, True)

    def send_frame(self, opcode: int, payload: bytes, fin: bool) -> Coroutine[Any, Any, None]:
        """Sends a message or its first fragment, in its turn; or any other frame, at once."""
        if OpCode.CONTINUATION < opcode < OpCode.CLOSE and (self._must_wait or self._is_large(payload, fin)):
            place = self._join_line(opcode, payload, fin)
            self._move_line()
            return self._until_sent(place.turn)
        self._write(opcode, payload, fin)
        if self._line:
            self._move_line()
        return self._protocol.written()

    def settle(self) -> None:
        """Sends those in line before a close frame leaves: as far as none waits for a stream, or for a fragment."""
        while (job := self._job) is not None:
            if job.cancel():  # it has not begun, and those of others may come first
                self._job = None
                place = self._line.popleft()
                self._hand_over(place)
                self._move_line()
            else:
                self._finish(job)  # takes what is left of the time that it would have taken here

    def lost(self, error: Exception) -> None:
        """Those in line will not get their turn."""
        if self._job is not None:
            self._job.cancel()
            self._job = None
        for place in self._line:
            _settle(place.turn, error)
        self._line.clear()
        self.waiting = 0

    def _write(self, opcode: int, payload: bytes, fin: bool) -> None:
        connection = self._protocol.connection
        if opcode < OpCode.CLOSE:
            *fragments, payload = self._fragments(payload)
            for fragment in fragments:
                connection.send(opcode, fragment, False)
                opcode = OpCode.CONTINUATION
        connection.send(opcode, payload, fin)

    def _fragments(self, payload: bytes) -> list[bytes]:
        size = self._protocol.frame_size
        if len(payload) <= size:
            return [payload]
        view = memoryview(payload)
        return [bytes(view[start : start + size]) for start in range(0, len(view), size)]

    async def _until_sent(self, turn: "asyncio.Future[None]") -> None:
        await turn
        await self._protocol.written()

    # Large messages

    def _is_large(self, payload: bytes, fin: bool) -> bool:
        """Whether a thread is to compress it."""
        protocol = self._protocol
        deflate = protocol.connection.deflate
        return (
            deflate is not None
            and fin
            and len(payload) >= max(LARGE, deflate.threshold)
            and protocol.connection.is_open
        )

    def _compress(self, payload: bytes) -> None:
        """Has a thread compress the message of the first in line."""
        protocol = self._protocol
        deflate = protocol.connection.deflate
        assert deflate is not None
        deflate.release()  # for the compressors that are kept are this thread's
        self._job = job = threads().submit(self._compressed, payload)
        asyncio.wrap_future(job, loop=protocol.loop).add_done_callback(partial(self._done, job))

    def _compressed(self, payload: bytes) -> list[bytes]:
        return self._protocol.connection.compress(self._fragments(payload))

    def _done(self, job: "Future[list[bytes]]", done: "asyncio.Future[list[bytes]]") -> None:
        if not done.cancelled():
            done.exception()  # retrieved; it is for who sends
        if job is self._job:
            self._finish(job)

    def _finish(self, job: "Future[list[bytes]]") -> None:
        """Sends what has been compressed, and those behind it; waits for it, if need be."""
        place = self._line[0]
        assert place.opcode is not None
        try:
            self._protocol.connection.send_compressed(place.opcode, job.result())
        except Exception as error:
            _settle(place.turn, error)
        else:
            _settle(place.turn)
        self._job = None
        self._line.popleft()
        self._move_line()

    async def _send_by_frame(self, payload: bytes, opcode: int, fin: bool = True) -> None:
        """As frames through the view's `send_frame`."""
        assert self._send_frame is not None
        size = self._protocol.frame_size if opcode < OpCode.CLOSE else len(payload) or 1
        for start in range(0, len(payload) or 1, size):
            piece = payload[start : start + size]
            await self._send_frame(Frame(opcode, fin and start + size >= len(payload), piece))
            opcode = OpCode.CONTINUATION

    async def _send_stream(
        self, parts: Iterable[Data] | AsyncIterable[Data], opcode: int, place: _Place | None
    ) -> None:
        """As one message, each part a fragment that leaves when it is made.

        It has its place in line from the call on, if it must wait.

        If making one fails, a message that has begun cannot be finished, and the connection ends with 1011.
        """
        if opcode not in (OpCode.TEXT, OpCode.BINARY):
            raise ValueError("only a text or binary message can be sent in parts")
        if not self._by_frame:  # else each `send_frame` sees to that
            await self._take_turn(place)
            self._streaming = True
            self._protocol.update_direct()
        try:
            if isinstance(parts, AsyncIterable):
                async for part in parts:
                    sending = self._send_part(part, opcode, False)
                    opcode = OpCode.CONTINUATION
                    await sending
            else:
                for part in parts:
                    sending = self._send_part(part, opcode, False)
                    opcode = OpCode.CONTINUATION
                    await sending
            await self._send_part(b"", opcode, True)
        except BaseException:
            if opcode == OpCode.CONTINUATION:
                self._protocol.close(CloseCode.INTERNAL_ERROR, "message not finished")
            raise
        finally:
            self._streaming = False
            self._move_line()

    def _send_part(self, part: Data, opcode: int, fin: bool) -> Coroutine[Any, Any, None]:
        payload = payload_of(part)
        if payload is None:
            raise TypeError(f"a part of a message is str or bytes-like, not {type(part).__name__}")
        if self._by_frame:
            return self._send_by_frame(payload, opcode, fin)
        self._write(opcode, payload, fin)
        return self._protocol.written()

    @property
    def _must_wait(self) -> bool:
        """Whether others come first; where the connection has closed, nobody comes any more."""
        return (bool(self._line) or self._is_occupied) and self._protocol.connection.is_open

    @property
    def _is_occupied(self) -> bool:
        """Whether a message is under way, into which no other may come."""
        return self._streaming or self._job is not None or self._protocol.connection.fragmenting

    async def _take_turn(self, place: _Place | None) -> None:
        """Waits until the data messages that were sent before are finished."""
        if place not in self._line:
            if not self._must_wait:
                return
            place = self._join_line()
        assert place is not None
        place.awaited = True
        try:
            await place.turn
        except BaseException:
            self._leave_line(place)
            self._move_line()
            raise
        self._leave_line(place)

    def _join_line(self, opcode: int | None = None, payload: bytes = b"", fin: bool = True) -> _Place:
        place = _Place(self._protocol.loop.create_future(), opcode, payload, fin)
        self._line.append(place)
        self.waiting += len(payload)
        self._protocol.update_direct()
        return place

    def _leave_line(self, place: _Place) -> None:
        if place in self._line:
            self._line.remove(place)
        self._protocol.update_direct()

    def _move_line(self) -> None:
        """Sends those in line, up to one that has to wait."""
        while self._line and not self._is_occupied:
            place = self._line[0]
            turn = place.turn
            if place.awaited:
                if not turn.done():
                    turn.set_result(None)
                break  # and it leaves the line by itself
            self.waiting -= len(place.payload)
            if turn.cancelled() or place.opcode is None:
                self._line.popleft()
                continue
            if self._is_large(place.payload, place.fin):
                self._compress(place.payload)
                break
            self._hand_over(place)
            self._line.popleft()
        self._protocol.update_direct()
        if not self._protocol.corked:
            self._protocol.flush()

    def _hand_over(self, place: _Place) -> None:
        assert place.opcode is not None
        try:
            self._write(place.opcode, place.payload, place.fin)
        except Exception as error:
            _settle(place.turn, error)
        else:
            _settle(place.turn)


def _settle(turn: "asyncio.Future[None]", error: BaseException | None = None) -> None:
    if turn.done():
        return
    if error is None:
        turn.set_result(None)
    else:
        turn.set_exception(error)
        turn.exception()  # retrieved, for the case that nobody awaits it


def payload_of(data: Any) -> bytes | None:
    """The bytes of str and bytes-like data; None for what gives them part by part.

    Raises:
        TypeError: It is none of these.
    """
    if isinstance(data, bytes):
        return data
    if isinstance(data, str):
        return data.encode()
    try:
        return memoryview(data).tobytes()
    except TypeError:
        if isinstance(data, dict):
            raise TypeError("a dict is no message: use send_json") from None
        if isinstance(data, (Iterable, AsyncIterable)):
            return None
        kind = type(data).__name__
        raise TypeError(f"a message is str, bytes-like or an iterable of them, not {kind}") from None


async def hop(protocol: "WebSocketProtocol", method: Any, *args: Any) -> None:
    """Calls a method in the thread of the connection, and waits for it in this one."""

    async def call() -> None:
        await method(*args)

    await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call(), protocol.loop))
