"""Connections are counted on every host, and by a client."""

import asyncio

import pytest

from duck.contrib.websockets.client import ClientConnection, connect
from duck.contrib.websockets.metrics import Metrics

from ..support.views import Echo


async def application(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": event["text"]})


async def talk(address):
    async with connect(address) as client:
        await client.send("hello")
        assert await client.recv() == "hello"


def check(stats, handlers=0):
    assert stats.opened == 1
    assert stats.received["text"] == stats.sent["text"] == 1
    assert stats.received_bytes["text"] == stats.sent_bytes["text"] == 5
    assert stats.handlers.count == handlers


async def test_the_embedded_server_and_a_client_count_the_same_connection(serving, monkeypatch):
    metrics = Metrics()
    monkeypatch.setattr(ClientConnection, "METRICS", metrics)
    async with serving(Echo) as server:
        await talk(server.addresses[0])
    check(server.stats(), handlers=1)
    check(metrics.stats())
    assert server.stats().closed == {"peer": {"1000": 1}}
    assert metrics.stats().closed == {"local": {"1000": 1}}


@pytest.mark.parametrize("app", [application, Echo.as_asgi()], ids=["events", "view"])
async def test_uvicorn_counts_connections_and_refusals(serving_asgi, until, monkeypatch, app):
    from duck.contrib.websockets.uvicorn import WebSocketProtocol

    metrics = Metrics()
    monkeypatch.setattr(WebSocketProtocol, "metrics", metrics)
    async with serving_asgi(app) as server:
        await talk(f"ws://127.0.0.1:{server.port}")
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        await reader.readline()
        writer.close()
        await until(lambda: metrics.stats().closed)
    check(metrics.stats(), handlers=app is not application)
    assert metrics.stats().refused == {"upgrade_required": 1}
