"""Sending what does not go straight to the writer: streams, messages that await their turn, frames, other threads.

Data messages never interleave. While one is under way in fragments, those sent meanwhile wait in line, and go in the
order in which they were sent; control frames may go between (RFC 6455, section 5.4).

A large message that is to be compressed stands in line as well: at its head, while a thread compresses it. So does a
stream until it begins; it runs in a task of its own, whether somebody waits for it or not.

A close frame leaves behind what was sent before it, as far as that waits for nobody but this connection: a stream that
is under way, or a message that the view sends in frames of its own, is cut off.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine, Iterable
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any

from ..codec import MESSAGE_COST
from ..exceptions import ConnectionClosed
from ..frame import Frame
from ..opcodes import CloseCode, OpCode
from ..sansio.connection import check_text
from .loop import threads
from .pending import Pending, begin, hop
from .prepared import Data

if TYPE_CHECKING:
    from .protocol import ConnectionProtocol

__all__ = ["LARGE", "Data", "Sender"]

Parts = Iterable[Data] | AsyncIterable[Data]

LARGE = 262144
"""Bytes from which a message takes longer to compress than others should wait."""

_FAIR_SHARE = 0.01  # seconds after which those in line let the loop go


class _Place:
    """One place in the line.

    Args:
        turn: Done when the message has been handed to the writer; of a stream, when its task has been made.
        opcode: Of the message.
        payload: The same.
        fin: Whether it ends its message.
        parts: Of a stream, instead of the payload.

    Attributes:
        task: Runs the stream.
        error: What has ended it, if the connection has.
        is_text: Whether it is a text message,
        text: and the state of its UTF-8 behind the last part.
    """

    __slots__ = ("error", "fin", "is_text", "opcode", "parts", "payload", "task", "text", "turn")

    def __init__(
        self,
        turn: "asyncio.Future[None]",
        opcode: int,
        payload: bytes = b"",
        fin: bool = True,
        parts: Parts | None = None,
    ) -> None:
        self.turn = turn
        self.opcode = opcode
        self.payload = payload
        self.fin = fin
        self.parts = parts
        self.task: asyncio.Future[None] | None = None
        self.error: ConnectionClosed | None = None
        self.is_text = opcode == OpCode.TEXT
        self.text = 0


class Sender:
    """The sending side of one connection, where `HotPath.send` has no shorter way.

    Args:
        send_frame: The view's own method, through which everything is sent that the view sends.

    Attributes:
        waiting: Bytes of the messages in line, without the one that is being compressed.
    """

    __slots__ = (
        "_by_frame",
        "_closings",
        "_deadline",
        "_job",
        "_line",
        "_moving",
        "_protocol",
        "_resuming",
        "_send_frame",
        "_streaming",
        "_tasks",
        "waiting",
    )

    def __init__(
        self, protocol: "ConnectionProtocol", send_frame: Callable[[Frame], Awaitable[None]] | None = None
    ) -> None:
        self._protocol = protocol
        self._send_frame = send_frame
        self._by_frame = send_frame is not None
        self._streaming = False
        self._line: deque[_Place] = deque()
        self._moving = False  # whether `_move_line` is at work,
        self._resuming = False  # or is to go on in a callback
        self._job: Future[list[bytes]] | None = None  # compresses the first in line
        self._tasks: dict[asyncio.Future[None], _Place] = {}  # to which nobody else may hold
        self._closings: list[Callable[[], None]] = []  # what closes the connection, as soon as it may
        self._deadline: asyncio.TimerHandle | None = None  # when it may at the latest
        self.waiting = 0

    @property
    def is_direct(self) -> bool:
        """Whether a plain message may go straight to the writer."""
        return not (self._by_frame or self._streaming or self._line)

    @property
    def begun(self) -> int:
        """Messages that tasks are sending: streams, and those that go through the view's own `send_frame`."""
        return len(self._tasks)

    @property
    def must_finish(self) -> bool:
        """Whether something that was sent has not left, and does not wait for a stream or for a fragment."""
        return self._job is not None or self._resuming

    def send(self, data: Any, opcode: int) -> Coroutine[Any, Any, None]:
        """Sends anything; `WebSocketView.send` says more."""
        protocol = self._protocol
        payload = payload_of(data)
        if protocol.is_elsewhere:
            return hop(protocol, protocol.send, data if payload is None or isinstance(data, str) else payload, opcode)
        if not protocol.connection.is_open and opcode != OpCode.CLOSE:
            raise protocol.closed_error()
        if payload is None:
            return self._send_stream(data, opcode)
        if opcode == OpCode.TEXT and not isinstance(data, str):
            check_text(payload)
        if self._by_frame:
            return self._send_by_frame(payload, opcode)
        if opcode == OpCode.CLOSE:
            protocol.close_with(payload)
            return protocol.written()
        return self._send_frame_or_wait(opcode, payload, True)

    def send_frame(self, opcode: int, payload: bytes, fin: bool) -> Coroutine[Any, Any, None]:
        """Sends a message or its first fragment, in its turn; or any other frame, at once."""
        if not self._protocol.connection.is_open:
            raise self._protocol.closed_error()
        if opcode == OpCode.TEXT and fin:
            check_text(payload)
        return self._send_frame_or_wait(opcode, payload, fin)

    def close_behind(self, close: Callable[[], None]) -> None:
        """Calls `close`, which closes the connection, as soon as nothing must be finished, or CLOSE_TIMEOUT is over.

        Nothing may be sent any more.
        """
        protocol = self._protocol
        self._closings.append(close)
        if self._deadline is None:
            self._deadline = protocol.loop.call_later(protocol.endpoint.CLOSE_TIMEOUT, self._close)
        self._move_line()

    def lost(self, error: ConnectionClosed) -> None:
        """Those in line will not get their turn, and streams that are under way end."""
        self._drop_line(error)
        self._closings.clear()
        if self._deadline is not None:
            self._deadline.cancel()
        for task, place in self._tasks.items():
            if place.parts is not None:
                task.cancel()

    def _send_frame_or_wait(self, opcode: int, payload: bytes, fin: bool) -> Coroutine[Any, Any, None]:
        protocol = self._protocol
        if OpCode.CONTINUATION < opcode < OpCode.CLOSE and (self._must_wait or self._is_large(payload, fin)):
            place = _Place(protocol.loop.create_future(), opcode, payload, fin)
            self._join_line(place)
            return Pending(partial(self._until_sent, place))
        self._write(opcode, payload, fin)
        if self._line:
            self._move_line()
        return protocol.written() if fin and opcode < OpCode.CLOSE else protocol.drained()

    def _write(self, opcode: int, payload: bytes, fin: bool) -> None:
        protocol = self._protocol
        protocol.buffer.credit -= len(payload) + MESSAGE_COST
        # For who sends while this is interrupted: a signal handler, or a finalizer.
        protocol.busy = True
        protocol.direct_out = False
        try:
            if opcode < OpCode.CLOSE:
                *fragments, payload = self._fragments(payload)
                for fragment in fragments:
                    protocol.connection.send(opcode, fragment, False)
                    opcode = OpCode.CONTINUATION
            protocol.connection.send(opcode, payload, fin)
        finally:
            protocol.busy = False
            protocol.update_direct()

    def _fragments(self, payload: bytes) -> list[bytes]:
        size = self._protocol.frame_size
        if len(payload) <= size:
            return [payload]
        view = memoryview(payload)
        return [bytes(view[start : start + size]) for start in range(0, len(view), size)]

    async def _until_sent(self, place: _Place) -> None:
        await place.turn
        await self._protocol.written()

    # Closing

    def _close_if_due(self) -> None:
        if self._closings and not self.must_finish:
            self._close()

    def _close(self) -> None:
        """Closes, whatever is left."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        closings, self._closings = self._closings, []
        for close in closings:
            close()
        self._drop_line(self._protocol.closed_error())

    def _drop_line(self, error: ConnectionClosed) -> None:
        if self._job is not None:
            self._job.cancel()
            self._job = None
        for place in self._line:
            _settle(place.turn, error)
        self._line.clear()
        self.waiting = 0

    # Large messages

    def _is_large(self, payload: bytes, fin: bool) -> bool:
        """Whether a thread is to compress it."""
        protocol = self._protocol
        deflate = protocol.connection.deflate
        return (
            deflate is not None
            and fin
            and len(payload) >= max(LARGE, deflate.threshold)
            and protocol.connection.is_writable
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
        """Sends what has been compressed, and those behind it."""
        error = None if done.cancelled() else done.exception()
        if job is not self._job:
            return
        place = self._line.popleft()
        self._job = None
        if error is None:
            try:
                self._protocol.connection.send_compressed(place.opcode, done.result())
            except ConnectionClosed as closed:
                error = closed
            except BaseException as raised:
                error = raised
                self._protocol.cut()  # what follows would refer to a message that the peer has not got
        _settle(place.turn, error)
        self._move_line()

    # Streams, and the view's own `send_frame`: in tasks

    def _send_stream(self, parts: Parts, opcode: int) -> Coroutine[Any, Any, None]:
        """As one message, each part a fragment that leaves when it is made.

        If making one fails, a message that has begun cannot be finished, and the connection ends with 1011.
        """
        if opcode not in (OpCode.TEXT, OpCode.BINARY):
            raise ValueError("only a text or binary message can be sent in parts")
        place = _Place(self._protocol.loop.create_future(), opcode, parts=parts)
        if self._by_frame:  # each `send_frame` awaits its turn
            self._start(place, partial(self._send_parts, place))
        else:
            self._join_line(place)
        return Pending(partial(self._until_ended, place))

    def _send_by_frame(self, payload: bytes, opcode: int) -> Coroutine[Any, Any, None]:
        place = _Place(self._protocol.loop.create_future(), opcode)
        self._start(place, partial(self._send_frames, payload, opcode))
        return Pending(partial(self._until_ended, place))

    def _start(self, place: _Place, make: Callable[[], Coroutine[Any, Any, None]]) -> None:
        place.task = task = begin(self._protocol.loop, self._run(place, make))
        _settle(place.turn)
        if not task.done():
            self._tasks[task] = place
            task.add_done_callback(self._tasks.pop)

    async def _run(self, place: _Place, make: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await make()
        except ConnectionClosed as error:
            place.error = error  # for who waits; if nobody does, it is nothing to be told of
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self._protocol.lost or task is None or task.cancelling() > 1:
                raise
            place.error = self._protocol.closed_error()

    async def _until_ended(self, place: _Place) -> None:
        if place.task is None:
            await place.turn
            assert place.task is not None
        await place.task
        if place.error is not None:
            raise place.error

    async def _send_frames(self, payload: bytes, opcode: int, fin: bool = True) -> None:
        """As frames through the view's `send_frame`."""
        assert self._send_frame is not None
        size = self._protocol.frame_size if opcode < OpCode.CLOSE else len(payload) or 1
        for start in range(0, len(payload) or 1, size):
            piece = payload[start : start + size]
            await self._send_frame(Frame(opcode, fin and start + size >= len(payload), piece))
            opcode = OpCode.CONTINUATION

    async def _send_parts(self, place: _Place) -> None:
        protocol, parts = self._protocol, place.parts
        if not self._by_frame:
            self._streaming = True
            protocol.update_direct()
        try:
            if isinstance(parts, AsyncIterable):
                async for part in parts:
                    await self._send_part(place, _part(part))
            else:
                assert parts is not None
                for part in parts:
                    await self._send_part(place, _part(part))
            await self._send_part(place, b"", True)
        except BaseException:
            if place.opcode == OpCode.CONTINUATION:
                protocol.close(CloseCode.INTERNAL_ERROR, "message not finished")
            raise
        finally:
            self._streaming = False
            self._move_line()

    async def _send_part(self, place: _Place, payload: bytes, fin: bool = False) -> None:
        protocol, opcode = self._protocol, place.opcode
        if not protocol.connection.is_writable:
            raise protocol.closed_error()
        if place.is_text:
            place.text = check_text(payload, place.text, fin)
        place.opcode = OpCode.CONTINUATION
        if self._by_frame:
            await self._send_frames(payload, opcode, fin)
        else:
            self._write(opcode, payload, fin)
        await protocol.drained()

    # The line

    @property
    def _must_wait(self) -> bool:
        """Whether others come first; where the connection has closed, nobody comes any more."""
        return (bool(self._line) or self._is_occupied) and self._protocol.connection.is_writable

    @property
    def _is_occupied(self) -> bool:
        """Whether a message is under way, into which no other may come."""
        return self._streaming or self._job is not None or self._protocol.connection.fragmenting

    def _join_line(self, place: _Place) -> None:
        self._line.append(place)
        self.waiting += len(place.payload)
        self._protocol.update_direct()
        self._move_line()

    def _move_line(self) -> None:
        """Sends those in line, up to one that has to wait."""
        if self._moving:
            return  # who sends in the midst of that has joined the line
        self._moving = True
        end = time.perf_counter() + _FAIR_SHARE
        try:
            while self._line and not self._is_occupied and self._move_first():
                if time.perf_counter() > end:
                    self._resume_later()
                    break
        finally:
            self._moving = False
        self._protocol.update_direct()
        if not self._protocol.corked:
            self._protocol.flush()
        self._close_if_due()

    def _move_first(self) -> bool:
        """Sends the first in line, or begins to; whether it has left the line."""
        place = self._line[0]
        self.waiting -= len(place.payload)
        if place.turn.done():
            self._line.popleft()  # whoever waited has given up
        elif place.parts is not None:
            self._line.popleft()
            self._start(place, partial(self._send_parts, place))
        elif self._is_large(place.payload, place.fin):
            self._compress(place.payload)
            return False
        else:
            self._hand_over(place)
            self._line.popleft()
        return True

    def _hand_over(self, place: _Place) -> None:
        try:
            self._write(place.opcode, place.payload, place.fin)
        except Exception as error:
            _settle(place.turn, error)
        else:
            _settle(place.turn)

    def _resume_later(self) -> None:
        if not self._resuming:
            self._resuming = True
            self._protocol.loop.call_soon(self._resume)

    def _resume(self) -> None:
        self._resuming = False
        self._move_line()


def _part(part: Any) -> bytes:
    payload = payload_of(part)
    if payload is None:
        raise TypeError(f"a part of a message is str or bytes-like, not {type(part).__name__}")
    return payload


def _settle(turn: "asyncio.Future[None]", error: BaseException | None = None) -> None:
    if turn.done():
        return
    if error is None:
        turn.set_result(None)
    else:
        turn.set_exception(error)
        if isinstance(error, ConnectionClosed):
            turn.exception()  # retrieved: if nobody waits for it, it is nothing to be told of


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
