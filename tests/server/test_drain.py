"""A draining server closes its WebSockets one after the other, and answers new clients with 503."""

import asyncio

import pytest
from websockets.asyncio.client import connect as ws_connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from duck.server import Limits, serve, shutdown
from duck.server.http.protocol import Phase
from duck.urls import path

from ..support.views import Echo

ASK = b"GET /room HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"


ROUTES = [path("/room", Echo), path("/page", lambda request: "page")]


async def test_views_are_closed_in_even_steps():
    loop = asyncio.get_running_loop()
    async with serve(ROUTES, port=0, drain=0.4, shutdown_code=1012) as server:
        clients = [await ws_connect(server.addresses[0] + "/room") for _ in range(4)]
        closing = asyncio.create_task(server.close())
        begin, codes, times = loop.time(), [], []
        for client in clients:
            with pytest.raises(ConnectionClosed):
                await client.recv()
            codes.append(client.close_code)
            times.append(loop.time() - begin)
        await closing
        assert codes == [1012] * 4
        assert times == sorted(times)
        assert times[-1] >= 0.29


async def test_a_draining_server_answers_pages_and_refuses_handshakes(connect, until):
    """Health checks get 503 for any Host, handshakes get Retry-After, and pages are answered."""
    handshakes = []

    class Room(Echo):
        async def on_handshake(self, handshake):
            handshakes.append(handshake)

    routes = [path("/room", Room), path("/page", lambda request: "page")]
    options = {"drain": 1000, "health_path": "/healthz", "allowed_hosts": ["localhost"]}
    async with serve(routes, "localhost", port=0, **options) as server:
        url = f"ws://localhost:{server.port}/room"
        async with ws_connect(url) as first, ws_connect(url) as last:
            async with connect(server) as client:
                assert (await client.get("/healthz")).body == b"ok\n"
                closing = asyncio.create_task(server.close())
                await until(lambda: server.draining)
                response = await client.get("/healthz")
                assert (response.status, response.body) == (503, b"draining\n")
                client.send(b"GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert (await client.response()).body == b"page"
            with pytest.raises(InvalidStatus) as caught:
                await ws_connect(url)
            assert caught.value.response.status_code == 503
            assert caught.value.response.headers["Retry-After"] == "1000"
            assert server.stats().refused == {"draining": 1}
            with pytest.raises(ConnectionClosed):
                await first.recv()
            await last.send("still served")
            assert await last.recv() == "still served"
        await closing  # at once, because no view is left
    assert len(handshakes) == 2


async def test_a_new_client_of_a_replaced_server_is_served(connect, until):
    async with serve(ROUTES, port=0) as server, connect(server) as client, connect(server) as idle:
        client.send(ASK)
        await idle.get("/page")
        await until(lambda: len(server._work.protocols) == 2)
        closing = asyncio.create_task(server.close(replaced=True))
        await until(lambda: server.draining)
        assert server.sockets == ()
        assert {protocol._phase for protocol in server._work.protocols} == {Phase.READING}
        client.send(KEY)
        assert (await client.response(head_only=True)).status == 101
        farewell = b"\x88\x16\x03\xf4server shutting down"
        assert await client.reader.readexactly(len(farewell)) == farewell
        client.writer.close()
        await closing


async def test_a_new_client_that_asks_for_nothing_does_not_keep_a_replaced_server(connect, until, monkeypatch):
    monkeypatch.setattr(shutdown, "_FIRST_REQUEST", 0.05)
    limits = Limits(head_timeout=1000)
    async with serve(ROUTES, port=0, limits=limits) as server, connect(server) as client:
        await until(lambda: server._work.protocols)
        await server.close(replaced=True)
        assert await client.end() == b""
