"""Large compressed messages: a thread compresses and decompresses them, and all that holds of others holds of them."""

import asyncio
import gc
import random
import threading
import weakref
import zlib

import pytest

from duck.contrib.websockets import (
    Compression,
    ConnectionClosed,
    Frame,
    OpCode,
    PerMessageDeflate,
    WebSocketView,
)
from duck.contrib.websockets.codec import deflate
from duck.contrib.websockets.protocol import decoding, sender
from duck.contrib.websockets.protocol.line import Line
from duck.contrib.websockets.sansio.connection import Connection, parse_close

from ..support.views import Recorder

OFFER = {"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"}
MIB = 2**20
SECONDS = 10


@pytest.fixture(params=deflate.BACKENDS)
def each_backend(request, monkeypatch):
    try:
        chosen = deflate.load(request.param)
    except ImportError:
        pytest.skip(f"{request.param} is not installed")
    monkeypatch.setattr(deflate, "BACKEND", chosen)


def text(seed, size=300_000):
    """Compresses to about a half."""
    return random.Random(seed).randbytes(size // 2).hex().encode()


LARGE = [text(seed) for seed in range(4)]


def far_end():
    return PerMessageDeflate("permessage-deflate", client_max_window_bits=12, server_max_window_bits=12)


def compressed(end, payload, opcode=OpCode.TEXT):
    return end.encode(Frame(opcode, payload=payload)).serialize(mask=True)


def broken(size=200_000):
    """A large message that is not compressed at all, but says so."""
    return Frame(OpCode.TEXT, payload=b"\xff" * size, rsv1=True).serialize(mask=True)


class Client:
    """The peer of a session, which compresses what it sends."""

    def __init__(self, peer):
        self.peer = peer
        self.end = far_end()

    def send(self, *messages):
        """Sends messages and frames, all in one piece."""
        self.peer.write(
            b"".join(
                message.serialize(mask=True) if isinstance(message, Frame) else compressed(self.end, message)
                for message in messages
            )
        )

    async def frame(self):
        return await Frame.parse(self.peer.reader.readexactly, mask_required=False, extensions=[self.end])

    async def raw(self):
        """The next message as it is on the wire, out of its fragments: whether it is compressed, and its payload."""
        payload, is_compressed = b"", False
        while True:
            first, length = await self.peer.reader.readexactly(2)
            if length >= 126:
                length = int.from_bytes(await self.peer.reader.readexactly(2 if length == 126 else 8))
            payload += await self.peer.reader.readexactly(length)
            assert first & 0b1111 < OpCode.CLOSE
            is_compressed = is_compressed or bool(first & 0b01000000)
            if first & 0b10000000:
                return is_compressed, payload

    async def message(self):
        is_compressed, payload = await self.raw()
        return self.end.decompress(payload) if is_compressed else payload

    async def closing(self):
        frame = await self.frame()
        assert frame.opcode == OpCode.CLOSE
        return parse_close(frame.payload)[0]


class Gate:
    """Stops the threads until it is opened.

    Attributes:
        entered: Set when one has come to it.
    """

    def __init__(self, loop):
        self._loop = loop
        self._open = threading.Event()
        self.entered = asyncio.Event()

    def open(self):
        self._open.set()

    def pass_through(self):
        if threading.current_thread().name.startswith("duck-deflate"):
            self._loop.call_soon_threadsafe(self.entered.set)
            assert self._open.wait(SECONDS)


@pytest.fixture
def gate(monkeypatch):
    """A gate before what is done in threads, to be made inside of a loop: by `gate("decode")` or `gate("compress")`."""
    gates = []

    def make(method):
        made = Gate(asyncio.get_running_loop())
        gates.append(made)
        original = getattr(Connection, method)

        def gated(self, *args):
            made.pass_through()
            return original(self, *args)

        monkeypatch.setattr(Connection, method, gated)
        return made

    yield make
    for made in gates:
        made.open()


class Echo(WebSocketView):
    async def on_receive(self, message, opcode):
        await self.send(message, opcode)


# In order


@pytest.mark.usefixtures("each_backend")
def test_messages_of_all_sizes_come_and_go_in_order(run, connect):
    async def scenario():
        async with connect(Echo, headers=OFFER) as session:
            client = Client(session.peer)
            messages = [LARGE[0], b"small", LARGE[1], LARGE[2], b"", LARGE[0], LARGE[0][:5000], LARGE[3]]
            for _ in range(2):
                client.send(*messages)
                for message in messages:
                    assert await client.message() == message

    run(scenario())


@pytest.mark.usefixtures("each_backend")
@pytest.mark.parametrize("alone", [False, True])
def test_contexts_are_taken_over_or_not(run, connect, alone):
    class View(Echo):
        COMPRESSION = Compression(server_context_takeover=not alone)

    async def scenario():
        async with connect(View, headers=OFFER) as session:
            client = Client(session.peer)
            tail = LARGE[0][-2000:]
            client.send(LARGE[0], tail)
            assert await client.message() == LARGE[0]
            is_compressed, payload = await client.raw()
            assert is_compressed
            assert (len(payload) < 500) is not alone  # it has been in the message before
            reader = zlib.decompressobj(-12, b"" if alone else LARGE[0][-4096:])
            assert reader.decompress(payload + b"\x00\x00\xff\xff") == tail

    run(scenario())


def test_messages_leave_in_the_order_of_calls(run, connect):
    """Whoever awaits them, and in whatever order."""

    class View(Echo):
        MAX_FRAME_SIZE = 200_000  # so that some leave in fragments

    async def scenario():
        async with connect(View, headers=OFFER) as session:
            view, client = session.view, Client(session.peer)
            messages = [LARGE[0], b"one", LARGE[1], LARGE[2][:150_000], b"two", b"three", LARGE[3]]
            sent = [view.send_binary(message) for message in messages]
            stream = asyncio.create_task(view.send_binary(part for part in (b"st", b"ream")))
            sent += [view.send_binary(LARGE[1]), view.send("last")]
            for waiting in reversed(sent):
                await waiting
            await stream
            for message in (*messages, b"stream", LARGE[1], b"last"):
                assert await client.message() == message

    run(scenario())


@pytest.mark.usefixtures("each_backend")
def test_a_view_that_sees_each_frame(run, connect):
    class View(Echo):
        async def send_frame(self, frame):
            await super().send_frame(frame)

        async def read_frame(self):
            return await super().read_frame()

    async def scenario():
        async with connect(View, headers=OFFER) as session:
            client = Client(session.peer)
            client.send(LARGE[0], b"small", LARGE[1])
            for message in (LARGE[0], b"small", LARGE[1]):
                assert await client.message() == message

    run(scenario())


def test_no_thread_is_started_for_small_messages(run, connect, monkeypatch):
    def threads():
        raise AssertionError("a thread is to be started")

    for module in (decoding, sender):
        monkeypatch.setattr(module, "threads", threads)

    async def scenario():
        async with connect(Echo, headers=OFFER) as session:
            client = Client(session.peer)
            for size in (0, 300, 60_000):
                client.send(LARGE[0][:size])
                assert await client.message() == LARGE[0][:size]
        async with connect(Echo) as session:  # nor for large ones that are not compressed
            session.peer.send(LARGE[0])
            assert await session.peer.message() == LARGE[0]

    run(scenario())


# The loop is free


@pytest.mark.parametrize("method", ["decode", "compress"])
def test_others_are_served_meanwhile(run, serving, dial, gate, method):
    async def scenario():
        held = gate(method)
        async with serving(Echo) as server, dial(server, headers=OFFER) as one, dial(server) as other:
            await one.head()
            await other.head()
            client = Client(one)
            client.send(LARGE[0], b"behind")
            await held.entered.wait()
            other.send("quick")
            assert await other.message() == "quick"
            held.open()
            assert await client.message() == LARGE[0]
            assert await client.message() == b"behind"

    run(scenario())


def test_pings_are_answered_while_a_message_is_decompressed(run, connect, gate):
    """Messages wait behind it, as they came, until reading is on hold."""

    async def scenario():
        held = gate("decode")
        async with connect(Echo, headers=OFFER) as session:
            client = Client(session.peer)
            client.send(LARGE[0], b"later", Frame(OpCode.PING, payload=b"there?"))
            await held.entered.wait()
            assert (await client.frame()).payload == b"there?"
            held.open()
            assert await client.message() == LARGE[0]
            assert await client.message() == b"later"

    run(scenario())


def test_control_frames_leave_while_a_message_is_compressed(run, connect, gate):
    async def scenario():
        held = gate("compress")
        async with connect(Echo, headers=OFFER) as session:
            client = Client(session.peer)
            client.send(LARGE[0])
            await held.entered.wait()
            client.send(Frame(OpCode.PING, payload=b"there?"))
            assert (await client.frame()).payload == b"there?"
            await session.view.send_ping(b"and you?")
            assert (await client.frame()).payload == b"and you?"
            with pytest.raises(RuntimeError, match="no message to continue"):
                await session.view.send_frame(Frame(OpCode.CONTINUATION, payload=b"x"))
            held.open()
            assert await client.message() == LARGE[0]

    run(scenario())


def test_what_waits_behind_a_large_message_is_bounded(run, connect, gate):
    class View(Echo):
        SLOW_CONSUMER = "drop"

    async def scenario():
        held = gate("compress")
        async with connect(View, headers=OFFER) as session:
            client, view = Client(session.peer), session.view
            sent = [asyncio.create_task(view.send(LARGE[0]))]
            await held.entered.wait()
            message = text(1, 1000)
            sent += [asyncio.create_task(view.send(message)) for _ in range(500)]
            await asyncio.sleep(0)
            passed = view.WRITE_LIMIT // len(message) + 1
            assert view.dropped == 500 - passed
            held.open()
            await asyncio.gather(*sent)
            assert [await client.message() for _ in range(1 + passed)] == [LARGE[0]] + [message] * passed
            await view.send(message)
            assert await client.message() == message
            assert view.dropped == 500 - passed

    run(scenario())


# What is wrong


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (broken(), 1002),
        (compressed(far_end(), text(9, 3 * MIB), OpCode.BINARY), 1009),
        (compressed(far_end(), LARGE[0] + b"\xff"), 1007),
    ],
    ids=["garbage", "too large", "not UTF-8"],
)
def test_a_message_that_is_refused(run, connect, gate, message, code):
    """Those behind it are not looked at."""

    class View(Recorder):
        MAX_FRAME_SIZE = 2 * MIB

    async def scenario():
        held = gate("decode")
        async with connect(View, headers=OFFER) as session:
            client = Client(session.peer)
            session.peer.write(compressed(client.end, b"before") + message + compressed(far_end(), LARGE[0]) * 2)
            await held.entered.wait()
            held.open()
            assert await client.message() == b"before"
            assert await client.closing() == code
            session.peer.shut()
            await session.ended()
            assert session.view.events == ["open", b"before", ("close", None)]

    run(scenario())


@pytest.mark.parametrize("wrong", [b"\x83\x80\0\0\0\0", broken(100)], ids=["a reserved opcode", "garbage"])
def test_what_is_wrong_behind_a_large_message(run, connect, wrong):
    """That is answered first."""

    async def scenario():
        async with connect(Echo, headers=OFFER) as session:
            client = Client(session.peer)
            session.peer.write(compressed(client.end, LARGE[0]) + wrong + compressed(far_end(), LARGE[1]))
            assert await client.message() == LARGE[0]
            assert await client.closing() == 1002

    run(scenario())


def test_a_large_message_behind_what_is_wrong(run, connect, gate):
    class View(Recorder):
        pass

    async def scenario():
        held = gate("decode")
        async with connect(View, headers=OFFER) as session:
            client = Client(session.peer)
            session.peer.write(broken(100) + compressed(far_end(), LARGE[1]))
            assert await client.closing() == 1002
            session.peer.shut()
            await session.ended()
            assert not held.entered.is_set()
            assert session.view.events == ["open", ("close", None)]

    run(scenario())


def test_the_rate_of_messages_holds(run, connect):
    class View(Echo):
        RATE_LIMIT = 2

    async def scenario():
        async with connect(View, headers=OFFER) as session:
            client = Client(session.peer)
            client.send(LARGE[0], b"two", *[b"more"] * 20)
            assert await client.message() == LARGE[0]
            assert await client.message() == b"two"
            frame = await client.frame()
            while frame.payload == b"more":  # the bucket fills as time goes by
                frame = await client.frame()
            assert parse_close(frame.payload)[0] == 1008

    run(scenario())


# Ends


def test_a_close_frame_behind_a_large_message(run, connect):
    async def scenario():
        async with connect(Recorder, headers=OFFER) as session:
            client = Client(session.peer)
            client.send(b"small", LARGE[0], LARGE[1], Frame(OpCode.CLOSE, payload=b"\x03\xe8"))
            for message in (b"small", LARGE[0], LARGE[1]):
                assert await client.message() == message
            assert await client.closing() == 1000
            await session.ended()
            assert session.view.events == ["open", b"small", LARGE[0], LARGE[1], ("close", b"\x03\xe8")]

    run(scenario())


class Pulling(Recorder):
    async def read_frame(self):
        return await super().read_frame()


@pytest.mark.parametrize("view_class", [Recorder, Pulling])
def test_the_connection_is_lost_while_a_message_is_decompressed(run, connect, gate, until, view_class):
    async def scenario():
        held = gate("decode")
        async with connect(view_class, headers=OFFER) as session:
            view, end = session.view, far_end()
            data = b"".join(compressed(end, message) for message in (LARGE[0], b"behind", LARGE[1]))
            protocol = view._protocol
            asyncio.get_running_loop().call_soon(protocol.received, protocol.reader.receive(data))
            await held.entered.wait()
            protocol.transport.abort()
            await until(lambda: view.close_code is not None)
            assert view.events == ["open"]
            held.open()
            await session.ended()
            assert [event for event in view.events if isinstance(event, bytes)] == [LARGE[0], b"behind", LARGE[1]]
            assert view.events[-1] == ("close", None)

    run(scenario())


def test_a_view_without_on_close(run, connect, gate):
    class View(WebSocketView):
        received = None

        async def on_receive(self, message, opcode):
            self.received = message

    async def scenario():
        held = gate("decode")
        async with connect(View, headers=OFFER) as session:
            Client(session.peer).send(LARGE[0])
            await held.entered.wait()
            session.view._protocol.transport.abort()
            await asyncio.sleep(0)
            held.open()
            await session.ended()
            assert session.view.received == LARGE[0]

    run(scenario())


def test_who_takes_longer_than_the_deadline(run, connect, gate, log):
    class View(Recorder):
        CLOSE_TIMEOUT = 0.05

    async def scenario():
        held = gate("decode")
        async with connect(View, headers=OFFER) as session:
            Client(session.peer).send(LARGE[0], b"behind")
            await held.entered.wait()
            session.view._protocol.transport.abort()
            await session.ended()
            assert session.view.events == ["open", ("close", None)]
            job = asyncio.get_running_loop().run_in_executor(decoding.threads(), int)
            held.open()
            await job
            await asyncio.sleep(0)
            assert session.view.events == ["open", ("close", None)]

    run(scenario())
    assert [entry.message for entry in log()] == ["'/': 2 messages were not handled in time"]


def test_the_connection_is_lost_while_a_message_for_an_application_is_decompressed(run, serving_asgi, dial, gate, log):
    """uvicorn hears of the loss at once, and the application gets the message first."""
    received = []

    async def app(scope, receive, send):
        received.append(await receive())
        await send({"type": "websocket.accept"})
        while received[-1]["type"] != "websocket.disconnect":
            received.append(await receive())

    async def scenario():
        held = gate("decode")
        async with serving_asgi(app) as server, dial(server, target="/room", headers=OFFER) as peer:
            await peer.head()
            Client(peer).send(LARGE[0])
            await held.entered.wait()
            for connection in server.state.connections:
                connection.transport.abort()
            while server.state.connections:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            held.open()

    run(scenario())
    kinds = [event["type"] for event in received]
    assert kinds == ["websocket.connect", "websocket.receive", "websocket.disconnect"]
    assert not log()


def test_a_view_closes_while_a_message_is_decompressed(run, connect, gate):
    """What still comes is dropped then."""

    async def scenario():
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

    run(scenario())


@pytest.mark.usefixtures("each_backend")
@pytest.mark.parametrize("count", [1, 8])
def test_a_view_closes_behind_what_it_sends(run, connect, count):
    """Messages sent before leave before the close frame, whether a thread has begun on them or not."""

    async def scenario():
        async with connect(Echo, headers=OFFER) as session:
            client, view = Client(session.peer), session.view
            messages = [LARGE[0], b"small", *LARGE] * count
            sent = asyncio.gather(*(view.send(message) for message in messages))
            await asyncio.sleep(0)
            await view.send_close()
            for message in messages:
                assert await client.message() == message
            assert await client.closing() == 1000
            await sent

    run(scenario())


def test_the_connection_is_lost_while_a_message_is_compressed(run, connect, gate):
    class View(Recorder):
        async def on_receive(self, message, opcode):
            for data in (LARGE[0], "small"):
                try:
                    await self.send(data)
                except ConnectionClosed as error:
                    self.events.append(error.code)

    async def scenario():
        held = gate("compress")
        async with connect(View, headers=OFFER) as session:
            session.peer.send("go")
            await held.entered.wait()
            waiting = asyncio.create_task(session.view.send("behind"))
            await asyncio.sleep(0)
            session.view._protocol.transport.abort()
            with pytest.raises(ConnectionClosed):
                await waiting
            await session.ended()
            assert sorted(map(str, session.view.events)) == ["('close', None)", "1006", "1006", "open"]
            held.open()

    run(scenario())


@pytest.mark.parametrize("who", ["peer", "view"])
def test_a_close_frame_behind_messages_that_are_compressed(run, serving, dial, gate, who):
    """They leave first, for they were sent first. Others are served meanwhile, and nothing may be sent any more."""

    async def scenario():
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

    run(scenario())


@pytest.mark.parametrize("who", ["peer", "view"])
def test_a_close_frame_behind_messages_for_which_the_time_is_over(run, connect, gate, who):
    class View(Recorder):
        CLOSE_TIMEOUT = 0.2

    async def scenario():
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

    run(scenario())


def test_the_connection_is_lost_while_a_close_frame_waits(run, connect, gate):
    async def scenario():
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

    run(scenario())


def test_messages_that_the_loop_compresses_let_others_have_their_turn(run, connect, gate, monkeypatch):
    """A hundred that a large one has held up: they do not leave all at once."""
    monkeypatch.setattr(Line, "FAIR_SHARE", 0)
    turns = 0

    async def scenario():
        nonlocal turns
        held = gate("compress")
        async with connect(Echo, headers=OFFER) as session:
            client, view = Client(session.peer), session.view
            loop = asyncio.get_running_loop()
            message = LARGE[1][:20_000]
            sent = [view.send(LARGE[0]), *(view.send(message) for _ in range(100))]
            await held.entered.wait()

            def count():
                nonlocal turns
                turns += bool(view._protocol.sender._line.resuming)
                loop.call_soon(count)

            loop.call_soon(count)
            held.open()
            assert await client.message() == LARGE[0]
            for _ in range(100):
                assert await client.message() == message
            await asyncio.gather(*sent)

    run(scenario())
    assert turns > 50


def test_who_gives_up_waiting_has_sent_all_the_same(run, connect, gate):
    """For the messages behind it refer to it."""

    async def scenario():
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

    run(scenario())


def test_an_error_in_the_thread_is_the_senders(run, connect, monkeypatch, log):
    def compress(self, fragments):
        raise MemoryError

    async def scenario():
        async with connect(Echo, headers=OFFER) as session:
            monkeypatch.setattr(Connection, "compress", compress)
            client = Client(session.peer)
            with pytest.raises(MemoryError):
                await session.view.send(LARGE[0])
            client.send(LARGE[1])
            assert await client.closing() == 1011

    run(scenario())
    assert [type(entry.error) for entry in log()] == [MemoryError]


def test_terminate(run, connect, gate):
    """The server does not wait for what is compressed."""

    async def scenario():
        held = gate("compress")
        async with connect(Recorder, headers=OFFER) as session:
            client = Client(session.peer)
            client.send(LARGE[0])
            await held.entered.wait()
            session.view.terminate()
            assert await client.closing() == 1001
            await session.ended()
            assert session.view.events == ["open", LARGE[0], ("close", None)]

    run(scenario())


@pytest.mark.usefixtures("each_backend")
def test_a_connection_that_has_ended_is_freed_at_once(run, serving, dial, until):
    class View(WebSocketView):
        async def on_receive(self, message, opcode):
            pass

    async def scenario():
        async with serving(View) as server:
            async with dial(server, headers=OFFER) as peer:
                await peer.head()
                view, end = await server.views.get()
                client = Client(peer)
                client.send(LARGE[0], Frame(OpCode.CLOSE, payload=b"\x03\xe8"))
                assert await client.closing() == 1000
                await end
            extension = weakref.ref(view.extensions[0])
            gc.disable()  # which would find what is left in a cycle
            try:
                del view, end
                await until(lambda: extension() is None)
            finally:
                gc.enable()

    run(scenario())


# ASGI


def test_an_asgi_application(run, serving_asgi, dial):
    events = []

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            events.append(event["text"].encode())
            await send({"type": "websocket.send", "text": event["text"]})
        events.append(event["code"])

    async def scenario():
        async with serving_asgi(app) as server, dial(server, headers=OFFER) as peer:
            await peer.head()
            client = Client(peer)
            client.send(LARGE[0], b"small", LARGE[1])
            for message in (LARGE[0], b"small", LARGE[1]):
                assert await client.message() == message
            peer.close()
            assert await client.closing() == 1000

    run(scenario())
    assert events == [LARGE[0], b"small", LARGE[1], 1000]
