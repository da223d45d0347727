"""Limits of messages that are received part by part, and their decompression."""

import asyncio
import tracemalloc
from contextlib import suppress

import pytest

from duck.contrib.websockets import ConnectionClosed, OpCode, PayloadTooBig, PerMessageDeflate, WebSocketView
from duck.contrib.websockets.testing import connect as connect_in_memory

from ..support.frames import RSV1, frame
from .stream_views import PartRecorder, joined

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = OpCode
ZEROS = 20_000_000


# Limits


@pytest.mark.parametrize("compression", [False, True])
async def test_the_limit_of_a_stream_is_its_own(compression):
    class Limited(PartRecorder):
        MAX_FRAME_SIZE = 1000
        MAX_STREAM_SIZE = 500_000

    async with connect_in_memory(Limited, compression=compression, max_size=None) as ws:
        await ws.send(bytes(500_000), BINARY)
        await ws.view.until(lambda: "end" in ws.view.events)
        assert joined(ws.view.events) == ["BINARY", bytes(500_000), "end"]
        with pytest.raises(ConnectionClosed, match="1009 message too big"):
            await ws.send(bytes(500_001), BINARY)
            await ws.recv()


async def test_reading_a_whole_message_has_the_limit_of_whole_messages(log):
    class Whole(WebSocketView):
        MAX_FRAME_SIZE = 1000

        async def on_stream(self, message):
            try:
                await self.send(await message.read(10 if message.opcode == TEXT else None), message.opcode)
            except PayloadTooBig:
                if message.opcode == BINARY:
                    raise
                await self.send("at most 10, please")

    async with connect_in_memory(Whole) as ws:
        for text, answer in (("", ""), ("a" * 10, "a" * 10), ("\u00e4" * 6, "at most 10, please")):
            await ws.send(text)
            assert await ws.recv() == answer
        await ws.send(bytes(1000), BINARY)
        assert await ws.recv() == bytes(1000)
        await ws.send([bytes(500), bytes(501)], BINARY)
        with pytest.raises(ConnectionClosed, match="1009 message too big"):
            await ws.recv()
    assert not log()


async def test_a_message_above_a_limit_can_be_read_with_a_higher_one():
    """The parts that the first call had read were lost, without a word."""

    class Twice(WebSocketView):
        async def on_stream(self, message):
            for limit in (3, 10):
                with suppress(PayloadTooBig):
                    await self.send(await message.read(limit))
                    return
            await self.send([part async for part in message])

    async with connect_in_memory(Twice) as ws:
        for parts in (["abc"], ["abcd"], ["ab", "cd", "ef"], ["abc", "defghijk"]):
            await ws.send(parts)
            assert await ws.recv() == "".join(parts)


@pytest.mark.in_memory
async def test_a_discarded_message_returns_no_part_that_an_unfinished_call_has_read():
    unfinished = []

    class Refusing(WebSocketView):
        async def on_stream(self, message):
            try:
                await self.send(await message.read(1))
            except PayloadTooBig:
                unfinished.append(message)

    async with connect_in_memory(Refusing) as ws:
        ws.send_raw(frame(TEXT, b"ab", False) + frame(CONTINUATION, b"", False))
        await asyncio.sleep(0)
        ws.send_raw(frame(CONTINUATION, b"c") + frame(TEXT, b"d"))
        assert await ws.recv() == "d"
        (message,) = unfinished
        with pytest.raises(RuntimeError, match="discarded"):
            await anext(message)


@pytest.mark.in_memory
async def test_a_rate_limit_counts_messages_not_parts():
    class Limited(PartRecorder):
        RATE_LIMIT = 5

    async with connect_in_memory(Limited, compression=False) as ws:
        for opcode in (BINARY, *[CONTINUATION] * 30):
            ws.send_raw(frame(opcode, b"x", False))
            await asyncio.sleep(0)
        ws.send_raw(frame(CONTINUATION) + frame(TEXT, b"next"))
        await ws.view.until(lambda: ws.view.events[-2:] == ["next", "end"])
        ws.send_raw(frame(TEXT, b"next") * 20)
        with pytest.raises(ConnectionClosed, match="1008 too many messages"):
            await ws.recv()
        assert ws.view.events.count("next") == 4


# Compressed messages


async def test_a_compressed_message_is_decompressed_as_it_is_read():
    """Decompression yields to the loop between small steps; an unread rest is decompressed only if necessary."""

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

    async with connect_in_memory(Bombed, max_size=None) as ws:
        await ws.send(bytes(ZEROS), BINARY)
        assert await ws.recv() == str(ZEROS)
        assert ws.view.largest == 65536
        assert ws.view.passes > ZEROS // 300_000
        await ws.send(b"x" + bytes(1_000_000), BINARY)
        await ws.send(b"x" + bytes(1_000_000), BINARY)  # refers to the one before, of which most was left
        assert await ws.recv() == str(ZEROS + 65536 + 1_000_001)


@pytest.mark.parametrize(
    ("payload", "close"),
    [
        (b"\xff\xff\xff", "1002 compressed data is broken"),
        (PerMessageDeflate("x", client=True).compress(b"\xc3"), "1007 text is not UTF-8"),
        (b"\x03\x00" + b"trailing", "1002 compressed data is broken: it continues behind its last block"),
        (b"\x03\x00" + b"\x00", None),
        (b"", None),
    ],
)
@pytest.mark.parametrize("reads", [True, False])
async def test_broken_compressed_data_closes_with_its_reason(payload, close, reads):
    class Reading(WebSocketView):
        async def on_stream(self, message):
            if reads or message.opcode == BINARY:
                await self.send(await message.read(), message.opcode)

    async with connect_in_memory(Reading, compression=True) as ws:
        ws.send_raw(frame(TEXT, payload, rsv=RSV1) + frame(BINARY, b"next"))
        if close is None:
            assert [await ws.recv() for _ in range(1 + reads)] == [""] * reads + [b"next"]
        elif reads or "1007" not in close:
            with pytest.raises(ConnectionClosed, match=close):
                await ws.recv()


@pytest.mark.parametrize(
    "message", [frame(BINARY), frame(BINARY, fin=False) + frame(CONTINUATION)], ids=["whole", "in parts"]
)
async def test_empty_messages_that_wait_are_bounded(message):
    async with connect_in_memory(PartRecorder, raise_errors=False) as ws:
        ws.view.gate.clear()
        ws.send_raw(message)
        await ws.view.until(lambda: ws.view.events)
        tracemalloc.start()
        try:
            ws.send_raw(message * 30_000)
            for _ in range(3):
                await asyncio.sleep(0)
            assert not ws.view.request.transport.is_reading()
            size, _ = tracemalloc.get_traced_memory()
            assert size < 8_000_000
        finally:
            tracemalloc.stop()
        ws.view.gate.set()
        ws.drop()


async def test_empty_messages_keep_their_order_and_opcodes_while_handlers_wait(until):
    """They are over before their handler begins."""

    class Reading(WebSocketView):
        MAX_CONCURRENT_MESSAGES = 1

        async def on_stream(self, message):
            seen.append((message.opcode, await message.read()))
            await gate.wait()

    gate = asyncio.Event()
    seen = []
    sent = [(TEXT, "a"), (TEXT, ""), (BINARY, b""), (TEXT, ""), (BINARY, b"z")]
    async with connect_in_memory(Reading) as ws:
        for opcode, data in sent:
            await ws.send(data, opcode)
        await until(lambda: seen)
        gate.set()
    assert seen == sent
