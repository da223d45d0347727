"""A peer that does not read: senders wait, and memory stays bounded."""

import asyncio
import socket
import sys
import tracemalloc

import pytest

from duck.contrib.websockets import ConnectionClosed, OpCode, WebSocketView

from ..support.sending import buffered, fill
from ..support.servers import SLOW
from ..support.views import Quiet

KIB = 2**10
MIB = 2**20


async def test_a_send_waits_for_a_peer_that_does_not_read(connect):
    async with connect(Quiet, **SLOW) as session:
        view, peer = session.view, session.peer
        count, sending = await fill(view)
        assert buffered(view) < MIB
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(sending), 0.05)
        # It goes on once the peer reads, and everything arrives.
        for _ in range(count + 1):
            assert await peer.message() == bytes(64 * KIB)
        assert await sending is None
        await view.send("next")
        assert await peer.message() == "next"


async def test_all_senders_wait_and_order_holds(connect):
    async with connect(Quiet, **SLOW) as session:
        view, peer = session.view, session.peer
        count, sending = await fill(view)
        senders = [asyncio.create_task(view.send(str(i))) for i in range(20)]
        stream = asyncio.create_task(view.send(["a", "b"]))
        await asyncio.sleep(0)
        assert not any(sender.done() for sender in senders)
        for _ in range(count + 1):
            await peer.message()
        assert [await peer.message() for _ in senders] == [str(i) for i in range(20)]
        assert [(await peer.frame()).payload for _ in range(3)] == [b"a", b"b", b""]
        await asyncio.gather(sending, stream, *senders)


async def test_a_waiting_sender_may_give_up(connect):
    """The message has been queued all the same."""
    async with connect(Quiet, **SLOW) as session:
        view, peer = session.view, session.peer
        count, sending = await fill(view)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(view.send("queued"), 0.01)
        for _ in range(count + 1):
            await peer.message()
        assert await peer.message() == "queued"
        await sending


@pytest.mark.parametrize("end", ["leave", "reset"])
async def test_waiting_senders_learn_of_a_lost_connection(connect, end):
    async with connect(Quiet, **SLOW) as session:
        _, sending = await fill(session.view)
        senders = [asyncio.create_task(session.view.send("x")) for _ in range(3)]
        await asyncio.sleep(0)
        getattr(session.peer, end)()
        for sender in (sending, *senders):
            with pytest.raises(ConnectionClosed) as caught:
                await sender
            assert caught.value.code == 1006
        with pytest.raises(ConnectionClosed):
            await session.view.send("x")


async def test_a_sending_handler_waits_too(connect):
    """While the peer reads no replies, no further message is handled, so neither side accumulates data."""

    class View(WebSocketView):
        MAX_FRAME_SIZE = None
        handled = 0

        async def on_receive(self, message, opcode):
            self.handled += 1
            await self.send(message, opcode)

    async with connect(View, **SLOW) as session:
        view, peer = session.view, session.peer
        count = await peer.flood(peer.serialize(bytes(64 * KIB)))
        assert buffered(view) < MIB
        assert view.handled < count
        for _ in range(count):
            assert await peer.message() == bytes(64 * KIB)
        assert view.handled == count


async def test_replies_in_tasks_of_their_own_do_not_flood_memory(connect):
    """All messages of one read are handled; later bytes are not read."""

    class View(WebSocketView):
        handled = 0

        async def on_receive(self, message, opcode):
            self.handled += 1
            self.replies.append(asyncio.create_task(self.send(bytes(64 * KIB), OpCode.BINARY)))

    async with connect(View, **SLOW) as session:
        view, peer = session.view, session.peer
        view.replies = []
        for _ in range(40):
            peer.send(*["x"] * 8)
            await asyncio.sleep(0)
        assert view.handled < 160
        assert buffered(view) < 4 * MIB
        for _ in range(320):
            assert await peer.message() == bytes(64 * KIB)
        await asyncio.gather(*view.replies)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the transport of asyncio copies what waits")
async def test_a_large_message_is_not_copied_on_its_way(connect):
    class View(Quiet):
        MAX_FRAME_SIZE = None

    async with connect(View, **SLOW) as session:
        payload = bytes(8 * MIB)
        tracemalloc.start()
        try:
            sending = asyncio.ensure_future(session.view.send_binary(payload))
            await asyncio.sleep(0)
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert most < MIB
        assert not sending.done()
        assert await session.peer.message() == payload
        await sending


async def test_messages_and_close_frame_reach_a_peer_that_reads_at_last(connect):
    async with connect(Quiet, **SLOW) as session:
        view, peer = session.view, session.peer
        count, sending = await fill(view)
        await view.send_close(1001, "bye")
        with pytest.raises(ConnectionClosed):
            await view.send("x")
        for _ in range(count + 1):
            await peer.message()
        await sending
        assert await peer.closing() == (1001, "bye")
        peer.close(1001)
        assert await peer.rest() == []
        await session.ended()


async def test_a_peer_that_never_reads_is_disconnected(connect):
    class View(Quiet):
        CLOSE_TIMEOUT = 0.1

    async with connect(View, **SLOW) as session:
        _, sending = await fill(session.view)
        await session.view.send_close(1001)
        await session.ended()
        with pytest.raises(ConnectionClosed):
            await sending


async def test_a_peer_that_never_reads_and_goes_is_dropped(connect):
    class View(Quiet):
        CLOSE_TIMEOUT = 0.1
        RECEIVE_TIMEOUT = 0.2

    async def dropped(end):
        async with connect(View, **SLOW) as session:
            _, sending = await fill(session.view)
            if end == "close frame":
                session.peer.close()
            session.peer.shut()
            await session.ended()
            with pytest.raises(ConnectionClosed):
                await sending

    await asyncio.gather(dropped("close frame"), dropped("end of stream"))


async def test_a_peer_that_does_not_read_for_too_long_is_dropped(connect):
    """While the peer does not read, its pongs are not read either, so the heartbeat ends the connection."""

    class View(Quiet):
        PING_INTERVAL = 0.02
        PONG_TIMEOUT = 0.02
        RECEIVE_TIMEOUT = 0.2
        CLOSE_TIMEOUT = 0.1

    async with connect(View, **SLOW) as session:
        _, sending = await fill(session.view)
        with pytest.raises(ConnectionClosed):
            await sending
        await session.ended()
        assert session.view.close_code == 1001


async def test_a_peer_that_reads_slowly_is_kept(connect):
    """The peer reads a little from time to time, for longer than RECEIVE_TIMEOUT."""

    class View(Quiet):
        PING_INTERVAL = None
        RECEIVE_TIMEOUT = 500

    async with connect(View, **SLOW) as session:
        view, peer = session.view, session.peer
        heartbeat = view._protocol.heartbeat
        await fill(view)

        async def send():
            while True:
                await view.send_binary(bytes(64 * KIB))

        sending = asyncio.create_task(send())
        for _ in range(20):
            for _ in range(8):
                await peer.frame()
            heartbeat._silent_since -= 1000
            heartbeat.wake()
        assert view.close_code is None
        assert buffered(view) > 0
        sending.cancel()


async def test_a_peer_that_ends_its_stream_and_does_not_read_is_dropped(connect):
    """This holds for fewer waiting bytes than WRITE_LIMIT, too."""

    class View(Quiet):
        CLOSE_TIMEOUT = 0.1
        RECEIVE_TIMEOUT = None

    async with connect(View, **SLOW) as session:
        view = session.view
        view.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * KIB)
        sending = asyncio.ensure_future(view.send_binary(bytes(60_000)))
        await asyncio.sleep(0)
        assert sending.done()
        assert buffered(view) > 0
        session.peer.shut()
        await session.ended()
        assert view.close_code == 1006


async def test_messages_are_read_while_a_handler_sends_without_pause(connect):
    """A slow reader can still send a message that ends the flood."""

    class View(WebSocketView):
        enough = False

        async def on_receive(self, message, opcode):
            if message == b"enough":
                self.enough = True
                return
            while not self.enough:
                await self.send_binary(bytes(64 * KIB))
            await self.send("done")

    async with connect(View, **SLOW) as session:
        peer = session.peer
        peer.send("begin")
        for _ in range(20):
            await peer.message()
        peer.send("enough")
        while await peer.message() != "done":
            pass


async def test_many_small_messages_for_a_peer_that_does_not_read_are_written_together(connect):
    """The transport gets them together, because asyncio's counts its buffer at every call."""
    async with connect(Quiet, **SLOW) as session:
        view, peer, protocol = session.view, session.peer, session.view._protocol
        before, sending = await fill(view)
        transport, calls = protocol.transport, 0

        class Counting:
            def __getattr__(self, name):
                return getattr(transport, name)

            def write(self, data):
                nonlocal calls
                calls += 1
                transport.write(data)

        protocol.transport = Counting()
        sent = [asyncio.create_task(view.send(str(number))) for number in range(2000)]
        await asyncio.sleep(0)
        assert calls < 10
        for _ in range(before + 1):
            await peer.message()
        assert [await peer.message() for _ in sent] == [str(number) for number in range(2000)]
        await asyncio.gather(sending, *sent)
        protocol.transport = transport


async def test_gathered_messages_leave_before_a_close_frame(connect):
    async with connect(Quiet, **SLOW) as session:
        view, peer = session.view, session.peer
        count, sending = await fill(view)
        view.send("small")
        await view.send_close(1001)
        for _ in range(count + 1):
            await peer.message()
        assert await peer.message() == "small"
        assert (await peer.closing())[0] == 1001
        await sending
