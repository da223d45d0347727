"""Times of the heartbeat that a view changes while its connection is open."""

import asyncio

import pytest

from duck.contrib.websockets import OpCode, WebSocketView

pytestmark = pytest.mark.in_memory


class View(WebSocketView):
    """Sets the setting that a message names to None, and one with a number to it."""

    PING_INTERVAL = 30
    PONG_TIMEOUT = 10
    MAX_BACKOFF = 100
    RECEIVE_TIMEOUT = None

    async def on_receive(self, message, opcode):
        name, _, value = message.decode().partition(" ")
        setattr(self, name, float(value) if value else None)


async def pings_for(peer, seconds):
    """The times at which pings come; each is answered."""
    loop = asyncio.get_running_loop()
    begin, times = loop.time(), []
    try:
        async with asyncio.timeout(seconds):
            while True:
                frame = await peer.frame()
                assert frame.opcode == OpCode.PING
                times.append(loop.time() - begin)
                peer.pong(frame.payload)
    except TimeoutError:
        return times


@pytest.mark.parametrize("timeout", [None, 10])
async def test_no_pings_are_sent_once_there_is_no_interval(connect, timeout):
    class Quiet(View):
        PONG_TIMEOUT = timeout
        RECEIVE_TIMEOUT = 2000

    async with connect(Quiet) as session:
        assert len(await pings_for(session.peer, 100)) == 3
        session.peer.send("PING_INTERVAL")
        assert await pings_for(session.peer, 1000) == []
        assert session.view.close_code is None
        assert await session.peer.closing() == (1001, "nothing received for too long")


async def test_a_peer_that_has_missed_a_ping_is_kept_without_an_interval(connect):
    async with connect(View) as session:
        assert (await session.peer.frame()).opcode == OpCode.PING
        session.view.PING_INTERVAL = None
        await asyncio.sleep(1000)
        assert session.view.close_code is None
        session.view.PING_INTERVAL = 30
        assert (await session.peer.frame()).opcode == OpCode.PING


@pytest.mark.parametrize("before", [None, 3600])
async def test_an_interval_that_is_set_later_counts_from_the_last_ping(connect, before):
    class Quiet(View):
        PING_INTERVAL = before

    async with connect(Quiet) as session:
        assert await pings_for(session.peer, 50) == []
        session.peer.send("PING_INTERVAL 10")
        assert await pings_for(session.peer, 35) == pytest.approx([0, 10, 20, 30], abs=0.2)


async def test_an_interval_that_is_set_for_each_message_does_not_delay_the_pings(connect):
    async with connect(View) as session:
        times = []
        for _ in range(20):
            session.peer.send("PING_INTERVAL 30")
            times += await pings_for(session.peer, 5)
        assert len(times) == 3


async def test_on_open_may_set_the_interval(connect):
    class Opening(View):
        async def on_open(self):
            self.PING_INTERVAL = 10

    async with connect(Opening) as session:
        assert await pings_for(session.peer, 35) == pytest.approx([10, 20, 30], abs=0.2)


async def test_a_limit_to_silence_that_is_set_later_counts_from_the_last_byte(connect):
    class Patient(View):
        PING_INTERVAL = None

    async with connect(Patient) as session:
        await asyncio.sleep(1000)
        session.peer.send("RECEIVE_TIMEOUT 50")
        begin = asyncio.get_running_loop().time()
        assert await session.peer.closing() == (1001, "nothing received for too long")
        assert asyncio.get_running_loop().time() - begin == pytest.approx(50, abs=6)


async def test_a_change_starts_no_heartbeat_that_the_view_has_replaced(connect):
    class Own(View):
        async def _heartbeat_loop(self):
            pass

    async with connect(Own) as session:
        session.peer.send("PING_INTERVAL 10")
        assert await pings_for(session.peer, 100) == []


async def test_a_change_starts_no_heartbeat_of_a_closing_connection(connect):
    class Closing(View):
        CLOSE_TIMEOUT = 100

        async def on_receive(self, message, opcode):
            self.send_close()
            self.PING_INTERVAL = 10

    async with connect(Closing) as session:
        session.peer.send("x")
        assert await session.peer.closing() == (1000, "")
        assert await pings_for(session.peer, 50) == []
