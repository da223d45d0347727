"""In-memory tests of views.

    from duck.contrib.websockets.testing import connect

    async def test_echo():
        async with connect(Echo, subprotocols=["chat"]) as ws:
            await ws.send("hello")
            assert await ws.recv() == "hello"

The pytest plugin provides the same as the fixture `websocket`.
"""

from ..exceptions import ConnectionClosed, HandshakeFailed, HandshakeRefused
from .blocking import Blocking
from .connecting import connect
from .connection import TestConnection
from .virtual_time import VirtualTimeLoop

__all__ = [
    "Blocking",
    "ConnectionClosed",
    "HandshakeFailed",
    "HandshakeRefused",
    "TestConnection",
    "VirtualTimeLoop",
    "connect",
]
