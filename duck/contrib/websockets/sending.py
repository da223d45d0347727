"""Sending what does not go straight to the writer: streams, messages that await their turn, frames, other threads.

Data messages never interleave. While one is under way in fragments, those sent meanwhile wait in line, and go in the
order in which they were sent; control frames may go between (RFC 6455, section 5.4).
"""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterable, Awaitable, Iterable
from typing import TYPE_CHECKING, Any

from .frame import Frame
from .opcodes import CloseCode, OpCode

if TYPE_CHECKING:
    from .protocol import WebSocketProtocol

__all__ = ["Data", "Sender", "hop"]

Data = str | bytes | bytearray | memoryview


class Sender:
    """The sending side of one connection, where `HotPath.send` has no shorter way.

    Args:
        by_frame: Whether all that the view sends goes through its own `send_frame`.
    """

    __slots__ = ("_by_frame", "_line", "_protocol", "_streaming")

    def __init__(self, protocol: "WebSocketProtocol", by_frame: bool) -> None:
        self._protocol = protocol
        self._by_frame = by_frame
        self._streaming = False
        self._line: deque[asyncio.Future[None]] = deque()

    @property
    def is_direct(self) -> bool:
        """Whether a plain message may go straight to the writer."""
        return not (self._by_frame or self._streaming or self._line)

    def send(self, data: Any, opcode: int) -> Awaitable[None]:
        """Sends anything; `WebSocketView.send` says more."""
        protocol = self._protocol
        if protocol.thread != threading.get_ident():
            return hop(protocol, protocol.send, data, opcode)
        payload = payload_of(data)
        if payload is None:
            return self._send_stream(data, opcode)
        if self._by_frame:
            return self._send_by_frame(payload, opcode)
        if opcode == OpCode.CLOSE:
            protocol.close_with(payload)
            return protocol.written()
        return self.send_frame(opcode, payload, True)

    def send_frame(self, opcode: int, payload: bytes, fin: bool) -> Awaitable[None]:
        """Sends a message or its first fragment, in its turn; or any other frame, at once."""
        if self._must_wait and OpCode.CONTINUATION < opcode < OpCode.CLOSE:
            return self._send_in_turn(opcode, payload, fin)
        self._write(opcode, payload, fin)
        return self._protocol.written()

    def lost(self, error: Exception) -> None:
        """Those in line will not get their turn."""
        for turn in self._line:
            if not turn.done():
                turn.set_exception(error)

    def _write(self, opcode: int, payload: bytes, fin: bool) -> None:
        connection = self._protocol.connection
        size = self._protocol.max_size
        if len(payload) > size and opcode < OpCode.CLOSE:
            view = memoryview(payload)
            last = (len(view) - 1) // size * size
            for start in range(0, last, size):
                connection.send(opcode, bytes(view[start : start + size]), False)
                opcode = OpCode.CONTINUATION
            payload = bytes(view[last:])
        connection.send(opcode, payload, fin)
        self._pass_turn()

    async def _send_in_turn(self, opcode: int, payload: bytes, fin: bool) -> None:
        await self._take_turn()
        self._write(opcode, payload, fin)
        await self._protocol.written()

    async def _send_by_frame(self, payload: bytes, opcode: int, fin: bool = True) -> None:
        """As frames through the view's `send_frame`."""
        size = self._protocol.max_size if opcode < OpCode.CLOSE else len(payload) or 1
        for start in range(0, len(payload) or 1, size):
            piece = payload[start : start + size]
            await self._protocol.view.send_frame(Frame(opcode, fin and start + size >= len(payload), piece))
            opcode = OpCode.CONTINUATION

    async def _send_stream(self, parts: Iterable[Data] | AsyncIterable[Data], opcode: int) -> None:
        """As one message, each part a fragment that leaves when it is made.

        If making one fails, a message that has begun cannot be finished, and the connection ends with 1011.
        """
        if opcode not in (OpCode.TEXT, OpCode.BINARY):
            raise ValueError("only a text or binary message can be sent in parts")
        if not self._by_frame:  # else each `send_frame` sees to that
            await self._take_turn()
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
            self._pass_turn()
            self._protocol.update_direct()

    def _send_part(self, part: Data, opcode: int, fin: bool) -> Awaitable[None]:
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
        return self._streaming or self._protocol.connection.fragmenting

    async def _take_turn(self) -> None:
        """Waits until the data messages that were sent before are finished."""
        if not self._must_wait:
            return
        turn = self._protocol.loop.create_future()
        self._line.append(turn)
        self._protocol.update_direct()
        try:
            await turn
        except BaseException:
            self._leave_line(turn)
            self._pass_turn()
            raise
        self._leave_line(turn)

    def _leave_line(self, turn: "asyncio.Future[None]") -> None:
        self._line.remove(turn)
        self._protocol.update_direct()

    def _pass_turn(self) -> None:
        if self._line and not self._is_occupied and not self._line[0].done():
            self._line[0].set_result(None)


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
