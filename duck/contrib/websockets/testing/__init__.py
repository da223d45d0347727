"""Tests of one's own views, in memory.

from duck.contrib.websockets.testing import connect

async def test_echo():
    async with connect(Echo, subprotocols=["chat"]) as ws:
        await ws.send("hello")
        assert await ws.recv() == "hello"

The pytest plugin gives the same as a fixture, `websocket`.
"""

from ..exceptions import ConnectionClosed, HandshakeFailed, HandshakeRefused
from .connecting import Blocking, TestConnection, connect

__all__ = ["Blocking", "ConnectionClosed", "HandshakeFailed", "HandshakeRefused", "TestConnection", "connect"]
