"""The load client: members of a group who take the time of each message.

A message is `t=` and 16 hexadecimal digits, the time at which it was sent in ns, and 4, the number of its publisher,
and then letters up to its size. Frames are masked with zeros, which costs the client nothing.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from statistics import quantiles
from typing import Any

from ..echo.client import LoadError
from .registry import Wire

__all__ = ["Load"]

_REQUEST = (
    "GET {} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
_TEXT, _CLOSE, _PING = 0x81, 0x88, 0x89
_PONG = bytes([0x8A, 0x80, 0, 0, 0, 0])
_STALL = 10.0  # seconds
_PROBE = b"ffff"  # the publisher of messages that are no load
_LARGE = 48 * 1024  # bytes of messages that fill buffers


class Member(asyncio.Protocol):
    """A client.

    Attributes:
        received: Messages that have come, but for probes.
        probed: Whether a probe has come.
        lost: Why the connection was lost.
    """

    def __init__(self, load: "Load", number: int, port: int) -> None:
        self.received = 0
        self.probed = False
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._load = load
        self._number = b"%04x" % number
        self._port = port
        self._rest = b""

    def connection_made(self, transport: Any) -> None:
        self.transport: asyncio.Transport = transport
        transport.write(_REQUEST.format(self._load.wire.path, self._port).encode())

    def connection_lost(self, exc: Exception | None) -> None:
        self._load.fail(f"a server closed a connection: {exc or 'end of stream'}")
        if not self.opened.done():
            self.opened.set_result(None)

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        at = 0
        if not self.opened.done():
            head, found, data = data.partition(b"\r\n\r\n")
            if not found:
                self._rest = head
                return
            if not head.startswith(b"HTTP/1.1 101"):
                self._load.fail(f"a server refuses: {head[:80]!r}")
            if self._load.wire.greeting:
                self.send(self._load.wire.greeting)
            self.opened.set_result(None)
        now = time.monotonic_ns()
        latencies = self._load.latencies
        while len(data) - at >= 2:
            size, head_size = data[at + 1], 2
            if size == 126:
                size, head_size = int.from_bytes(data[at + 2 : at + 4]), 4
            elif size == 127:
                size, head_size = int.from_bytes(data[at + 2 : at + 10]), 10
            end = at + head_size + size
            if end > len(data):
                break
            begin = data.find(b"t=", at, end)
            if begin < 0:
                self._other(data[at], data[at + head_size : end])
            elif data[begin + 18 : begin + 22] == _PROBE:
                self.probed = True
            else:
                self.received += 1
                if latencies is not None:
                    latencies.append(now - int(data[begin + 2 : begin + 18], 16))
                if data[begin + 18 : begin + 22] == self._number:
                    self._load.returned(self)
            at = end
        self._rest = data[at:]

    def _other(self, first: int, payload: bytes) -> None:
        """A frame that is no message of the group."""
        if first == _PING:
            self.transport.write(_PONG)  # servers take any pong as a sign of life
        elif first == _CLOSE:
            self._load.fail(f"a server closed a connection: {payload!r}")
        elif payload == b"2":  # a ping of Engine.IO
            self.send(b"3")

    def publish(self, publisher: bytes = b"", size: int = 0) -> None:
        """Sends a message to the group."""
        wire = self._load.wire
        words = b"t=%016x%b" % (time.monotonic_ns(), publisher or self._number)
        self.send(wire.before + words.ljust(size or self._load.size, b"x") + wire.after)

    def send(self, payload: bytes) -> None:
        """Sends a text message."""
        size = len(payload)
        head = bytes([_TEXT, 0x80 | size]) if size < 126 else bytes([_TEXT, 0xFE]) + size.to_bytes(2)
        self.transport.write(head + b"\0\0\0\0" + payload)


class Load:
    """The load on one group.

    Args:
        wire: What stands around a message.
        ports: Of the servers; the members are divided among them.
        members: How many.
        publishers: How many of them publish.
        size: Bytes of a message.

    Attributes:
        latencies: Of the deliveries, in ns; None while nothing is measured.
    """

    def __init__(self, wire: Wire, ports: list[int], members: int, publishers: int, size: int) -> None:
        self.wire = wire
        self.size = size
        self._ports = ports
        self._count = members
        self._publishers = publishers
        self._members: list[Member] = []
        self._sent = 0
        self.latencies: list[int] | None = None
        self._stopping = False
        self._error: str | None = None

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """Connects the members, and waits until messages of each server reach all of them."""
        loop = asyncio.get_running_loop()
        async with AsyncExitStack() as stack:
            for number in range(self._count):
                port = self._ports[number % len(self._ports)]
                member = Member(self, number, port)
                await loop.create_connection(lambda: member, "127.0.0.1", port)  # noqa: B023
                stack.callback(self._end, member)
                self._members.append(member)
                await member.opened
                self._check()
            for publisher in self._members[: len(self._ports)]:
                await self._probe(publisher, self.size)
            yield

    async def _probe(self, publisher: Member, size: int) -> None:
        """Publishes a message that is no load, and waits until all members have it."""
        for member in self._members:
            member.probed = False
        publisher.publish(_PROBE, size)
        await self._until(lambda: all(member.probed for member in self._members), "not all members are reached")

    async def fill(self, full: Callable[[], bool]) -> None:
        """Publishes large messages until the buffers of members who do not read are full."""
        deadline = time.monotonic() + _STALL
        while not await asyncio.to_thread(full):
            if time.monotonic() > deadline:
                raise LoadError("the members who do not read are not slow")
            for _ in range(8):
                await self._probe(self._members[0], _LARGE)

    async def run(self, warmup: float, seconds: float, note: Callable[[], None]) -> dict[str, float]:
        """Publishes; calls back when it begins to measure, and when it has measured.

        Returns:
            `deliveries` within `seconds`, `p50_us` and `p99_us`.

        Raises:
            LoadError: A message was lost, or a connection.
        """
        for publisher in self._members[: self._publishers]:
            self._publish(publisher)
        await asyncio.sleep(warmup)
        note()
        self.latencies = latencies = []
        began = time.monotonic()
        await asyncio.sleep(seconds)
        elapsed = time.monotonic() - began
        note()
        self.latencies = None
        self._stopping = True
        await self._until(lambda: all(member.received == self._sent for member in self._members), "messages are lost")
        if len(latencies) < 2:
            raise LoadError("nothing came back in time to be measured")
        cuts = quantiles(latencies, n=100)
        return {
            "deliveries": len(latencies),
            "seconds": elapsed,
            "p50_us": cuts[49] / 1000,
            "p99_us": cuts[98] / 1000,
        }

    def returned(self, publisher: Member) -> None:
        """A publisher has got its own message: the next one is due."""
        if not self._stopping:
            self._publish(publisher)

    def fail(self, words: str) -> None:
        """Something has gone wrong."""
        self._error = self._error or words

    def _publish(self, publisher: Member) -> None:
        self._sent += 1
        publisher.publish()

    def _check(self) -> None:
        if self._error:
            raise LoadError(self._error)

    async def _until(self, condition: Callable[[], bool], words: str) -> None:
        try:
            async with asyncio.timeout(_STALL):
                while not condition():
                    self._check()
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise LoadError(words) from None

    def _end(self, member: Member) -> None:
        self._error = self._error or "ended"
        member.transport.abort()
