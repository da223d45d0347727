"""The end of a connection while threads work on its large messages."""

import asyncio
import gc
import weakref

import pytest

from duck.contrib.websockets import (
    ConnectionClosed,
    Frame,
    OpCode,
    WebSocketView,
)
from duck.contrib.websockets.protocol.loop import threads
from duck.contrib.websockets.protocol.send_queue import SendQueue
from duck.contrib.websockets.sansio.connection import Connection

from ..support.views import Echo, Recorder
from .large import LARGE, OFFER, Client, compressed, far_end


async def test_a_close_frame_is_answered_after_the_large_message_before_it(connect):
    async with connect(Recorder, headers=OFFER) as session:
        client = Client(session.peer)
        client.send(b"small", LARGE[0], LARGE[1], Frame(OpCode.CLOSE, payload=b"\x03\xe8"))
        for message in (b"small", LARGE[0], LARGE[1]):
            assert await client.message() == message
        assert await client.closing() == 1000
        await session.ended()
        assert session.view.events == ["open", b"small", LARGE[0], LARGE[1], ("close", b"\x03\xe8")]


class Pulling(Recorder):
    async def read_frame(self):
        return await super().read_frame()


@pytest.mark.parametrize("view_class", [Recorder, Pulling])
async def test_messages_before_the_loss_are_handled_though_one_is_being_decompressed(connect, gate, until, view_class):
    held = gate("decode")
    async with connect(view_class, headers=OFFER) as session:
        view, end = session.view, far_end()
        data = b"".join(compressed(end, message) for message in (LARGE[0], b"behind", LARGE[1]))
        protocol = view._protocol
        asyncio.get_running_loop().call_soon(protocol.received, protocol.reader.receive(data))
        await held.entered.wait()
        view.request.transport.abort()
        await until(lambda: view.close_code is not None)
        assert view.events == ["open"]
        held.open()
        await session.ended()
        assert [event for event in view.events if isinstance(event, bytes)] == [LARGE[0], b"behind", LARGE[1]]
        assert view.events[-1] == ("close", None)


async def test_a_view_without_on_close_handles_a_message_decompressed_after_the_loss(connect, gate):
    class View(WebSocketView):
        received = None

        async def on_receive(self, message, opcode):
            self.received = message

    held = gate("decode")
    async with connect(View, headers=OFFER) as session:
        Client(session.peer).send(LARGE[0])
        await held.entered.wait()
        session.view.request.transport.abort()
        await asyncio.sleep(0)
        held.open()
        await session.ended()
        assert session.view.received == LARGE[0]


async def test_decompression_beyond_the_deadline_is_abandoned(connect, gate, log):
    class View(Recorder):
        CLOSE_TIMEOUT = 0.05

    held = gate("decode")
    async with connect(View, headers=OFFER) as session:
        Client(session.peer).send(LARGE[0], b"behind")
        await held.entered.wait()
        session.view.request.transport.abort()
        await session.ended()
        assert session.view.events == ["open", ("close", None)]
        job = asyncio.get_running_loop().run_in_executor(threads(), int)
        held.open()
        await job
        await asyncio.sleep(0)
        assert session.view.events == ["open", ("close", None)]
    (entry,) = log()
    assert entry.message.endswith(" /': 2 messages were not handled in time")


async def test_an_application_gets_a_message_decompressed_after_the_loss(serving_asgi, dial, gate, until, log):
    """uvicorn is notified of the loss at once, and the application gets the message before it."""
    received = []

    async def app(scope, receive, send):
        received.append(await receive())
        await send({"type": "websocket.accept"})
        while received[-1]["type"] != "websocket.disconnect":
            received.append(await receive())

    held = gate("decode")
    async with serving_asgi(app) as server, dial(server, target="/room", headers=OFFER) as peer:
        await peer.head()
        Client(peer).send(LARGE[0])
        await held.entered.wait()
        for connection in server.state.connections:
            connection.transport.abort()
        await until(lambda: not server.state.connections)
        held.open()
    kinds = [event["type"] for event in received]
    assert kinds == ["websocket.connect", "websocket.receive", "websocket.disconnect"]
    assert not log()


async def test_a_view_that_closes_drops_the_message_being_decompressed(connect, gate):
    """Later messages are dropped."""
    held = gate("decode")
    async with connect(Recorder, headers=OFFER) as session:
        client = Client(session.peer)
        client.send(LARGE[0], LARGE[1], Frame(OpCode.CLOSE, payload=b"\x03\xe8"))
        await held.entered.wait()
        await session.view.send_close(1001)
        assert await client.closing() == 1001
        held.open()
        await session.ended()
        assert session.view.events == ["open", ("close", b"\x03\xe8")]


@pytest.mark.usefixtures("each_backend")
@pytest.mark.parametrize("count", [1, 8])
async def test_a_close_frame_leaves_behind_large_messages(connect, count):
    """Messages sent before leave before the close frame, whether a thread has begun on them or not."""

    class Patient(Echo):
        CLOSE_TIMEOUT = 1000  # their compression takes seconds on a busy machine

    async with connect(Patient, headers=OFFER) as session:
        client, view = Client(session.peer), session.view
        messages = [LARGE[0], b"small", *LARGE] * count
        sent = asyncio.gather(*(view.send(message) for message in messages))
        await asyncio.sleep(0)
        await view.send_close()
        for message in messages:
            assert await client.message() == message
        assert await client.closing() == 1000
        await sent


async def test_a_loss_during_compression_ends_all_waiting_senders(connect, gate):
    class View(Recorder):
        async def on_receive(self, message, opcode):
            for data in (LARGE[0], "small"):
                try:
                    await self.send(data)
                except ConnectionClosed as error:
                    self.events.append(error.code)

    held = gate("compress")
    async with connect(View, headers=OFFER) as session:
        session.peer.send("go")
        await held.entered.wait()
        waiting = asyncio.create_task(session.view.send("behind"))
        await asyncio.sleep(0)
        session.view.request.transport.abort()
        with pytest.raises(ConnectionClosed):
            await waiting
        await session.ended()
        assert sorted(map(str, session.view.events)) == ["('close', None)", "1006", "1006", "open"]
        held.open()


@pytest.mark.parametrize("who", ["peer", "view"])
async def test_a_close_frame_waits_for_messages_that_are_being_compressed(serving, dial, gate, who):
    """The messages leave first. Other connections are served meanwhile, and no later message may be sent."""
    held = gate("compress")
    async with serving(Recorder) as server, dial(server, headers=OFFER) as peer, dial(server) as other:
        await peer.head()
        await other.head()
        view, end = await server.views.get()
        client = Client(peer)
        sent = [asyncio.create_task(view.send(message)) for message in (LARGE[0], "small", LARGE[1])]
        await held.entered.wait()
        if who == "peer":
            client.send(Frame(OpCode.CLOSE, payload=b"\x0f\xa0"), b"too late")
        else:
            await view.send_close(4000)
            client.send(b"too late")
        for number in range(10):
            other.send(str(number))
            assert await other.message() == str(number)
        for late in ("late", ["late"]):
            with pytest.raises(ConnectionClosed, match="4000"):
                await view.send(late)
        await view.send_close(4001)
        held.open()
        for message in (LARGE[0], b"small", LARGE[1]):
            assert await client.message() == message
        assert await client.closing() == 4000
        await asyncio.gather(*sent)
        if who == "view":
            client.send(Frame(OpCode.CLOSE, payload=b"\x0f\xa0"))
        await end
        assert view.close_code == 4000
        assert view.events == ["open", ("close", b"\x0f\xa0")]


@pytest.mark.parametrize("who", ["peer", "view"])
async def test_a_close_frame_overtakes_messages_whose_compression_takes_too_long(connect, gate, who):
    class View(Recorder):
        CLOSE_TIMEOUT = 0.2

    held = gate("compress")
    async with connect(View, headers=OFFER) as session:
        client, view = Client(session.peer), session.view
        sent = [asyncio.create_task(view.send(message)) for message in (LARGE[0], "small")]
        await held.entered.wait()
        if who == "peer":
            client.send(Frame(OpCode.CLOSE, payload=b"\x03\xe8"))
        else:
            await view.send_close()
        assert await client.closing() == 1000
        for sending in sent:
            with pytest.raises(ConnectionClosed):
                await sending
        session.peer.shut()
        await session.ended()
        held.open()


async def test_a_loss_while_a_close_frame_waits_ends_the_sender(connect, gate):
    held = gate("compress")
    async with connect(Recorder, headers=OFFER) as session:
        view = session.view
        sent = asyncio.create_task(view.send(LARGE[0]))
        await held.entered.wait()
        await view.send_close()
        session.peer.reset()
        with pytest.raises(ConnectionClosed):
            await sent
        await session.ended()
        held.open()


async def test_compression_on_the_loop_lets_other_connections_proceed(connect, gate, monkeypatch):
    """A hundred messages behind a large one leave in several iterations of the loop."""
    monkeypatch.setattr(SendQueue, "FAIR_SHARE", 0)
    turns = 0
    held = gate("compress")
    async with connect(Echo, headers=OFFER) as session:
        client, view = Client(session.peer), session.view
        loop = asyncio.get_running_loop()
        message = LARGE[1][:20_000]
        sent = [view.send(LARGE[0]), *(view.send(message) for _ in range(100))]
        await held.entered.wait()

        def count():
            nonlocal turns
            turns += bool(view._protocol.sender._queue.resuming)
            loop.call_soon(count)

        loop.call_soon(count)
        held.open()
        assert await client.message() == LARGE[0]
        for _ in range(100):
            assert await client.message() == message
        await asyncio.gather(*sent)
    assert turns > 50


async def test_a_cancelled_wait_does_not_cancel_a_large_message(connect, gate):
    """Compressed messages behind it refer to it."""
    held = gate("compress")
    async with connect(Echo, headers=OFFER) as session:
        client, view = Client(session.peer), session.view
        sent = asyncio.create_task(view.send(LARGE[0]))
        await held.entered.wait()
        sent.cancel()
        await asyncio.wait([sent])
        held.open()
        await view.send(LARGE[0][-3000:])
        assert await client.message() == LARGE[0]
        assert await client.message() == LARGE[0][-3000:]


async def test_an_error_in_the_thread_is_the_senders(connect, monkeypatch, log):
    def compress(self, fragments):
        raise MemoryError

    async with connect(Echo, headers=OFFER) as session:
        monkeypatch.setattr(Connection, "compress", compress)
        client = Client(session.peer)
        with pytest.raises(MemoryError):
            await session.view.send(LARGE[0])
        client.send(LARGE[1])
        assert await client.closing() == 1011
    assert [type(entry.error) for entry in log()] == [MemoryError]


async def test_terminate_does_not_wait_for_compression(connect, gate):
    held = gate("compress")
    async with connect(Recorder, headers=OFFER) as session:
        client = Client(session.peer)
        client.send(LARGE[0])
        await held.entered.wait()
        session.view.terminate()
        assert await client.closing() == 1001
        await session.ended()
        assert session.view.events == ["open", LARGE[0], ("close", None)]


@pytest.mark.usefixtures("each_backend")
async def test_a_connection_that_has_ended_is_freed_at_once(serving, dial, until):
    class View(WebSocketView):
        async def on_receive(self, message, opcode):
            pass

    async with serving(View) as server:
        async with dial(server, headers=OFFER) as peer:
            await peer.head()
            view, end = await server.views.get()
            client = Client(peer)
            client.send(LARGE[0], Frame(OpCode.CLOSE, payload=b"\x03\xe8"))
            assert await client.closing() == 1000
            await end
        extension = weakref.ref(view.extensions[0])
        gc.disable()  # which would free objects in a cycle
        try:
            del view, end
            await until(lambda: extension() is None)
        finally:
            gc.enable()
