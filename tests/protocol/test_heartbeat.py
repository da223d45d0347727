"""The heartbeat: pings, what counts as life, and the end of a peer that shows none."""

import asyncio
import socket
import time

import pytest

from duck.contrib.websockets import Frame, OpCode, WebSocketView

from ..support.servers import SLOW

PING, PONG, TEXT = OpCode.PING, OpCode.PONG, OpCode.TEXT


class View(WebSocketView):
    """Has an hour where these tests have milliseconds."""

    PING_INTERVAL = 0.03
    PONG_TIMEOUT = 0.03
    MAX_BACKOFF = 0.03
    RECEIVE_TIMEOUT = None
    CLOSE_TIMEOUT = 0.1

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.events = []

    async def on_receive(self, message, opcode):
        self.events.append(message)

    async def on_close(self, frame=None):
        self.events.append(("close", frame and frame.payload))


async def frames_for(peer, seconds):
    """The frames that come within some time."""
    frames = []
    try:
        async with asyncio.timeout(seconds):
            while True:
                frames.append(await peer.frame())
    except TimeoutError:
        return frames


def pong(peer):
    return lambda frame: peer.send(Frame(PONG, payload=frame.payload))


def test_pings_are_sent_and_their_answers_measured(run, connect):
    class Relaxed(View):
        PONG_TIMEOUT = 0.2

    async def scenario():
        async with connect(Relaxed) as session:
            view, peer = session.view, session.peer
            assert view.latency is None
            ping = await peer.frame()
            assert (ping.opcode, ping.fin) == (PING, True)
            assert 0 < len(ping.payload) <= 125
            await asyncio.sleep(0.01)  # of which uvloop's clock of milliseconds may keep back one
            pong(peer)(ping)
            await peer.settled()
            assert 0.008 <= view.latency < 0.2
            # The next one can be told from the first.
            second = await peer.frame()
            assert second.opcode == PING
            assert second.payload != ping.payload
            # Nothing of this reaches the handlers.
            assert view.events == []

    run(scenario())


def test_an_answer_to_another_ping_is_not_measured(run, connect):
    async def scenario():
        async with connect(View) as session:
            await session.peer.frame()
            session.peer.send(Frame(PONG), Frame(PONG, payload=b"12345"), Frame(PONG, payload=b"x" * 125))
            await session.peer.settled()
            assert session.view.latency is None

    run(scenario())


ANSWERS = {
    "pong": lambda peer, ping: pong(peer)(ping),
    "another pong": lambda peer, ping: peer.send(Frame(PONG)),
    "ping": lambda peer, ping: peer.ping(),
    "message": lambda peer, ping: peer.send("x"),
    "part of a message": lambda peer, ping: peer.send(Frame(0 if peer.begun else TEXT, False, b"x")),
    "one byte of a frame": lambda peer, ping: peer.write(b"\x82\xfe\xff\xff" + bytes(4) if not peer.begun else b"x"),
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_anything_received_is_a_sign_of_life(run, connect, kind):
    class Patient(View):
        PONG_TIMEOUT = 0.1

    async def scenario():
        async with connect(Patient) as session:
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

    run(scenario())


def test_the_third_miss_ends_the_connection(run, connect):
    async def scenario():
        async with connect(View) as session:
            pings = [await session.peer.frame() for _ in range(3)]
            assert [ping.opcode for ping in pings] == [PING] * 3
            assert await session.peer.closing() == (1001, "no pong")
            assert await session.peer.rest() == []
            await session.ended()
            assert session.view.events == [("close", None)]
            assert (session.view.close_code, session.view.close_reason) == (1001, "no pong")

    run(scenario())


def test_a_sign_of_life_between_misses_makes_them_forgotten(run, connect):
    async def scenario():
        async with connect(View) as session:
            peer = session.peer
            for _ in range(3):
                for _ in range(2):
                    assert (await peer.frame()).opcode == PING
                # Two have been missed, or will have been in a moment; this answers the second.
                peer.send("x")
            assert session.view.close_code is None
            for _ in range(2):
                assert (await peer.frame()).opcode == PING
            assert (await peer.frame()).opcode in (PING, OpCode.CLOSE)

    run(scenario())


def test_misses_are_further_and_further_apart(run, connect):
    """Up to MAX_BACKOFF."""

    class Backing(View):
        PING_INTERVAL = 0.06
        PONG_TIMEOUT = 0.01
        MAX_BACKOFF = 0.13

    async def scenario():
        async with connect(Backing) as session:
            times = []
            for opcode in (PING, PING, PING, OpCode.CLOSE):
                assert (await session.peer.frame()).opcode == opcode
                times.append(asyncio.get_running_loop().time())
            first, second, third, end = times
            assert second - first > 0.12  # twice the interval, and the timeout
            assert 0.13 < third - second < 0.24  # four times would be over the limit
            assert end > third

    run(scenario())


def test_a_silent_peer_is_dropped(run, connect):
    class Strict(View):
        PING_INTERVAL = None
        RECEIVE_TIMEOUT = 0.1

    async def scenario():
        async with connect(Strict) as session:
            start = time.monotonic()
            assert await session.peer.closing() == (1001, "nothing received for too long")
            assert 0.09 < time.monotonic() - start < 0.5
            session.peer.close(1001)
            await session.ended()
            assert session.view.events == [("close", b"\x03\xe9")]

    run(scenario())


def test_a_peer_that_says_something_in_time_is_not(run, connect):
    class Strict(View):
        PING_INTERVAL = None
        RECEIVE_TIMEOUT = 0.2

    async def scenario():
        async with connect(Strict) as session:
            for _ in range(10):
                await asyncio.sleep(0.03)
                session.peer.send("x")
            await session.peer.settled()
            assert session.view.close_code is None

    run(scenario())


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_a_peer_that_reads_slowly_is_not_silent(run, connect, tls, secure):
    """TLS does not count the bytes below it, and a small send queue is full whenever it is looked at."""

    class Strict(View):
        PING_INTERVAL = None
        RECEIVE_TIMEOUT = 0.25
        MAX_FRAME_SIZE = 2**18

    async def scenario():
        options = {"receive_buffer": 65536, "read_limit": 65536, "tls": tls if secure else None}
        async with connect(Strict, **options) as session:
            session.view.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**16)
            sending = [asyncio.ensure_future(session.view.send_binary(bytes(2**22))) for _ in range(3)]
            for _ in range(48):
                await asyncio.sleep(0.015)
                assert len((await session.peer.frame()).payload) == 2**18
            assert session.view.close_code is None
            await asyncio.gather(*sending)

    run(scenario())


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_a_peer_that_does_not_read_is_silent(run, connect, tls, secure):
    """Even while more and more waits for it."""

    class Strict(View):
        PING_INTERVAL = None
        RECEIVE_TIMEOUT = 0.2
        SENDING = None

        async def on_open(self):
            while self.close_code is None:
                self.SENDING = asyncio.ensure_future(self.send_binary(bytes(2**18)))
                self.SENDING.add_done_callback(lambda sent: sent.cancelled() or sent.exception())
                await asyncio.sleep(0.02)

    async def scenario():
        options = {**SLOW, "tls": tls if secure else None}
        async with connect(Strict, **options) as session:
            session.peer.writer.transport.pause_reading()
            await session.ended(10)
            assert (session.view.close_code, session.view.close_reason) == (1001, "nothing received for too long")

    run(scenario())


@pytest.mark.parametrize("interval", [None, 0])
def test_no_pings(run, connect, interval):
    class Quiet(View):
        PING_INTERVAL = interval

    async def scenario():
        async with connect(Quiet) as session:
            assert await frames_for(session.peer, 0.15) == []
            session.peer.send("x")
            assert await session.peer.settled() == []
            assert session.view.latency is None

    run(scenario())


@pytest.mark.parametrize("timeout", [None, 0])
def test_no_limit_to_silence(run, connect, timeout):
    class Patient(View):
        PING_INTERVAL = None
        RECEIVE_TIMEOUT = timeout

    async def scenario():
        async with connect(Patient) as session:
            assert await frames_for(session.peer, 0.15) == []
            assert session.view.close_code is None

    run(scenario())


def test_a_busy_loop_is_not_taken_for_a_dead_peer(run, connect, monkeypatch):
    """The pong has come, but nobody had the time to read it: who was late has to look again."""
    monkeypatch.setattr("duck.contrib.websockets.protocol.heartbeat.Heartbeat.LATE", 0.05)

    async def scenario():
        async with connect(View) as session:
            peer = session.peer
            for _ in range(4):
                ping = await peer.frame()
                assert ping.opcode == PING
                pong(peer)(ping)
                time.sleep(0.12)  # noqa: ASYNC251
            assert session.view.close_code is None

    run(scenario())


@pytest.mark.parametrize("waiting", [2, 100])
def test_a_silent_peer_is_dropped_whether_or_not_reading_is_on_hold(run, connect, waiting):
    class Busy(View):
        MAX_CONCURRENT_MESSAGES = 1
        PING_INTERVAL = None
        RECEIVE_TIMEOUT = 0.1
        CLOSE_TIMEOUT = 0.1

        async def on_receive(self, message, opcode):
            await asyncio.Event().wait()

    async def scenario():
        async with connect(Busy) as session:
            session.peer.send(*["x"] * waiting)
            assert await session.peer.closing() == (1001, "nothing received for too long")
            session.peer.leave()
            await session.ended()

    run(scenario())


def test_a_peer_that_sends_while_reading_is_on_hold_is_alive(run, connect):
    """Its pongs are not read, but they have come."""

    class Busy(View):
        MAX_CONCURRENT_MESSAGES = 1
        RECEIVE_TIMEOUT = 0.5
        PING_INTERVAL = PONG_TIMEOUT = 0.05

        async def on_receive(self, message, opcode):
            await self.send(message)
            await go_on.wait()

    async def scenario():
        nonlocal go_on
        go_on = asyncio.Event()
        async with connect(Busy) as session:
            session.peer.send(*["x"] * 50)
            assert await session.peer.message() == "x"
            for _ in range(12):
                frame = await session.peer.frame()
                assert frame.opcode == OpCode.PING
                session.peer.send(Frame(OpCode.PONG, payload=frame.payload))
            assert not session.view.request.transport.is_reading()
            assert session.view.close_code is None
            go_on.set()
            for _ in range(49):
                assert await session.peer.message() == "x"

    go_on = None
    run(scenario())


def test_no_pings_behind_a_close_frame(run, connect):
    class Patient(View):
        CLOSE_TIMEOUT = 0.2

    async def scenario():
        async with connect(Patient) as session:
            await session.view.send_close()
            assert await session.peer.closing() == (1000, "")
            assert await session.peer.rest() == []
            await session.ended()

    run(scenario())


def test_a_ping_goes_between_the_parts_of_a_message(run, connect):
    async def scenario():
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
            pong(peer)(ping)
            pinged.set()
            await sending
            assert (await peer.frame()).payload == b"b"

    run(scenario())


# A heartbeat of the view's own


def test_a_loop_of_the_views_own(run, connect):
    """It replaces the usual one, and ends with the connection."""

    class Own(View):
        CLOSE_TIMEOUT = 30

        async def _heartbeat_loop(self):
            while True:
                await self.send_ping(b"mine")
                await asyncio.sleep(0.02)

    async def scenario():
        async with connect(Own) as session:
            frames = await frames_for(session.peer, 0.2)
            assert len(frames) > 5
            assert {frame.payload for frame in frames} == {b"mine"}
            session.peer.close()
            await session.ended()

    run(scenario())


def test_a_loop_of_the_views_own_that_calls_the_usual_one(run, connect):
    class Own(View):
        CLOSE_TIMEOUT = 30

        async def _heartbeat_loop(self):
            self.events.append("beating")
            await super()._heartbeat_loop()

    async def scenario():
        async with connect(Own) as session:
            for _ in range(3):
                ping = await session.peer.frame()
                assert ping.opcode == PING
                pong(session.peer)(ping)
            await session.peer.settled()
            assert session.view.latency is not None
            session.peer.close()
            await session.ended()
            assert session.view.events == ["beating", ("close", b"\x03\xe8")]

    run(scenario())


def test_a_loop_of_the_views_own_that_does_nothing(run, connect):
    class Own(View):
        async def _heartbeat_loop(self):
            self.events.append("no heartbeat")

    async def scenario():
        async with connect(Own) as session:
            assert await frames_for(session.peer, 0.15) == []
            session.peer.send("x")
            await session.peer.settled()
            assert session.view.events == ["no heartbeat", b"x"]

    run(scenario())


def test_a_loop_of_the_views_own_that_fails(run, connect, log):
    class Own(View):
        async def _heartbeat_loop(self):
            await asyncio.sleep(0)
            raise ValueError("internal detail")

    async def scenario():
        async with connect(Own) as session:
            code, reason = await session.peer.closing()
            assert code == 1011
            assert "detail" not in reason

    run(scenario())
    (entry,) = log()
    assert isinstance(entry.error, ValueError)


def test_a_loop_of_the_views_own_that_times_out(run, connect, log):
    """As one that waits for a pong with `asyncio.timeout`."""

    class Own(View):
        async def _heartbeat_loop(self):
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()

    async def scenario():
        async with connect(Own) as session:
            assert await session.peer.closing() == (1001, "no pong")
            session.peer.leave()
            await session.ended()
            assert session.view.events == [("close", None)]

    run(scenario())
    assert not log()


def test_a_loop_of_the_views_own_that_closes(run, connect, log):
    class Own(View):
        async def _heartbeat_loop(self):
            await self.safe_close()

    async def scenario():
        async with connect(Own) as session:
            assert await session.peer.closing() == (1000, "")
            session.peer.close()
            await session.ended()
            assert session.view.events == [("close", b"\x03\xe8")]

    run(scenario())
    assert not log()
