"""The heartbeat on sockets: bytes that wait in the kernel count, and a late loop is considered."""

import asyncio
import socket
import time

import pytest

from duck.contrib.websockets import OpCode

from ..support.servers import SLOW
from ..support.views import Noting


class View(Noting):
    """Has intervals of an hour in place of milliseconds."""

    PING_INTERVAL = 0.03
    PONG_TIMEOUT = 0.03
    MAX_BACKOFF = 0.03
    RECEIVE_TIMEOUT = None
    CLOSE_TIMEOUT = 0.1

    async def on_receive(self, message, opcode):
        self.events.append(message)


def after_long(session, seconds=1000):
    """Lets the heartbeat check as if the last sign of life were that long ago."""
    heartbeat = session.view._protocol.heartbeat
    heartbeat._silent_since -= seconds
    heartbeat.wake()


async def test_pings_are_sent_and_their_answers_measured(connect):
    class Relaxed(View):
        PONG_TIMEOUT = 5

    loop = asyncio.get_running_loop()
    begun = loop.time()
    async with connect(Relaxed) as session:
        view, peer = session.view, session.peer
        assert view.latency is None
        ping = await peer.frame()
        assert (ping.opcode, ping.fin) == (OpCode.PING, True)
        assert 0 < len(ping.payload) <= 125
        await asyncio.sleep(0.01)  # uvloop's clock counts milliseconds, and may be one late
        peer.pong(ping.payload)
        await peer.settled()
        assert 0.008 <= view.latency <= loop.time() - begun + 0.001
        # The next pong differs from the first.
        second = await peer.frame()
        assert second.opcode == OpCode.PING
        assert second.payload != ping.payload
        # None of these bytes reach the handlers.
        assert view.events == []


async def test_a_peer_that_reads_slowly_is_not_silent(connect, either_tls):
    """TLS does not count the bytes of the socket below it, which refills the send queue."""

    class Strict(View):
        PING_INTERVAL = None
        RECEIVE_TIMEOUT = 500
        MAX_FRAME_SIZE = 2**18

    async with connect(Strict, receive_buffer=65536, read_limit=65536, tls=either_tls) as session:
        session.view.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**19)  # so that bytes wait at each check
        sending = [asyncio.ensure_future(session.view.send_binary(bytes(2**22))) for _ in range(3)]
        for number in range(48):
            assert len((await session.peer.frame()).payload) == 2**18
            if number in range(0, 40, 4):  # between two of them more is read than buffers hold
                after_long(session, seconds=1000 if number else 0)
        assert session.view.close_code is None
        await asyncio.gather(*sending)


async def test_a_peer_that_does_not_read_is_silent(connect, either_tls):
    """This holds while the waiting bytes grow, too."""

    class Strict(View):
        PING_INTERVAL = None
        RECEIVE_TIMEOUT = 0.1
        SENDING = None

        async def on_open(self):
            while self.close_code is None:
                self.SENDING = asyncio.ensure_future(self.send_binary(bytes(2**18)))
                self.SENDING.add_done_callback(lambda sent: sent.cancelled() or sent.exception())
                await asyncio.sleep(0.02)

    async with connect(Strict, **SLOW, tls=either_tls) as session:
        session.peer.writer.transport.pause_reading()
        await session.ended(10)
        assert (session.view.close_code, session.view.close_reason) == (1001, "nothing received for too long")


async def test_a_busy_loop_is_not_taken_for_a_dead_peer(connect, monkeypatch):
    """The pong has arrived unread, so a late clock must check again."""
    monkeypatch.setattr("duck.contrib.websockets.protocol.heartbeat.Heartbeat.LATE", 0.05)
    async with connect(View) as session:
        peer = session.peer
        for _ in range(2):
            ping = await peer.frame()
            assert ping.opcode == OpCode.PING
            peer.pong(ping.payload)
            time.sleep(0.12)  # noqa: ASYNC251
        assert session.view.close_code is None


@pytest.mark.parametrize("waiting", [2, 100])
async def test_a_silent_peer_is_dropped_whether_or_not_reading_is_on_hold(connect, waiting):
    class Busy(View):
        MAX_CONCURRENT_MESSAGES = 1
        PING_INTERVAL = None
        RECEIVE_TIMEOUT = 0.1
        CLOSE_TIMEOUT = 0.1

        async def on_receive(self, message, opcode):
            await asyncio.Event().wait()

    async with connect(Busy) as session:
        session.peer.send(*["x"] * waiting)
        assert await session.peer.closing() == (1001, "nothing received for too long")
        session.peer.leave()
        await session.ended()


async def test_a_peer_that_has_filled_the_receive_buffer_is_not_silent(connect, until, either_tls):
    """Nothing more can arrive while reading is on hold."""

    class Busy(View):
        MAX_CONCURRENT_MESSAGES = 1
        PING_INTERVAL = None
        RECEIVE_TIMEOUT = 500

        async def on_receive(self, message, opcode):
            await go_on.wait()

    go_on = asyncio.Event()
    async with connect(Busy, tls=either_tls) as session:
        session.peer.send(*[bytes(2**16)] * 256)
        await until(lambda: session.view._protocol.is_receive_buffer_full)
        for _ in range(3):
            after_long(session)
        assert session.view.close_code is None
        go_on.set()


async def test_a_peer_that_sends_while_reading_is_on_hold_is_alive(connect):
    """Its pongs have arrived, but are not read."""

    class Busy(View):
        MAX_CONCURRENT_MESSAGES = 1
        RECEIVE_TIMEOUT = 500
        PING_INTERVAL = PONG_TIMEOUT = 0.05

        async def on_receive(self, message, opcode):
            await self.send(message)
            await go_on.wait()

    go_on = asyncio.Event()
    async with connect(Busy) as session:
        session.peer.send(*["x"] * 50)
        assert await session.peer.message() == "x"
        for _ in range(4):
            frame = await session.peer.frame()
            assert frame.opcode == OpCode.PING
            session.peer.pong(frame.payload)
            after_long(session)
        assert not session.view.request.transport.is_reading()
        assert session.view.close_code is None
        go_on.set()
        for _ in range(49):
            assert await session.peer.message() == "x"
