"""Messages that wait for a handler are bounded, and do not keep the connection from reading control frames."""

import asyncio
import time
import tracemalloc
import zlib

import pytest

from duck.contrib.websockets import Compression, Frame, OpCode, WebSocketView
from duck.server import serve

from ..support.handshake import UPGRADE
from ..support.peers import Peer

OFFER = {"Sec-WebSocket-Extensions": "permessage-deflate"}

pytestmark = pytest.mark.usefixtures("impatient")


class Stuck(WebSocketView):
    """Its handlers begin, and wait for an event."""

    MAX_CONCURRENT_MESSAGES = 1
    CLOSE_TIMEOUT = 0.2
    PING_INTERVAL = None

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.go_on = asyncio.Event()
        self.handled = []
        self.closed = asyncio.Event()

    async def on_receive(self, message, opcode):
        self.handled.append(message)
        await self.go_on.wait()
        await self.send(str(len(message)))

    async def on_close(self, frame=None):
        self.closed.set()


class Feed(Stuck):
    """Its `on_open` sends until an event is set."""

    async def on_open(self):
        while not self.go_on.is_set():
            await self.send("tick")
            await asyncio.sleep(0.001)


async def pong(peer):
    """Sends a ping, and reads up to its pong."""
    peer.ping(b"there?")
    while (await peer.frame()).opcode != OpCode.PONG:
        pass


async def closing(peer):
    """Reads up to the close frame; returns its code."""
    while (frame := await peer.frame()).opcode != OpCode.CLOSE:
        pass
    return int.from_bytes(frame.payload[:2])


@pytest.mark.parametrize("view_class", [Stuck, Feed])
async def test_pings_and_a_close_frame_are_answered_while_messages_wait(connect, view_class):
    async with connect(view_class) as session:
        session.peer.send(*map(str, range(10)))
        for _ in range(3):
            await pong(session.peer)
        session.peer.close()
        assert await closing(session.peer) == 1000
        await session.view.closed.wait()


@pytest.mark.parametrize(("settings", "count", "held"), [
    ({}, 16 + 1, False),
    ({}, 16 + 2, True),
    ({"MAX_WAITING_MESSAGES": 3}, 3 + 1, False),
    ({"MAX_WAITING_MESSAGES": 0}, 2, True),
    ({"MAX_WAITING_BYTES": 50}, 5 + 1, False),
    ({"MAX_WAITING_BYTES": 50}, 5 + 2, True),
])  # fmt: skip
async def test_reading_is_on_hold_beyond_the_bounds(connect, until, settings, count, held):
    """One message is being handled, and does not count."""
    View = type("View", (Stuck,), settings)
    async with connect(View) as session:
        view, peer = session.view, session.peer
        peer.send("first")
        await until(lambda: view.handled)
        peer.send(*["x" * 10] * (count - 1))
        peer.ping()
        await peer.frame()
        assert view.request.transport.is_reading() is not held
        view.go_on.set()
        for _ in range(count):
            await peer.message()
        assert view.request.transport.is_reading()


async def test_the_end_is_found_while_reading_is_on_hold(connect, until):
    """The end is also found behind bytes that have not been read."""

    async def found(end):
        async with connect(Stuck) as session:
            view, peer = session.view, session.peer
            peer.send("first")
            await until(lambda: view.handled)
            peer.send(*["x" * 1000] * 100)
            await until(lambda: not view.request.transport.is_reading())
            peer.send(*["y" * 1000] * 20)
            end(peer)
            await view.closed.wait()
            assert view.handled == [b"first"]

    await asyncio.gather(*map(found, [Peer.shut, Peer.leave, Peer.reset]))


@pytest.mark.skipif(not hasattr(asyncio, "open_unix_connection"), reason="needs Unix sockets")
async def test_messages_on_a_unix_socket_are_handled_after_the_peer_has_gone(until, tmp_path):
    """Such a socket has hung up as soon as its peer is closed, even if there is something left to read."""
    path = str(tmp_path / "socket")
    names = [str(number) for number in range(100)]
    frames = [Peer.serialize(name) for name in names]
    views = []

    class View(Stuck):
        CLOSE_TIMEOUT = 10

        async def on_open(self):
            views.append(self)

    async with serve(View, uds=path):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(UPGRADE)
        await reader.readuntil(b"\r\n\r\n")
        (view,) = views
        writer.writelines(frames[:50])
        await until(lambda: not view.request.transport.is_reading())
        writer.writelines(frames[50:])
        writer.close()
        await writer.wait_closed()
        await until(lambda: view.close_code is not None)
        view.go_on.set()
        await view.closed.wait()
        assert view.handled == [name.encode() for name in names]


async def test_messages_before_the_end_are_handled_in_order(connect, until):
    class View(Stuck):
        CLOSE_TIMEOUT = 10

    async with connect(View) as session:
        view, peer = session.view, session.peer
        names = [str(number) for number in range(500)]
        peer.send(*names)
        await until(lambda: not view.request.transport.is_reading())
        peer.shut()
        await until(lambda: view.close_code is not None)
        view.go_on.set()
        await view.closed.wait()
        assert view.handled == [name.encode() for name in names]


@pytest.mark.parametrize("pulls", [False, True])
async def test_messages_wait_compressed(connect, until, pulls):
    """Sixty of 1 MiB each, which have 62 KiB together on the wire."""

    class Pulling(Stuck):
        async def read_frame(self):
            return await super().read_frame()

    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    payload = (compressor.compress(bytes(2**20)) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
    message = Peer.serialize(Frame(OpCode.BINARY, payload=payload, rsv1=True))
    View = type("View", (Pulling if pulls else Stuck,), {"COMPRESSION": Compression(client_context_takeover=False)})
    async with connect(View, headers=OFFER) as session:
        view, peer = session.view, session.peer
        tracemalloc.start()
        try:
            peer.write(message * 60)
            await until(lambda: not view.request.transport.is_reading())
            await until(lambda: view.handled)
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert most < 8 * 2**20
        view.go_on.set()
        for _ in range(60):
            assert await peer.message() == str(2**20)


async def test_corrupt_data_closes_the_connection_in_its_turn(connect, until):
    async with connect(Stuck, headers=OFFER) as session:
        view, peer = session.view, session.peer
        peer.send("first", "second", Frame(OpCode.TEXT, payload=b"\xff" * 9, rsv1=True), "third")
        await until(lambda: view.handled)
        await pong(peer)
        view.go_on.set()
        assert [await peer.message() for _ in range(2)] == ["5", "6"]
        assert (await peer.closing())[0] in (1002, 1007)
        assert view.handled == [b"first", b"second"]


async def test_a_view_that_waits_about_its_frames_takes_no_more_than_it_handles(connect):
    class Pulling(Stuck):
        COMPRESSION = False

        async def read_frame(self):
            await asyncio.sleep(0)
            frame = await super().read_frame()
            await asyncio.sleep(0)
            return frame

    async with connect(Pulling) as session:
        data = session.peer.serialize(bytes(50_000))
        await session.peer.flood(data * 20)
        session.peer.reset()


async def test_no_message_is_handled_once_the_view_closes(connect, until):
    """This holds for waiting messages, for those of the same read, and for later ones."""

    class View(Stuck):
        async def on_receive(self, message, opcode):
            self.handled.append(message)
            await self.go_on.wait()
            await self.send_close(4000)

    async with connect(View) as session:
        view, peer = session.view, session.peer
        peer.send(*map(str, range(10)))
        await until(lambda: view.handled)
        view.go_on.set()
        assert await peer.closing() == (4000, "")
        peer.send("late")
        peer.close(4000)
        await view.closed.wait()
        assert view.handled == [b"0"]


async def test_a_reply_does_not_wait_for_the_handlers_behind_it(connect):
    """Each handler takes 20 ms of processor time, and the first reply leaves before the last handler begins."""

    class View(WebSocketView):
        async def on_receive(self, message, opcode):
            time.sleep(0.02)  # noqa: ASYNC251
            await self.send(message)
            if message == b"19":
                unsent.append(self._protocol.writer.size)

    unsent = []
    async with connect(View) as session:
        session.peer.send(*map(str, range(20)))
        for number in range(20):
            assert await session.peer.message() == str(number)
        assert unsent[0] <= 8  # bytes: its own reply, and at most one before it
