"""Limits of flow: messages a second from a peer, and messages for a peer that does not read."""

import asyncio

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from duck.contrib.websockets import ConnectionClosed, Frame, OpCode, WebSocketView
from duck.contrib.websockets.protocol.rate_limit import RateLimit
from duck.contrib.websockets.testing import connect as connect_in_memory

from ..support.peers import Peer
from ..support.sending import buffered
from ..support.servers import SLOW

pytestmark = pytest.mark.in_memory

KIB = 2**10


class Echo(WebSocketView):
    PING_INTERVAL = None
    CLOSE_TIMEOUT = 0.2

    async def on_receive(self, message, opcode):
        await self.send(message, opcode)


class Patient(Echo):
    SLOW_CONSUMER = "wait"


class Dropping(Echo):
    SLOW_CONSUMER = "drop"


class Closing(Echo):
    SLOW_CONSUMER = "close"


class Limited(Echo):
    RATE_LIMIT = 5


def crowd(view, peer_is_slow, count=400, size=16 * KIB):
    """Sends to many peers, without waiting for any of them."""
    for number in range(count):
        view.send_binary(number.to_bytes(4) + bytes(size))
        if peer_is_slow():
            return number
    raise AssertionError("the transport is never full")


# A peer that does not read


async def test_messages_are_dropped_for_a_peer_that_does_not_read(connect, log):
    async with connect(Dropping, **SLOW) as session:
        view, peer = session.view, session.peer
        last = crowd(view, lambda: view.dropped == 1)
        full = buffered(view)
        for _ in range(100):
            await view.send(bytes(16 * KIB))
        assert view.dropped == 101
        assert buffered(view) == full < 64 * KIB + 2 * 16 * KIB
        # All messages arrive, whole and in order, and so do those sent once there is room.
        assert [int.from_bytes((await peer.message())[:4]) for _ in range(last)] == list(range(last))
        await view.send("next")
        assert await peer.message() == "next"
        assert view.dropped == 101
    assert [entry.message for entry in log()] == [
        "'testclient:50000 /': messages are dropped, because the peer reads too slowly"
    ]


async def test_control_frames_are_not_dropped(connect):
    async with connect(Dropping, **SLOW) as session:
        view, peer = session.view, session.peer
        last = crowd(view, lambda: view.dropped == 1)
        pings = asyncio.gather(view.send_ping(b"one"), view.send_frame(Frame(OpCode.PING, payload=b"two")))
        for _ in range(last):
            await peer.message()
        for payload in (b"one", b"two"):
            frame = await peer.frame()
            assert (frame.opcode, frame.payload) == (OpCode.PING, payload)
        await pings


async def test_a_stream_that_has_begun_is_not_cut(connect):
    async with connect(Dropping, **SLOW) as session:
        view, peer = session.view, session.peer
        parts = [bytes([number]) * 16 * KIB for number in range(100)]
        stream = asyncio.ensure_future(view.send_binary(parts))
        payload = b"".join([(await peer.frame()).payload for _ in parts])
        assert payload == b"".join(parts)
        last = await peer.frame()
        assert (last.fin, last.payload) == (True, b"")
        await stream
        crowd(view, lambda: view.dropped == 1)
        await view.send(["not", "sent"])
        assert view.dropped == 2


async def test_a_peer_that_does_not_read_is_closed(connect, log):
    async with connect(Closing, **SLOW) as session:
        view, peer = session.view, session.peer
        with pytest.raises(ConnectionClosed) as caught:
            crowd(view, lambda: False)
        assert caught.value.code == 1008
        assert buffered(view) < 64 * KIB + 2 * 16 * KIB
        with pytest.raises(ConnectionClosed):
            view.send("x")
        frames = await peer.rest()
        assert (frames[-1].opcode, frames[-1].payload) == (OpCode.CLOSE, b"\x03\xf0too slow to read")
    assert [entry.message for entry in log()] == ["'testclient:50000 /': closed, because the peer reads too slowly"]


async def test_a_peer_that_never_reads_is_disconnected(connect):
    async with connect(Closing, **SLOW) as session:
        with pytest.raises(ConnectionClosed):
            crowd(session.view, lambda: False)
        await session.ended()
        assert session.view.close_code == 1008
        with pytest.raises(ConnectionClosed):
            session.view.send("x")


@pytest.mark.parametrize("view_class", [Patient, Dropping, Closing])
async def test_a_peer_that_reads_gets_everything(connect, view_class):
    async with connect(view_class, **SLOW) as session:
        view, peer = session.view, session.peer
        for number in range(200):
            view.send(str(number))
            assert await peer.message() == str(number)
        peer.send("a", b"b")
        assert [await peer.message(), await peer.message()] == ["a", b"b"]
        assert view.dropped == 0


async def test_reading_is_on_hold_until_no_reason_is_left():
    class Full(WebSocketView):
        COMPRESSION = False
        MAX_CONCURRENT_MESSAGES = MAX_WAITING_MESSAGES = 1

        async def on_receive(self, message, opcode):
            self.sent = self.send(bytes(100_000), OpCode.BINARY)
            await go_on.wait()

    go_on = asyncio.Event()
    async with connect_in_memory(Full) as ws:
        transport = ws.view.request.transport
        ws.stop_reading()
        ws.send_raw(4 * Peer.serialize("x"))
        await asyncio.sleep(1)
        assert not transport.is_reading()  # the peer does not read, and messages wait
        ws.resume_reading()
        assert await ws.recv() == bytes(100_000)
        await asyncio.sleep(1)
        assert not transport.is_reading()  # messages wait
        go_on.set()
        for _ in range(3):
            assert await ws.recv() == bytes(100_000)
        await asyncio.sleep(1)
        assert transport.is_reading()


async def test_write_limit_bounds_the_waiting_bytes(connect):
    class Roomy(Dropping):
        WRITE_LIMIT = 512 * KIB

    async with connect(Roomy, **SLOW) as session:
        crowd(session.view, lambda: session.view.dropped == 1)
        assert 512 * KIB < buffered(session.view) < 512 * KIB + 2 * 16 * KIB


# A peer that sends too much


async def test_a_peer_that_sends_too_much_is_closed(connect, log):
    async with connect(Limited) as session:
        peer = session.peer
        peer.send(*map(str, range(10)))
        assert [await peer.message() for _ in range(5)] == list("01234")
        assert await peer.closing() == (1008, "too many messages")
        await session.ended()
        assert session.view.close_code == 1008
    assert log() == []


async def test_pings_count_against_the_rate_limit(connect):
    async with connect(Limited) as session:
        session.peer.send(*[Frame(OpCode.PING)] * 6)
        frames = await session.peer.rest()
        assert frames[-1].payload == b"\x03\xf0too many messages"


async def test_a_peer_that_keeps_to_the_limit_is_served(connect):
    class Brisk(Echo):
        RATE_LIMIT = 200

    async with connect(Brisk) as session:
        for number in range(240):
            session.peer.send(str(number))
            assert await session.peer.message() == str(number)
            if number >= 190:  # the burst of a second is all but gone
                await asyncio.sleep(0.005)
        session.peer.close()
        assert await session.peer.closing() == (1000, "")


@given(
    rate=st.floats(0.01, 1000),
    reads=st.lists(st.tuples(st.floats(0, 10), st.integers(0, 2000)), max_size=30),
)
@example(10, [(5, 10), (0, 10)])
def test_the_rate_and_its_burst_are_exact(rate, reads):
    limit = RateLimit(rate, 0.0)
    now, taken = 0, []
    for pause, count in reads:
        now += pause
        some = limit.take(count, now)
        assert 0 <= some <= count
        taken = [(start, before + some) for start, before in taken] + [(now, some)]
        assert all(sum_ <= max(rate, 1) + rate * (now - start) + 1e-6 for start, sum_ in taken)


def test_the_burst_of_a_second_is_never_refused():
    limit = RateLimit(10, 0.0)
    for second in range(100):
        assert limit.take(10, float(second)) == 10
    assert RateLimit(0.1, 0.0).take(1, 0.0) == 1


@pytest.mark.parametrize("view_class", [Patient, Dropping, Closing])
@pytest.mark.parametrize("way", ["stream", "fragments", "pings"])
async def test_messages_in_parts_wait_for_a_peer_that_does_not_read(connect, until, view_class, way):
    """Under every policy, the next part is produced only when there is room for it."""
    made = 0

    def parts():
        nonlocal made
        for _ in range(2000):
            made += 1
            yield bytes(16 * KIB)

    async with connect(view_class, **SLOW) as session:
        view = session.view

        async def send():
            if way == "stream":
                await view.send_binary(parts())
            elif way == "pings":
                while True:
                    await view.send_ping(bytes(125))
            else:
                opcode = OpCode.BINARY
                for part in parts():
                    await view.send_frame(Frame(opcode, False, part))
                    opcode = OpCode.CONTINUATION

        sending = asyncio.create_task(send())
        await until(lambda: view._protocol._is_full)
        for _ in range(100):
            await asyncio.sleep(0)
        assert buffered(view) < 64 * KIB + 2 * 16 * KIB
        assert made < 2000
        session.peer.reset()
        with pytest.raises(ConnectionClosed):
            await sending


@pytest.mark.parametrize("view_class", [Patient, Dropping, Closing])
async def test_sending_after_the_end_raises_under_every_policy(connect, view_class):
    async with connect(view_class) as session:
        view = session.view
        session.peer.reset()
        await session.ended()
        for data in ("late", ["late"]):
            with pytest.raises(ConnectionClosed):
                await view.send(data)
        with pytest.raises(ConnectionClosed):
            await view.send_frame(Frame(OpCode.TEXT))
        await view.send_close()
        await view.safe_close()


async def test_a_close_frame_does_not_count_against_the_rate_limit(connect):
    async with connect(Limited) as session:
        peer = session.peer
        peer.send(*"12345", Frame(OpCode.CLOSE, payload=b"\x03\xe8"))
        assert [await peer.message() for _ in range(5)] == list("12345")
        assert await peer.closing() == (1000, "")
