"""A WebSocket client without rules: it sends valid and invalid bytes alike, and answers nothing by itself."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

from duck.contrib.websockets import CloseCode, Frame, OpCode, PerMessageDeflate
from duck.contrib.websockets.sansio.payloads import parse_close

from .handshake import upgrade
from .tls import Tls

__all__ = ["ENDING", "Peer", "Session", "dial"]

ENDING = 9
"""Seconds within which a view must end after the loss of its peer; less than CLOSE_TIMEOUT."""

_MOST_FLOODED = 64 * 2**20


class Peer:
    """A client that sends only on request."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def write(self, data: bytes) -> None:
        self.writer.write(data)

    def send(self, *messages: str | bytes | Frame) -> None:
        """Sends texts, bytes and frames by one write."""
        self.write(b"".join(map(self.serialize, messages)))

    @staticmethod
    def serialize(message: str | bytes | Frame) -> bytes:
        if isinstance(message, str):
            message = Frame(OpCode.TEXT, payload=message.encode())
        elif isinstance(message, bytes):
            message = Frame(OpCode.BINARY, payload=message)
        return message.serialize(mask=True)

    def ping(self, payload: bytes = b"") -> None:
        self.send(Frame(OpCode.PING, payload=payload))

    def pong(self, payload: bytes = b"") -> None:
        self.send(Frame(OpCode.PONG, payload=payload))

    def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        self.send(Frame(OpCode.CLOSE, payload=code.to_bytes(2) + reason.encode()))

    async def head(self) -> tuple[int, dict[str, str]]:
        """Reads the head of the response; returns its status, and its fields by lower-case name."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        line, *fields = head.decode("latin-1").split("\r\n")[:-2]
        pairs = (field.split(": ", 1) for field in fields)
        return int(line.split()[1]), {name.lower(): value for name, value in pairs}

    async def frame(self) -> Frame:
        """The next frame, not decompressed."""
        return await Frame.parse(self.reader.readexactly, mask_required=False)

    async def joined(self) -> tuple[int, bytes]:
        """The next message, with its fragments joined and still compressed; or a control frame. Pings are answered.

        Returns:
            The first byte of its (first) header, and the payload.
        """
        begun: int | None = None
        joined = b""
        while True:
            first, size = await self.reader.readexactly(2)
            if size >= 126:
                size = int.from_bytes(await self.reader.readexactly(2 if size == 126 else 8))
            payload = await self.reader.readexactly(size)
            if first & 0b1111 == OpCode.PING:
                self.pong(payload)
                continue
            assert begun is None or first & 0b01111111 == OpCode.CONTINUATION, (begun, first)
            joined += payload
            begun = first if begun is None else begun
            if first & 0b10000000:
                return begun, joined

    async def inflated(self, deflate: PerMessageDeflate) -> bytes:
        """The decompressed payload of the next message, in any number of fragments."""
        first, payload = await self.joined()
        assert first & 0b1111 in (OpCode.TEXT, OpCode.BINARY), (first, payload)
        return deflate.decompress(payload) if first & 0b01000000 else payload

    async def but_pings(self) -> Frame:
        """The next frame that is no ping. Pings are answered: on a busy machine a test outlasts PING_INTERVAL."""
        while (frame := await self.frame()).opcode == OpCode.PING:
            self.pong(frame.payload)
        return frame

    async def message(self) -> str | bytes:
        """The next frame but pings, which must be a whole message."""
        frame = await self.but_pings()
        assert frame.fin, frame
        assert frame.opcode in (OpCode.TEXT, OpCode.BINARY), (frame, frame.payload)
        return frame.payload.decode() if frame.opcode == OpCode.TEXT else frame.payload

    async def closing(self) -> tuple[int, str]:
        """Code and reason of the next frame but pings, which must be a close frame."""
        frame = await self.but_pings()
        assert frame.opcode == OpCode.CLOSE, frame
        return parse_close(frame.payload)

    async def rest(self) -> list[Frame]:
        """The frames up to the end of the server's side."""
        frames = []
        try:
            while True:
                frames.append(await self.frame())
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            assert not getattr(error, "partial", b""), "the stream ends inside a frame"
            return frames

    async def flood(self, data: bytes) -> int:
        """Sends `data` repeatedly until the server stops reading; returns the number of writes.

        The buffers of both sockets are full by then: Linux lets those of a busy machine grow to 36 MiB. Several short
        waits show that, and not a long one: a machine that is busy for all of its time would end it before the server
        has had a turn.
        """
        self.writer.transport.set_write_buffer_limits(high=0)
        for count in range(1, _MOST_FLOODED // len(data)):
            self.write(data)
            draining = asyncio.ensure_future(self.writer.drain())
            for _ in range(10):
                if (await asyncio.wait([draining], timeout=0.005))[0]:
                    break
            else:
                draining.cancel()
                return count
            draining.result()
        raise AssertionError(f"the server has read {_MOST_FLOODED} bytes")

    async def settled(self) -> list[Frame]:
        """The frames up to the pong that shows that the server has read everything."""
        probe = b"settled?"
        self.ping(probe)
        frames: list[Frame] = []
        while True:
            frame = await self.frame()
            if (frame.opcode, frame.payload) == (OpCode.PONG, probe):
                return frames
            frames.append(frame)

    def shut(self) -> None:
        """Sends an end of stream."""
        self.writer.write_eof()

    def leave(self) -> None:
        """Drops the connection without a close frame."""
        self.writer.transport.abort()

    def reset(self) -> None:
        """Drops the connection by a TCP reset."""
        if (sock := self.writer.get_extra_info("socket")) is not None:  # in memory every abort is a reset
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.leave()


class Session:
    """A peer and its view.

    Attributes:
        end: Completes when the view has ended.
    """

    view: Any  # a test knows its view's class
    end: asyncio.Future[None]

    def __init__(self, peer: Peer, server: Any) -> None:
        self.peer = peer
        self.server = server

    async def ended(self, seconds: float = ENDING) -> None:
        """Waits for the end of the view, and raises its exception."""
        async with asyncio.timeout(seconds):
            await asyncio.wait([self.end])
        self.end.result()


@asynccontextmanager
async def dial(
    server: Any,
    *,
    target: str = "/",
    headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
    without: Iterable[str] = (),
    behind: bytes = b"",
    read_limit: int = 2**16,
    receive_buffer: int | None = None,
    tls: Tls | None = None,
    cut: int | None = None,
) -> AsyncIterator[Peer]:
    """Connects a peer that sends its request up to `cut`, and the bytes `behind` it, by one write.

    Args:
        server: The server; only its `port` is used.
        target: The target of the request. For `headers` and `without`, see `handshake.fields`.
        read_limit: Bytes that the peer's stream may buffer.
        receive_buffer: Bytes of the kernel's receive buffer; None for the default.
    """
    sock = socket.socket(proto=socket.IPPROTO_TCP)  # asyncio sets TCP_NODELAY only where the protocol is named
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", server.port))
    options: dict[str, Any] = {} if tls is None else {"ssl": tls.client, "server_hostname": "localhost"}
    reader, writer = await asyncio.open_connection(sock=sock, limit=read_limit, **options)
    writer.write(upgrade(target, headers, without=without)[:cut] + behind)
    try:
        yield Peer(reader, writer)
    finally:
        writer.transport.abort()
        with suppress(OSError):
            await writer.wait_closed()
