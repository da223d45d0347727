"""Messages that a connection of `async for ws in connect(...)` may not have sent: `unsent` and `left_over`."""

import asyncio
import gc
import socket
import weakref

import pytest

from duck.contrib.websockets import ConnectionClosed, OpCode, WebSocketView
from duck.contrib.websockets.client import Reconnect, connect

from ..support.handshake import agreed
from ..support.servers import answering
from ..support.views import Echo
from ..support.waiting import within
from .test_reconnecting import SOON


async def test_unsent_messages_are_reported(log):
    count = 0
    dropped = asyncio.Event()

    async def serve_one(reader, writer):
        nonlocal count
        count += 1
        writer.write(agreed(await reader.readuntil(b"\r\n\r\n")))
        if count == 1:
            await reader.readexactly(9)
            await dropped.wait()
            writer.transport.abort()
        else:
            writer.write(b"\x88\x02\x03\xf0")
            await reader.read(100)

    async with answering(serve_one, limit=1000) as url:
        left_over = []
        with pytest.raises(ConnectionClosed, match="1008"):
            async for ws in connect(url, reconnect=SOON, compression=False, max_size=None):
                left_over.append([len(data) for data, _ in ws.left_over])
                if count == 1:
                    await ws.send("abc")
                    assert not ws.unsent
                    for _ in range(3):
                        ws.send("x" * 20_000_000)
                    dropped.set()
                async for _ in ws:
                    pass
        assert left_over == [[], [20_000_000] * 3]
    assert [entry.message.partition(": ")[2] for entry in log()] == [
        "messages that may not have been sent: 3, see unsent"
    ]


async def test_a_lost_connection_with_unsent_messages_is_freed(until, log):
    async def serve_one(reader, writer):
        writer.write(agreed(await reader.readuntil(b"\r\n\r\n")))
        await reader.read(9)
        writer.transport.abort()

    first = None

    def is_freed():
        gc.collect()
        return first() is None

    async with answering(serve_one, limit=1000) as url:
        async for ws in connect(url, reconnect=SOON, compression=False):
            if first is not None:
                break
            first = weakref.ref(ws)
            ws.send("x" * 20_000_000)
            await ws.wait_closed()
            assert ws.unsent
        assert ws.left_over
        await until(is_freed)
    assert len(log()) == 1


class Answering(WebSocketView):
    """Closes with the code in the query, or leaves that to the client, after it has got a message."""

    MAX_FRAME_SIZE = None

    async def on_receive(self, message, opcode):
        await self.send("thanks")
        if code := self.request.query.get("close"):
            await self.send_close(int(code[0]))


@pytest.mark.parametrize("query", ["", "?close=1012"])
async def test_messages_that_have_left_are_not_reported(serving, log, query):
    async with serving(Answering) as server:
        url = f"ws://127.0.0.1:{server.port}/{query}"
        async for ws in connect(url, reconnect=SOON, compression=False):
            ws.send("x" * 20_000_000)
            assert ws.unsent
            assert await ws.recv() == "thanks"
            if not query:
                await ws.close()
            await ws.wait_closed()
            assert not ws.unsent
            break
    assert not log()


class Vanishing(WebSocketView):
    """Ends the stream without a close frame after it has got a message."""

    MAX_FRAME_SIZE = None

    async def on_receive(self, message, opcode):
        await self.send("thanks")
        asyncio.get_running_loop().call_soon(self._protocol.transport.close)


@pytest.mark.parametrize("view", [Vanishing, Answering])
async def test_messages_that_have_left_before_the_end_of_the_stream_are_not_reported(serving, either_tls, log, view):
    async with serving(view, tls=either_tls) as server:
        url = f"{'wss' if either_tls else 'ws'}://localhost:{server.port}"
        options = {"ssl": either_tls.client} if either_tls else {}
        async for ws in connect(url, reconnect=SOON, compression=False, **options):
            ws.send("x" * 20_000_000)
            if view is Answering:
                await ws.close()
            await ws.wait_closed()
            assert not ws.unsent
            break
    assert not log()


async def test_unsent_messages_are_forgotten_once_they_have_left(serving):
    async with serving(Answering) as server:
        async for ws in connect(f"ws://127.0.0.1:{server.port}", reconnect=SOON, compression=False):
            ws.send("x" * 20_000_000)
            assert await ws.recv() == "thanks"
            async with within(30):
                while ws.unsent:  # noqa: ASYNC110 - no event tells
                    await asyncio.sleep(0.01)
            await ws.close()
            break


async def test_any_thread_sends_text_and_bytes_in_a_loop_of_connections(serving):
    asyncio.get_running_loop().set_debug(True)  # refuses calls of the loop from other threads
    async with serving(Echo) as server:
        async for ws in connect(f"ws://127.0.0.1:{server.port}", reconnect=SOON):
            await ws.send_text("one")
            await ws.send_binary(b"two")
            await asyncio.to_thread(ws.send_text, "three")
            await asyncio.to_thread(ws.send_binary, b"four")
            assert [await ws.recv() for _ in range(4)] == ["one", b"two", "three", b"four"]
            await ws.close()
            break


async def test_an_unsent_message_keeps_the_content_of_its_buffer(serving, log):
    async with serving(Answering) as server:
        async for ws in connect(f"ws://127.0.0.1:{server.port}", reconnect=SOON, compression=False):
            ws.send("x" * 20_000_000)
            buffer = bytearray(b"first")
            ws.send(buffer, OpCode.BINARY)
            ws.send(memoryview(buffer)[:1])
            buffer[:] = b"other"
            parts = ["in", "parts"]
            sending = asyncio.ensure_future(ws.send(parts))
            await asyncio.sleep(0)
            assert ws.unsent[1:] == [(b"first", OpCode.BINARY), (b"f", OpCode.TEXT), (parts, OpCode.TEXT)]
            ws.terminate()
            await asyncio.gather(sending, return_exceptions=True)
            break
    log()


def test_messages_in_the_buffer_below_tls_are_unsent(tls, log):
    """uvloop's is out of reach."""

    async def scenario():
        serving = []

        async def serve_one(reader, writer):
            serving.append(writer)
            writer.write(agreed(await reader.readuntil(b"\r\n\r\n")))

        async with await asyncio.start_server(serve_one, "localhost", 0, limit=1000, ssl=tls.server) as server:
            url = f"wss://localhost:{server.sockets[0].getsockname()[1]}"
            async for ws in connect(url, reconnect=SOON, compression=False, ssl=tls.client):
                transport = ws._protocol.transport
                while not transport.get_write_buffer_size():
                    ws.send("x" * 10_000)
                    await asyncio.sleep(0)
                below = transport._ssl_protocol._transport.get_write_buffer_size()
                transport.abort()
                await ws.wait_closed()
                break
            serving[0].transport.abort()
        assert len(ws.unsent) * 10_100 >= below > 60_000

    asyncio.run(scenario())
    log()


async def test_unsent_messages_survive_a_cancelled_pause(serving, log):
    class Silent(WebSocketView):
        async def on_receive(self, message, opcode):
            pass

    async with serving(Silent) as server:
        connections = connect(f"ws://127.0.0.1:{server.port}", reconnect=Reconnect(first=60))
        ws = await anext(connections)
        ws.send("x" * 20_000_000)
        ws._protocol.transport.abort()
        await ws.wait_closed()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await anext(connections)
        ws = await anext(connections)
        assert [len(data) for data, _ in ws.left_over] == [20_000_000]
        await ws.close()
    assert log()


async def test_messages_are_forgotten_as_they_leave_although_others_wait():
    """A client that always has more to send than a slow server takes would keep all of them."""
    message = "x" * 10_000
    size = len(message) + 8  # of the frame
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)  # otherwise the kernel would enlarge it
        listener.setblocking(False)
        connections = connect(f"ws://127.0.0.1:{listener.getsockname()[1]}", compression=False)
        opening = asyncio.ensure_future(anext(connections))
        peer, _ = await loop.sock_accept(listener)
    with peer:
        await loop.sock_sendall(peer, agreed(await loop.sock_recv(peer, 10_000)))
        ws = await opening
        ws.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
        while ws._protocol.transport.get_write_buffer_size() < 30 * size:
            ws.send(message)
            await asyncio.sleep(0)
        waiting = len(ws.unsent)
        assert waiting >= 30
        for _ in range(10 * waiting):
            left = size
            while left:
                left -= len(await loop.sock_recv(peer, left))
            ws.send(message)
            await asyncio.sleep(0)
        assert len(ws.unsent) < 2 * waiting
        ws.terminate()
