"""Compressed messages, large ones among them, and a client that sends them."""

import asyncio
import random
import threading

from duck.contrib.websockets import (
    Frame,
    OpCode,
    PerMessageDeflate,
)
from duck.contrib.websockets.sansio.payloads import parse_close

OFFER = {"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"}
MIB = 2**20
SECONDS = 30


def text(seed, size=300_000):
    """Compresses to about a half."""
    return random.Random(seed).randbytes(size // 2).hex().encode()


LARGE = [text(seed) for seed in range(4)]


def far_end():
    """The compression of a client whose offer is OFFER."""
    return PerMessageDeflate("permessage-deflate", client_max_window_bits=12, server_max_window_bits=12)


def encoded(end, payload, opcode=OpCode.TEXT):
    """A frame with a message that is compressed."""
    return end.encode(Frame(opcode, payload=payload))


def compressed(end, payload, opcode=OpCode.TEXT):
    return encoded(end, payload, opcode).serialize(mask=True)


def broken(size=200_000):
    """A large message that is marked as compressed, but is not."""
    return Frame(OpCode.TEXT, payload=b"\xff" * size, rsv1=True).serialize(mask=True)


class Client:
    """The peer of a session, which compresses its messages."""

    def __init__(self, peer):
        self.peer = peer
        self.end = far_end()

    def send(self, *messages):
        """Sends messages, and frames as they are, all in one piece."""
        self.peer.send(*(message if isinstance(message, Frame) else encoded(self.end, message) for message in messages))

    async def frame(self):
        return await Frame.parse(self.peer.reader.readexactly, mask_required=False, extensions=[self.end])

    async def message(self):
        return await self.peer.inflated(self.end)

    async def closing(self):
        frame = await self.frame()
        assert frame.opcode == OpCode.CLOSE
        return parse_close(frame.payload)[0]


class Gate:
    """Stops the threads until it is opened.

    Attributes:
        entered: Set when a thread has reached the gate.
    """

    def __init__(self, loop):
        self._loop = loop
        self._open = threading.Event()
        self.entered = asyncio.Event()

    def open(self):
        self._open.set()

    def pass_through(self):
        if threading.current_thread().name.startswith("duck-deflate"):
            self._loop.call_soon_threadsafe(self.entered.set)
            assert self._open.wait(SECONDS)
