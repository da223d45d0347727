"""The embedded server on one connection in memory: no input and no end at any time causes an error or a leak.

A script reads, ends the stream, loses the connection, stops and begins to take the server's writes, and lets the
loop run, in any order. Handlers answer, wait, fail, send much and close, as their messages say.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Any

from duck.contrib.websockets import Frame, OpCode, WebSocketView
from duck.contrib.websockets.codec import pure
from duck.server import Server
from duck.server.http.protocol import HttpProtocol
from duck.server.options import Options
from duck.urls import path

from ..support.handshake import upgrade
from .choices import Choices, frame

REQUEST = upgrade("/ws")

__all__ = ["check", "seeds"]

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
MASK = b"\x37\xfa\x21\x3d"
PASSES = 60  # iterations of the loop for everything to end


class Boom(Exception):
    """The error of hooks that fail on request."""


class View(WebSocketView):
    """Acts by the first byte of a message."""

    CLOSE_TIMEOUT = 1000
    PING_INTERVAL = RECEIVE_TIMEOUT = None
    MAX_CONCURRENT_MESSAGES = 2
    opens = closes = 0

    async def on_open(self) -> None:
        View.opens += 1
        if self.request.query_string:
            await asyncio.sleep(0)

    async def on_receive(self, message: bytes, opcode: OpCode) -> None:
        kind = message[0] % 8 if message else 0
        if kind & 1:
            await asyncio.sleep(0)
        if kind == 2:
            raise Boom
        if kind in (4, 5):
            await self.send_close(3000 + kind)
        elif kind == 6:
            await self.send_binary(bytes(100_000))
        elif kind == 7:
            await self.send(iter(["one ", "two"]))
        await self.send(message, opcode)

    async def on_close(self, frame: Frame | None = None) -> None:
        View.closes += 1


class Transport(asyncio.Transport):
    """A connection in memory, which behaves as those of asyncio."""

    def __init__(self, loop: asyncio.AbstractEventLoop, protocol: asyncio.BufferedProtocol) -> None:
        super().__init__()
        self.loop, self.protocol = loop, protocol
        self.taken = b""  # by the peer
        self.buffer = b""
        self.inbox: list[bytes] = []  # unread bytes; empty ones are the end of the stream
        self.blocked = self.closing = self.lost = self.is_paused = self.eof = False
        self.reads, self.high = True, 65536

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 5) if name == "peername" else default

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol  # type: ignore[assignment]

    def is_closing(self) -> bool:
        return self.closing

    def is_reading(self) -> bool:
        return self.reads

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True
        self.loop.call_soon(self.read)

    def read(self) -> None:
        """Delivers the waiting bytes, one read at a time."""
        while self.inbox and self.reads and not self.closing:
            piece = self.inbox[0]
            if not piece:
                self.inbox.clear()
                if not self.protocol.eof_received():
                    self.close()
                return
            buffer = memoryview(self.protocol.get_buffer(-1))
            size = min(len(piece), len(buffer))
            buffer[:size] = piece[:size]
            self.inbox[:1] = [piece[size:]] if size < len(piece) else []
            self.protocol.buffer_updated(size)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.eof = True

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.high = 65536 if high is None else high

    def get_write_buffer_size(self) -> int:
        return len(self.buffer)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.eof, "written behind the end of the stream"
        if self.lost:
            return
        self.buffer += data
        if not self.blocked:
            self.drain()
        elif len(self.buffer) > self.high and not self.is_paused:
            self.is_paused = True
            self.protocol.pause_writing()

    def drain(self) -> None:
        """The peer takes all that is written."""
        self.taken, self.buffer = self.taken + self.buffer, b""
        if self.is_paused:
            self.is_paused = False
            self.protocol.resume_writing()
        if self.closing:
            self.lose(None)

    def close(self) -> None:
        if not self.closing:
            self.closing = True
            if not self.buffer:
                self.lose(None)

    def abort(self) -> None:
        self.lose(None)

    def lose(self, error: Exception | None) -> None:
        """The connection is lost."""
        self.closing = True
        if not self.lost:
            self.lost, self.buffer = True, b""
            self.loop.call_soon(self.protocol.connection_lost, error)


class Errors(logging.Handler):
    """Logged errors, except the requested errors of hooks."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, Boom):
            self.seen.append(f"{record.getMessage()}: {error!r}")


def check(data: bytes) -> None:
    """Plays a script."""
    errors = Errors()
    logger = logging.getLogger("duck")
    logger.addHandler(errors)
    View.opens = View.closes = 0
    try:
        asyncio.run(_play(Choices(data), errors))
    finally:
        logger.removeHandler(errors)
    assert errors.seen == []


async def _play(choices: Choices, errors: Errors) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: errors.seen.append(repr(context)))
    server = Server([path("/ws", View), path("/", lambda request: "page")], Options())
    protocol = HttpProtocol(server, loop)
    transport = Transport(loop, protocol)
    await _call(protocol.connection_made, transport)
    while choices:
        step = choices.number() % 10
        if step == 0:
            transport.inbox.append(REQUEST)
        elif step == 1:
            transport.inbox.append(choices.take(choices.number()) or GET)
        elif step == 2:
            transport.inbox.append(REQUEST.replace(b"/ws", b"/ws?wait") + choices.piece())
        elif step < 6:
            transport.inbox.append(choices.piece() or b"\0")
        elif step == 6:
            for _ in range(choices.number() % 4):
                await asyncio.sleep(0)
        elif step == 7:
            transport.blocked = not transport.blocked
            if not transport.blocked:
                await _call(transport.drain)
        elif step == 8:
            transport.inbox.append(b"")
        else:
            transport.lose(ConnectionResetError())
        await _call(transport.read)
    await _end(server, transport)


async def _call(callback: Callable[..., None], *arguments: Any) -> None:
    """Calls back outside of any task, as a loop does."""
    asyncio.get_running_loop().call_soon(callback, *arguments)
    await asyncio.sleep(0)


async def _end(server: Server, transport: Transport) -> None:
    """The peer reads everything, ends its stream, and aborts if the connection stays open."""
    transport.blocked = False
    await _call(transport.drain)
    transport.inbox.append(b"")
    await _call(transport.read)
    for number in range(PASSES):
        await asyncio.sleep(0)
        if number == PASSES // 2:
            transport.lose(None)
    assert not server._work.views and not server._work.protocols
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert View.opens == View.closes
    _, switched, frames = transport.taken.partition(b"HTTP/1.1 101")
    if switched:
        assert View.opens == 1
        _check_frames(frames.partition(b"\r\n\r\n")[2])


def _check_frames(outgoing: bytes) -> None:
    """Frames that a server may send, none behind a close frame, the last one perhaps cut."""
    closed = False
    while header := pure.parse_header(outgoing, False, False, 2**63 - 1):
        size, first, length, _ = header
        assert not closed, "a frame behind the close frame"
        closed = first & 0xF == 8
        outgoing = outgoing[size + length :]


def seeds() -> Iterator[bytes]:
    """Connections without faults, and ends at each of their steps."""
    script = [
        bytes([0]),
        bytes([6, 2]),
        *(bytes([3]) + frame(0x81, bytes([kind]), MASK) for kind in (0, 1, 3, 7)),
        bytes([6, 1]),
        bytes([7, 3]) + frame(0x82, b"\6", MASK),
        bytes([7, 6, 2, 3]) + frame(0x01, b"part", MASK),
        bytes([3]) + frame(0x89, b"ping", MASK),
        bytes([3]) + frame(0x80, b"\3", MASK),
        bytes([3]) + frame(0x88, b"\x03\xe8", MASK),
    ]
    for length in range(1, len(script) + 1):
        start = b"".join(script[:length])
        for end in (b"", b"\x08", b"\x09", b"\x07\x08", b"\x07\x09", b"\x03" + frame(0x83, b"", MASK)):
            yield start + end
        for kind in (2, 4, 5, 6):
            yield start + b"\x03" + frame(0x82, bytes([kind]), MASK) + b"\x06\x01\x09"
    yield bytes([1, 0, 1, 0, 2]) + frame(0x81, b"\1early", MASK) + bytes([6, 3])
    yield bytes([1, 3]) + b"GET" + bytes([8])
