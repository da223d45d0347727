"""The same over TLS, where the transport is another one: its reads may be smaller or larger than records."""

import asyncio
import random

import pytest

from duck.contrib.websockets import ConnectionClosed, WebSocketView
from duck.contrib.websockets.protocol.hooks import Hooks

from ..support.peers import Peer
from ..support.sending import fill
from ..support.servers import SLOW

MIB = 2**20


class Echo(WebSocketView):
    MAX_FRAME_SIZE = None
    CLOSE_TIMEOUT = 30

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.closed = 0

    async def on_receive(self, message, opcode):
        await self.send(message, opcode)

    async def on_close(self, frame=None):
        self.closed += 1


async def test_messages_of_all_sizes_pass_over_tls(connect, tls):
    chance = random.Random(3)
    sizes = [0, 1, 125, 126, 16_383, 16_384, 16_385, 65_535, 65_536, 65_537, 262_144, MIB, 3 * MIB + 1]
    messages = [chance.randbytes(size) for size in sizes]
    async with connect(Echo, tls=tls) as session:
        for message in messages:
            session.peer.send(message)
            assert await session.peer.message() == message
        # Then all at once, read while they are written.
        session.peer.send(*messages)
        for message in messages:
            assert await session.peer.message() == message


async def test_many_small_messages_pass_over_tls_at_once(connect, tls):
    async with connect(Echo, tls=tls) as session:
        session.peer.send(*map(str, range(5000)))
        for i in range(5000):
            assert await session.peer.message() == str(i)


async def test_terminate_may_be_repeated_while_the_peer_does_not_answer(connect, tls, monkeypatch):
    """A second `close` of asyncio's TLS transport would make `abort` do nothing."""
    monkeypatch.setattr(Hooks, "FLUSH_TIMEOUT", 0.05)
    async with connect(Echo, tls=tls) as session:
        session.peer.writer.transport.pause_reading()
        session.view.terminate()
        session.view.terminate()
        await session.ended()


async def test_frames_behind_the_request_are_handled_over_tls(connect, tls):
    behind = b"".join(Peer.serialize(str(i)) for i in range(50))
    async with connect(Echo, tls=tls, behind=behind + b"\x81\x84\0\0") as session:
        session.peer.write(b"\0\0last")
        expected = [*map(str, range(50)), "last"]
        assert [await session.peer.message() for _ in expected] == expected


@pytest.mark.parametrize("end", ["peer", "view", "breach", "gone"])
async def test_every_end_over_tls_runs_on_close_once(connect, tls, end):
    async with connect(Echo, tls=tls) as session:
        view, peer = session.view, session.peer
        if end == "peer":
            peer.send("last")
            peer.close(4000, "bye")
            assert await peer.message() == "last"
            assert await peer.closing() == (4000, "")
        elif end == "view":
            await view.send_close(4000, "bye")
            assert await peer.closing() == (4000, "bye")
            peer.close(4000)
        elif end == "breach":
            peer.send("last")
            peer.write(b"\x83\x80")
            assert await peer.message() == "last"
            assert await peer.closing() == (1002, "reserved opcode")
        else:
            peer.leave()
        if end != "gone":
            assert await peer.rest() == []
        await session.ended()
        assert view.closed == 1
        assert view.close_code == {"breach": 1002, "gone": 1006}.get(end, 4000)


async def test_senders_wait_for_a_slow_peer_over_tls(connect, tls):
    async with connect(Echo, tls=tls, **SLOW) as session:
        view, peer = session.view, session.peer
        count, sending = await fill(view)
        for _ in range(count + 1):
            assert await peer.message() == bytes(65_536)
        await sending
        # The same for a peer that disconnects.
        senders = [asyncio.create_task(view.send_binary(bytes(4 * MIB))) for _ in range(4)]
        await asyncio.sleep(0.01)
        peer.leave()
        results = await asyncio.gather(*senders, return_exceptions=True)
        assert isinstance(results[-1], ConnectionClosed)
