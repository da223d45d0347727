"""The heartbeat in memory and in virtual time: pings, signs of life, and the end of a silent peer."""

import asyncio

import pytest

from duck.contrib.websockets import Frame, OpCode

from ..support.views import Noting

pytestmark = pytest.mark.in_memory

PING, PONG, TEXT = OpCode.PING, OpCode.PONG, OpCode.TEXT


class View(Noting):
    PING_INTERVAL = 30
    PONG_TIMEOUT = 10
    MAX_BACKOFF = 100
    RECEIVE_TIMEOUT = None
    CLOSE_TIMEOUT = 5

    async def on_receive(self, message, opcode):
        self.events.append(message)

    async def on_close(self, frame=None):
        self.events.append(("close", frame and frame.payload))


def now():
    return asyncio.get_running_loop().time()


def about(seconds):
    """Timers of connections come up to a tick, a sixty-fourth of a second, late."""
    return pytest.approx(seconds, abs=0.1)


async def frames_for(peer, seconds):
    """The frames that come within some time."""
    frames = []
    try:
        async with asyncio.timeout(seconds):
            while True:
                frames.append(await peer.frame())
    except TimeoutError:
        return frames


async def test_an_answer_to_another_ping_is_not_measured(connect):
    async with connect(View) as session:
        ping = await session.peer.frame()
        for payload in (b"", b"12345", b"x" * 125):
            session.peer.pong(payload)
        await session.peer.settled()
        assert session.view.latency is None
        for _ in range(2):
            session.peer.pong(ping.payload)
        await session.peer.settled()
        assert session.view.latency is not None


ANSWERS = {
    "pong": lambda peer, ping: peer.pong(ping.payload),
    "another pong": lambda peer, ping: peer.pong(),
    "ping": lambda peer, ping: peer.ping(),
    "message": lambda peer, ping: peer.send("x"),
    "part of a message": lambda peer, ping: peer.send(Frame(0 if peer.begun else TEXT, False, b"x")),
    "one byte of a frame": lambda peer, ping: peer.write(b"\x82\xfe\xff\xff" + bytes(4) if not peer.begun else b"x"),
}


@pytest.mark.parametrize("kind", ANSWERS)
async def test_anything_received_is_a_sign_of_life(connect, kind):
    async with connect(View) as session:
        peer = session.peer
        peer.begun = False
        pings = 0
        # A fourth one comes only where the three before have been answered.
        while pings < 4:
            frame = await peer.frame()
            assert frame.opcode in (PING, PONG)
            if frame.opcode == PING:
                ANSWERS[kind](peer, frame)
                peer.begun = True
                pings += 1
        assert session.view.close_code is None


async def test_the_third_miss_ends_the_connection(connect):
    """The intervals between misses grow, up to MAX_BACKOFF."""
    async with connect(View) as session:
        times = []
        for opcode in (PING, PING, PING, OpCode.CLOSE):
            frame = await session.peer.frame()
            assert frame.opcode == opcode
            times.append(now())
        assert frame.payload == b"\x03\xe9no pong"
        # Each miss is noticed after 10 seconds; the next ping comes after 60 more, and then after 100 and not 120.
        assert times == [about(30), about(100), about(210), about(220)]
        assert await session.peer.rest() == []
        await session.ended()
        assert session.view.events == [("close", None)]
        assert (session.view.close_code, session.view.close_reason) == (1001, "no pong")


async def test_a_sign_of_life_between_misses_makes_them_forgotten(connect):
    async with connect(View) as session:
        peer = session.peer
        for _ in range(3):
            for _ in range(2):
                assert (await peer.frame()).opcode == PING
            # One has been missed; this answers the second.
            peer.send("x")
        assert session.view.close_code is None
        for _ in range(2):
            assert (await peer.frame()).opcode == PING
        assert (await peer.frame()).opcode in (PING, OpCode.CLOSE)


async def test_a_late_answer_ends_the_backoff(connect):
    """A proxy that closes idle connections would close it before the next ping."""

    class Default(View):
        PING_INTERVAL = 20
        MAX_BACKOFF = 45
        RECEIVE_TIMEOUT = 120

    async with connect(Default) as session:
        ping = await session.peer.frame()
        assert now() == about(20)
        await asyncio.sleep(15)  # a miss
        session.peer.pong(ping.payload)
        assert (await session.peer.frame()).opcode == PING
        assert now() - 35 < Default.RECEIVE_TIMEOUT / 10 + 1
        session.peer.pong(ping.payload)
        last = now()
        assert (await session.peer.frame()).opcode == PING
        assert now() - last == about(20)


async def test_a_silent_peer_is_dropped(connect):
    class Strict(View):
        PING_INTERVAL = None
        RECEIVE_TIMEOUT = 60

    async with connect(Strict) as session:
        assert await session.peer.closing() == (1001, "nothing received for too long")
        assert 60 <= now() <= 66.1
        session.peer.close(1001)
        await session.ended()
        assert session.view.events == [("close", b"\x03\xe9")]


async def test_a_peer_that_sends_in_time_is_kept(connect):
    class Strict(View):
        PING_INTERVAL = None
        RECEIVE_TIMEOUT = 60

    async with connect(Strict) as session:
        for _ in range(10):
            await asyncio.sleep(59)
            session.peer.send("x")
        await session.peer.settled()
        assert session.view.close_code is None


@pytest.mark.parametrize("interval", [None, 0])
async def test_without_an_interval_no_pings_are_sent(connect, interval):
    class Quiet(View):
        PING_INTERVAL = interval

    async with connect(Quiet) as session:
        assert await frames_for(session.peer, 3600) == []
        session.peer.send("x")
        assert await session.peer.settled() == []
        assert session.view.latency is None


@pytest.mark.parametrize("timeout", [None, 0])
async def test_without_a_receive_timeout_silence_has_no_limit(connect, timeout):
    class Patient(View):
        PING_INTERVAL = None
        RECEIVE_TIMEOUT = timeout

    async with connect(Patient) as session:
        assert await frames_for(session.peer, 3600) == []
        assert session.view.close_code is None


async def test_no_pings_follow_a_close_frame(connect):
    class Patient(View):
        CLOSE_TIMEOUT = 3600

    async with connect(Patient) as session:
        await session.view.send_close()
        assert await session.peer.closing() == (1000, "")
        assert await session.peer.rest() == []
        await session.ended()


async def test_a_ping_goes_between_the_parts_of_a_message(connect):
    async with connect(View) as session:
        peer = session.peer
        pinged = asyncio.Event()

        async def parts():
            yield "a"
            await pinged.wait()
            yield "b"

        sending = asyncio.create_task(session.view.send(parts()))
        assert (await peer.frame()).payload == b"a"
        ping = await peer.frame()
        assert ping.opcode == PING
        peer.pong(ping.payload)
        pinged.set()
        await sending
        assert (await peer.frame()).payload == b"b"


# A heartbeat of the view's own


async def test_a_loop_of_the_views_own_replaces_the_usual_one(connect):
    """The overridden loop replaces the usual one, and ends with the connection."""

    class Own(View):
        CLOSE_TIMEOUT = 30

        async def _heartbeat_loop(self):
            while True:
                await self.send_ping(b"mine")
                await asyncio.sleep(20)

    async with connect(Own) as session:
        frames = await frames_for(session.peer, 90)
        assert [frame.payload for frame in frames] == [b"mine"] * 5
        session.peer.close()
        await session.ended()


async def test_a_loop_of_the_views_own_may_call_the_usual_one(connect):
    class Own(View):
        CLOSE_TIMEOUT = 30

        async def _heartbeat_loop(self):
            self.events.append("beating")
            await super()._heartbeat_loop()

    async with connect(Own) as session:
        for _ in range(3):
            ping = await session.peer.frame()
            assert ping.opcode == PING
            session.peer.pong(ping.payload)
        await session.peer.settled()
        assert session.view.latency is not None
        session.peer.close()
        await session.ended()
        assert session.view.events == ["beating", ("close", b"\x03\xe8")]


async def test_a_loop_of_the_views_own_may_return_at_once(connect):
    class Own(View):
        async def _heartbeat_loop(self):
            self.events.append("no heartbeat")

    async with connect(Own) as session:
        assert await frames_for(session.peer, 3600) == []
        session.peer.send("x")
        await session.peer.settled()
        assert session.view.events == ["no heartbeat", b"x"]


async def test_an_error_in_a_loop_of_the_views_own_closes_with_1011(connect, log):
    class Own(View):
        async def _heartbeat_loop(self):
            await asyncio.sleep(0)
            raise ValueError("internal detail")

    async with connect(Own) as session:
        code, reason = await session.peer.closing()
        assert code == 1011
        assert "detail" not in reason
    (entry,) = log()
    assert isinstance(entry.error, ValueError)


async def test_a_timeout_in_a_loop_of_the_views_own_closes_with_1001(connect, log):
    """An example is a loop that awaits a pong under `asyncio.timeout`."""

    class Own(View):
        async def _heartbeat_loop(self):
            async with asyncio.timeout(10):
                await asyncio.Event().wait()

    async with connect(Own) as session:
        assert await session.peer.closing() == (1001, "no pong")
        session.peer.leave()
        await session.ended()
        assert session.view.events == [("close", None)]
    assert not log()


async def test_a_loop_of_the_views_own_may_close_the_connection(connect, log):
    class Own(View):
        async def _heartbeat_loop(self):
            await self.safe_close()

    async with connect(Own) as session:
        assert await session.peer.closing() == (1000, "")
        session.peer.close()
        await session.ended()
        assert session.view.events == [("close", b"\x03\xe8")]
    assert not log()
