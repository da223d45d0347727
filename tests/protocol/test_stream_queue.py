"""Messages that are received part by part: on_stream, and what becomes of a message that is not read to its end."""

import asyncio
import gc
import itertools
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duck.contrib.websockets import (
    CloseCode,
    ConnectionClosed,
    Extension,
    OpCode,
    PayloadTooBig,
    PerMessageDeflate,
    WebSocketView,
)
from duck.contrib.websockets.client import ClientOffer, connect
from duck.contrib.websockets.protocol.stream_queue import StreamQueue
from duck.contrib.websockets.sansio.connection import Connection
from duck.contrib.websockets.testing import connect as connect_in_memory

from ..support.frames import MASK, RSV1, frame, header, xor
from ..support.leftovers import left

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = OpCode
ZEROS = 20_000_000


class Noting(WebSocketView):
    """Notes the parts of its messages, and how each reading ends."""

    CLOSE_TIMEOUT = 1

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.events = []
        self.noted = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    def note(self, event):
        self.events.append(event)
        self.noted.set()

    async def until(self, condition):
        while not condition(self.events):
            self.noted.clear()
            await self.noted.wait()

    async def on_stream(self, message):
        self.note(message.opcode.name)
        try:
            await self.gate.wait()
            async for part in message:
                self.note(part)
                await self.gate.wait()
        except ConnectionClosed as error:
            self.note(error.code)
            raise
        self.note("end")

    async def on_close(self, frame):
        self.note("close")


def joined(events):
    """The events, with the parts of each message joined."""
    found = []
    for event in events:
        if found and isinstance(event, bytes) and isinstance(found[-1], bytes):
            found[-1] += event
        else:
            found.append(event)
    return found


# Any stream


@st.composite
def messages_in_frames(draw):
    """(messages, their stream, whether it is compressed)."""
    deflate = PerMessageDeflate("permessage-deflate", client=True) if draw(st.booleans()) else None
    messages, stream = [], []
    texts = st.one_of(st.text(max_size=30), st.sampled_from(["\u00e4\U0001f986" * 40_000, "a" * 100_000]))
    for message in draw(st.lists(st.one_of(st.binary(max_size=30), texts), max_size=4)):
        payload = message.encode() if isinstance(message, str) else message
        if deflate is not None:
            payload = deflate.compress(payload)
        cuts = sorted(draw(st.lists(st.integers(0, len(payload)), max_size=3)))
        pieces = [payload[i:j] for i, j in itertools.pairwise([0, *cuts, len(payload)])]
        for at, piece in enumerate(pieces):
            opcode = CONTINUATION if at else TEXT if isinstance(message, str) else BINARY
            rsv = RSV1 if deflate is not None and not at else 0
            stream.append(frame(opcode, piece, at == len(pieces) - 1, rsv=rsv))
        messages.append(message)
    return messages, b"".join(stream), deflate is not None


@given(sent=messages_in_frames(), size=st.sampled_from([1, 7, 1000, 65_537, 2**30]), most=st.sampled_from([0, 2**30]))
def test_parts_make_up_their_message_however_they_come(codec, sent, size, most):
    messages, stream, compressed = sent

    async def scenario():
        loop = asyncio.get_running_loop()
        connection = Connection(extensions=[PerMessageDeflate("permessage-deflate")] if compressed else ())
        connection.receive_parts(None)
        reader = codec.MessageReader(2**30, True, compressed, parts=True)
        streams = StreamQueue(loop, most, None)
        streams.attach(Held(connection))
        got = []

        async def receive():
            while True:
                message = await streams.next()
                parts = [part async for part in message]
                assert all(parts)
                got.append(("" if message.opcode == TEXT else b"").join(parts))

        task = loop.create_task(receive())
        await asyncio.sleep(0)
        for at in range(0, len(stream), max(size, len(stream) // 300)):
            loop.call_soon(streams.deliver, reader.receive(stream[at : at + max(size, len(stream) // 300)]))
            await asyncio.sleep(0)
        streams.end()
        with pytest.raises(ConnectionClosed):
            await task
        return got

    assert asyncio.run(scenario()) == messages


class Held:
    """A connection whose bytes are not read from anywhere."""

    def __init__(self, connection):
        self.connection = connection
        self.counters = None

    def hold(self, reason):
        pass

    release = hold


# While a message comes


def test_parts_come_before_their_frame_is_complete(run):
    async def scenario():
        async with connect_in_memory(Noting, compression=False) as ws:
            view, payload = ws.view, bytes(range(256)) * 300
            data = xor(payload, MASK)
            ws.send_raw(header(BINARY, 2 * len(payload)) + data[:1001])
            await view.until(lambda events: joined(events) == ["BINARY", payload[:1001]])
            ws.send_raw(data[1001:])
            ws.send_raw(xor(payload, MASK) + frame(PING, b"meanwhile"))
            await view.until(lambda events: joined(events)[1:] == [payload * 2])
            ws.send_raw(frame(CONTINUATION, fin=False) + frame(CONTINUATION, b"xxx"))
            await view.until(lambda events: "end" in events)
            assert joined(view.events) == ["BINARY", payload * 2 + b"xxx", "end"]

    run(scenario())


def test_a_text_is_cut_at_characters_and_refused_at_its_first_wrong_byte(run, log):
    async def scenario():
        async with connect_in_memory(Noting, compression=False) as ws:
            for byte in frame(TEXT, "a\u00e4\u20ac\U0001f986".encode(), False):
                ws.send_raw(bytes([byte]))
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            await ws.view.until(lambda events: len(events) == 5)
            ws.send_raw(header(CONTINUATION, 2**20) + xor(b"\xc0", MASK))
            with pytest.raises(ConnectionClosed, match="1007 text is not UTF-8"):
                await ws.recv()
            await ws.wait_closed()
            assert ws.view.events == ["TEXT", "a", "\u00e4", "\u20ac", "\U0001f986", 1007, "close"]

    run(scenario())
    assert not log()


def test_a_reader_that_waits_holds_reading(run):
    async def scenario():
        async with connect_in_memory(Noting, compression=False) as ws:
            view, transport = ws.view, ws.view.request.transport
            view.gate.clear()
            ws.send_raw(header(BINARY, 2**30))
            sent = 0
            while transport.is_reading():
                ws.send_raw(bytes(20_000))
                sent += 20_000
                await asyncio.sleep(0)
            assert view.MAX_WAITING_BYTES < sent < view.MAX_WAITING_BYTES + 60_000
            assert view.events == ["BINARY"]
            view.gate.set()
            await view.until(lambda events: sum(map(len, events[1:])) == sent)
            assert transport.is_reading()
            ws.drop()
            await ws.wait_closed()
            assert view.events[-2:] == [1006, "close"]

    run(scenario())


def test_small_parts_are_counted_with_their_overhead(run):
    async def scenario():
        async with connect_in_memory(Noting, compression=False) as ws:
            ws.view.gate.clear()
            ws.send_raw(header(BINARY, 2**30))
            for _ in range(1000):
                ws.send_raw(b"x")
                await asyncio.sleep(0)
            assert not ws.view.request.transport.is_reading()
            assert ws.close_code is None
            ws.view.gate.set()
            ws.drop()

    run(scenario())


# Several messages


@pytest.mark.parametrize("compression", [False, True])
def test_the_next_message_begins_when_one_has_been_read_or_left(run, compression):
    class Second(WebSocketView):
        MAX_STREAM_SIZE = 10_000_000

        async def on_open(self):
            self.events = []

        async def on_stream(self, message):
            if len(self.events) % 2:
                self.events.append("left")
                return
            text = await message.read(10**8)
            self.events.append(len(text))
            await asyncio.sleep(0.001 if self.events[1:] else 0)
            await self.send(f"{len(text)} {text[:10]}")

    async def scenario():
        async with connect_in_memory(Second, compression=compression) as ws:
            for number in range(6):
                await ws.send(f"message {number} " * (70_000 if number % 3 == 1 else 10))
            await ws.send(iter(["message ", "6 ", "to be left out"]))  # after one that is left: it is read
            sizes = [100 if number % 3 != 1 else 700_000 for number in range(6)]
            assert [await ws.recv() for _ in range(4)] == [
                *(f"{sizes[number]} message {number} " for number in (0, 2, 4)),
                "24 message 6 ",
            ]
            assert ws.view.events == [100, "left", 100, "left", 700_000, "left", 24]

    run(scenario())


def test_many_small_messages_of_one_read_are_handled_within_it(run):
    class Quick(WebSocketView):
        tasks: set = set()  # noqa: RUF012

        async def on_stream(self, message):
            self.tasks.add(asyncio.current_task().get_name())
            async for part in message:
                await self.send(part)

    async def scenario():
        async with connect_in_memory(Quick, compression=False) as ws:
            ws.send_raw(b"".join(frame(TEXT, b"%d" % number) for number in range(100)))
            assert [await ws.recv() for _ in range(100)] == [str(number) for number in range(100)]
            assert len(Quick.tasks) == 1

    run(scenario())


# The end


@pytest.mark.parametrize("way", ["close", "eof", "drop"])
def test_a_message_that_stays_incomplete(run, log, until, way):
    async def scenario():
        async with connect_in_memory(Noting) as ws:
            view = ws.view
            view.gate.clear()
            ws.send_raw(frame(BINARY, b"whole") + frame(BINARY, b"a", False) + frame(CONTINUATION, b"b", False))
            if way == "close":
                await ws.send_close(4000)
            elif way == "eof":
                ws.send_eof()
            else:
                await view.until(lambda events: events)
                ws.drop()
            await view.until(lambda events: events)
            await until(lambda: view._protocol.connection.close_code)
            view.gate.set()
            await ws.wait_closed()
            # Complete messages are handled; no handler begins for an incomplete one.
            assert view.events == ["BINARY", b"whole", "end", "close"]
        async with connect_in_memory(Noting) as ws:
            ws.send_raw(frame(BINARY, b"a", False))
            await ws.view.until(lambda events: b"a" in events)
            if way == "close":
                await ws.send_close(4000)
            elif way == "eof":
                ws.send_eof()
            else:
                ws.drop()
            await ws.wait_closed()
            assert ws.view.events == ["BINARY", b"a", 4000 if way == "close" else 1006, "close"]

    run(scenario())
    assert not log()


def test_our_own_close_ends_the_reading(run, log):
    class Refusing(Noting):
        async def on_stream(self, message):
            async for _ in message:
                await self.send_close(CloseCode.UNSUPPORTED_DATA, "no thanks")
                with pytest.raises(ConnectionClosed, match="1003 no thanks"):
                    await message.read()
                self.note("refused")

    async def scenario():
        async with connect_in_memory(Refusing, compression=False) as ws:
            ws.send_raw(header(BINARY, 2**20) + bytes(10))
            with pytest.raises(ConnectionClosed, match="1003 no thanks"):
                await ws.recv()
        assert ws.view.events == ["refused", "close"]

    run(scenario())
    assert not log()


def test_an_error_of_the_handler_closes_with_1011(run, log):
    class Failing(WebSocketView):
        async def on_stream(self, message):
            raise ValueError(await anext(message))

    async def scenario():
        async with connect_in_memory(Failing, raise_errors=False, compression=False) as ws:
            ws.send_raw(header(BINARY, 2**20) + xor(b"part", MASK))
            with pytest.raises(ConnectionClosed, match="1011"):
                await ws.recv()

    run(scenario())
    assert [type(entry.error) for entry in log()] == [ValueError]


def test_a_cancelled_handler_and_what_it_leaves_behind(run):
    async def scenario():
        async with connect_in_memory(Noting, compression=False) as ws:
            ws.send_raw(header(BINARY, 2**20) + xor(b"part", MASK))
            await ws.view.until(lambda events: b"part" in events)
            ws.view.terminate()
            await ws.wait_closed()
            assert ws.view.events == ["BINARY", b"part", "close"]

    run(scenario())
    gc.collect()
    before = left()[1]
    run(scenario())
    gc.collect()
    assert left()[1] == before


# Limits


@pytest.mark.parametrize("compression", [False, True])
def test_the_limit_of_a_stream_is_its_own(run, compression):
    class Limited(Noting):
        MAX_FRAME_SIZE = 1000
        MAX_STREAM_SIZE = 500_000

    async def scenario():
        async with connect_in_memory(Limited, compression=compression, max_size=None) as ws:
            await ws.send(bytes(500_000), BINARY)
            await ws.view.until(lambda events: "end" in events)
            assert joined(ws.view.events) == ["BINARY", bytes(500_000), "end"]
            with pytest.raises(ConnectionClosed, match="1009 message too big"):
                await ws.send(bytes(500_001), BINARY)
                await ws.recv()

    run(scenario())


def test_reading_a_whole_message_has_the_limit_of_whole_messages(run, log):
    class Whole(WebSocketView):
        MAX_FRAME_SIZE = 1000

        async def on_stream(self, message):
            try:
                await self.send(await message.read(10 if message.opcode == TEXT else None), message.opcode)
            except PayloadTooBig:
                if message.opcode == BINARY:
                    raise
                await self.send("at most 10, please")

    async def scenario():
        async with connect_in_memory(Whole) as ws:
            for text, answer in (("", ""), ("a" * 10, "a" * 10), ("\u00e4" * 6, "at most 10, please")):
                await ws.send(text)
                assert await ws.recv() == answer
            await ws.send(bytes(1000), BINARY)
            assert await ws.recv() == bytes(1000)
            await ws.send([bytes(500), bytes(501)], BINARY)
            with pytest.raises(ConnectionClosed, match="1009 message too big"):
                await ws.recv()

    run(scenario())
    assert not log()


def test_a_compressed_message_is_decompressed_as_it_is_read(run):
    """In small steps, between which the loop serves others; and what is left is decompressed only where it must be."""

    class Bombed(WebSocketView):
        MAX_STREAM_SIZE = None
        largest = passes = size = 0

        async def on_stream(self, message):
            passing = asyncio.get_running_loop().call_soon(self.count)
            async for part in message:
                self.largest = max(self.largest, len(part))
                self.size += len(part)
                if self.size == ZEROS + 65536:
                    return
            passing.cancel()
            await self.send(f"{self.size}")

        def count(self):
            self.passes += 1
            asyncio.get_running_loop().call_soon(self.count)

    async def scenario():
        async with connect_in_memory(Bombed, max_size=None) as ws:
            await ws.send(bytes(ZEROS), BINARY)
            assert await ws.recv() == str(ZEROS)
            assert ws.view.largest == 65536
            assert ws.view.passes > ZEROS // 300_000
            await ws.send(b"x" + bytes(1_000_000), BINARY)
            await ws.send(b"x" + bytes(1_000_000), BINARY)  # refers to the one before, of which most was left
            assert await ws.recv() == str(ZEROS + 65536 + 1_000_001)

    run(scenario())


@pytest.mark.parametrize(
    ("payload", "close"),
    [
        (b"\xff\xff\xff", "1002 compressed data is broken"),
        (PerMessageDeflate("x", client=True).compress(b"\xc3"), "1007 text is not UTF-8"),
        (b"\x03\x00" + b"trailing", "1002 compressed data is broken: it goes on behind its last block"),
        (b"\x03\x00" + b"\x00", None),
        (b"", None),
    ],
)
@pytest.mark.parametrize("reads", [True, False])
def test_compressed_data_that_is_broken(run, payload, close, reads):
    class Reading(WebSocketView):
        async def on_stream(self, message):
            if reads or message.opcode == BINARY:
                await self.send(await message.read(), message.opcode)

    async def scenario():
        async with connect_in_memory(Reading, compression=True) as ws:
            ws.send_raw(frame(TEXT, payload, rsv=RSV1) + frame(BINARY, b"next"))
            if close is None:
                assert [await ws.recv() for _ in range(1 + reads)] == [""] * reads + [b"next"]
            elif reads or "1007" not in close:
                with pytest.raises(ConnectionClosed, match=close):
                    await ws.recv()

    run(scenario())


def test_a_rate_limit_counts_messages_not_parts(run):
    class Limited(Noting):
        RATE_LIMIT = 5

    async def scenario():
        async with connect_in_memory(Limited, compression=False) as ws:
            for opcode in (BINARY, *[CONTINUATION] * 30):
                ws.send_raw(frame(opcode, b"x", False))
                await asyncio.sleep(0)
            ws.send_raw(frame(CONTINUATION) + frame(TEXT, b"next"))
            await ws.view.until(lambda events: events[-2:] == ["next", "end"])
            ws.send_raw(frame(TEXT, b"next") * 20)
            with pytest.raises(ConnectionClosed, match="1008 too many messages"):
                await ws.recv()
            assert ws.view.events.count("next") == 4

    run(scenario())


# Beside other features


def test_an_extension_of_an_application_takes_whole_messages(run):
    class Reversing(Extension):
        def encode(self, frame):
            return frame.replace(payload=frame.payload[::-1])

        def decode(self, frame, max_size=None):
            return self.encode(frame)

    class Extended(Noting):
        EXTENSIONS = {"x-reversing": lambda parameters: Reversing("x-reversing")}  # noqa: RUF012
        COMPRESSION = False
        MAX_FRAME_SIZE = 10

    async def scenario():
        offers = {"x-reversing": ClientOffer((), lambda parameters: Reversing("x-reversing"))}
        async with connect_in_memory(Extended, compression=False, extensions=offers, stream=True) as ws:
            ws.send_raw(frame(TEXT, b"cba", False))
            ws.send_raw(frame(CONTINUATION, b"fed"))
            await ws.view.until(lambda events: "end" in events)
            assert ws.view.events == ["TEXT", "defabc", "end"]

    run(scenario())


def test_views_that_cannot_be(run):
    with pytest.raises(TypeError, match="Both overrides on_stream and on_new_frame, which take whole messages"):

        class Both(WebSocketView):
            async def on_stream(self, message):
                pass

            async def on_new_frame(self, frame):
                pass


def test_a_server_that_stops_waits_for_the_message_that_is_being_read(run):
    async def scenario():
        async with connect_in_memory(Noting, compression=False) as ws:
            ws.send_raw(frame(BINARY, b"a", False))
            await ws.view.until(lambda events: b"a" in events)
            drained = asyncio.ensure_future(ws.view.drain(5))
            await asyncio.sleep(0)
            ws.send_raw(frame(CONTINUATION, b"b") + frame(BINARY, b"too late"))
            await drained
            assert joined(ws.view.events) == ["BINARY", b"ab", "end"]

    run(scenario())


def test_a_slow_reader_holds_up_the_peer(run, serving, until):
    class Slow(Noting):
        async def on_stream(self, message):
            await self.gate.wait()
            await self.send(str(sum([len(part) async for part in message])))

    async def scenario():
        async with serving(Slow) as server, connect(f"ws://127.0.0.1:{server.port}/", compression=False) as ws:
            view, _ = await server.views.get()
            view.gate.clear()
            sent = 0

            async def parts():
                nonlocal sent
                for _ in range(300):
                    yield os.urandom(65536)
                    sent += 65536

            upload = asyncio.ensure_future(ws.send(parts(), BINARY))
            await until(lambda: not view.request.transport.is_reading())
            await asyncio.sleep(0.05)  # in which 20 MB would pass
            assert sent < 300 * 65536
            view.gate.set()
            await upload
            assert await ws.recv() == str(300 * 65536)

    run(scenario())
