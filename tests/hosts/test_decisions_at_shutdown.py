"""`on_handshake` while the server stops."""

import asyncio
from contextlib import suppress

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from duck.contrib.websockets import WebSocketView
from duck.server import Limits, serve

from .test_decisions import Told, Undecided

pytestmark = pytest.mark.usefixtures("impatient")

HASTY = Limits(linger_timeout=0.05)


async def test_a_stopping_server_refuses_waiting_handshakes(dial, until):
    Told.made = None
    async with serve(Undecided, port=0, shutdown_timeout=0.05, limits=HASTY) as server, dial(server) as peer:
        await until(lambda: Told.made and Told.made.events)
        await server.close()
        assert (await peer.head())[0] == 503
    assert not server.hung


async def test_a_server_that_stops_gives_up_a_hook_that_does_not_end(dial, until, log, monkeypatch):
    monkeypatch.setattr("duck.contrib.websockets.hosts.decision.Decision.CANCEL_TIMEOUT", 0.02)

    class View(Told):
        async def on_handshake(self, handshake):
            self.events.append("asked")
            while not released.is_set():
                with suppress(asyncio.CancelledError):
                    await released.wait()

    Told.made, released = None, asyncio.Event()
    async with serve(View, port=0, shutdown_timeout=0.05, limits=HASTY) as server, dial(server) as peer:
        await until(lambda: View.made and View.made.events)
        await server.close()
        assert (await peer.head())[0] == 503
        released.set()
    assert not server.hung
    assert "has not ended after its cancellation" in log()[0].message


async def test_a_handshake_accepted_while_the_server_stops_is_closed_politely(until):
    """The server does not wait for the client any longer."""

    class View(WebSocketView):
        async def on_handshake(self, handshake):
            asked.set()
            await accepts.wait()

    asked, accepts = asyncio.Event(), asyncio.Event()
    async with serve(View, port=0, shutdown_timeout=1000, shutdown_code=1012) as server:
        connecting = asyncio.ensure_future(connect(server.addresses[0]))
        await asked.wait()
        closing = asyncio.create_task(server.close())
        await until(lambda: server.closing)
        accepts.set()
        client = await connecting
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert (client.close_code, client.close_reason) == (1012, "server shutting down")
        await closing


async def test_uvicorn_that_stops_cancels_the_hook(serving_asgi, dial, until):
    Told.made = None
    async with serving_asgi(Undecided.as_asgi()) as server, dial(server) as peer:
        await until(lambda: Told.made and Told.made.events)
        stopping = asyncio.create_task(server.shut_down())
        assert (await peer.head())[0] == 503
        await until(lambda: Told.made.events == ["asked", "ended"])
        peer.leave()
        await stopping
