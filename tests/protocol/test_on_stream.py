"""Messages that are received part by part: `on_stream`, and messages that are not read to their end."""

import asyncio
import gc
import os

import pytest

from duck.contrib.websockets import CloseCode, ConnectionClosed, Extension, OpCode, PerMessageDeflate, WebSocketView
from duck.contrib.websockets.client import ClientOffer, connect
from duck.contrib.websockets.testing import connect as connect_in_memory

from ..support.frames import MASK, RSV1, frame, header, xor
from ..support.leftovers import left
from ..support.waiting import begun, within
from .stream_views import PartRecorder, joined

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = OpCode


# While a message comes


async def test_parts_arrive_before_their_frame_is_complete():
    async with connect_in_memory(PartRecorder, compression=False) as ws:
        view, payload = ws.view, bytes(range(256)) * 300
        data = xor(payload, MASK)
        ws.send_raw(header(BINARY, 2 * len(payload)) + data[:1001])
        await view.until(lambda: joined(view.events) == ["BINARY", payload[:1001]])
        ws.send_raw(data[1001:])
        ws.send_raw(xor(payload, MASK) + frame(PING, b"meanwhile"))
        await view.until(lambda: joined(view.events)[1:] == [payload * 2])
        ws.send_raw(frame(CONTINUATION, fin=False) + frame(CONTINUATION, b"xxx"))
        await view.until(lambda: "end" in view.events)
        assert joined(view.events) == ["BINARY", payload * 2 + b"xxx", "end"]


async def test_a_small_message_comes_in_one_part(connect):
    """Also if the last read was of the same connection, whose next one is handled in quarters."""
    async with connect(PartRecorder) as session:
        view = session.view
        for count in range(1, 4):
            session.peer.send(bytes(1000))
            await view.until(lambda count=count: view.events.count("end") == count)
        assert view.events == ["BINARY", bytes(1000), "end"] * 3


async def test_a_text_is_cut_at_characters_and_refused_at_its_first_wrong_byte(log):
    async with connect_in_memory(PartRecorder, compression=False) as ws:
        for byte in frame(TEXT, "a\u00e4\u20ac\U0001f986".encode(), False):
            ws.send_raw(bytes([byte]))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        await ws.view.until(lambda: len(ws.view.events) == 5)
        ws.send_raw(header(CONTINUATION, 2**20) + xor(b"\xc0", MASK))
        with pytest.raises(ConnectionClosed, match="1007 text is not UTF-8"):
            await ws.recv()
        await ws.wait_closed()
        assert ws.view.events == ["TEXT", "a", "\u00e4", "\u20ac", "\U0001f986", 1007, "close"]
    assert not log()


async def test_a_text_that_is_not_utf_8_is_no_empty_text():
    async with connect_in_memory(PartRecorder, compression=True) as ws:
        ws.send_raw(frame(TEXT, PerMessageDeflate("x", client=True).compress(b"\xff"), rsv=RSV1))
        await ws.wait_closed()
        assert ws.view.events == ["TEXT", 1007, "close"]


async def test_a_reader_that_waits_holds_reading(until):
    async with connect_in_memory(PartRecorder, compression=False) as ws:
        view, transport = ws.view, ws.view.request.transport
        view.gate.clear()
        ws.send_raw(header(BINARY, 2**30))
        sent = 0
        while sent <= view.MAX_WAITING_BYTES:
            await until(transport.is_reading)  # after a long read, reading pauses for one pass of the loop
            ws.send_raw(bytes(20_000))
            sent += 20_000
            await asyncio.sleep(0)
        await until(lambda: not transport.is_reading())
        for _ in range(2):
            await asyncio.sleep(0)
        assert not transport.is_reading()
        assert view.events == ["BINARY"]
        view.gate.set()
        await view.until(lambda: sum(map(len, view.events[1:])) == sent)
        await until(transport.is_reading)
        ws.drop()
        await ws.wait_closed()
        assert view.events[-2:] == [1006, "close"]


async def test_small_parts_are_counted_with_their_overhead():
    async with connect_in_memory(PartRecorder, compression=False) as ws:
        ws.view.gate.clear()
        ws.send_raw(header(BINARY, 2**30))
        for _ in range(1000):
            ws.send_raw(b"x")
            await asyncio.sleep(0)
        assert not ws.view.request.transport.is_reading()
        assert ws.close_code is None
        ws.view.gate.set()
        ws.drop()


# Several messages


async def test_the_parts_that_a_handler_leaves_wait_no_more():
    class First(WebSocketView):
        COMPRESSION = False

        async def on_stream(self, message):
            await go_on.wait()
            async for part in message:
                await self.send(part, BINARY)
                return

    go_on = asyncio.Event()
    async with connect_in_memory(First) as ws:
        for _ in range(2 * First.MAX_WAITING_BYTES // 5000):
            go_on.clear()
            for part in (frame(BINARY, b"a", False), frame(CONTINUATION, bytes(5000))):  # each in a read of its own
                ws.send_raw(part)
                await asyncio.sleep(0)
            go_on.set()
            assert await ws.recv() == b"a"
        assert ws.view.request.transport.is_reading()


@pytest.mark.parametrize("compression", [False, True])
async def test_the_next_message_begins_when_one_has_been_read_or_left(compression):
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


async def test_messages_of_one_read_are_read_in_turn_even_after_the_loss():
    class Slow(PartRecorder):
        CLOSE_TIMEOUT = 60

        async def on_stream(self, message):
            await asyncio.sleep(0)
            self.note(await message.read())

    async with connect_in_memory(Slow, compression=False) as ws:
        ws.send_raw(b"".join(frame(TEXT, number) for number in (b"1", b"2", b"3", b"4")))
        await ws.view.until(lambda: ws.view.events == ["1", "2"])
        ws.drop()
        await ws.wait_closed()
        assert ws.view.events == ["1", "2", "3", "4", "close"]


async def test_many_small_messages_of_one_read_are_handled_within_it():
    handled, passes = [], []

    class Quick(WebSocketView):
        async def on_stream(self, message):
            if not handled:
                asyncio.get_running_loop().call_soon(passes.append, "the next")
            handled.append(len(passes))
            async for part in message:
                await self.send(part)

    async with connect_in_memory(Quick, compression=False) as ws:
        ws.send_raw(b"".join(frame(TEXT, b"%d" % number) for number in range(100)))
        assert [await ws.recv() for _ in range(100)] == [str(number) for number in range(100)]
        assert handled == [0] * 100


# The end


@pytest.mark.parametrize("way", ["close", "eof", "drop"])
async def test_no_handler_begins_for_a_message_that_stays_incomplete(log, until, way):
    async with connect_in_memory(PartRecorder) as ws:
        view = ws.view
        view.gate.clear()
        ws.send_raw(frame(BINARY, b"whole") + frame(BINARY, b"a", False) + frame(CONTINUATION, b"b", False))
        if way == "close":
            await ws.send_close(4000)
        elif way == "eof":
            ws.send_eof()
        else:
            await view.until(lambda: view.events)
            ws.drop()
        await view.until(lambda: view.events)
        await until(lambda: view.close_code)
        view.gate.set()
        await ws.wait_closed()
        # Complete messages are handled; no handler begins for an incomplete one.
        assert view.events == ["BINARY", b"whole", "end", "close"]
    async with connect_in_memory(PartRecorder) as ws:
        ws.send_raw(frame(BINARY, b"a", False))
        await ws.view.until(lambda: b"a" in ws.view.events)
        if way == "close":
            await ws.send_close(4000)
        elif way == "eof":
            ws.send_eof()
        else:
            ws.drop()
        await ws.wait_closed()
        assert ws.view.events == ["BINARY", b"a", 4000 if way == "close" else 1006, "close"]
    assert not log()


@pytest.mark.usefixtures("impatient")
async def test_our_own_close_ends_the_reading(log):
    class Refusing(PartRecorder):
        CLOSE_TIMEOUT = 0.1

        async def on_stream(self, message):
            async for _ in message:
                await self.send_close(CloseCode.UNSUPPORTED_DATA, "no thanks")
                with pytest.raises(ConnectionClosed, match="1003 no thanks"):
                    await message.read()
                self.note("refused")

    async with connect_in_memory(Refusing, compression=False) as ws:
        ws.send_raw(header(BINARY, 2**20) + bytes(10))
        with pytest.raises(ConnectionClosed, match="1003 no thanks"):
            await ws.recv()
    assert ws.view.events == ["refused", "close"]
    assert not log()


@pytest.mark.usefixtures("impatient")
async def test_an_error_of_the_handler_closes_with_1011(log):
    class Failing(WebSocketView):
        CLOSE_TIMEOUT = 0.1

        async def on_stream(self, message):
            raise ValueError(await anext(message))

    async with connect_in_memory(Failing, raise_errors=False, compression=False) as ws:
        ws.send_raw(header(BINARY, 2**20) + xor(b"part", MASK))
        with pytest.raises(ConnectionClosed, match="1011"):
            await ws.recv()
    assert [type(entry.error) for entry in log()] == [ValueError]


async def test_a_cancelled_handler_leaves_nothing():
    async def visit():
        async with connect_in_memory(PartRecorder, compression=False) as ws:
            ws.send_raw(header(BINARY, 2**20) + xor(b"part", MASK))
            await ws.view.until(lambda: b"part" in ws.view.events)
            ws.view.terminate()
            await ws.wait_closed()
            assert ws.view.events == ["BINARY", b"part", "close"]

    await visit()
    gc.collect()
    before = left()[1]
    await visit()
    gc.collect()
    assert left()[1] == before


# Beside other features


async def test_a_task_that_waits_for_a_part_gets_an_error_when_on_stream_returns(until):
    class HandsOn(WebSocketView):
        async def on_stream(self, message):
            (self.reading,) = await begun(message.read())

    async with connect_in_memory(HandsOn, compression=False) as ws:
        ws.send_raw(frame(BINARY, b"beginning", False))
        await until(lambda: hasattr(ws.view, "reading"))
        with pytest.raises(RuntimeError, match="the rest of the message has been discarded"):
            async with within(10):
                await ws.view.reading


async def test_a_second_task_cannot_wait_for_a_part_of_the_same_message():
    class Shared(WebSocketView):
        async def on_stream(self, message):
            (reading,) = await begun(message.read())
            with pytest.raises(RuntimeError, match="another task is reading the message"):
                async with within(10):
                    await message.read()
            await self.send("refused")
            await self.send(await reading)

    async with connect_in_memory(Shared, compression=False) as ws:
        ws.send_raw(frame(TEXT, b"begin", False))
        assert await ws.recv() == "refused"
        ws.send_raw(frame(CONTINUATION, b"ning"))
        assert await ws.recv() == "beginning"


async def test_an_extension_of_an_application_takes_whole_messages():
    class Reversing(Extension):
        def encode(self, frame):
            return frame.replace(payload=frame.payload[::-1])

        def decode(self, frame, max_size=None):
            return self.encode(frame)

    class Extended(PartRecorder):
        EXTENSIONS = {"x-reversing": lambda parameters: Reversing("x-reversing")}  # noqa: RUF012
        COMPRESSION = False
        MAX_FRAME_SIZE = 10

    offers = {"x-reversing": ClientOffer((), lambda parameters: Reversing("x-reversing"))}
    async with connect_in_memory(Extended, compression=False, extensions=offers, stream=True) as ws:
        ws.send_raw(frame(TEXT, b"cba", False))
        ws.send_raw(frame(CONTINUATION, b"fed"))
        await ws.view.until(lambda: "end" in ws.view.events)
        assert ws.view.events == ["TEXT", "defabc", "end"]


def test_invalid_views_are_refused():
    with pytest.raises(TypeError, match="Both overrides on_stream and on_new_frame, which handle whole messages"):

        class Both(WebSocketView):
            async def on_stream(self, message):
                pass

            async def on_new_frame(self, frame):
                pass


async def test_a_server_that_stops_waits_for_the_message_that_is_being_read():
    async with connect_in_memory(PartRecorder, compression=False) as ws:
        ws.send_raw(frame(BINARY, b"a", False))
        await ws.view.until(lambda: b"a" in ws.view.events)
        drained = asyncio.ensure_future(ws.view.drain(5))
        await asyncio.sleep(0)
        ws.send_raw(frame(CONTINUATION, b"b") + frame(BINARY, b"too late"))
        await drained
        assert joined(ws.view.events) == ["BINARY", b"ab", "end"]


async def test_a_slow_reader_holds_up_the_peer(serving, until):
    class Slow(PartRecorder):
        async def on_stream(self, message):
            await self.gate.wait()
            await self.send(str(sum([len(part) async for part in message])))

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
