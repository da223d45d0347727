"""`ping`: the round trips that an application measures, at a view and at a client."""

import asyncio

import pytest

from duck.contrib.websockets import ConnectionClosed, Frame, OpCode, WebSocketView, testing

pytestmark = pytest.mark.in_memory


class Measuring(WebSocketView):
    PING_INTERVAL = None

    async def on_receive(self, message, opcode):
        await self.send_json([await self.ping(), self.latency])


async def test_both_ends_measure():
    async with testing.connect(Measuring) as ws:
        assert ws.latency is None
        seconds = await ws.ping()
        assert 0 < seconds == ws.latency < 5
        assert ws.view.latency is None
        await ws.send("")
        seconds, latency = await ws.recv_json()
        assert 0 < seconds == latency < 5


def test_the_methods_of_a_synchronous_test_include_it():
    with testing.connect(Measuring) as ws:
        assert 0 < ws.ping() < 5


async def pings(peer, count):
    frames = [await peer.frame() for _ in range(count)]
    assert all(frame.opcode == OpCode.PING for frame in frames)
    return [frame.payload for frame in frames]


async def test_a_pong_answers_the_pings_before_it_and_no_later_one(connect):
    async with connect(Measuring) as session:
        peer = session.peer
        waits = [asyncio.create_task(session.view.ping()) for _ in range(3)]
        payloads = await pings(peer, 3)
        assert len({*payloads}) == 3
        peer.send(Frame(OpCode.PONG), Frame(OpCode.PONG, payload=b"1"), Frame(OpCode.PONG, payload=b"9" * 125))
        await peer.settled()
        assert not any(wait.done() for wait in waits)
        peer.pong(payloads[1])
        first, second = await asyncio.gather(*waits[:2])
        assert first >= second == session.view.latency
        assert not waits[2].done()
        peer.send(Frame(OpCode.PONG, payload=payloads[2]), Frame(OpCode.PONG, payload=payloads[2]))
        assert await waits[2] == session.view.latency


async def test_the_pong_of_a_later_heartbeat_answers_too(connect):
    class Beating(Measuring):
        PING_INTERVAL = 10

    async with connect(Beating) as session:
        wait = asyncio.create_task(session.view.ping())
        _, payload = await pings(session.peer, 2)
        session.peer.pong(payload)
        assert await wait > session.view.latency  # that of the heartbeat


@pytest.mark.parametrize("end", ["close", "reset"])
async def test_the_end_of_the_connection_ends_the_wait(connect, end):
    async with connect(Measuring) as session:
        view, peer = session.view, session.peer
        wait = asyncio.create_task(view.ping())
        await pings(peer, 1)
        given_up = asyncio.create_task(view.ping())
        await pings(peer, 1)
        given_up.cancel()
        if end == "close":
            peer.close(4000)
        else:
            peer.reset()
        with pytest.raises(ConnectionClosed) as raised:
            await wait
        assert raised.value.code == (4000 if end == "close" else 1006)
        assert given_up.cancelled()
        with pytest.raises(ConnectionClosed):
            await view.ping()


async def test_each_wait_ends_with_an_error_of_its_own():
    """A shared one had the traceback of the last task that it was raised in."""

    async def parts():
        yield "no other message leaves before the end of this one"
        await asyncio.Event().wait()

    async with testing.connect(Measuring) as ws:
        ws.stop_reading()  # no pong arrives
        sending = [asyncio.ensure_future(ws.send(data)) for data in (parts(), "a", "b")]
        pinging = [asyncio.ensure_future(ws.ping()) for _ in range(2)]
        await asyncio.sleep(0)
        ws.drop()
        errors = await asyncio.gather(*sending, *pinging, return_exceptions=True)
    assert [type(error) for error in errors] == [ConnectionClosed] * 5
    assert len({*map(id, errors)}) == 5


async def test_a_ping_before_the_connection_is_open():
    class Early(WebSocketView):
        async def on_handshake(self, handshake):
            await self.ping()

    with pytest.raises(RuntimeError, match="not open yet"):
        await testing.connect(Early).refusal()


async def test_a_ping_from_another_thread():
    async with testing.connect(Measuring) as ws:
        assert 0 < await asyncio.to_thread(asyncio.run, ws.view.ping()) < 5
