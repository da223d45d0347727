"""The opening of a client's connection, and its end by `close` in another task or thread."""

import asyncio
import math
import socket
from contextlib import suppress

import pytest

from duck.contrib.websockets import ConnectionClosed, State
from duck.contrib.websockets.client import (
    HandshakeRefused,
    InvalidHandshake,
    Reconnect,
    WebSocketClient,
    connect,
    dialing,
)
from duck.contrib.websockets.testing import connect as connect_in_memory

from ..support.handshake import agreed
from ..support.servers import answering
from ..support.views import Quiet


@pytest.mark.parametrize("way", ["close", "safe_close", "terminate", "from a thread"])
async def test_a_close_ends_the_opening(way):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        client = WebSocketClient(f"ws://127.0.0.1:{listener.getsockname()[1]}", open_timeout=None)
        opening = asyncio.create_task(client.run())
        accepted, _ = await asyncio.get_running_loop().sock_accept(listener)
        with accepted:
            if way == "from a thread":
                await asyncio.to_thread(asyncio.run, client.close())
            elif way == "terminate":
                client.terminate()
            else:
                await getattr(client, way)()
            with pytest.raises(ConnectionClosed):
                await opening
        assert client.state is State.CLOSED


@pytest.mark.parametrize("way", ["close", "safe_close"])
async def test_a_client_is_opened_again_only_once_the_withdrawn_opening_has_ended(way):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        client = WebSocketClient(f"ws://127.0.0.1:{listener.getsockname()[1]}", open_timeout=None)
        opening = asyncio.create_task(client.open())
        accepted, _ = await asyncio.get_running_loop().sock_accept(listener)
        with accepted:
            await getattr(client, way)()
            with pytest.raises(RuntimeError, match="has been opened already"):
                await client.open()
            with pytest.raises(ConnectionClosed):
                await opening


async def test_a_close_during_the_opening_ends_a_series():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        client = WebSocketClient(f"ws://127.0.0.1:{listener.getsockname()[1]}", open_timeout=math.inf)
        series = asyncio.create_task(Reconnect().run(lambda: client))
        accepted, _ = await asyncio.get_running_loop().sock_accept(listener)
        with accepted:
            await client.close()
            await series


@pytest.mark.parametrize(
    ("response", "error"),
    [(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", HandshakeRefused), (b"SSH-2.0-1\r\n", InvalidHandshake)],
)
async def test_the_client_ends_the_stream_of_an_opening_that_has_failed(response, error):
    ended = asyncio.Event()

    async def serve_one(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(response)
        with suppress(ConnectionResetError):
            await reader.read()
        ended.set()

    async with answering(serve_one) as url:
        with pytest.raises(error):
            await connect(url)
        await ended.wait()


async def test_a_refusal_whose_content_does_not_come_is_raised_soon(monkeypatch):
    monkeypatch.setattr(dialing, "_REFUSAL_TIMEOUT", 0.05)

    async def refuse(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 9\r\n\r\nwho")
        await reader.read()

    async with answering(refuse) as url:
        with pytest.raises(HandshakeRefused, match="403") as caught:
            await connect(url, open_timeout=None)
    assert caught.value.body == b"who"


async def test_a_head_that_comes_slowly_has_the_whole_open_timeout(monkeypatch):
    monkeypatch.setattr(dialing, "_REFUSAL_TIMEOUT", 0)

    async def agree(reader, writer):
        response = agreed(await reader.readuntil(b"\r\n\r\n"))
        writer.write(response[:20])
        await asyncio.sleep(0.02)
        writer.write(response[20:])
        await reader.read()

    async with answering(agree) as url:
        ws = await connect(url)
        ws.terminate()
        await ws.wait_closed()


@pytest.mark.parametrize("kind", ["recv", "hooks"])
async def test_messages_that_tls_ends_with_the_response_are_received(tls, kind):
    """A server that closes at once, with a reason: the response, frames and the end of TLS in one read."""
    seen = []

    class Client(WebSocketClient):
        async def on_receive(self, message, opcode):
            seen.append(message.decode())

    async def serve_one(reader, writer):
        writer.write(agreed(await reader.readuntil(b"\r\n\r\n")) + b"\x81\x02hi\x88\x06\x03\xf0nope")

    async with answering(serve_one, tls=tls) as url:
        if kind == "recv":
            async with connect(url, ssl=tls.client) as ws:
                seen.append(await ws.recv())
        else:
            ws = Client(url, ssl=tls.client)
            await ws.run()
    assert seen == ["hi"]
    assert (ws.close_code, ws.close_reason) == (1008, "nope")


async def test_a_response_to_a_closed_opening_is_not_accepted():
    """The response and the close in one pass of the loop."""

    connection = await connect_in_memory(Quiet)._make()
    opening = asyncio.create_task(connection.open())
    while connection.view is None:  # noqa: ASYNC110
        await asyncio.sleep(0)
    await connection.send_close()
    with pytest.raises(ConnectionClosed):
        await opening
    assert connection.state is State.CLOSED
