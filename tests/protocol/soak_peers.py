"""The peers of `soak.py`: those that keep to the rules, and a fault of every kind."""

import asyncio
import random
import socket
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Self

from duck.contrib.websockets import Frame, OpCode, PerMessageDeflate
from duck.contrib.websockets.sansio.connection import Connection

from ..support.handshake import UPGRADE
from .churn import BYE, HELLO, WAYS, reset, visit

RAISE, WAIT, MUCH, COUNT, TRIM = b"raise", b"wait", b"much", b"count", b"trim"
"""Messages that ask the server for something."""

MUCH_COUNT = 64
MUCH_OF = bytes(range(256)) * 256

PATIENCE = 60  # seconds for an expected reaction of the server
PAUSE = 0.5  # seconds between two batches of a busy connection, at most

OFFER = b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
AGREED = b"\r\nsec-websocket-extensions: permessage-deflate; server_max_window_bits=12; client_max_window_bits=12\r\n"

LARGEST = 2**16
TEXT = "".join(random.choices("etaoin shrdlu äöü €✓ 🦆", k=LARGEST))
OCTETS = random.randbytes(LARGEST)


class Peer:
    """A client that keeps to the rules.

    Attributes:
        counts: Pings that were answered, in `counts["pings answered"]`.
        pace: Seconds to wait before each read.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.connection = Connection(client=True)
        self.inbox: deque[tuple[int, bytes]] = deque()
        self.counts: Counter[str] = Counter()
        self.pace = 0.0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.drop()

    async def open(self, compressed: bool) -> None:
        """The opening handshake."""
        self.writer.write(UPGRADE[:-2] + OFFER if compressed else UPGRADE)
        head = await self.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        assert (AGREED in head.lower()) is compressed, head
        if compressed:
            deflate = PerMessageDeflate(
                "permessage-deflate", client_max_window_bits=12, server_max_window_bits=12, threshold=256
            )
            self.connection = Connection(client=True, extensions=[deflate])

    def send(self, opcode: int, payload: bytes) -> None:
        """Sends a message, whole or in fragments."""
        step = len(payload) // random.choice((1, 1, 2, 5)) + 1
        for start in range(0, len(payload), step):
            end = start + step
            self.connection.send(opcode if start == 0 else OpCode.CONTINUATION, payload[start:end], end >= len(payload))
        self._flush()

    def _flush(self) -> None:
        self.writer.writelines(self.connection.take_outgoing())

    async def message(self) -> tuple[int, bytes]:
        """The next message.

        Raises:
            EOFError: The connection has ended.
        """
        while not self.inbox:
            if self.pace:
                await asyncio.sleep(self.pace)
            data = await self.reader.read(LARGEST)
            if not data:
                raise EOFError(f"the connection has ended with {self.connection.close_code}")
            for opcode, payload in self.connection.receive(data):
                if opcode < OpCode.CLOSE:
                    self.inbox.append((opcode, payload))
                self.counts["pings answered"] += opcode == OpCode.PING
            self.connection.respond()
            self._flush()
            assert self.connection.failed is None, self.connection.failed
        return self.inbox.popleft()

    async def ask(self, question: bytes) -> bytes:
        """The answer to a text."""
        self.send(OpCode.TEXT, question)
        return (await self.message())[1]

    async def closing(self) -> int | None:
        """Reads to the end; returns the close code."""
        try:
            while True:
                await self.message()
        except EOFError:
            return self.connection.close_code

    async def leave(self) -> None:
        """Closes, or just goes."""
        if random.random() < 0.25:
            reset(self.writer)
            return
        self.connection.close()
        self._flush()
        async with asyncio.timeout(PATIENCE):
            code = await self.closing()
        assert code == 1000, code

    def drop(self) -> None:
        """Closes the socket."""
        self.writer.transport.abort()


async def connect(port: int, receive_buffer: int | None = None) -> Peer:
    """A peer that has done its handshake; every second one offers compression."""
    sock = socket.socket(proto=socket.IPPROTO_TCP)  # asyncio sets TCP_NODELAY only where the protocol is named
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.setblocking(False)
    async with asyncio.timeout(PATIENCE):
        try:
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        except BaseException:
            sock.close()
            raise
        peer = Peer(*await asyncio.open_connection(sock=sock, limit=receive_buffer or LARGEST))
        try:
            await peer.open(compressed=random.random() < 0.5)
        except BaseException:
            peer.drop()
            raise
    return peer


# Peers that keep to the rules


async def idle(peer: Peer, counts: Counter[str]) -> None:
    """Answers pings."""
    peer.counts = counts
    message = await peer.message()
    raise AssertionError(f"an idle connection has got {message}")


async def busy(peer: Peer, counts: Counter[str]) -> None:
    """Sends messages of every size, and checks that they come back."""
    while True:
        batch = [_any_message() for _ in range(random.randint(1, 6))]
        for message in batch:
            peer.send(*message)
        for message in batch:
            async with asyncio.timeout(PATIENCE):
                answer = await peer.message()
            assert answer == message, f"{message[0]}, {len(message[1])} bytes, came back as {answer[0]}, {answer[1]!r}"
            counts["echoes"] += 1
        await asyncio.sleep(random.uniform(0, PAUSE))


def _any_message() -> tuple[int, bytes]:
    size = int(2 ** random.uniform(0, 16))
    start = random.randint(0, LARGEST - size)
    if random.random() < 0.5:
        return OpCode.BINARY, OCTETS[start : start + size]
    return OpCode.TEXT, TEXT[start : start + size].encode()[:size].decode(errors="ignore").encode() or b"x"


# Faults


async def _raising(port: int) -> None:
    async with await connect(port) as peer:
        peer.send(OpCode.TEXT, RAISE)
        assert await peer.closing() == 1011


async def _reset(port: int, head: bytes, rest: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(head)
        if rest:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(rest)
        await asyncio.sleep(random.uniform(0, 0.05))
    finally:
        reset(writer)


async def _garbage(port: int, head: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(head + random.randbytes(random.randint(1, 2000)))
        writer.write_eof()
        await reader.read()
    finally:
        writer.transport.abort()


async def _half_open(port: int) -> None:
    """Answers no ping."""
    async with await connect(port) as peer:
        assert b"no pong" in await peer.reader.read()


async def _slow(port: int) -> None:
    """Requests many messages, reads them slowly, and must get all of them."""
    async with await connect(port, receive_buffer=2**13) as peer:
        peer.pace = 0.005
        peer.send(OpCode.BINARY, MUCH)
        for _ in range(MUCH_COUNT):
            assert await peer.message() == (OpCode.BINARY, MUCH_OF)
        assert await peer.message() == (OpCode.BINARY, MUCH)
        await peer.leave()


async def _flood(port: int, data: bytes) -> None:
    """Sends until the transport is full, and reads no answer."""
    async with await connect(port, receive_buffer=2**13) as peer:
        peer.writer.transport.set_write_buffer_limits(high=0)
        for _ in range(500):
            peer.writer.write(data)
            try:
                async with asyncio.timeout(1):
                    await peer.writer.drain()
            except TimeoutError:
                break
        else:
            raise AssertionError("the server has taken all of a flood")
        reset(peer.writer)


def _frames(opcode: OpCode, payload: bytes, count: int) -> bytes:
    return Frame(opcode, payload=payload).serialize(mask=True) * count


FAULTS: dict[str, Callable[[int], Awaitable[None]]] = {
    **{f"churn: {way}": partial(visit, way=way) for way in WAYS},
    "reset in the head": partial(_reset, head=UPGRADE[:50], rest=b""),
    "reset behind the head": partial(_reset, head=UPGRADE, rest=b""),
    "reset in a frame": partial(_reset, head=UPGRADE, rest=HELLO[:7]),
    "reset in a message": partial(_reset, head=UPGRADE, rest=Frame(OpCode.TEXT, False, b"a").serialize(mask=True)),
    "reset in a handler": partial(_reset, head=UPGRADE, rest=_frames(OpCode.TEXT, WAIT, 1)),
    "reset in the close frame": partial(_reset, head=UPGRADE, rest=BYE[:3]),
    "reset behind the close frame": partial(_reset, head=UPGRADE, rest=BYE),
    "handler raises": _raising,
    "garbage for a head": partial(_garbage, head=b""),
    "garbage for frames": partial(_garbage, head=UPGRADE),
    "half-open": _half_open,
    "slow reader": _slow,
    "flood of messages": partial(_flood, data=_frames(OpCode.BINARY, OCTETS[: 2**14], 4)),
    "flood of pings": partial(_flood, data=_frames(OpCode.PING, bytes(125), 500)),
}
