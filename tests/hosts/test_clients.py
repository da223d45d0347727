"""Whole conversations with clients of other projects."""

import asyncio
import random

import aiohttp
import pytest
import websockets
import websockets.asyncio.client

from duck.contrib.websockets import WebSocketView

MIB = 2**20


class Echo(WebSocketView):
    SUBPROTOCOLS = ("chat",)
    closed = None

    async def on_receive(self, message, opcode):
        await self.send(message, opcode)

    async def on_close(self, frame=None):
        self.closed = (self.close_code, self.close_reason)


def messages():
    chance = random.Random(4)
    for size in (0, 1, 125, 126, 65_535, 65_536, 200_000, MIB):
        yield chance.randbytes(size)
        yield "é" * (size // 2)


async def test_a_client_of_websockets_exchanges_messages_parts_and_pings(serving):
    async with serving(Echo) as server:
        url = f"ws://127.0.0.1:{server.port}/"
        async with websockets.asyncio.client.connect(url, subprotocols=["soap", "chat"], max_size=None) as client:
            view, end = await server.views.get()
            assert client.subprotocol == view.subprotocol == "chat"
            for message in messages():
                await client.send(message)
                assert await client.recv() == message
            await client.send(["in ", "three ", "parts"])
            assert await client.recv() == "in three parts"
            pong = await client.ping(b"?")
            await pong
            await view.send(["also ", "in parts"])
            assert await client.recv() == "also in parts"
            await client.close(4000, "bye")
            assert client.close_code == 4000
        await end
        assert view.closed == (4000, "bye")


async def test_websockets_is_closed_by_the_server(serving):
    async with serving(Echo) as server:
        async with websockets.asyncio.client.connect(f"ws://127.0.0.1:{server.port}/") as client:
            view, end = await server.views.get()
            await view.send("last")
            await view.send_close(4001, "enough")
            assert await client.recv() == "last"
            with pytest.raises(websockets.ConnectionClosed) as caught:
                await client.recv()
            assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (4001, "enough")
        await end
        assert view.closed == (4001, "enough")


async def test_websockets_is_refused(serving):
    async with serving(Echo) as server:
        with pytest.raises(websockets.InvalidStatus) as caught:
            async with websockets.asyncio.client.connect(
                f"ws://127.0.0.1:{server.port}/", origin="http://evil.example"
            ):
                pass
        assert caught.value.response.status_code == 403
        assert b"origin" in caught.value.response.body


async def test_websockets_over_tls(serving, tls):
    async with serving(Echo, tls=tls) as server:
        url = f"wss://localhost:{server.port}/"
        async with websockets.asyncio.client.connect(url, ssl=tls.client, max_size=None) as client:
            for message in messages():
                await client.send(message)
                assert await client.recv() == message


async def test_a_client_of_aiohttp_exchanges_messages(serving):
    async with serving(Echo) as server, aiohttp.ClientSession() as session:
        url = f"ws://127.0.0.1:{server.port}/"
        async with session.ws_connect(url, protocols=["chat"], max_msg_size=0, compress=15) as client:
            assert client.protocol == "chat"
            view, end = await server.views.get()
            for message in messages():
                if isinstance(message, str):
                    await client.send_str(message)
                    assert await client.receive_str() == message
                else:
                    await client.send_bytes(message)
                    assert await client.receive_bytes() == message
            await client.close(code=4000, message=b"bye")
        await end
        assert view.closed == (4000, "bye")


async def test_many_clients_are_served_at_once(serving):
    async with serving(Echo) as server:

        async def talk(name):
            async with websockets.asyncio.client.connect(f"ws://127.0.0.1:{server.port}/") as client:
                for i in range(20):
                    await client.send(f"{name} {i}")
                    assert await client.recv() == f"{name} {i}"

        await asyncio.gather(*map(talk, range(50)))
