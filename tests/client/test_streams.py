"""The client's end of messages that are received part by part: recv_stream, and recv beside it."""

import asyncio

import pytest

from duck.contrib.websockets import ConnectionClosed, OpCode, WebSocketView
from duck.contrib.websockets.client import WebSocketClient
from duck.contrib.websockets.testing import connect

LARGE = bytes(range(256)) * 2000


class Sender(WebSocketView):
    """Sends the requested message."""

    async def on_receive(self, message, opcode):
        if message == b"large":
            await self.send(LARGE, OpCode.BINARY)
        elif message == b"slowly":
            await self.send(self.slowly())
        elif message == b"half":
            self.request.transport.write(b"\x02\x04half")
            await self.send_close(4000)
        else:
            await self.send(message, opcode)

    async def slowly(self):
        yield "one "
        await self.gate.wait()
        yield "two"

    async def on_open(self):
        self.gate = asyncio.Event()


async def read(message):
    return [part async for part in message]


@pytest.mark.parametrize("compression", [False, True])
@pytest.mark.parametrize("stream", [True, False])
async def test_recv_stream_and_recv_may_be_mixed(stream, compression):
    async with connect(Sender, stream=stream, compression=compression, max_size=None) as ws:
        for text in ("small", "large", "", "large", "\u00e4", "large"):
            await ws.send(text)
        message = await ws.recv_stream()
        assert (message.opcode, await read(message)) == (OpCode.TEXT, ["small"])
        message = await ws.recv_stream()
        parts = await read(message)
        assert (message.opcode, b"".join(parts)) == (OpCode.BINARY, LARGE)
        assert (len(parts) > 1) == stream
        assert await read(await ws.recv_stream()) == []
        message = await ws.recv_stream()
        assert await anext(message)
        assert await ws.recv() == "\u00e4"
        assert await (await ws.recv_stream()).read() == LARGE
        if stream:
            with pytest.raises(RuntimeError, match="discarded"):
                await read(message)


async def test_the_next_message_begins_once_a_large_one_that_is_left_has_been_decompressed():
    async with connect(Sender, stream=True, compression=True, max_stream_size=None) as ws:
        await ws.view.send(bytes(2_000_000), OpCode.BINARY)
        await ws.view.send("next")
        await ws.recv_stream()
        assert await (await ws.recv_stream()).read() == "next"


async def test_a_cancelled_recv_loses_nothing():
    async with connect(Sender, stream=True) as ws:
        await ws.send("slowly")
        with pytest.raises(TimeoutError, match="waiting for a message"):
            await ws.recv(timeout=0.02)
        ws.view.gate.set()
        assert await ws.recv() == "one two"
        ws.view.gate.clear()
        await ws.send("slowly")
        with pytest.raises(TimeoutError):
            await ws.recv(timeout=0.02)
        ws.view.gate.set()
        assert "".join(await read(await ws.recv_stream())) == "one two"


async def test_streams_and_whole_messages_have_limits_of_their_own_and_end_with_the_connection():
    async def ws_until_closed(ws):
        with pytest.raises(ConnectionClosed, match="4000"):
            async for message in ws:
                yield message

    async with connect(Sender, stream=True, max_size=1000) as ws:
        await ws.send("large")
        assert sum(map(len, await read(await ws.recv_stream()))) == len(LARGE)
        await ws.send("large")
        with pytest.raises(ConnectionClosed, match="1009 message too big"):
            await ws.recv()
    async with connect(Sender, stream=True, max_stream_size=1000, compression=False) as ws:
        await ws.send("large")
        with pytest.raises(ConnectionClosed, match="1009 message too big"):
            await ws.recv_stream()
    async with connect(Sender, stream=True, compression=False) as ws:
        await ws.send("\u20ac")
        await ws.send("half")
        assert [message async for message in ws_until_closed(ws)] == ["\u20ac"]
    async with connect(Sender, stream=True, compression=False) as ws:
        await ws.send("half")
        message = await ws.recv_stream()
        assert await anext(message) == b"half"
        with pytest.raises(ConnectionClosed, match="4000"):
            await anext(message)


async def test_two_tasks_do_not_read_at_a_time():
    async with connect(Sender, stream=True) as ws:
        await ws.send("slowly")
        message = await ws.recv_stream()
        assert await anext(message) == "one "
        other = asyncio.ensure_future(anext(message))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="another task is reading"):
            await ws.recv()
        ws.view.gate.set()
        assert await other == "two"


async def test_on_stream_of_a_client_reads_a_message_part_by_part(serving):
    class Reading(WebSocketClient):
        async def on_open(self):
            await self.send("large")

        async def on_stream(self, message):
            self.size = sum(map(len, await read(message)))
            await self.send_close()

    async with serving(Sender) as server:
        client = Reading(f"ws://127.0.0.1:{server.port}/")
        await client.run()
        assert client.size == len(LARGE)
